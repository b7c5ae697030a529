//! Requests that must fail, and leave nothing behind.

use flotilla_proto::cri::runtime::v1 as cri;

use crate::fixture::{container_config, sandbox_config, start};

#[allow(clippy::too_many_lines, reason = "one table of refusals")]
#[tokio::test]
async fn bad_requests_name_the_fault() {
    let Some(runtime) = start("bad_requests_name_the_fault") else { return };
    let mut client = runtime.client();
    let bad_sandboxes: [(&str, fn(&mut cri::PodSandboxConfig)); 5] = [
        ("metadata", |config| config.metadata = None),
        ("core_pattern x", |config| {
            config.linux.as_mut().unwrap().sysctls =
                [("kernel.core_pattern x".into(), "1".into())].into()
        }),
        ("sysctl net.no_such", |config| {
            config.linux.as_mut().unwrap().sysctls = [("net.no_such".into(), "1".into())].into()
        }),
        ("70000", |config| {
            config.port_mappings =
                vec![cri::PortMapping { host_port: 70000, container_port: 1, ..Default::default() }]
        }),
        ("..", |config| config.linux.as_mut().unwrap().cgroup_parent = "/a/../b".into()),
    ];
    for (fault, change) in bad_sandboxes {
        let mut config = sandbox_config("bad", runtime.dir.path());
        change(&mut config);
        let error = client.try_run_sandbox(config).await.unwrap_err();
        assert!(error.message().contains(fault), "{fault}: {error}");
    }
    let sandbox = client.run_sandbox(sandbox_config("good", runtime.dir.path())).await;
    let mount = |container: &str, host: &str| {
        vec![cri::Mount {
            container_path: container.into(),
            host_path: host.into(),
            ..Default::default()
        }]
    };
    let edit = |change: &dyn Fn(&mut cri::ContainerConfig)| {
        let mut config = container_config("bad", "true");
        change(&mut config);
        config
    };
    let bad_containers = [
        (
            "no-such-image",
            edit(&|c| {
                c.image =
                    Some(cri::ImageSpec { image: "no-such-image:1".into(), ..Default::default() })
            }),
        ),
        ("log path", edit(&|c| c.log_path = "../../x".into())),
        ("container path", edit(&|c| c.mounts = mount("/a/../..", "/tmp"))),
        ("host path", edit(&|c| c.mounts = mount("/a", "tmp"))),
        ("container path", edit(&|c| c.mounts = mount("/", "/tmp"))),
        (
            "capability",
            edit(&|c| {
                let context = c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                context.capabilities = Some(cri::Capability {
                    add_capabilities: vec!["FLY".into()],
                    ..Default::default()
                });
            }),
        ),
        (
            "out of range",
            edit(&|c| {
                c.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user =
                    Some(cri::Int64Value { value: 99_999_999_999 });
            }),
        ),
        (
            "/dev/no-such",
            edit(&|c| {
                c.devices = vec![cri::Device {
                    host_path: "/dev/no-such".into(),
                    container_path: "/dev/x".into(),
                    permissions: "rw".into(),
                }]
            }),
        ),
        (
            "privileged",
            edit(&|c| {
                c.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true
            }),
        ),
        ("working directory", edit(&|c| c.working_dir = "a/b".into())),
    ];
    for (fault, config) in bad_containers {
        let error = client.try_create(&sandbox, config).await.unwrap_err();
        assert!(error.message().contains(fault), "{fault}: {error}");
    }
    let bad_starts = [
        ("executable file not found", edit(&|c| c.command = vec!["no-such-program".into()])),
        ("permission denied", edit(&|c| c.command = vec!["/noexec".into()])),
        (
            "unable to find user",
            edit(&|c| {
                c.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_username =
                    "nobody".into()
            }),
        ),
        ("/proc", edit(&|c| c.mounts = mount("/evil/x", "/tmp"))),
        ("runtime itself", edit(&|c| c.command = vec!["/proc/self/exe".into()])),
    ];
    for (fault, config) in bad_starts {
        let id = client.create(&runtime, &sandbox, config).await;
        let error = client.try_start(&id).await;
        let text = error
            .as_ref()
            .map_or_else(|error| error.message().to_owned(), |()| "it started".to_owned());
        assert!(text.contains(fault) || fault == "/proc" && error.is_err(), "{fault}: {text}");
        let status = client.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{fault}");
        client.remove(&id).await;
    }
    let unknown = client.try_create("0123456789", container_config("x", "true")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let request = cri::CheckpointContainerRequest::default();
    let unsupported = client.runtime.checkpoint_container(request).await.unwrap_err();
    assert_eq!(
        (unsupported.code(), unsupported.message()),
        (tonic::Code::Unimplemented, "not supported yet: CheckpointContainer")
    );
    runtime.finish().await;
}

#[tokio::test]
async fn images_come_through_the_same_socket() {
    let Some(runtime) = start("images_come_through_the_same_socket") else { return };
    let mut client = runtime.client();
    let images = client
        .images
        .list_images(cri::ListImagesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .images;
    assert!(images.iter().any(|image| image.repo_tags == [crate::image::NAME]), "{images:?}");
    let status =
        client.runtime.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner();
    assert!(status.status.unwrap().conditions.iter().all(|condition| condition.status));
    runtime.finish().await;
}
