//! flotilla.engine.v1: single containers, each in a sandbox of its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use flotilla_proto::engine::flotilla::engine::v1 as engine;
use futures::Stream;
use tonic::{Request, Response, Status};

use super::{exec_sync, log_lines};
use crate::engine::error::{Error, Result};
use crate::engine::identity::new_id;
use crate::engine::node::{Container, Node};
use crate::engine::records::{ContainerPhase, ContainerRecord, SandboxRecord};

/// Seconds a container has between the request to end and the kill, unless told otherwise.
const STOP_TIMEOUT: u32 = 10;
const NAMESPACE: &str = "engine";

/// The service. Clones share everything.
#[derive(Clone)]
pub struct EngineService {
    node: Arc<Node>,
    logs: PathBuf,
}

impl EngineService {
    /// Serves `node`; logs go below `logs`.
    pub fn new(node: Arc<Node>, logs: PathBuf) -> Self {
        Self { node, logs }
    }

    /// The container with this id, unique start of one, or name.
    fn find(&self, id: &str) -> Result<(Arc<Container>, SandboxRecord)> {
        let owned = self.owned();
        let exact = owned
            .iter()
            .find(|(container, sandbox)| container.id == id || sandbox.metadata().name == id);
        if let Some(found) = exact {
            return Ok(found.clone());
        }
        let mut starts =
            owned.iter().filter(|(container, _)| !id.is_empty() && container.id.starts_with(id));
        match (starts.next(), starts.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "several containers have an id that starts with {id:?}"
            ))),
            _ => Err(Error::NotFound(format!("container {id:?}"))),
        }
    }

    fn owned(&self) -> Vec<(Arc<Container>, SandboxRecord)> {
        let sandboxes: HashMap<String, SandboxRecord> = self
            .node
            .sandboxes()
            .iter()
            .map(|s| s.record())
            .filter(|r| r.engine_owned)
            .map(|r| (r.id.clone(), r))
            .collect();
        let containers = self.node.containers().into_iter();
        containers
            .filter_map(|c| sandboxes.get(&c.record().sandbox_id).cloned().map(|s| (c, s)))
            .collect()
    }

    async fn create_now(
        self,
        request: engine::CreateRequest,
        start: bool,
    ) -> Result<engine::CreateResponse> {
        let name = if request.name.is_empty() {
            format!("c-{}", &new_id()[..12])
        } else {
            request.name.clone()
        };
        let sandbox =
            self.node.run_sandbox(sandbox_config(&request, &name, &self.logs)?, "", true).await?;
        let made = async {
            let id =
                self.node.create_container(&sandbox, container_config(&request, &name)?).await?;
            if start {
                self.node.start_container(&id).await?;
            }
            Ok(id)
        };
        match made.await {
            Ok(id) => Ok(engine::CreateResponse { id }),
            Err(error) => {
                if let Err(left) = self.node.remove_sandbox(&sandbox).await {
                    tracing::warn!(sandbox, error = %left, "cannot remove a container that failed to start");
                }
                Err(error)
            }
        }
    }
}

fn sandbox_config(
    request: &engine::CreateRequest,
    name: &str,
    logs: &std::path::Path,
) -> Result<cri::PodSandboxConfig> {
    let fits =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && name.len() <= 63;
    if !fits {
        return Err(Error::Invalid(format!(
            "name {name:?} may have up to 63 letters, digits, - _ and ."
        )));
    }
    let network =
        if request.host_network { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let namespaces = cri::NamespaceOption {
        network: network as i32,
        pid: cri::NamespaceMode::Container as i32,
        ..Default::default()
    };
    let context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        privileged: request.privileged,
        ..Default::default()
    };
    let port = |port: &engine::Port| {
        let protocol = match port.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => cri::Protocol::Tcp,
            "udp" => cri::Protocol::Udp,
            "sctp" => cri::Protocol::Sctp,
            other => {
                return Err(Error::Invalid(format!(
                    "protocol {other:?} is none of tcp, udp and sctp"
                )));
            }
        };
        let number = |port: u32| {
            i32::try_from(port)
                .map_err(|_| Error::Invalid(format!("port {port} is out of range (1 to 65535)")))
        };
        Ok(cri::PortMapping {
            protocol: protocol as i32,
            container_port: number(port.container_port)?,
            host_port: number(port.host_port)?,
            host_ip: String::new(),
        })
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            ..Default::default()
        }),
        hostname: name.to_owned(),
        log_directory: logs.join(name).display().to_string(),
        port_mappings: request.ports.iter().map(port).collect::<Result<_>>()?,
        labels: request.labels.clone(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(context),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn container_config(request: &engine::CreateRequest, name: &str) -> Result<cri::ContainerConfig> {
    const PERIOD: i64 = 100_000;
    let mut resources = cri::LinuxContainerResources {
        memory_limit_in_bytes: request.memory_limit,
        cpu_period: if request.cpu_millis == 0 { 0 } else { PERIOD },
        cpu_quota: request.cpu_millis.saturating_mul(PERIOD) / 1000,
        ..Default::default()
    };
    if request.pids_limit > 0 {
        resources.unified.insert("pids.max".to_owned(), request.pids_limit.to_string());
    }
    let mut context = cri::LinuxContainerSecurityContext {
        privileged: request.privileged,
        namespace_options: Some(cri::NamespaceOption {
            pid: cri::NamespaceMode::Container as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    // CRI knows user and group apart; a group comes with a numeric user only.
    if let Some((user, group)) = request.user.split_once(':') {
        let group = group
            .parse()
            .map_err(|_| Error::Unsupported(format!("group name {group:?}; write a number")))?;
        context.run_as_group = Some(cri::Int64Value { value: group });
        context.run_as_username = user.to_owned();
    } else {
        context.run_as_username.clone_from(&request.user);
    }
    let mount = |volume: &engine::Volume| cri::Mount {
        container_path: volume.container_path.clone(),
        host_path: volume.host_path.clone(),
        readonly: volume.readonly,
        ..Default::default()
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: request.image.clone(), ..Default::default() }),
        command: request.entrypoint.clone(),
        args: request.command.clone(),
        working_dir: request.working_dir.clone(),
        envs: request
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: request.volumes.iter().map(mount).collect(),
        labels: request.labels.clone(),
        log_path: "container.log".to_owned(),
        tty: request.tty,
        stdin: request.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(context),
        }),
        ..Default::default()
    })
}

fn state(record: &ContainerRecord) -> &'static str {
    match record.phase() {
        ContainerPhase::Creating | ContainerPhase::Created | ContainerPhase::Starting => "created",
        ContainerPhase::Running => "running",
        ContainerPhase::Exited | ContainerPhase::Removing => "exited",
    }
}

fn describe(container: &Container, sandbox: &SandboxRecord) -> engine::Container {
    let record = container.record();
    let port = |mapping: &cri::PortMapping| engine::Port {
        protocol: mapping.protocol().as_str_name().to_ascii_lowercase(),
        host_port: mapping.host_port.cast_unsigned(),
        container_port: mapping.container_port.cast_unsigned(),
    };
    engine::Container {
        id: record.id.clone(),
        name: sandbox.metadata().name,
        image: record.config.image.clone().unwrap_or_default().image,
        state: state(&record).to_owned(),
        exit_code: record.exit_code,
        reason: record.reason.clone(),
        ip: sandbox.ip.clone(),
        pid: record.pid,
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        labels: record.config.labels.clone(),
        ports: sandbox.config.port_mappings.iter().map(port).collect(),
    }
}

/// Runs work that a client cannot cancel.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Answer<T> {
    let done = tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(Error::failed("internal error", error)));
    done.map(Response::new).map_err(Status::from)
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl engine::engine_server::Engine for EngineService {
    type LogsStream =
        Pin<Box<dyn Stream<Item = std::result::Result<engine::LogLine, Status>> + Send>>;

    async fn version(&self, _: Request<engine::VersionRequest>) -> Answer<engine::VersionResponse> {
        let kernel = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Response::new(engine::VersionResponse {
            version: flotilla_telemetry::VERSION.to_owned(),
            kernel,
        }))
    }

    async fn create(
        &self,
        request: Request<engine::CreateRequest>,
    ) -> Answer<engine::CreateResponse> {
        detached(self.clone().create_now(request.into_inner(), false)).await
    }

    async fn run(&self, request: Request<engine::CreateRequest>) -> Answer<engine::CreateResponse> {
        detached(self.clone().create_now(request.into_inner(), true)).await
    }

    async fn start(&self, request: Request<engine::StartRequest>) -> Answer<engine::StartResponse> {
        let (container, _) = self.find(&request.into_inner().id)?;
        let node = self.node.clone();
        detached(async move {
            node.start_container(&container.id).await.map(|()| engine::StartResponse {})
        })
        .await
    }

    async fn stop(&self, request: Request<engine::StopRequest>) -> Answer<engine::StopResponse> {
        let request = request.into_inner();
        let (container, _) = self.find(&request.id)?;
        let timeout = Duration::from_secs(u64::from(request.timeout.unwrap_or(STOP_TIMEOUT)));
        let node = self.node.clone();
        detached(async move {
            node.stop_container(&container.id, timeout).await.map(|()| engine::StopResponse {})
        })
        .await
    }

    async fn remove(
        &self,
        request: Request<engine::RemoveRequest>,
    ) -> Answer<engine::RemoveResponse> {
        let request = request.into_inner();
        let (container, sandbox) = self.find(&request.id)?;
        if container.phase() == ContainerPhase::Running && !request.force {
            return Err(Error::State(format!(
                "container {:?} runs; stop it first or remove it with force",
                container.id
            ))
            .into());
        }
        let node = self.node.clone();
        detached(async move {
            node.remove_sandbox(&sandbox.id).await?;
            node.machine().remove_logs(&sandbox.config.log_directory)?;
            Ok(engine::RemoveResponse {})
        })
        .await
    }

    async fn wait(&self, request: Request<engine::WaitRequest>) -> Answer<engine::WaitResponse> {
        let (container, _) = self.find(&request.into_inner().id)?;
        container.ended().await;
        Ok(Response::new(engine::WaitResponse { exit_code: container.record().exit_code }))
    }

    async fn list(&self, request: Request<engine::ListRequest>) -> Answer<engine::ListResponse> {
        let all = request.into_inner().all;
        let owned = self.owned();
        let shown = owned
            .iter()
            .filter(|(container, _)| all || container.phase() == ContainerPhase::Running);
        let containers = shown.map(|(container, sandbox)| describe(container, sandbox)).collect();
        Ok(Response::new(engine::ListResponse { containers }))
    }

    async fn inspect(&self, request: Request<engine::InspectRequest>) -> Answer<engine::Container> {
        let (container, sandbox) = self.find(&request.into_inner().id)?;
        Ok(Response::new(describe(&container, &sandbox)))
    }

    async fn logs(&self, request: Request<engine::LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        let (container, _) = self.find(&request.id)?;
        Ok(Response::new(Box::pin(log_lines::follow(container, request.follow, request.tail))))
    }

    async fn exec(&self, request: Request<engine::ExecRequest>) -> Answer<engine::ExecResponse> {
        let request = request.into_inner();
        let (container, _) = self.find(&request.id)?;
        let asked = cri::ExecSyncRequest {
            container_id: container.id.clone(),
            cmd: request.command,
            timeout: i64::from(request.timeout),
        };
        let done = exec_sync::run(&self.node, &asked).await?;
        Ok(Response::new(engine::ExecResponse {
            exit_code: done.exit_code,
            stdout: done.stdout,
            stderr: done.stderr,
        }))
    }

    async fn stats(&self, request: Request<engine::StatsRequest>) -> Answer<engine::StatsResponse> {
        let (container, _) = self.find(&request.into_inner().id)?;
        let stats = self.node.machine().cgroup_stats(&container.record().cgroup);
        Ok(Response::new(engine::StatsResponse {
            cpu_nanos: stats.cpu_nanos.unwrap_or(0),
            memory_usage: stats.memory_usage.unwrap_or(0),
            memory_limit: stats.memory_limit.unwrap_or(0),
            pids: stats.pids.unwrap_or(0),
        }))
    }
}
