//! CRI v1 RuntimeService.
//!
//! A call that changes something runs in a task of its own: a client that gives up must not leave the work half
//! done.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::cri::runtime::v1 as cri;
use futures::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::stats::Sampler;
use super::status::About;
use super::streamed::{Chunks, chunks, container_event};
use super::streams::StreamServer;
use super::{convert, exec_sync, stats, status};
use crate::engine::error::{Error, Result as EngineResult};
use crate::engine::node::Node;
use crate::metrics::Metrics;

/// The service. Clones share everything.
#[derive(Clone)]
pub struct CriRuntime {
    node: Arc<Node>,
    metrics: Metrics,
    streams: StreamServer,
    about: Arc<About>,
    sampler: Sampler,
}

type Answer<T> = Result<Response<T>, Status>;
impl CriRuntime {
    /// Serves `node`.
    pub fn new(node: Arc<Node>, metrics: Metrics, streams: StreamServer, about: About) -> Self {
        Self { node, metrics, streams, about: Arc::new(about), sampler: Sampler::default() }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = EngineResult<T>>,
    ) -> Answer<T> {
        let began = Instant::now();
        let done = work.await;
        self.metrics.observe(operation, began.elapsed(), done.is_err());
        if let Err(error) = &done {
            tracing::debug!(operation, %error, "operation failed");
        }
        done.map(Response::new).map_err(Status::from)
    }

    /// As `timed`, in a task that a client cannot cancel.
    async fn detached<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = EngineResult<T>> + Send + 'static,
    ) -> Answer<T> {
        let task = tokio::spawn(work);
        let joined = async {
            task.await.unwrap_or_else(|error| Err(Error::failed("internal error", error)))
        };
        self.timed(operation, joined).await
    }
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

fn unsupported<T>(name: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("not supported yet: {name}")))
}

#[tonic::async_trait]
impl cri::runtime_service_server::RuntimeService for CriRuntime {
    type StreamPodSandboxesStream = Chunks<cri::StreamPodSandboxesResponse>;
    type StreamContainersStream = Chunks<cri::StreamContainersResponse>;
    type StreamContainerStatsStream = Chunks<cri::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Chunks<cri::StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Chunks<cri::ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Chunks<cri::StreamPodSandboxMetricsResponse>;

    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "flotilla".to_owned(),
            runtime_version: flotilla_telemetry::VERSION.to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let (node, request) = (self.node.clone(), request.into_inner());
        let config = request.config.ok_or_else(|| missing("config"))?;
        self.detached("run_podsandbox", async move {
            let pod_sandbox_id = node.run_sandbox(config, &request.runtime_handler, false).await?;
            Ok(cri::RunPodSandboxResponse { pod_sandbox_id })
        })
        .await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let (node, id) = (self.node.clone(), request.into_inner().pod_sandbox_id);
        self.detached("stop_podsandbox", async move {
            node.stop_sandbox(&id).await.map(|()| cri::StopPodSandboxResponse {})
        })
        .await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let (node, id) = (self.node.clone(), request.into_inner().pod_sandbox_id);
        self.detached("remove_podsandbox", async move {
            node.remove_sandbox(&id).await.map(|()| cri::RemovePodSandboxResponse {})
        })
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        self.timed("podsandbox_status", async {
            let sandbox = self.node.sandbox(&request.pod_sandbox_id)?;
            Ok(cri::PodSandboxStatusResponse {
                status: Some(convert::sandbox_status(&sandbox.record())),
                info: if request.verbose {
                    convert::sandbox_info(&sandbox)
                } else {
                    Default::default()
                },
                containers_statuses: convert::statuses_of(&self.node, &sandbox.id),
                timestamp: self.node.machine().now(),
            })
        })
        .await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = request.into_inner().filter;
        self.timed("list_podsandbox", async {
            Ok(cri::ListPodSandboxResponse { items: convert::list_sandboxes(&self.node, filter) })
        })
        .await
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = convert::list_sandboxes(&self.node, request.into_inner().filter);
        Ok(Response::new(chunks(items, |pod_sandboxes| cri::StreamPodSandboxesResponse {
            pod_sandboxes,
        })))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let (node, request) = (self.node.clone(), request.into_inner());
        let config = request.config.ok_or_else(|| missing("config"))?;
        self.detached("create_container", async move {
            let container_id = node.create_container(&request.pod_sandbox_id, config).await?;
            Ok(cri::CreateContainerResponse { container_id })
        })
        .await
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let (node, id) = (self.node.clone(), request.into_inner().container_id);
        self.detached("start_container", async move {
            node.start_container(&id).await.map(|()| cri::StartContainerResponse {})
        })
        .await
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let (node, request) = (self.node.clone(), request.into_inner());
        // A negative time-out asks for what zero asks for.
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.detached("stop_container", async move {
            node.stop_container(&request.container_id, timeout)
                .await
                .map(|()| cri::StopContainerResponse {})
        })
        .await
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let (node, id) = (self.node.clone(), request.into_inner().container_id);
        self.detached("remove_container", async move {
            node.remove_container(&id).await.map(|()| cri::RemoveContainerResponse {})
        })
        .await
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = request.into_inner().filter;
        self.timed("list_containers", async {
            Ok(cri::ListContainersResponse {
                containers: convert::list_containers(&self.node, filter),
            })
        })
        .await
    }

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let items = convert::list_containers(&self.node, request.into_inner().filter);
        Ok(Response::new(chunks(items, |containers| cri::StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        self.timed("container_status", async {
            let container = self.node.container(&request.container_id)?;
            Ok(cri::ContainerStatusResponse {
                status: Some(convert::container_status(&container.record())),
                info: if request.verbose {
                    convert::container_info(&container)
                } else {
                    Default::default()
                },
            })
        })
        .await
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let limits = request.linux.ok_or_else(|| missing("linux"))?;
        self.timed("update_container", async {
            self.node.update_resources(&request.container_id, &limits)?;
            Ok(cri::UpdateContainerResourcesResponse {})
        })
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        self.timed("reopen_container_log", async {
            self.node.reopen_log(&id).await.map(|()| cri::ReopenContainerLogResponse {})
        })
        .await
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        self.timed("exec_sync", exec_sync::run(&self.node, &request)).await
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let request = request.into_inner();
        self.timed("exec", async {
            self.streams.exec(&self.node, request).map(|url| cri::ExecResponse { url })
        })
        .await
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let request = request.into_inner();
        self.timed("attach", async {
            self.streams.attach(&self.node, request).map(|url| cri::AttachResponse { url })
        })
        .await
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        let request = request.into_inner();
        self.timed("port_forward", async {
            self.streams
                .port_forward(&self.node, request)
                .map(|url| cri::PortForwardResponse { url })
        })
        .await
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        self.timed("container_stats", async {
            let record = self.node.container(&id)?.record();
            let stats = stats::container(&self.node, &self.sampler, &record).await;
            Ok(cri::ContainerStatsResponse { stats: Some(stats) })
        })
        .await
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = request.into_inner().filter;
        self.timed("list_container_stats", async {
            Ok(cri::ListContainerStatsResponse {
                stats: stats::containers(&self.node, &self.sampler, filter).await,
            })
        })
        .await
    }

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let items = stats::containers(&self.node, &self.sampler, request.into_inner().filter).await;
        Ok(Response::new(chunks(items, |container_stats| cri::StreamContainerStatsResponse {
            container_stats,
        })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.timed("podsandbox_stats", async {
            let record = self.node.sandbox(&id)?.record();
            let stats = stats::sandbox(&self.node, &self.sampler, &record).await;
            Ok(cri::PodSandboxStatsResponse { stats: Some(stats) })
        })
        .await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter;
        self.timed("list_podsandbox_stats", async {
            Ok(cri::ListPodSandboxStatsResponse {
                stats: stats::sandboxes(&self.node, &self.sampler, filter).await,
            })
        })
        .await
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let items = stats::sandboxes(&self.node, &self.sampler, request.into_inner().filter).await;
        Ok(Response::new(chunks(items, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse {
            pod_sandbox_stats,
        })))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let config = request.into_inner().runtime_config.and_then(|config| config.network_config);
        let wanted = config.map(|network| network.pod_cidr).unwrap_or_default();
        if !wanted.is_empty() && wanted != self.about.pod_cidr {
            // The range is fixed while the bridge is up; the embedded network needs no template from outside.
            tracing::info!(
                wanted,
                used = self.about.pod_cidr,
                "pod range is set by --pod-cidr; the update is not applied"
            );
        }
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        Ok(Response::new(status::status(&self.about, request.into_inner().verbose)))
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        unsupported("CheckpointContainer")
    }

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let node = self.node.clone();
        let events =
            BroadcastStream::new(self.node.events.follow()).map(move |event| match event {
                Ok(event) => Ok(container_event(&node, &event)),
                Err(_lagged) => Err(Status::data_loss("events were lost; list anew")),
            });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        unsupported("ListMetricDescriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        unsupported("ListPodSandboxMetrics")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unsupported("StreamPodSandboxMetrics")
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let linux =
            cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        unsupported("UpdatePodSandboxResources")
    }
}
