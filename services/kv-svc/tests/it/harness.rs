//! A member and clients for it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_testkit::{Process, binary, free_port};
use tempfile::TempDir;
use tonic::transport::Channel;

pub const SOON: Duration = Duration::from_secs(20);

/// A running server; kv-svc or the original.
pub struct Member {
    pub process: Process,
    pub address: String,
    pub dir: TempDir,
}

/// Clients of every service on one connection.
#[derive(Clone)]
pub struct Clients {
    pub kv: pb::kv_client::KvClient<Channel>,
    pub watch: pb::watch_client::WatchClient<Channel>,
    pub lease: pb::lease_client::LeaseClient<Channel>,
    pub maintenance: pb::maintenance_client::MaintenanceClient<Channel>,
}

fn spawn(dir: &Path, flags: &[&str]) -> (Process, String) {
    let mut command = Command::new(binary("kv-svc"));
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", "http://127.0.0.1:0"]);
    let mut process = Process::spawn(command.args(flags));
    process.wait_for_line("ready to serve client requests", SOON);
    let address = address_in(&process.output());
    (process, address)
}

fn address_in(output: &str) -> String {
    let line = output
        .lines()
        .find(|line| line.contains("serving client requests"))
        .expect("an address line");
    let line: serde_json::Value = serde_json::from_str(line).expect("logs are JSON");
    line["address"].as_str().expect("an address").to_owned()
}

impl Member {
    /// Starts kv-svc.
    pub fn start(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (process, address) = spawn(dir.path(), flags);
        Self { process, address, dir }
    }

    /// Starts it again on the same folder.
    pub fn restart(&mut self, flags: &[&str]) {
        let (process, address) = spawn(self.dir.path(), flags);
        (self.process, self.address) = (process, address);
    }

    /// Starts etcd 3.5.1.
    pub fn original() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = Command::new(flotilla_testkit::etcd().join("etcd"));
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--initial-cluster").arg(format!("default={peer}"));
        let mut process = Process::spawn(&mut command);
        process.wait_for_line("ready to serve client requests", SOON);
        Self { process, address: format!("127.0.0.1:{client}"), dir }
    }

    /// Connects.
    pub async fn clients(&self) -> Clients {
        let url = format!("http://{}", self.address);
        let channel =
            Channel::from_shared(url).expect("a URL").connect().await.expect("a connection");
        Clients {
            kv: pb::kv_client::KvClient::new(channel.clone()),
            watch: pb::watch_client::WatchClient::new(channel.clone()),
            lease: pb::lease_client::LeaseClient::new(channel.clone()),
            maintenance: pb::maintenance_client::MaintenanceClient::new(channel),
        }
    }
}

impl Clients {
    pub async fn put(&mut self, key: &str, value: &str) -> i64 {
        let put = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let response = self.kv.put(put).await.expect("put").into_inner();
        response.header.expect("a header").revision
    }

    pub async fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let range = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let response = self.kv.range(range).await.expect("range").into_inner();
        response.kvs.into_iter().next().map(|kv| kv.value.to_vec())
    }

    pub async fn delete(&mut self, key: &str) -> i64 {
        let keys = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv
            .delete_range(keys)
            .await
            .expect("delete")
            .into_inner()
            .header
            .expect("a header")
            .revision
    }

    pub async fn compact(&mut self, revision: i64) {
        self.kv
            .compact(pb::CompactionRequest { revision, physical: false })
            .await
            .expect("compact");
    }
}

/// A small generator, so that a seed repeats a run.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
