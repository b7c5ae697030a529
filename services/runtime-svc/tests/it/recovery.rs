//! kill -9 of the daemon, and of shims.

use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;

use crate::fixture::{container_config, log_lines, sandbox_config, start};

#[tokio::test]
async fn containers_outlive_the_daemon() {
    let Some(mut runtime) = start("containers_outlive_the_daemon") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("live", runtime.dir.path())).await;
    let gate = runtime.path("gate");
    std::fs::create_dir(&gate).unwrap();
    let mount = cri::Mount {
        container_path: "/gate".into(),
        host_path: gate.display().to_string(),
        ..Default::default()
    };
    let mut ends = container_config(
        "ends",
        "until [ -e /gate/open ]; do sleep 0.02; done; echo done; exit 42",
    );
    ends.mounts = vec![mount];
    let ends = client.run(&runtime, &sandbox, ends).await;
    let stays = client.run(&runtime, &sandbox, container_config("stays", "sleep 1000")).await;
    let (before, ip) = (client.status(&stays).await, client.sandbox_status(&sandbox).await.network);
    let log = client.status(&ends).await.log_path;
    runtime.kill_daemon();
    std::fs::write(gate.join("open"), "").unwrap();
    flotilla_testkit::eventually(
        "the container logs without a daemon",
        Duration::from_secs(5),
        || log_lines(&log) == ["stdout F done"],
    );
    runtime.start_daemon();
    let mut client = runtime.client();
    let ended = client.wait(&ends).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (42, "Error"));
    let after = client.status(&stays).await;
    assert_eq!(
        (after.state(), after.started_at),
        (cri::ContainerState::ContainerRunning, before.started_at)
    );
    assert_eq!(client.sandbox_status(&sandbox).await.network, ip);
    assert_eq!(client.output(&stays, "echo again").await, "again");
    client.stop(&stays, 0).await;
    assert_eq!(client.status(&stays).await.exit_code, 137);
    runtime.finish().await;
}

#[tokio::test]
async fn daemon_killed_at_any_moment_leaks_nothing() {
    let Some(mut runtime) = start("daemon_killed_at_any_moment_leaks_nothing") else { return };
    for round in 0..12u64 {
        let mut client = runtime.client();
        let (dir, name) = (runtime.dir.path().to_owned(), format!("pod{round}"));
        let work = tokio::spawn(async move {
            let sandbox = client.try_run_sandbox(sandbox_config(&name, &dir)).await?;
            let id = client.try_create(&sandbox, container_config("main", "sleep 1000")).await?;
            client.try_start(&id).await?;
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox };
            client.runtime.remove_pod_sandbox(request).await.map(drop)
        });
        // A different moment every round, over the length of the whole cycle.
        tokio::time::sleep(Duration::from_millis(3 + round * 11)).await;
        runtime.kill_daemon();
        // The call fails, or had finished.
        let _ = work.await.unwrap();
        runtime.start_daemon();
    }
    let mut client = runtime.client();
    for sandbox in client.sandboxes().await {
        client.remove_sandbox(&sandbox.id).await;
    }
    runtime.finish().await;
}

#[tokio::test]
async fn dead_shim_makes_the_pod_not_ready() {
    let Some(runtime) = start("dead_shim_makes_the_pod_not_ready") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("orphan", runtime.dir.path())).await;
    let id = client.run(&runtime, &sandbox, container_config("main", "sleep 7777")).await;
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
    let info = client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let pid = i32::try_from(info["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let ended = client.wait(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while client.sandbox_status(&sandbox).await.state() != cri::PodSandboxState::SandboxNotready {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = client.try_create(&sandbox, container_config("late", "true")).await.unwrap_err();
    assert!(refused.message().contains("is not ready"), "{refused}");
    runtime.finish().await;
}
