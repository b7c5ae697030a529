//! The server under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flotilla_testkit::{Process, binary, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{encode, get};

pub const LONG: Duration = Duration::from_secs(30);

/// A running metrics-svc with its folder.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    pub dir: TempDir,
}

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary("metrics-svc"));
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.args([
        "--web.listen-address=127.0.0.1:0",
        "--web.enable-lifecycle",
        "--web.enable-admin-api",
        "--web.enable-remote-write-receiver",
    ]);
    command
}

/// Starts a server in `dir` and waits until it is ready.
pub fn launch(command: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process::spawn(command);
    let line = process.wait_for_line("\"listening\"", LONG);
    let line: Value = serde_json::from_str(&line).unwrap();
    let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    process.wait_for_line("ready to receive", LONG);
    (process, address)
}

impl Server {
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    pub fn start_in(dir: TempDir, config: &str) -> Self {
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let (process, address) = launch(&mut command(dir.path()));
        Self { process, address, dir }
    }

    /// kill -9 and start again on the same folder.
    pub fn crash(mut self) -> Self {
        self.process.kill();
        let (process, address) = launch(&mut command(self.dir.path()));
        Self { process, address, dir: self.dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn reload(&self, config: &str) -> crate::http::Reply {
        std::fs::write(self.dir.path().join("prometheus.yml"), config).unwrap();
        crate::http::request(self.address, "POST", "/-/reload", "")
    }

    /// The result list of an instant query.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let reply = get(self.address, &format!("/api/v1/query?query={}", encode(query))).json();
        assert_eq!(reply["status"], "success", "{query}: {reply}");
        reply["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The only value of an instant query.
    pub fn value(&self, query: &str) -> Option<f64> {
        match self.query(query).as_slice() {
            [one] => one["value"][1].as_str().unwrap().parse().ok(),
            _ => None,
        }
    }

    pub fn wait_value(&self, query: &str, want: f64) {
        let mut last = None;
        eventually(&format!("{query} == {want}, output {}", self.process.output()), LONG, || {
            last = self.value(query);
            last == Some(want)
        });
    }
}

/// A configuration that scrapes one target every 200 ms.
pub fn scraping(address: SocketAddr, extra: &str) -> String {
    format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  evaluation_interval: 200ms\nscrape_configs:\n- job_name: app\n{extra}  static_configs:\n  - targets: ['{address}']\n    labels:\n      zone: z1\n"
    )
}
