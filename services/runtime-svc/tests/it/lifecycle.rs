//! From RunPodSandbox to RemovePodSandbox.

use flotilla_proto::cri::runtime::v1 as cri;

use crate::fixture::{container_config, log_lines, sandbox_config, start};

#[tokio::test]
async fn pod_lives_and_leaves_nothing() {
    let Some(runtime) = start("pod_lives_and_leaves_nothing") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("web", runtime.dir.path())).await;
    let status = client.sandbox_status(&sandbox).await;
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    let script = "echo out; echo err >&2; echo $FROM_IMAGE $OWN $HOSTNAME; id -u; ls /proc/1/root/etc/passwd; exit 3";
    let mut config = container_config("main", script);
    config.envs = vec![cri::KeyValue { key: "OWN".into(), value: "mine".into() }];
    let id = client.create(&runtime, &sandbox, config).await;
    assert_eq!(client.status(&id).await.state(), cri::ContainerState::ContainerCreated);
    client.start(&id).await;
    let ended = client.wait(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
    assert!(
        ended.started_at > ended.created_at && ended.finished_at > ended.started_at,
        "{ended:?}"
    );
    let mut lines = log_lines(&ended.log_path);
    lines.sort();
    assert_eq!(
        lines,
        [
            "stderr F err",
            "stdout F /proc/1/root/etc/passwd",
            "stdout F 0",
            "stdout F out",
            "stdout F yes mine web"
        ]
    );
    // Prefixes of ids are enough.
    assert_eq!(client.status(&id[..12]).await.id, id);
    client.remove(&id).await;
    client.remove(&id).await;
    client.stop(&id, 5).await;
    assert_eq!(client.try_status(&id).await.unwrap_err().code(), tonic::Code::NotFound);
    client.remove_sandbox(&sandbox).await;
    client.remove_sandbox(&sandbox).await;
    runtime.finish().await;
}

#[tokio::test]
async fn stop_asks_first_and_kills_later() {
    let Some(runtime) = start("stop_asks_first_and_kills_later") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("stop", runtime.dir.path())).await;
    let polite = container_config(
        "polite",
        "trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.05; done",
    );
    let polite = client.run(&runtime, &sandbox, polite).await;
    let path = client.status(&polite).await.log_path;
    flotilla_testkit::eventually("the trap is set", std::time::Duration::from_secs(5), || {
        !log_lines(&path).is_empty()
    });
    client.stop(&polite, 10).await;
    let ended = client.status(&polite).await;
    assert_eq!(
        (ended.exit_code, log_lines(&ended.log_path).last().unwrap().as_str()),
        (7, "stdout F bye")
    );
    let deaf = client
        .run(
            &runtime,
            &sandbox,
            container_config("deaf", "trap '' TERM; while true; do sleep 1; done"),
        )
        .await;
    client.stop(&deaf, 1).await;
    let ended = client.status(&deaf).await;
    assert_eq!((ended.state(), ended.exit_code), (cri::ContainerState::ContainerExited, 137));
    runtime.finish().await;
}

#[tokio::test]
async fn lists_filter_and_names_are_unique() {
    let Some(runtime) = start("lists_filter_and_names_are_unique") else { return };
    let mut client = runtime.client();
    let (one, two) =
        (sandbox_config("one", runtime.dir.path()), sandbox_config("two", runtime.dir.path()));
    let first = client.run_sandbox(one.clone()).await;
    let second = client.run_sandbox(two).await;
    let again = client.try_run_sandbox(one).await.unwrap_err();
    assert!(again.message().contains("is reserved for"), "{again}");
    let filter = cri::PodSandboxFilter {
        label_selector: [("app".to_owned(), "two".to_owned())].into(),
        ..Default::default()
    };
    let request = cri::ListPodSandboxRequest { filter: Some(filter) };
    let found = client.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
    assert_eq!(
        found.iter().map(|sandbox| sandbox.id.as_str()).collect::<Vec<_>>(),
        [second.as_str()]
    );
    client.run(&runtime, &first, container_config("a", "sleep 100")).await;
    let filter = cri::ContainerFilter { pod_sandbox_id: second, ..Default::default() };
    let request = cri::ListContainersRequest { filter: Some(filter) };
    assert!(
        client.runtime.list_containers(request).await.unwrap().into_inner().containers.is_empty()
    );
    runtime.finish().await;
}

#[tokio::test]
async fn log_is_reopened_between_records() {
    let Some(runtime) = start("log_is_reopened_between_records") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("log", runtime.dir.path())).await;
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.005; done";
    let id = client.run(&runtime, &sandbox, container_config("chatty", script)).await;
    let path = client.status(&id).await.log_path;
    let wait = |path: String| {
        flotilla_testkit::eventually("lines come", std::time::Duration::from_secs(5), || {
            log_lines(&path).len() > 3
        })
    };
    wait(path.clone());
    std::fs::rename(&path, format!("{path}.1")).unwrap();
    client
        .runtime
        .reopen_container_log(cri::ReopenContainerLogRequest { container_id: id.clone() })
        .await
        .unwrap();
    wait(path.clone());
    client.stop(&id, 0).await;
    let all: Vec<String> = [log_lines(&format!("{path}.1")), log_lines(&path)].concat();
    let want: Vec<String> = (1..=all.len()).map(|n| format!("stdout F line {n}")).collect();
    assert_eq!(all, want, "no line is lost or torn");
    runtime.finish().await;
}
