//! Calls to a container runtime and its image service.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use flotilla_proto::cri::runtime::v1::image_service_client::ImageServiceClient;
use flotilla_proto::cri::runtime::v1::runtime_service_client::RuntimeServiceClient;
use parking_lot::RwLock;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::engine::container_config::ImageUser;
use crate::engine::names;
use crate::engine::observed::{Observed, Run, RunState, Sandbox};
use crate::engine::resources::CgroupDriver;

const MAX_MESSAGE: usize = 80 << 20;
/// kubelet's `runtimeRequestTimeout`.
const CALL: Duration = Duration::from_secs(120);
const PULL: Duration = Duration::from_secs(3600);

/// Clients of a runtime. Clones share the connections.
#[derive(Debug)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    name: RwLock<(String, String)>,
}

/// All pods a runtime knows: uid to a fingerprint of the states in it.
pub type Snapshot = BTreeMap<String, PodSnapshot>;

/// One pod in a [`Snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSnapshot {
    /// Namespace and name, from the labels.
    pub namespace: String,
    /// As `namespace`.
    pub name: String,
    /// Grace period in seconds, from the annotations.
    pub grace: Option<i64>,
    /// Ids and states, sorted.
    pub states: Vec<(String, i32)>,
}

/// An image on the node.
#[derive(Debug, Clone, Default)]
pub struct LocalImage {
    /// What containers are created from.
    pub id: String,
    /// The user it runs as.
    pub user: ImageUser,
}

fn call<T>(message: T) -> Request<T> {
    within(message, CALL)
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn ok_if_missing<T: Default>(result: Result<T, Status>) -> Result<T, Status> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(T::default()),
        other => other,
    }
}

impl Cri {
    /// Lazily connected clients.
    ///
    /// # Errors
    /// When an endpoint is malformed.
    pub fn new(runtime: &str, image: &str) -> Result<Self, flotilla_client::EndpointError> {
        let runtime = RuntimeServiceClient::new(flotilla_client::channel(runtime)?);
        let image = ImageServiceClient::new(flotilla_client::channel(image)?);
        Ok(Self {
            runtime: runtime
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            image: image.max_decoding_message_size(MAX_MESSAGE),
            name: RwLock::default(),
        })
    }

    /// The runtime's name and version, once [`Cri::version`] succeeded.
    pub fn runtime_name(&self) -> (String, String) {
        self.name.read().clone()
    }

    /// Asks for name and version.
    pub async fn version(&self) -> Result<(), Status> {
        let request =
            within(cri::VersionRequest { version: "v1".to_owned() }, Duration::from_secs(10));
        let answer = self.runtime.clone().version(request).await?.into_inner();
        *self.name.write() = (answer.runtime_name, answer.runtime_version);
        Ok(())
    }

    /// How the runtime names cgroups; `None` when it does not say.
    pub async fn cgroup_driver(&self) -> Option<CgroupDriver> {
        let answer =
            self.runtime.clone().runtime_config(call(cri::RuntimeConfigRequest {})).await.ok()?;
        let driver = answer.into_inner().linux?.cgroup_driver;
        Some(if driver == i32::from(cri::CgroupDriver::Systemd) {
            CgroupDriver::Systemd
        } else {
            CgroupDriver::Cgroupfs
        })
    }

    /// Conditions by type, each true or the reason why not.
    pub async fn conditions(&self) -> Result<HashMap<String, Result<(), String>>, Status> {
        let request = within(cri::StatusRequest { verbose: false }, Duration::from_secs(10));
        let status =
            self.runtime.clone().status(request).await?.into_inner().status.unwrap_or_default();
        let all = status.conditions.into_iter();
        Ok(all
            .map(|c| {
                (
                    c.r#type,
                    if c.status {
                        Ok(())
                    } else {
                        Err(format!("{} message:{}", c.reason, c.message))
                    },
                )
            })
            .collect())
    }

    /// Tells the runtime the node's pod addresses.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), Status> {
        let network_config = Some(cri::NetworkConfig { pod_cidr: cidr.to_owned() });
        let request = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig { network_config }),
        };
        self.runtime.clone().update_runtime_config(call(request)).await.map(drop)
    }

    /// Every pod the runtime knows.
    pub async fn snapshot(&self) -> Result<Snapshot, Status> {
        let sandboxes = self
            .runtime
            .clone()
            .list_pod_sandbox(call(cri::ListPodSandboxRequest::default()))
            .await?
            .into_inner();
        let containers = self
            .runtime
            .clone()
            .list_containers(call(cri::ListContainersRequest::default()))
            .await?
            .into_inner();
        let mut snapshot = Snapshot::new();
        for sandbox in sandboxes.items {
            let Some(entry) = entry(&mut snapshot, &sandbox.labels) else { continue };
            entry.states.push((sandbox.id, sandbox.state));
        }
        for container in containers.containers {
            let Some(entry) = entry(&mut snapshot, &container.labels) else { continue };
            entry.grace = container
                .annotations
                .get(names::GRACE_PERIOD)
                .and_then(|text| text.parse().ok())
                .or(entry.grace);
            entry.states.push((container.id, container.state));
        }
        for pod in snapshot.values_mut() {
            pod.states.sort();
        }
        Ok(snapshot)
    }

    /// Everything the runtime knows about one pod.
    pub async fn observe(&self, uid: &str) -> Result<Observed, Status> {
        let label_selector: HashMap<String, String> =
            [(names::POD_UID.to_owned(), uid.to_owned())].into();
        let filter = cri::PodSandboxFilter {
            label_selector: label_selector.clone(),
            ..cri::PodSandboxFilter::default()
        };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let listed = self.runtime.clone().list_pod_sandbox(call(request)).await?.into_inner().items;
        let mut seen = Observed::default();
        for item in listed {
            let request = cri::PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
            let status = ok_if_missing(
                self.runtime
                    .clone()
                    .pod_sandbox_status(call(request))
                    .await
                    .map(|r| r.into_inner().status),
            )?;
            seen.sandboxes.extend(status.map(sandbox));
        }
        seen.sandboxes
            .sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
        let filter = cri::ContainerFilter { label_selector, ..cri::ContainerFilter::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let listed =
            self.runtime.clone().list_containers(call(request)).await?.into_inner().containers;
        for item in listed {
            let sandbox = item.pod_sandbox_id;
            let request = cri::ContainerStatusRequest { container_id: item.id, verbose: false };
            let status = ok_if_missing(
                self.runtime
                    .clone()
                    .container_status(call(request))
                    .await
                    .map(|r| r.into_inner().status),
            )?;
            seen.runs.extend(status.map(|status| run(status, sandbox)));
        }
        seen.runs.sort_by_key(|run| std::cmp::Reverse((run.created_at, run.attempt)));
        Ok(seen)
    }

    /// Makes a sandbox.
    pub async fn run_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, Status> {
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(self
            .runtime
            .clone()
            .run_pod_sandbox(within(request, 2 * CALL))
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// Ends a sandbox and what runs in it.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        ok_if_missing(self.runtime.clone().stop_pod_sandbox(call(request)).await.map(drop))
    }

    /// Forgets a sandbox and its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        ok_if_missing(self.runtime.clone().remove_pod_sandbox(call(request)).await.map(drop))
    }

    /// Makes a container.
    pub async fn create(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.runtime.clone().create_container(call(request)).await?.into_inner().container_id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), Status> {
        self.runtime
            .clone()
            .start_container(call(cri::StartContainerRequest { container_id: id.to_owned() }))
            .await
            .map(drop)
    }

    /// Ends a container: its stop signal, then SIGKILL after `grace` seconds.
    pub async fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let limit = CALL + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        ok_if_missing(self.runtime.clone().stop_container(within(request, limit)).await.map(drop))
    }

    /// Forgets a container.
    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        ok_if_missing(self.runtime.clone().remove_container(call(request)).await.map(drop))
    }

    /// Runs a command in a container; exit code and output.
    pub async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), Status> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: seconds,
        };
        let limit = timeout + Duration::from_secs(10);
        let answer = self.runtime.clone().exec_sync(within(request, limit)).await?.into_inner();
        let mut output = answer.stdout.to_vec();
        output.extend_from_slice(&answer.stderr);
        Ok((answer.exit_code, output))
    }

    /// URL of a prepared exec session.
    pub async fn exec_url(&self, request: cri::ExecRequest) -> Result<String, Status> {
        Ok(self.runtime.clone().exec(call(request)).await?.into_inner().url)
    }

    /// URL of a prepared attach session.
    pub async fn attach_url(&self, request: cri::AttachRequest) -> Result<String, Status> {
        Ok(self.runtime.clone().attach(call(request)).await?.into_inner().url)
    }

    /// URL of a prepared port-forward session.
    pub async fn port_forward_url(&self, sandbox: &str, ports: Vec<i32>) -> Result<String, Status> {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(self.runtime.clone().port_forward(call(request)).await?.into_inner().url)
    }

    /// Makes the runtime write a container's log to a new file at its path.
    pub async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime.clone().reopen_container_log(call(request)).await.map(drop)
    }

    /// Statistics of all containers.
    pub async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>, Status> {
        let request = within(cri::ListContainerStatsRequest::default(), Duration::from_secs(10));
        Ok(self.runtime.clone().list_container_stats(request).await?.into_inner().stats)
    }

    /// Events as they happen; runtimes without them answer `Unimplemented`.
    pub async fn events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>, Status> {
        Ok(self
            .runtime
            .clone()
            .get_container_events(Request::new(cri::GetEventsRequest {}))
            .await?
            .into_inner())
    }

    /// The image on the node, if it is there.
    pub async fn image(&self, reference: &str) -> Result<Option<LocalImage>, Status> {
        let request =
            cri::ImageStatusRequest { image: Some(image_spec(reference)), verbose: false };
        let answer = self.image.clone().image_status(call(request)).await;
        let image = ok_if_missing(answer.map(|answer| answer.into_inner().image))?;
        Ok(image.map(|image| LocalImage {
            user: match (image.uid, image.username) {
                (Some(uid), _) => ImageUser::Uid(uid.value),
                (None, name) if name.is_empty() => ImageUser::Unset,
                (None, name) => ImageUser::Name(name),
            },
            id: image.id,
        }))
    }

    /// Fetches an image; what containers are created from.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = cri::PullImageRequest {
            image: Some(image_spec(reference)),
            auth,
            sandbox_config: Some(sandbox),
        };
        Ok(self.image.clone().pull_image(within(request, PULL)).await?.into_inner().image_ref)
    }

    /// All images of the node.
    pub async fn images(&self) -> Result<Vec<cri::Image>, Status> {
        Ok(self
            .image
            .clone()
            .list_images(call(cri::ListImagesRequest::default()))
            .await?
            .into_inner()
            .images)
    }

    /// Removes an image.
    pub async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(id)) };
        ok_if_missing(self.image.clone().remove_image(call(request)).await.map(drop))
    }

    /// Where images lie and how much they take.
    pub async fn image_fs(&self) -> Result<Option<cri::FilesystemUsage>, Status> {
        let request = within(cri::ImageFsInfoRequest {}, Duration::from_secs(10));
        Ok(self
            .image
            .clone()
            .image_fs_info(request)
            .await?
            .into_inner()
            .image_filesystems
            .into_iter()
            .next())
    }
}

fn image_spec(reference: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: reference.to_owned(),
        user_specified_image: reference.to_owned(),
        ..cri::ImageSpec::default()
    }
}

fn entry<'a>(
    snapshot: &'a mut Snapshot,
    labels: &HashMap<String, String>,
) -> Option<&'a mut PodSnapshot> {
    let uid = labels.get(names::POD_UID)?;
    let entry = snapshot.entry(uid.clone()).or_default();
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    (entry.namespace, entry.name) = (label(names::POD_NAMESPACE), label(names::POD_NAME));
    Some(entry)
}

fn sandbox(status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let additional = network.additional_ips.into_iter().map(|ip| ip.ip);
    let ips = std::iter::once(network.ip).chain(additional).filter(|ip| !ip.is_empty()).collect();
    Sandbox {
        id: status.id,
        attempt: status.metadata.unwrap_or_default().attempt,
        ready: status.state == i32::from(cri::PodSandboxState::SandboxReady),
        created_at: status.created_at,
        ips,
    }
}

fn run(status: cri::ContainerStatus, sandbox: String) -> Run {
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
    let path = annotation(names::TERMINATION_PATH);
    let words = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => RunState::Created,
        Ok(cri::ContainerState::ContainerRunning) => RunState::Running,
        Ok(cri::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    };
    let spec = status.image.unwrap_or_default();
    Run {
        name: status.labels.get(names::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: annotation(names::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        hash: annotation(names::CONTAINER_HASH),
        last_words: words.map(|mount| mount.host_path.clone()).unwrap_or_default(),
        log_as_last_words: annotation(names::TERMINATION_POLICY) == "FallbackToLogsOnError",
        id: status.id,
        sandbox,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if spec.user_specified_image.is_empty() {
            spec.image
        } else {
            spec.user_specified_image
        },
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        log_path: status.log_path,
    }
}
