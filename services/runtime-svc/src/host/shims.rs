//! Starting shims and talking to them.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rt_shim::spec::SandboxSpec;
use rt_shim::wire::{Answer, Request, read_json, write_json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::own_binary::OwnBinary;
use crate::engine::error::{Error, Result};
use crate::engine::ports::{Reports, Shims};

/// How long a shim may take to make its pod.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Shims of this daemon's own binary.
#[derive(Debug)]
pub struct ShimProcesses {
    binary: OwnBinary,
}

impl ShimProcesses {
    /// Starts shims from `binary`.
    pub fn new(binary: OwnBinary) -> Self {
        Self { binary }
    }
}

async fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).await.map_err(|error| {
        Error::Unavailable(format!(
            "the pod's shim at {} does not answer: {error}",
            socket.display()
        ))
    })
}

async fn ask_on(stream: &mut UnixStream, request: &Request) -> Result<Answer> {
    let broken =
        |error: std::io::Error| Error::Unavailable(format!("the pod's shim broke off: {error}"));
    write_json(stream, request).await.map_err(broken)?;
    read_json(stream)
        .await
        .map_err(broken)?
        .ok_or_else(|| Error::Unavailable("the pod's shim ended".to_owned()))
}

#[async_trait]
impl Shims for ShimProcesses {
    async fn spawn(&self, spec: &SandboxSpec) -> Result<i32> {
        let fail = |what: &str, error: &dyn std::fmt::Display| {
            Error::Failed(format!("{what} the pod's shim: {error}"))
        };
        let path = spec.dir.join("sandbox.json");
        let text = serde_json::to_vec(spec).map_err(|error| fail("describe", &error))?;
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|error| fail("describe", &error))?;
        let mut command = Command::new(self.binary.path());
        command.arg0("runtime-svc-shim").arg("shim").arg(&path).current_dir("/").env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| fail("start", &error))?;
        let stdout = child.stdout.take().ok_or_else(|| fail("start", &"it has no stdout"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let mut line = String::new();
        let mut output = BufReader::new(stdout);
        let read = tokio::time::timeout(START_PATIENCE, output.read_line(&mut line)).await;
        let said = match read {
            Ok(Ok(_)) => line.trim().to_owned(),
            Ok(Err(error)) => format!("error: {error}"),
            Err(_) => format!("error: it made no pod within {} s", START_PATIENCE.as_secs()),
        };
        if said.starts_with("ok ") {
            // Reaped when it ends, as long as this daemon lives; afterwards process 1 does it.
            tokio::spawn(async move { child.wait().await });
            return Ok(pid);
        }
        // It may have ended by itself.
        let _ = child.kill().await;
        let said = if said.is_empty() {
            "it ended without a word"
        } else {
            said.trim_start_matches("error: ")
        };
        Err(Error::Failed(format!("failed to make the pod: {said}")))
    }

    async fn ask(&self, socket: &Path, request: &Request) -> Result<Answer> {
        ask_on(&mut connect(socket).await?, request).await
    }

    async fn open(&self, socket: &Path, request: &Request) -> Result<(Answer, UnixStream)> {
        let mut stream = connect(socket).await?;
        let answer = ask_on(&mut stream, request).await?;
        Ok((answer, stream))
    }

    async fn watch(&self, socket: &Path) -> Result<Reports> {
        let (first, mut stream) = self.open(socket, &Request::Events).await?;
        let Answer::Containers(first) = first else {
            return Err(Error::Failed(
                "the pod's shim gave an answer that does not fit".to_owned(),
            ));
        };
        let (send, receive) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut next = Some(first);
            while let Some(batch) = next {
                if send.send(batch).await.is_err() {
                    return;
                }
                next = match read_json(&mut stream).await {
                    Ok(Some(Answer::Containers(batch))) => Some(batch),
                    _ => None,
                };
            }
        });
        Ok(receive)
    }

    fn kill(&self, pid: i32, socket: &Path) {
        // The number may belong to another process by now.
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let dir = socket.parent().and_then(Path::parent).unwrap_or(socket);
        let text = String::from_utf8_lossy(&cmdline);
        if text.starts_with("runtime-svc-shim\0") && text.contains(&*dir.to_string_lossy()) {
            // It may have ended just now.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}
