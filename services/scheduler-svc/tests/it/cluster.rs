//! An etcd and a server on free ports, ended with the test.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use flotilla_testkit::{Process, etcd, eventually, free_port};
use serde_json::Value;
use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub dir: TempDir,
    pub etcd: Process,
    pub server: Process,
    pub etcd_url: String,
    pub etcd_port: u16,
    pub address: String,
    pub own: String,
    pub token: String,
}

/// What curl got.
pub struct Answer {
    pub code: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn spawn_etcd(dir: &std::path::Path, port: u16) -> Process {
    let url = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new(etcd().join("etcd"));
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
    let mut etcd = Process::spawn(&mut command);
    etcd.wait_for_line("ready to serve client requests", LIMIT);
    etcd
}

pub fn spawn_server(
    dir: &std::path::Path,
    etcd_url: &str,
    more: &[&str],
) -> (Process, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-svc"));
    command
        .args([
            "--etcd-servers",
            etcd_url,
            "--secure-port",
            "0",
            "--grpc-address",
            "127.0.0.1:0",
            "--cert-dir",
        ])
        .arg(dir.join("certs"))
        .args(more);
    if !more.contains(&"--roles") {
        command.args(["--roles", "api"]);
    }
    let mut server = Process::spawn(&mut command);
    let line = server.wait_for_line("serving the Kubernetes API", LIMIT);
    let own = server.wait_for_line("serving gRPC", LIMIT);
    (server, address_in(&line), address_in(&own))
}

fn address_in(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("JSON log line");
    line["address"].as_str().expect("an address").to_owned()
}

impl Cluster {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etcd_port = free_port();
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let etcd = spawn_etcd(dir.path(), etcd_port);
        let (server, address, own) = spawn_server(dir.path(), &etcd_url, more);
        let tokens = std::fs::read_to_string(dir.path().join("certs/tokens.csv")).unwrap();
        let token = tokens.split(',').next().unwrap().to_owned();
        let cluster = Self { dir, etcd, server, etcd_url, etcd_port, address, own, token };
        cluster.await_basics();
        cluster
    }

    pub fn await_basics(&self) {
        eventually("the default service account exists", LIMIT, || {
            self.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
                && self.get("/api/v1/namespaces/default/services/kubernetes").code == 200
                && self.get("/api/v1/namespaces/default/endpoints/kubernetes").code == 200
        });
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("certs/admin.kubeconfig")
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path()).args(args);
        command
    }

    /// Runs kubectl, feeds it `input`, and returns both streams; fails the test when kubectl fails.
    pub fn kubectl(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let text = streams(&output);
        assert!(output.status.success(), "kubectl {args:?}: {text}");
        text
    }

    /// Runs kubectl that must fail, and returns both streams.
    pub fn kubectl_fails(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let text = streams(&output);
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {text}");
        text
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .kubectl_command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &["Content-Type: application/json"], &body.to_string())
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &["Content-Type: application/json"], &body.to_string())
    }

    pub fn call(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        self.call_as(&self.token, method, path, headers, body)
    }

    pub fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Answer {
        use std::io::Write;
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "--max-time", "20", "--http1.1", "-X", method, "--cacert"]);
        command.arg(self.dir.path().join("certs/ca.crt"));
        if !token.is_empty() {
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        for header in headers {
            command.args(["-H", header]);
        }
        if !body.is_empty() {
            command.args(["--data-binary", "@-", "-H", "Expect:"]);
        }
        command.arg(format!("https://{}{path}", self.address));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl runs");
        // curl may have hung up before it read everything, when the answer came early.
        let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = headers.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        Answer { code, headers: headers.to_owned(), body: body.to_owned() }
    }
}

fn streams(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether the programs the tests drive are missing.
pub fn skip(test: &str) -> bool {
    ["kubectl", "curl", "python3"]
        .iter()
        .any(|program| flotilla_testkit::skip_unless_program(test, program))
}
