//! A child process that a test owns.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A running program whose stdout and stderr go to one file. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _dir: TempDir,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command
            .get_program()
            .to_string_lossy()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("output.log");
        let file = File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name, child, log, _dir: dir }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far.
    pub fn output(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            // A partial read is still worth showing.
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until `ready` says yes to the output so far.
    ///
    /// # Panics
    /// When the process ends or `limit` passes first; the message carries the output.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + limit;
        loop {
            if ready(&self.output()) {
                return;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended ({status}) before {what}:\n{}", self.name, self.output());
            }
            assert!(
                Instant::now() < deadline,
                "{}: {what}: not within {limit:?}:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a line that contains `needle` and returns it.
    ///
    /// # Panics
    /// As [`Process::wait_until`].
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> String {
        self.wait_until(&format!("it printed {needle:?}"), limit, |output| output.contains(needle));
        let output = self.output();
        output.lines().find(|line| line.contains(needle)).unwrap_or_default().to_owned()
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        // The process may have ended just now.
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }

    /// kill -9, and reaps.
    pub fn kill(&mut self) {
        // Ended already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit(limit)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("own child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {limit:?}:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.kill();
        }
        if std::thread::panicking() {
            println!("--- output of {} ---\n{}", self.name, self.output());
        }
    }
}
