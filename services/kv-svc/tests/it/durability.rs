//! What was acknowledged is there after any crash; what was damaged is noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_testkit::{Process, binary, eventually};

use crate::harness::{Member, SOON};

async fn write_until_killed(member: &mut Member, round: u64) -> u64 {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for writer in 0..8u64 {
        let mut clients = member.clients().await;
        let acknowledged = acknowledged.clone();
        writers.push(tokio::spawn(async move {
            for n in 0.. {
                let key = format!("r{round}/w{writer}/{n:06}");
                let put = pb::PutRequest {
                    key: key.into(),
                    value: vec![7; 100].into(),
                    ..Default::default()
                };
                if clients.kv.put(put).await.is_err() {
                    return n;
                }
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            0
        }));
    }
    let enough = acknowledged.clone();
    tokio::task::spawn_blocking(move || {
        eventually("300 writes were acknowledged", SOON, || enough.load(Ordering::SeqCst) >= 300);
    })
    .await
    .expect("writes go on");
    member.process.kill();
    let mut total = 0;
    for (writer, handle) in writers.into_iter().enumerate() {
        let n = handle.await.expect("a writer");
        total += n;
        println!("writer {writer}: {n} acknowledged");
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill() {
    // A small count makes flushes and purges happen during the run.
    let flags = ["--snapshot-count=200", "--snapshot-catchup-entries=50"];
    let mut member = Member::start(&flags);
    let mut acknowledged = 0;
    for round in 0..3 {
        acknowledged += write_until_killed(&mut member, round).await;
        member.restart(&flags);
        let mut clients = member.clients().await;
        let range =
            pb::RangeRequest { key: "r".into(), range_end: "s".into(), ..Default::default() };
        let response = clients.kv.range(range).await.expect("range").into_inner();
        assert!(
            response.count as u64 >= acknowledged,
            "{} of {acknowledged} are there",
            response.count
        );
        let mut by_writer = std::collections::BTreeMap::<String, u64>::new();
        for kv in &response.kvs {
            let key = String::from_utf8(kv.key.to_vec()).expect("text");
            let (writer, n) = key.rsplit_once('/').expect("a number");
            let next = by_writer.entry(writer.to_owned()).or_default();
            assert_eq!(n.parse::<u64>().expect("a number"), *next, "a gap in {writer}");
            *next += 1;
        }
        acknowledged = response.count as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_the_same_after_a_restart() {
    let mut member = Member::start(&[]);
    let mut clients = member.clients().await;
    let lease =
        clients.lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 77 }).await.expect("grant");
    assert_eq!(lease.into_inner().ttl, 600);
    for n in 0..50 {
        clients.put(&format!("k{}", n % 10), &format!("v{n}")).await;
    }
    clients.delete("k3").await;
    let leased = pb::PutRequest { key: "leased".into(), lease: 77, ..Default::default() };
    clients.kv.put(leased).await.expect("put");
    clients.compact(30).await;
    let before =
        clients.maintenance.hash_kv(pb::HashKvRequest::default()).await.expect("hash").into_inner();
    assert!(member.process.terminate(SOON).success());
    member.restart(&[]);
    let mut clients = member.clients().await;
    let after =
        clients.maintenance.hash_kv(pb::HashKvRequest::default()).await.expect("hash").into_inner();
    assert_eq!((after.hash, after.compact_revision), (before.hash, before.compact_revision));
    assert_eq!(after.header.expect("a header").revision, before.header.expect("a header").revision);
    let old = pb::RangeRequest { key: "k1".into(), revision: 29, ..Default::default() };
    assert!(clients.kv.range(old).await.expect_err("compacted").message().contains("compacted"));
    clients.lease.lease_revoke(pb::LeaseRevokeRequest { id: 77 }).await.expect("revoke");
    assert_eq!(clients.get("leased").await, None);
    assert_eq!(clients.get("k9").await, Some(b"v49".to_vec()));
}

fn last_segment(member: &Member) -> PathBuf {
    let dir = member.dir.path().join("data/member/wal");
    let mut segments: Vec<PathBuf> =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    segments.sort();
    segments.pop().expect("a segment")
}

fn end_of_data(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).expect("data") + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_cut_off() {
    let mut member = Member::start(&[]);
    let mut clients = member.clients().await;
    for n in 0..20 {
        clients.put(&format!("k{n:02}"), "kept").await;
    }
    clients.put("big", &"x".repeat(20_000)).await;
    member.process.kill();
    // What a power cut leaves of the last write: its first part, then nothing.
    let path = last_segment(&member);
    let mut bytes = fs::read(&path).expect("the log");
    let end = end_of_data(&bytes);
    let cut = (end - 8_000).next_multiple_of(512);
    bytes[cut..].fill(0);
    fs::write(&path, bytes).expect("write the log");
    member.restart(&[]);
    assert!(
        member.process.output().contains("cut off the end of the log"),
        "{}",
        member.process.output()
    );
    let mut clients = member.clients().await;
    assert_eq!(clients.get("k19").await, Some(b"kept".to_vec()));
    assert_eq!(clients.get("big").await, None);
    clients.put("after", "1").await;
    member.process.kill();
    member.restart(&[]);
    assert_eq!(member.clients().await.get("after").await, Some(b"1".to_vec()));
}

fn refuses(data: &Path) -> String {
    let mut command = Command::new(binary("kv-svc"));
    command.arg("--data-dir").arg(data).args(["--listen-client-urls", "http://127.0.0.1:0"]);
    let mut process = Process::spawn(&mut command);
    assert!(!process.wait_exit(SOON).success(), "it must not start");
    process.output()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_refused() {
    let mut member = Member::start(&[]);
    let mut clients = member.clients().await;
    for n in 0..20 {
        clients.put(&format!("k{n:02}"), "a value of some length").await;
    }
    member.process.kill();
    let path = last_segment(&member);
    let good = fs::read(&path).expect("the log");
    let end = end_of_data(&good);
    for at in [100, end / 2, end - 20] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x04;
        fs::write(&path, bytes).expect("write the log");
        let output = refuses(&member.dir.path().join("data"));
        assert!(output.contains("is damaged at byte"), "bit at {at}: {output}");
    }
    fs::write(&path, good).expect("write the log");
    member.restart(&[]);
    assert_eq!(member.clients().await.get("k00").await, Some(b"a value of some length".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_folder_are_named() {
    let member = Member::start(&[]);
    let output = refuses(&member.dir.path().join("data"));
    assert!(output.contains("lock"), "{output}");
    let mut command = Command::new(binary("kv-svc"));
    let other = tempfile::tempdir().expect("a folder");
    command.arg("--data-dir").arg(other.path());
    command.arg("--listen-client-urls").arg(format!("http://{}", member.address));
    let mut process = Process::spawn(&mut command);
    assert_eq!(process.wait_exit(Duration::from_secs(10)).code(), Some(69));
    assert!(process.output().contains("is taken by kv-svc"), "{}", process.output());
}
