//! Limits, read back from the cgroup's files, and what happens beyond them.

use flotilla_proto::cri::runtime::v1 as cri;

use crate::fixture::{container_config, sandbox_config, start};

#[tokio::test]
async fn limits_are_set_changed_and_enforced() {
    let Some(runtime) = start("limits_are_set_changed_and_enforced") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("limits", runtime.dir.path())).await;
    let mut config = container_config("main", "sleep 1000");
    let limits = cri::LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "0".to_owned(),
        unified: [("pids.max".to_owned(), "42".to_owned())].into(),
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(limits.clone());
    let id = client.run(&runtime, &sandbox, config).await;
    let read = |controller: &str, v1: &str, v2: &str| {
        let hybrid = std::path::Path::new("/sys/fs/cgroup/memory").exists();
        runtime.cgroup_file(controller, &sandbox, &id, if hybrid { v1 } else { v2 })
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(read("pids", "pids.max", "pids.max"), "42");
    assert!(
        ["50000", "50000 100000"].contains(&read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str())
    );
    assert!(["512", "20"].contains(&read("cpu", "cpu.shares", "cpu.weight").as_str()));
    for bytes in [64 << 20, 24 << 20] {
        let linux =
            cri::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        client.runtime.update_container_resources(request).await.unwrap();
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), bytes.to_string());
    }
    let shown = client.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((shown.memory_limit_in_bytes, shown.cpu_shares), (24 << 20, 512));
    let request = cri::ContainerStatsRequest { container_id: id.clone() };
    let stats = client.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(stats.writable_layer.is_some());
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: sandbox.clone() };
    let stats = client
        .runtime
        .pod_sandbox_stats(request)
        .await
        .unwrap()
        .into_inner()
        .stats
        .unwrap()
        .linux
        .unwrap();
    assert_eq!(stats.network.unwrap().default_interface.unwrap().name, "eth0");
    assert_eq!(stats.containers.len(), 1);
    runtime.finish().await;
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let Some(runtime) = start("running_out_of_memory_is_told") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("oom", runtime.dir.path())).await;
    // dd's buffer is larger than the limit.
    let mut config = container_config("hungry", "exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        ..Default::default()
    });
    let id = client.run(&runtime, &sandbox, config).await;
    let ended = client.wait(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    runtime.finish().await;
}
