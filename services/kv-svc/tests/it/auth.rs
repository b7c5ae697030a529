//! Users, roles and permissions with etcdctl, on both sides: the same commands, the same output.

use std::process::Command;

use crate::harness::Member;

/// Runs etcdctl and returns what it says, whether it succeeds or not.
fn etcdctl(member: &Member, args: &[&str]) -> String {
    let output = Command::new(flotilla_testkit::etcd().join("etcdctl"))
        .args(["--endpoints", &member.address])
        .args(args)
        .output()
        .expect("etcdctl runs");
    let error = String::from_utf8_lossy(&output.stderr);
    // The text of the error, without the client's own log line.
    let error =
        error.lines().last().and_then(|line| line.split("\"error\":").last()).unwrap_or_default();
    format!("{}{error}", String::from_utf8_lossy(&output.stdout))
}

const STEPS: &[&[&str]] = &[
    &["put", "secret", "1"],
    &["auth", "status"],
    &["auth", "enable"],
    &["user", "add", "root:rootpw"],
    &["user", "add", "root:again"],
    &["user", "add", "alice:alicepw"],
    &["user", "add", "nopass", "--no-password"],
    &["role", "add", "reader"],
    &["role", "add", "reader"],
    &["role", "grant-permission", "reader", "read", "pub/", "pub0"],
    &["role", "grant-permission", "reader", "readwrite", "own"],
    &["role", "grant-permission", "nobody", "read", "x"],
    &["user", "grant-role", "alice", "reader"],
    &["user", "grant-role", "alice", "missing"],
    &["user", "grant-role", "bob", "reader"],
    &["role", "get", "reader"],
    &["user", "get", "alice"],
    &["auth", "enable"],
    &["get", "secret"],
    &["--user", "root:wrong", "get", "secret"],
    &["--user", "root:rootpw", "get", "secret"],
    &["--user", "root:rootpw", "put", "pub/a", "1"],
    &["--user", "alice:alicepw", "get", "pub/a"],
    &["--user", "alice:alicepw", "get", "--prefix", "pub/"],
    &["--user", "alice:alicepw", "get", "secret"],
    &["--user", "alice:alicepw", "get", "--from-key", "own"],
    &["--user", "alice:alicepw", "put", "own", "mine"],
    &["--user", "alice:alicepw", "put", "--prev-kv", "own", "mine2"],
    &["--user", "alice:alicepw", "put", "pub/a", "2"],
    &["--user", "alice:alicepw", "del", "pub/a"],
    &["--user", "alice:alicepw", "user", "list"],
    &["--user", "alice:alicepw", "user", "get", "alice"],
    &["--user", "alice:alicepw", "role", "get", "reader"],
    &["--user", "alice:alicepw", "compact", "3"],
    &["--user", "root:rootpw", "user", "list"],
    &["--user", "root:rootpw", "role", "list"],
    &["--user", "root:rootpw", "role", "revoke-permission", "reader", "own"],
    &["--user", "root:rootpw", "role", "revoke-permission", "reader", "own"],
    &["--user", "alice:alicepw", "put", "own", "no longer"],
    &["--user", "root:rootpw", "user", "delete", "root"],
    &["--user", "root:rootpw", "user", "revoke-role", "root", "root"],
    &["--user", "root:rootpw", "user", "revoke-role", "alice", "reader"],
    &["--user", "alice:alicepw", "get", "pub/a"],
    &["--user", "root:rootpw", "role", "delete", "reader"],
    &["--user", "root:rootpw", "user", "delete", "alice"],
    &["--user", "alice:alicepw", "get", "pub/a"],
    &["--user", "root:rootpw", "auth", "status"],
    &["--user", "root:rootpw", "auth", "disable"],
    &["get", "own"],
];

#[test]
fn commands_come_out_as_with_etcd() {
    let (original, mut ours) = (Member::original(), Member::start(&["--bcrypt-cost=4"]));
    for (n, step) in STEPS.iter().enumerate() {
        let expected = etcdctl(&original, step).replace(&original.address, "ADDRESS");
        let answer = etcdctl(&ours, step).replace(&ours.address, "ADDRESS");
        assert_eq!(answer, expected, "step {n}: {step:?}");
        if n == 20 {
            // Rules survive a restart.
            ours.process.kill();
            ours.restart(&["--bcrypt-cost=4"]);
        }
    }
}

#[test]
fn a_watch_needs_permission_when_it_starts() {
    let member = Member::start(&["--bcrypt-cost=4"]);
    for step in [
        &["user", "add", "root:pw"][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "eve:pw"],
        &["auth", "enable"],
    ] {
        etcdctl(&member, step);
    }
    let refused = Command::new(flotilla_testkit::etcd().join("etcdctl"))
        .args(["--endpoints", &member.address, "--user", "eve:pw", "watch", "secret"])
        .output()
        .expect("etcdctl runs");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("etcdserver: permission denied"), "{error}");
}
