//! Dockerfiles become images.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use flotilla_proto::image::flotilla::image::v1::{
    BuildOptions, BuildRequest, BuildResult, InspectRequest, build_request, build_response,
};
use flotilla_testkit::skip_unless_root;
use serde_json::{Value, json};
use tonic::Status;

use super::server::{Server, TarEntry, archive, dir, file, symlink};

struct Outcome {
    result: BuildResult,
    steps: Vec<String>,
    config: Value,
}

async fn build(
    server: &Server,
    options: BuildOptions,
    context: &[TarEntry],
) -> Result<Outcome, Status> {
    let bytes = archive(context);
    let mut messages = vec![BuildRequest { part: Some(build_request::Part::Options(options)) }];
    messages.extend(bytes.chunks(10_000).map(|part| BuildRequest {
        part: Some(build_request::Part::Context(part.to_vec().into())),
    }));
    let mut stream = server.builder().build(futures::stream::iter(messages)).await?.into_inner();
    let (mut steps, mut result) = (Vec::new(), None);
    while let Some(message) = stream.message().await? {
        match message.event.unwrap() {
            build_response::Event::Step(step) => steps.push(step.instruction),
            build_response::Event::Log(_) => {}
            build_response::Event::Result(done) => result = Some(done),
        }
    }
    let result = result.unwrap();
    let inspected =
        server.ops().inspect(InspectRequest { reference: result.id.clone() }).await?.into_inner();
    let config = serde_json::from_slice(&inspected.config).unwrap();
    Ok(Outcome { result, steps, config })
}

fn options(tag: &str) -> BuildOptions {
    BuildOptions {
        tags: vec![tag.to_owned()],
        source_date_epoch: Some(1_600_000_000),
        ..Default::default()
    }
}

/// Finds a path in the newest layer that has it.
fn in_layers(server: &Server, path: &str) -> Option<PathBuf> {
    let mut ids: Vec<u64> = std::fs::read_dir(server.dir.join("root/snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().parse().unwrap())
        .collect();
    ids.sort_unstable();
    let folder =
        |id: &u64| server.dir.join("root/snapshots").join(id.to_string()).join("fs").join(path);
    ids.iter().rev().map(folder).find(|path| path.symlink_metadata().is_ok())
}

#[tokio::test]
async fn every_instruction_leaves_its_mark() {
    if skip_unless_root("every_instruction_leaves_its_mark") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let dockerfile = r#"
ARG VERSION=1
FROM scratch AS files
ARG VERSION
COPY src/ /out/
ENV V=${VERSION:-none}

FROM scratch AS unused
COPY nowhere /x

FROM scratch
LABEL a=b "c d"="e f"
ENV PATH=/bin \
    HOME=/root
ENV FULL=$HOME/x PATH=$PATH:/usr/bin
COPY --from=files --chown=12:34 /out/ /app/
COPY --chmod=0750 *.txt conf/
WORKDIR /srv
WORKDIR data
ADD bundle.tar /unpacked/
EXPOSE 80 443/udp
VOLUME ["/data"]
USER 1000:1000
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD ["/bin/check"]
ENTRYPOINT ["/app/run"]
CMD ["--v", "1"]
"#;
    let bundle = archive(&[dir("in/"), TarEntry { uid: 55, ..file("in/side", "s") }]);
    let context = [
        file("Dockerfile", dockerfile),
        dir("src/"),
        TarEntry { mode: 0o755, ..file("src/run", "#!/bin/sh\n") },
        symlink("src/link", "run"),
        file("src/skipped.log", "x"),
        file(".dockerignore", "**/*.log\n"),
        file("a.txt", "a"),
        file("b.txt", "b"),
        TarEntry { body: bundle, ..file("bundle.tar", "") },
    ];
    let mut options = options("127.0.0.1:9/demo/app:v1");
    options.build_args.insert("VERSION".into(), "7".into());
    options.build_args.insert("NOBODY".into(), "1".into());
    let built = build(&server, options.clone(), &context).await.unwrap();
    assert!(!built.steps.iter().any(|step| step.contains("nowhere")), "an unused stage was built");
    assert!(
        built.result.warnings[0].contains("[NOBODY] were not consumed"),
        "{:?}",
        built.result.warnings
    );
    let config = &built.config["config"];
    assert_eq!(config["Env"], json!(["PATH=/bin:/usr/bin", "HOME=/root", "FULL=/root/x"]));
    assert_eq!(config["Labels"], json!({"a": "b", "c d": "e f"}));
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "443/udp": {}}));
    assert_eq!(
        (&config["User"], &config["WorkingDir"], &config["StopSignal"]),
        (&json!("1000:1000"), &json!("/srv/data"), &json!("SIGINT"))
    );
    assert_eq!(
        (&config["Entrypoint"], &config["Cmd"]),
        (&json!(["/app/run"]), &json!(["--v", "1"]))
    );
    assert_eq!(
        config["Healthcheck"],
        json!({"Test": ["CMD", "/bin/check"], "Interval": 5_000_000_000u64})
    );
    assert_eq!(built.config["rootfs"]["diff_ids"].as_array().unwrap().len(), 5);
    let run = in_layers(&server, "app/run").unwrap().metadata().unwrap();
    assert_eq!((run.uid(), run.gid(), run.permissions().mode() & 0o777), (12, 34, 0o755));
    assert!(in_layers(&server, "app/skipped.log").is_none());
    assert_eq!(
        std::fs::read_link(in_layers(&server, "app/link").unwrap()).unwrap().to_str(),
        Some("run")
    );
    assert_eq!(
        in_layers(&server, "conf/b.txt").unwrap().metadata().unwrap().permissions().mode() & 0o777,
        0o750
    );
    assert!(in_layers(&server, "srv/data").unwrap().is_dir());
    assert_eq!(in_layers(&server, "unpacked/in/side").unwrap().metadata().unwrap().uid(), 55);
    // The same input gives the same image, also in another store.
    assert_eq!(
        build(&server, options.clone(), &context).await.unwrap().result.digest,
        built.result.digest
    );
    let other_home = tempfile::tempdir().unwrap();
    let other = Server::start(other_home.path());
    assert_eq!(build(&other, options, &context).await.unwrap().result.digest, built.result.digest);
    assert_eq!(std::fs::read_dir(home.path().join("root/ingest")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_built_image_is_pushed_and_built_upon() {
    if skip_unless_root("a_built_image_is_pushed_and_built_upon") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let base = format!("{}/base:v1", server.address);
    let passwd = "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/false\n";
    let context = [
        file("Dockerfile", "FROM scratch\nCOPY passwd group /etc/\nCMD [\"/a\"]\n"),
        file("passwd", passwd),
        file("group", "web:x:44:\n"),
    ];
    build(&server, options(&base), &context).await.unwrap();
    let request = flotilla_proto::image::flotilla::image::v1::PushRequest {
        reference: base.clone(),
        ..Default::default()
    };
    let mut pushed = server.ops().push(request).await.unwrap().into_inner();
    while pushed.message().await.unwrap().is_some() {}
    assert_eq!(server.get("/v2/base/manifests/v1").await.status, 200);

    let text = "ARG BASE\nFROM ${BASE}\nCOPY --chown=web:web f /home/web/\nENTRYPOINT /run me\n";
    let mut wanted = options("top");
    wanted.build_args.insert("BASE".into(), base);
    wanted.pull = true;
    let built = build(&server, wanted, &[file("Dockerfile", text), file("f", "x")]).await.unwrap();
    let meta = in_layers(&server, "home/web/f").unwrap().metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (33, 44));
    assert_eq!(built.config["config"]["Entrypoint"], json!(["/bin/sh", "-c", "/run me"]));
    assert_eq!(built.config["config"]["Cmd"], Value::Null);
    assert_eq!(built.result.tags, ["docker.io/library/top:latest"]);
    assert_eq!(built.config["history"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn broken_dockerfiles_name_line_and_fix() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    for (text, want) in [
        (
            "FROM scratch\nCOPPY a b\n",
            "Dockerfile:2: unknown instruction: COPPY (did you mean COPY?)",
        ),
        (
            "FROM scratch\n\nCOPY missing /\n",
            "Dockerfile:3: COPY: \"missing\" is not in the build context (check .dockerignore)",
        ),
        (
            "FROM scratch\nCOPY ../../etc/passwd /x\n",
            "Dockerfile:2: COPY: \"../../etc/passwd\" is not in the build context",
        ),
        (
            "FROM scratch\nCOPY --chown=nobody f /\n",
            "Dockerfile:2: no user \"nobody\" in /etc/passwd of the image",
        ),
        ("FROM scratch\nCOPY --chmod=rwx f /\n", "octal"),
        ("FROM scratch\nCOPY f Dockerfile /x\n", "end with a /"),
        ("FROM scratch\nENV A=${\n", "Dockerfile:2:"),
        ("FROM scratch\nEXPOSE http\n", "Dockerfile:2: invalid containerPort"),
        ("FROM scratch\nADD https://x.y/z /\n", "not supported yet: ADD https://x.y/z"),
        ("FROM 127.0.0.1:1/none\n", "Dockerfile:1: 127.0.0.1:1/none"),
    ] {
        let error = build(&server, options("x"), &[file("Dockerfile", text), file("f", "1")])
            .await
            .err()
            .unwrap();
        assert!(error.message().contains(want), "{text:?}: {}", error.message());
    }
    let error = build(&server, options("x"), &[file("f", "1")]).await.err().unwrap();
    assert_eq!(error.message(), "cannot find Dockerfile in the build context; name it with --file");
    let escape = [symlink("Dockerfile", "/etc/passwd"), file("f", "")];
    assert!(
        build(&server, options("x"), &escape)
            .await
            .err()
            .unwrap()
            .message()
            .contains("cannot find Dockerfile")
    );
    assert_eq!(std::fs::read_dir(home.path().join("root/ingest")).unwrap().count(), 0);
}
