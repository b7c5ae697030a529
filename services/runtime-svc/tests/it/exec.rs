//! ExecSync, and what a process finds around it.

use std::time::{Duration, Instant};

use flotilla_proto::cri::runtime::v1 as cri;

use crate::fixture::{container_config, sandbox_config, start};

#[tokio::test]
async fn exec_runs_inside_and_reports() {
    let Some(runtime) = start("exec_runs_inside_and_reports") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("exec", runtime.dir.path())).await;
    let id = client.run(&runtime, &sandbox, container_config("main", "sleep 1000")).await;
    let done = client.exec(&id, &["sh", "-c", "echo out; echo err >&2; pwd; exit 5"]).await;
    assert_eq!(
        (done.exit_code, &done.stdout[..], &done.stderr[..]),
        (5, &b"out\n/tmp\n"[..], &b"err\n"[..])
    );
    assert_eq!(
        client.output(&id, "hostname; echo $$ > /dev/null; ps | grep -c '[s]leep 1000'").await,
        "exec\n1"
    );
    // A child that keeps the output open does not hold the answer back.
    let began = Instant::now();
    let done = client.exec(&id, &["sh", "-c", "sleep 100 & echo started"]).await;
    assert_eq!(
        (&done.stdout[..], began.elapsed() < Duration::from_secs(3)),
        (&b"started\n"[..], true)
    );
    let late = client.try_exec(&id, &["sleep", "50"], 1).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    flotilla_testkit::eventually("the late process is killed", Duration::from_secs(5), || {
        let table = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
        !String::from_utf8_lossy(&table.stdout).lines().any(|line| line == "sleep 50")
    });
    let missing = client.try_exec(&id, &["no-such-program"], 5).await.unwrap_err();
    assert!(missing.message().contains("executable file not found in $PATH"), "{missing}");
    let capped = client.exec(&id, &["sh", "-c", "head -c 20000000 /dev/zero"]).await;
    assert_eq!(capped.stdout.len(), 16 << 20);
    runtime.finish().await;
}

#[tokio::test]
async fn container_looks_as_asked() {
    let Some(runtime) = start("container_looks_as_asked") else { return };
    let mut client = runtime.client();
    let mut sandbox = sandbox_config("look", runtime.dir.path());
    sandbox.dns_config = Some(cri::DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["svc".into()],
        options: vec!["ndots:5".into()],
    });
    sandbox.linux.as_mut().unwrap().sysctls =
        [("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())].into();
    let sandbox = client.run_sandbox(sandbox).await;
    let data = runtime.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "hello").unwrap();
    let mount = |path: &str, readonly| cri::Mount {
        container_path: path.to_owned(),
        host_path: data.display().to_string(),
        readonly,
        ..Default::default()
    };
    let mut config = container_config("main", "sleep 1000");
    config.mounts = vec![mount("/data", false), mount("/evil/data-ro", true)];
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.run_as_username = "www".to_owned();
    context.readonly_rootfs = true;
    context.no_new_privs = true;
    context.capabilities =
        Some(cri::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    // `/evil` links out of the image's root; inside it leads to the image's own /etc.
    let id = client.try_create(&sandbox, config.clone()).await.unwrap();
    runtime.note_container(&id);
    let refused = client.try_start(&id).await;
    assert!(refused.is_err(), "a magic link was followed");
    assert_eq!(client.status(&id).await.reason, "StartError");
    client.remove(&id).await;
    config.mounts[1].container_path = "/data-ro".to_owned();
    let id = client.run(&runtime, &sandbox, config).await;
    assert_eq!(client.output(&id, "id").await, "uid=33(www) gid=33(www) groups=29(audio),33(www)");
    assert_eq!(
        client.output(&id, "cat /data/file /data-ro/file; cat /etc/resolv.conf").await,
        "hellohellosearch svc\nnameserver 10.96.0.10\noptions ndots:5"
    );
    assert_eq!(client.output(&id, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await, "7");
    assert_eq!(
        client
            .output(&id, "grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status | tr -d '\\t'")
            .await,
        "CapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1"
    );
    for script in [
        "touch /data-ro/x",
        "touch /x",
        "cat /proc/kcore",
        "echo 1 > /proc/sys/kernel/printk",
        "ls /proc/acpi/*",
    ] {
        assert_ne!(client.exec(&id, &["sh", "-c", script]).await.exit_code, 0, "{script} worked");
    }
    let user = client.status(&id).await.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (33, 33, vec![29, 33]));
    assert_eq!(
        client.output(&id, "ls /dev | tr '\\n' ' '").await,
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    runtime.finish().await;
}

#[tokio::test]
async fn pod_can_share_pids_and_shared_memory() {
    let Some(runtime) = start("pod_can_share_pids_and_shared_memory") else { return };
    let mut client = runtime.client();
    let mut config = sandbox_config("share", runtime.dir.path());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(cri::NamespaceOption::default());
    let sandbox = client.run_sandbox(config).await;
    let shared = |name: &str, script: &str| {
        let mut config = container_config(name, script);
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
            Some(cri::NamespaceOption::default());
        config
    };
    let one =
        client.run(&runtime, &sandbox, shared("one", "echo secret > /dev/shm/x; sleep 1234")).await;
    let two = client.run(&runtime, &sandbox, shared("two", "sleep 4321")).await;
    assert_eq!(
        client.output(&two, "cat /dev/shm/x; ps | grep -c '[s]leep 1234'").await,
        "secret\n1"
    );
    client.stop(&one, 0).await;
    assert_eq!(client.output(&two, "ps | grep -c '[s]leep 1234' || true").await, "0");
    assert_eq!(client.status(&two).await.state(), cri::ContainerState::ContainerRunning);
    runtime.finish().await;
}
