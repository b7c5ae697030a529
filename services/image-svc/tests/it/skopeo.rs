//! Real clients.

use std::process::Command;

use flotilla_testkit::skip_unless_program;

use super::server::{Server, archive, dir, file};

#[tokio::test]
async fn skopeo_round_trip_keeps_digests() {
    if skip_unless_program("skopeo_round_trip_keeps_digests", "skopeo") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let layer = archive(&[dir("bin/"), file("bin/app", &"x".repeat(300_000))]);
    let digest = server.push_image("demo/app", "v1", &[layer]).await;
    let skopeo = |args: &[&str]| {
        let output = Command::new("skopeo").args(args).env("HOME", home.path()).output().unwrap();
        assert!(
            output.status.success(),
            "skopeo {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let name = |repo: &str| format!("docker://{}/{repo}", server.address);
    let folder = format!("dir:{}", home.path().join("image").display());
    let plain = ["--insecure-policy"];
    skopeo(&[plain[0], "copy", "--src-tls-verify=false", &name("demo/app:v1"), &folder]);
    skopeo(&[plain[0], "copy", "--dest-tls-verify=false", &folder, &name("copy/app:v2")]);
    let inspected =
        skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &name("copy/app:v2")]);
    assert_eq!(inspected.trim(), digest.as_str());
    assert!(skopeo(&["list-tags", "--tls-verify=false", &name("copy/app")]).contains("v2"));
    let archive = format!("docker-archive:{}:x/y:z", home.path().join("a.tar").display());
    skopeo(&[plain[0], "copy", "--src-tls-verify=false", &name("demo/app:v1"), &archive]);
    skopeo(&[
        plain[0],
        "copy",
        "--dest-tls-verify=false",
        "--format",
        "v2s2",
        &archive,
        &name("docker/app:v1"),
    ]);
    skopeo(&["delete", "--tls-verify=false", &name("copy/app:v2")]);
    assert_eq!(server.get("/v2/copy/app/manifests/v2").await.status, 404);
}
