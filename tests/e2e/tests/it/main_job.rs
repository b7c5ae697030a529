//! The main job from an image to a rollout, with our store and with the original's.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use flotilla_testkit::{Process, binary, etcd, free_port, skip_unless_program, skip_unless_root};

use crate::app;
use crate::suite::Suite;

fn demo(suite: &Suite, extra: &[&str]) -> Output {
    let mut command = Command::new(binary("flotilla"));
    command
        .arg("demo")
        .arg("--root")
        .arg(suite.root.path().join("demo"))
        .arg("--app")
        .arg(app::context());
    command.args(suite.network_flags()).args(extra).output().unwrap()
}

fn must_succeed(output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("Every step worked"), "{out}");
}

fn skipped(test: &str) -> bool {
    skip_unless_root(test)
        || ["kubectl", "dig", "etcdctl", "nft", "curl"]
            .iter()
            .any(|program| skip_unless_program(test, program))
}

#[test]
fn main_job_works_and_leaves_nothing_behind() {
    if skipped("main_job_works_and_leaves_nothing_behind") {
        return;
    }
    let suite = Suite::new(1);
    must_succeed(&demo(&suite, &[]));
    assert!(!suite.root.path().join("demo").exists(), "the demo's data is gone");
}

#[test]
fn main_job_works_with_etcd_in_place_of_kv_svc() {
    if skipped("main_job_works_with_etcd_in_place_of_kv_svc") {
        return;
    }
    let suite = Suite::new(2);
    let original = start_etcd(&suite.root.path().join("etcd"));
    must_succeed(&demo(&suite, &["--kv-endpoints", &original.1]));
}

/// etcd 3.5 on free ports, ready.
fn start_etcd(data: &Path) -> (Process, String) {
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let mut process = Process::spawn(
        Command::new(etcd().join("etcd"))
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")]),
    );
    process.wait_for_line("ready to serve client requests", Duration::from_secs(20));
    (process, client)
}
