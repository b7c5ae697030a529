//! Starts the planned services in order, watches them, starts a crashed one again, stops all of them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::plan::{Plan, Service};
use crate::probe;
use crate::state::{Identity, ServiceState, State};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran this long before it crashed starts over with the first pause.
const STABLE: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What happened to a service.
#[derive(Debug)]
struct Ended {
    index: usize,
    status: io::Result<ExitStatus>,
}

/// Runs the services of one plan.
#[derive(Debug)]
pub struct Supervisor {
    plan: Plan,
    bin_dir: PathBuf,
    state: State,
    /// Whether log lines are shown as well as written.
    echo: bool,
    pauses: Vec<Duration>,
    started: Vec<Option<Instant>>,
    ended_tx: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new(plan: Plan, bin_dir: PathBuf, bridge_name: String, echo: bool) -> io::Result<Self> {
        let supervisor = Identity::of(std::process::id())
            .ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        let services = plan
            .services
            .iter()
            .map(|service| ServiceState {
                name: service.name.to_owned(),
                process: None,
                restarts: 0,
                ready_url: service.ready_url.clone(),
                endpoints: service.endpoints.clone(),
            })
            .collect();
        let state =
            State { supervisor, ready: false, ports: plan.ports.clone(), bridge_name, services };
        let count = plan.services.len();
        let (ended_tx, ended) = mpsc::unbounded_channel();
        Ok(Self {
            plan,
            bin_dir,
            state,
            echo,
            pauses: vec![FIRST_PAUSE; count],
            started: vec![None; count],
            ended_tx,
            ended,
        })
    }

    /// What runs.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts everything in order and waits until all are ready.
    ///
    /// # Errors
    /// Names the service that ended or was not ready in time, with the last lines of its log.
    pub async fn start(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut waiting: Vec<usize> = (0..self.plan.services.len()).collect();
        let mut ready: HashMap<&'static str, bool> = HashMap::new();
        while !waiting.is_empty() {
            let mut left = Vec::new();
            for index in waiting {
                let service = self.plan.services[index].clone();
                if self.started[index].is_none()
                    && service.after.iter().all(|name| ready.contains_key(name))
                {
                    self.spawn(index)
                        .map_err(|error| format!("cannot start {}: {error}", service.name))?;
                }
                if self.started[index].is_some()
                    && probe::answers(&service.ready_url, &[200, 401]).await
                {
                    ready.insert(service.name, true);
                } else {
                    left.push(index);
                }
            }
            waiting = left;
            if let Ok(ended) = self.ended.try_recv() {
                let name = self.plan.services[ended.index].name;
                return Err(format!(
                    "{name} ended with {}{}",
                    describe(&ended.status),
                    self.tail(name)
                ));
            }
            if let (Some(index), true) = (waiting.first(), Instant::now() > deadline) {
                let service = &self.plan.services[*index];
                let tail = self.tail(service.name);
                return Err(format!(
                    "{} was not ready within {limit:?} ({}){tail}",
                    service.name, service.ready_url
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.state.ready = true;
        self.save();
        Ok(())
    }

    /// Restarts what crashes, until `stop` completes.
    pub async fn watch(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let ended = tokio::select! {
                () = &mut stop => return,
                Some(ended) = self.ended.recv() => ended,
            };
            let service = &self.plan.services[ended.index];
            let ran = self.started[ended.index].map(|at| at.elapsed()).unwrap_or_default();
            if ran > STABLE {
                self.pauses[ended.index] = FIRST_PAUSE;
            }
            let pause = self.pauses[ended.index];
            self.say(&format!(
                "{} ended with {}; starting it again in {pause:?}",
                service.name,
                describe(&ended.status)
            ));
            self.pauses[ended.index] = (pause * 2).min(LONGEST_PAUSE);
            self.state.services[ended.index].process = None;
            self.save();
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
            self.state.services[ended.index].restarts += 1;
            if let Err(error) = self.spawn(ended.index) {
                self.say(&format!(
                    "cannot start {}: {error}",
                    self.plan.services[ended.index].name
                ));
                // Counts as another crash, so that the next try comes after a longer pause.
                let _ = self.ended_tx.send(Ended { index: ended.index, status: Err(error) });
            }
        }
    }

    /// Stops everything, last started first; what does not end in time is killed.
    pub async fn stop(&mut self) {
        for index in (0..self.state.services.len()).rev() {
            let Some(process) = self.state.services[index].process.take() else { continue };
            let name = self.state.services[index].name.clone();
            let pid = Pid::from_raw(process.pid.cast_signed());
            // It may have ended just now.
            let _ = kill(pid, Signal::SIGTERM);
            let deadline = Instant::now() + STOP_LIMIT;
            while process.is_alive() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if process.is_alive() {
                self.say(&format!("{name} did not stop within {STOP_LIMIT:?}; killing it"));
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        // Absent already is as good as removed.
        let _ = std::fs::remove_file(self.plan.layout.state());
    }

    fn spawn(&mut self, index: usize) -> io::Result<()> {
        let service = &self.plan.services[index];
        let log = open_log(&self.plan.layout.log(service.name))?;
        let mut child = command(&self.bin_dir, service).spawn()?;
        let prefix = self.echo.then(|| prefix(index, service.name));
        if let Some(out) = child.stdout.take() {
            tokio::spawn(pump(out, log.try_clone()?, prefix.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(pump(err, log, prefix));
        }
        self.state.services[index].process = child.id().and_then(Identity::of);
        self.started[index] = Some(Instant::now());
        tokio::spawn(wait(child, index, self.ended_tx.clone()));
        self.save();
        Ok(())
    }

    fn save(&self) {
        if let Err(error) = self.state.save(&self.plan.layout.state()) {
            self.say(&format!("cannot write {}: {error}", self.plan.layout.state().display()));
        }
    }

    fn tail(&self, service: &str) -> String {
        let text = std::fs::read_to_string(self.plan.layout.log(service)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(8)..];
        if last.is_empty() {
            String::new()
        } else {
            format!("; its log ends with\n  {}", last.join("\n  "))
        }
    }

    #[allow(clippy::print_stderr, reason = "talks to the person at the terminal")]
    fn say(&self, text: &str) {
        eprintln!("flotilla: {text}");
    }
}

fn command(bin_dir: &Path, service: &Service) -> Command {
    let mut command = Command::new(bin_dir.join(service.name));
    command
        .args(&service.args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An own group: Ctrl-C reaches the supervisor alone, which then stops the services in order.
        .process_group(0);
    command
}

async fn wait(mut child: Child, index: usize, ended: mpsc::UnboundedSender<Ended>) {
    let status = child.wait().await;
    // Nobody listens once the supervisor stops.
    let _ = ended.send(Ended { index, status });
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Copies lines to the log file and, with a prefix, to the terminal.
async fn pump(from: impl AsyncRead + Unpin, mut log: File, prefix: Option<String>) {
    const LONGEST_LINE: usize = 64 << 10;
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        line.truncate(LONGEST_LINE);
        // A full disk must not stop the service whose output this is.
        let _ = log.write_all(&line);
        if let Some(prefix) = &prefix {
            let mut out = io::stdout().lock();
            let _ = out.write_all(prefix.as_bytes()).and_then(|()| out.write_all(&line));
        }
    }
}

fn prefix(index: usize, name: &str) -> String {
    const COLOURS: [u8; 7] = [36, 33, 32, 35, 34, 96, 93];
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{}m{name:>13} |\x1b[0m ", COLOURS[index % COLOURS.len()])
    } else {
        format!("{name:>13} | ")
    }
}

fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
