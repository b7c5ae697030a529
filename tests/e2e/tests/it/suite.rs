//! A suite of its own for a test: own root, ports, bridge and address ranges.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

use flotilla_testkit::binary;
use tempfile::TempDir;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Services started by `flotilla up`; dropped, they are stopped and their data removed.
pub struct Suite {
    pub root: TempDir,
    pub port_base: u16,
    number: u8,
    up: bool,
    _lock: MutexGuard<'static, ()>,
}

impl Suite {
    /// Nothing runs yet; other suites wait until this one is dropped.
    pub fn new(number: u8) -> Self {
        let lock = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for name in [
            "kv-svc",
            "image-svc",
            "runtime-svc",
            "scheduler-svc",
            "metrics-svc",
            "dns-svc",
            "gateway",
        ] {
            binary(name);
        }
        let root = tempfile::Builder::new().prefix("flotilla-e2e-").tempdir_in("/var/tmp").unwrap();
        Self { root, port_base: 18_000 + u16::from(number) * 100, number, up: false, _lock: lock }
    }

    /// Flags that keep this suite apart from others on the machine.
    pub fn network_flags(&self) -> Vec<String> {
        let flags = [
            ("--bridge-name", format!("flte2e{}", self.number)),
            ("--pod-cidr", format!("10.{}.0.0/24", 150 + self.number)),
            ("--service-cidr", format!("10.{}.0.0/16", 170 + self.number)),
            ("--port-base", self.port_base.to_string()),
        ];
        flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// A `flotilla` command on this suite's root.
    pub fn flotilla(&self, command: &str) -> Command {
        let mut flotilla = Command::new(binary("flotilla"));
        flotilla.arg(command).arg("--root").arg(self.root.path());
        flotilla
    }

    /// Starts everything and waits until it is ready.
    pub fn up(&mut self, extra: &[&str]) -> Output {
        let mut command = self.flotilla("up");
        let output =
            command.arg("--detach").args(self.network_flags()).args(extra).output().unwrap();
        self.up = output.status.success();
        output
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.path().join("pki/admin.kubeconfig")
    }

    /// Runs kubectl against this suite.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args)
            .output()
            .unwrap()
    }

    /// The port at this place in the order of `flotilla up --port-base`.
    pub fn port(&self, index: u16) -> u16 {
        self.port_base + index
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        if self.up {
            let output = self.flotilla("down").output();
            if let Ok(output) = output
                && !output.status.success()
            {
                println!("flotilla down: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}
