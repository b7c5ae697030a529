//! A DNS server under test, ours or CoreDNS, and asking it with dig.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use flotilla_testkit::{Process, free_port};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

pub struct Server {
    pub port: u16,
    pub process: Process,
    dir: TempDir,
}

impl Server {
    /// Starts a program with a Corefile in which `PORT` stands for the port; waits for the banner.
    pub fn start(program: &PathBuf, corefile: &str) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Corefile");
        fs::write(&file, corefile.replace("PORT", &port.to_string())).unwrap();
        let mut process = Process::spawn(Command::new(program).arg("-conf").arg(&file));
        process.wait_for_line("CoreDNS-", LIMIT);
        Self { port, process, dir }
    }

    /// Ours.
    pub fn ours(corefile: &str) -> Self {
        Self::start(&PathBuf::from(env!("CARGO_BIN_EXE_dns-svc")), corefile)
    }

    /// Replaces the Corefile at once.
    pub fn write(&self, corefile: &str) {
        let (file, new) = (self.dir.path().join("Corefile"), self.dir.path().join("new"));
        fs::write(&new, corefile.replace("PORT", &self.port.to_string())).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// dig's output without what differs from run to run, records sorted within their section.
    pub fn dig(&self, words: &str) -> String {
        let output = Command::new("dig")
            .args([
                "@127.0.0.1",
                "-p",
                &self.port.to_string(),
                "+tries=2",
                "+time=3",
                "+nocookie",
                "+noall",
            ])
            .args(["+comments", "+answer", "+authority", "+additional"])
            .args(words.split(' '))
            .output()
            .unwrap();
        normal_form(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Sections in order, their records sorted; no ids, no sizes, no SOA serials.
fn normal_form(text: &str) -> String {
    let mut sections: Vec<Vec<String>> = vec![Vec::new()];
    for line in text.lines().filter(|line| {
        !line.is_empty() && !line.contains("OPT PSEUDO") && !line.starts_with("; EDNS")
    }) {
        if line.starts_with(";;") && !line.contains("HEADER") && !line.contains("flags:") {
            sections.push(Vec::new());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = match words.as_slice() {
            [";;", "->>HEADER<<-", rest @ ..] => rest
                .iter()
                .filter(|w| w.parse::<u32>().is_err())
                .copied()
                .collect::<Vec<_>>()
                .join(" "),
            [name, ttl, class, "SOA", primary, mail, _serial, rest @ ..] => {
                format!("{name} {ttl} {class} SOA {primary} {mail} SERIAL {}", rest.join(" "))
            }
            words => words.join(" "),
        };
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections.iter_mut().for_each(|section| section.sort());
    sections.concat().join("\n")
}

/// Real CoreDNS: named by the environment, on the PATH, or installed by name into the user's cache.
pub fn coredns() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("COREDNS") {
        return Some(path.into());
    }
    if flotilla_testkit::have_program("coredns") {
        return Some("coredns".into());
    }
    let dir =
        PathBuf::from(std::env::var_os("HOME")?).join(".cache/flotilla/originals/coredns-1.14.7");
    if !dir.join("coredns").exists() && flotilla_testkit::have_program("go") {
        let mut go = Command::new("go");
        go.args(["install", "github.com/coredns/coredns@v1.14.7"])
            .env("GOBIN", &dir)
            .env("CGO_ENABLED", "0");
        go.env("GOFLAGS", "-p=2");
        if !go.status().is_ok_and(|status| status.success()) {
            return None;
        }
    }
    dir.join("coredns").exists().then(|| dir.join("coredns"))
}
