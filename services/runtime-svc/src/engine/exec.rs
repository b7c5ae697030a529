//! Further processes in running containers.

use rt_shim::spec::{ContainerSpec, ProcessSpec};
use rt_shim::wire::{Answer, Request};
use tokio::net::UnixStream;

use super::error::{Error, Result};
use super::node::Node;
use super::records::ContainerPhase;

impl Node {
    /// Starts a process in a container; the stream then carries its frames.
    ///
    /// # Errors
    /// When the container is unknown or does not run, or the program cannot be run.
    pub async fn exec(
        &self,
        part: &str,
        command: &[String],
        tty: bool,
        stdin: bool,
    ) -> Result<UnixStream> {
        let container = self.container(part)?;
        let record = container.record();
        if command.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        if record.phase() != ContainerPhase::Running {
            return Err(Error::State(format!("container {:?} is not running", container.id)));
        }
        let spec: ContainerSpec = serde_json::from_slice(&record.spec)
            .map_err(|error| Error::failed("decode the container", error))?;
        let mut process = ProcessSpec { args: command.to_vec(), tty, ..spec.process };
        if tty && !process.env.iter().any(|line| line.starts_with("TERM=")) {
            process.env.push("TERM=xterm".to_owned());
        }
        let request = Request::Exec { id: container.id.clone(), process: Box::new(process), stdin };
        match self.shims.open(&self.machine.socket(&record.sandbox_id), &request).await? {
            (Answer::Started { .. }, stream) => Ok(stream),
            (Answer::Failed(failure), _) => Err(Error::Failed(format!(
                "failed to exec in container: failed to start exec: {}",
                failure.message
            ))),
            _ => Err(Error::Failed("the shim gave an answer that does not fit".to_owned())),
        }
    }

    /// Follows a container's first process; the stream then carries its frames.
    ///
    /// # Errors
    /// When the container is unknown or does not run.
    pub async fn attach(&self, part: &str, stdin: bool) -> Result<UnixStream> {
        let container = self.container(part)?;
        let record = container.record();
        if record.phase() != ContainerPhase::Running {
            return Err(Error::State(format!("container {:?} is not running", container.id)));
        }
        let request = Request::Attach { id: container.id.clone(), stdin };
        match self.shims.open(&self.machine.socket(&record.sandbox_id), &request).await? {
            (Answer::Failed(failure), _) => Err(Error::Failed(failure.message)),
            (_, stream) => Ok(stream),
        }
    }

    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// When the sandbox is unknown or not ready, or nothing listens.
    pub async fn connect(&self, part: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let sandbox = self.sandbox(part)?;
        let record = sandbox.record();
        if record.phase() != super::records::SandboxPhase::Ready {
            return Err(Error::State(format!("sandbox {:?} is not running", sandbox.id)));
        }
        self.network.connect(record.shim_pid, port).await
    }
}
