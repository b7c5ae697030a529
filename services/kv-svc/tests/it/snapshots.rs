//! A snapshot of kv-svc is one of etcd: etcdutl restores it and etcd serves it.

use std::process::Command;

use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_testkit::{Process, free_port};

use crate::harness::{Clients, Member, SOON};

fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(flotilla_testkit::etcd().join(program)).args(args).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

async fn hash(clients: &mut Clients) -> (u32, i64, i64) {
    let hash =
        clients.maintenance.hash_kv(pb::HashKvRequest::default()).await.expect("hash").into_inner();
    (hash.hash, hash.compact_revision, hash.header.expect("a header").revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_restores_a_snapshot() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    for n in 0..700 {
        clients.put(&format!("k{}", n % 300), &"x".repeat(n * 7 % 900)).await;
    }
    clients.put("large", &"y".repeat(50_000)).await;
    clients.delete("k7").await;
    clients.lease.lease_grant(pb::LeaseGrantRequest { ttl: 5000, id: 77 }).await.expect("grant");
    let leased = pb::PutRequest { key: "leased".into(), lease: 77, ..Default::default() };
    clients.kv.put(leased).await.expect("put");
    clients.compact(500).await;
    let expected = hash(&mut clients).await;

    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("snap.db");
    let file = path.to_str().expect("text");
    run("etcdctl", &["--endpoints", &member.address, "snapshot", "save", file]);
    assert!(run("etcdutl", &["snapshot", "status", file]).contains(", 704, "));
    let data = dir.path().join("restored");
    let (client, peer) = (free_port(), free_port());
    let (url, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let cluster = format!("default={peer}");
    let folder = data.to_str().expect("text");
    run(
        "etcdutl",
        &[
            "snapshot",
            "restore",
            file,
            "--data-dir",
            folder,
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &peer,
        ],
    );
    let mut command = Command::new(flotilla_testkit::etcd().join("etcd"));
    command.args([
        "--data-dir",
        folder,
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &cluster]);
    let mut process = Process::spawn(&mut command);
    process.wait_for_line("ready to serve client requests", SOON);
    let restored = Member { process, address: format!("127.0.0.1:{client}"), dir };
    let mut clients = restored.clients().await;
    assert_eq!(hash(&mut clients).await, expected);
    assert_eq!(clients.get("large").await.map(|value| value.len()), Some(50_000));
    clients.lease.lease_revoke(pb::LeaseRevokeRequest { id: 77 }).await.expect("revoke");
    assert_eq!(clients.get("leased").await, None);
}
