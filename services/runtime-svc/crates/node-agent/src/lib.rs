//! The node agent: what kubelet and kube-proxy do on a node.
//!
//! It reads the pods bound to its node from the API server (and from manifests), runs them through any CRI
//! socket, reports their status and serves the kubelet API. It knows no runtime but CRI, so containerd can stand
//! where runtime-svc does, and kube-apiserver where scheduler-svc does.
//!
//! - `engine` decides and is pure: plans, configurations, statuses, probe verdicts.
//! - `sync` acts: the dispatcher gives every pod a worker; a worker looks at the runtime, makes one step towards
//!   the pod's spec and reports. All state that matters is the runtime's and the API server's, so an agent that
//!   restarts adopts what runs.
//! - `remote` speaks CRI, the Kubernetes API and probes; `host` touches files, mounts and cgroups.
//! - `api` is the kubelet HTTPS API.
//!
//! An agent that ends leaves the pods running.

mod api;
mod config;
mod engine;
mod error;
mod host;
mod metrics;
mod remote;
mod sync;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use flotilla_config::ListenAddr;
use flotilla_kube_client::{Client, KubeConfig};
use flotilla_server::{Listener, ServeOptions, Shutdown, TlsFiles, TlsServer, serve};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub use config::{Config, DEFAULT_RUNTIME_ENDPOINT};
pub use error::AgentError;

use crate::host::cgroups::Cgroups;
use crate::host::paths::Paths;
use crate::host::{certificates, machine};
use crate::metrics::Metrics;
use crate::remote::api_server::ApiServer;
use crate::remote::cri::Cri;
use crate::remote::events::Recorder;
use crate::sync::agent::{Agent, PARALLEL_PULLS, Settings};
use crate::sync::dispatcher::{self, Dispatcher};
use crate::sync::node::NodeFlags;

const INPUTS: usize = 64;

/// Runs the agent until `shutdown` fires. Pods keep running.
///
/// # Errors
/// When a flag, file, address or folder cannot be used, or a part of the agent fails for good.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), AgentError> {
    let client = match &config.kubeconfig {
        Some(path) => Some(Client::new(KubeConfig::from_file(path)?, "flotilla-agent")?),
        None => None,
    };
    let labels = config.labels()?;
    let taints = config.taints()?;
    let settings = settings(&config)?;
    folders(&config)?;
    let node = config.hostname_override.clone().unwrap_or_else(machine::host_name);
    let ip = config.node_ip.unwrap_or_else(machine::node_ip);
    let tls = tls(&config, &node, ip)?;
    let listener = Listener::bind(&ListenAddr::Tcp(SocketAddr::new(
        config.kubelet_address,
        config.kubelet_port,
    )))
    .await?;
    let port = match listener.local_addr() {
        Ok(ListenAddr::Tcp(address)) => {
            tracing::info!(%address, "kubelet API listens");
            address.port()
        }
        _ => config.kubelet_port,
    };
    let api = ApiServer::new(client.clone());
    let (recorder, events) = Recorder::new(api.clone(), node.clone());
    let agent = Arc::new(Agent {
        node_ip: ip.to_string(),
        cri: Cri::new(config.runtime_endpoint(), config.image_endpoint())?,
        api,
        recorder,
        paths: Paths::new(&config.agent_root_dir, &config.pod_logs_dir),
        cgroups: Cgroups::detect(),
        machine: machine::machine(&config.agent_root_dir),
        metrics: Metrics::new(),
        pulls: Semaphore::new(PARALLEL_PULLS),
        services: watch::channel(None).0,
        pods: parking_lot::RwLock::default(),
        runtime_up: watch::channel(false).0,
        cgroup_driver: parking_lot::RwLock::new(match config.cgroup_driver.as_str() {
            "systemd" => engine::resources::CgroupDriver::Systemd,
            _ => engine::resources::CgroupDriver::Cgroupfs,
        }),
        settings,
        node,
    });
    tracing::info!(
        node = agent.node,
        ip = agent.node_ip,
        runtime = config.runtime_endpoint(),
        "node agent starts"
    );
    let mut tasks: JoinSet<Result<(), AgentError>> = JoinSet::new();
    let mut finishing = 1;
    let access = api::Access {
        token_file: config.kubelet_token_file.clone(),
        anonymous: config.anonymous_auth,
    };
    let router = api::router(agent.clone(), access);
    let serving = shutdown.clone();
    tasks.spawn(async move {
        serve(listener, router, Some(Arc::new(tls)), ServeOptions::default(), serving).await;
        Ok(())
    });
    let flags = NodeFlags { labels, taints, port, frequency: config.node_status_update_frequency };
    spawn_parts(&mut tasks, &agent, events, flags, config.pod_manifest_path.clone());
    if let (true, Some(client)) = (config.service_proxy, client) {
        let proxy = svcproxy::Config { node_name: agent.node.clone(), ..config.proxy.clone() };
        let ending = shutdown.clone();
        finishing += 1;
        tasks.spawn(
            async move { svcproxy::run(client, proxy, ending).await.map_err(AgentError::from) },
        );
    }
    supervise(tasks, finishing, &shutdown).await
}

fn spawn_parts(
    tasks: &mut JoinSet<Result<(), AgentError>>,
    agent: &Arc<Agent>,
    events: impl Future<Output = ()> + Send + 'static,
    flags: NodeFlags,
    manifests: Option<PathBuf>,
) {
    let (inputs, received) = mpsc::channel(INPUTS);
    let mut part = |future: futures::future::BoxFuture<'static, ()>| {
        tasks.spawn(async move {
            future.await;
            Ok(())
        });
    };
    part(Box::pin(events));
    part(Box::pin(sync::node::follow(agent.clone(), flags)));
    part(Box::pin(sync::services::follow(agent.clone())));
    part(Box::pin(sync::housekeeping::follow(agent.clone())));
    part(Box::pin(sync::pleg::follow(agent.clone(), inputs.clone())));
    part(Box::pin(dispatcher::follow_api(agent.clone(), inputs.clone())));
    part(Box::pin(Dispatcher::new(agent.clone(), manifests.is_some()).run(received)));
    if let Some(folder) = manifests {
        part(Box::pin(sync::static_pods::follow(folder, agent.node.clone(), inputs)));
    }
}

/// Waits for the end. A part that ends before it was asked to takes the agent down with it: half an agent is
/// worse than none, because nothing restarts it.
/// The `finishing` parts that end by themselves are waited for.
async fn supervise(
    mut tasks: JoinSet<Result<(), AgentError>>,
    finishing: usize,
    shutdown: &Shutdown,
) -> Result<(), AgentError> {
    let early = tokio::select! {
        () = shutdown.triggered() => None,
        ended = tasks.join_next() => ended,
    };
    if let Some(ended) = early.filter(|_| !shutdown.is_triggered()) {
        return match ended {
            Ok(Ok(())) => Err(AgentError::Task("it ended without a reason".to_owned())),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(AgentError::Task(error.to_string())),
        };
    }
    let drain = async {
        for _ in 0..finishing {
            tasks.join_next().await;
        }
    };
    // Long sessions are cut: the rest of the process is ending too.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), drain).await;
    tasks.shutdown().await;
    Ok(())
}

fn settings(config: &Config) -> Result<Settings, AgentError> {
    let size = engine::quantity::value(&config.container_log_max_size)
        .and_then(|size| u64::try_from(size).ok());
    let size = size.filter(|size| *size > 0);
    let size = size.ok_or_else(|| {
        AgentError::Flag(format!(
            "--container-log-max-size: {:?} is no size",
            config.container_log_max_size
        ))
    })?;
    if config.container_log_max_files < 2 {
        return Err(AgentError::Flag(
            "--container-log-max-files: at least 2 are needed".to_owned(),
        ));
    }
    if config.image_gc_low_threshold > config.image_gc_high_threshold {
        return Err(AgentError::Flag(
            "--image-gc-low-threshold: it exceeds --image-gc-high-threshold".to_owned(),
        ));
    }
    Ok(Settings {
        cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        cgroup_root: config.cgroup_root.clone(),
        sync_frequency: config.sync_frequency,
        max_pods: config.max_pods,
        eviction_hard: config.eviction_hard,
        log_max_size: size,
        log_max_files: config.container_log_max_files,
        image_gc: (config.image_gc_high_threshold, config.image_gc_low_threshold),
    })
}

fn folders(config: &Config) -> Result<(), AgentError> {
    for (flag, path) in
        [("--agent-root-dir", &config.agent_root_dir), ("--pod-logs-dir", &config.pod_logs_dir)]
    {
        std::fs::create_dir_all(path).map_err(|source| AgentError::Folder {
            flag,
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn tls(config: &Config, node: &str, ip: IpAddr) -> Result<TlsServer, AgentError> {
    let (cert, key) = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ => {
            let dir = config.cert_dir.clone().unwrap_or_else(|| config.agent_root_dir.join("pki"));
            certificates::ensure(&dir, node, ip).map_err(AgentError::Certificate)?
        }
    };
    Ok(TlsServer::load(TlsFiles {
        cert,
        key,
        client_ca: config.client_ca_file.clone(),
        require_client_cert: false,
    })?)
}
