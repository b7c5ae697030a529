//! runtime-svc: CRI v1 on one unix socket.
//!
//! The daemon never forks. For every sandbox it starts a shim (its own binary, argument `shim`), which makes the
//! pod's namespaces, launches its containers and owns their output; see the crate `rt_shim`. The daemon keeps
//! records of sandboxes and containers, asks the image service for root filesystems, connects pods to a bridge and
//! speaks the protocols:
//!
//! - `api`: CRI RuntimeService, CRI ImageService (handed on to `--image-endpoint`), flotilla.engine.v1, and the
//!   WebSocket streams behind exec, attach and port-forward
//! - `engine`: life cycles, undo, recovery, what a container is launched with
//! - `store`: records, one file each
//! - `host`: shims, files, cgroups, bridge and veth devices, nftables
//! - `remote`: the image service
//!
//! A record is saved before the step it announces. After a crash, half-made objects are taken away and live shims
//! are found again, so containers outlive the daemon.

pub mod api;
pub mod config;
pub mod engine;
pub mod error;
pub mod host;
pub mod metrics;
pub mod remote;
pub mod store;

use std::sync::Arc;

use flotilla_config::{ExitError, ListenAddr};
use flotilla_proto::{cri, engine as engine_proto};
use flotilla_server::{Admin, Grpc, Listener, Readiness, ServeOptions, Shutdown, serve};
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::api::{About, CriRuntime, EngineService, ImageProxy, StreamServer};
use crate::config::{Config, Role};
use crate::engine::{Node, Settings};
use crate::host::bridge::{BridgeConfig, BridgeNetwork};
use crate::host::machine::LocalMachine;
use crate::host::nft::Nft;
use crate::host::own_binary::OwnBinary;
use crate::host::shims::ShimProcesses;
use crate::metrics::{Metrics, Population};
use crate::remote::ImageService;
use crate::store::FileRecords;

/// Longest message a client may send.
const MAX_MESSAGE: usize = 80 << 20;

/// Runs the roles asked for until `shutdown`.
///
/// # Errors
/// When something the process needs is missing or taken; nothing half-made stays.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    let mut agent = config.agent.clone();
    match (config.roles.contains(&Role::Runtime), config.roles.contains(&Role::Agent)) {
        (false, false) => {
            Err(ExitError::usage("--roles names nothing to do: runtime, agent or both"))
        }
        (true, false) => run_runtime(config, shutdown, oneshot::channel().0).await,
        (false, true) => run_agent(agent, shutdown).await,
        (true, true) => {
            agent.container_runtime_endpoint.get_or_insert_with(|| config.address.to_string());
            // Whichever part ends first, by signal or by failure, takes the other along.
            let (serving, runtime_serves) = oneshot::channel();
            let runtime = run_runtime(config, shutdown.clone(), serving);
            let runtime = stopping(runtime, shutdown.clone());
            let agent = async {
                // The node's address may be the bridge's, which the runtime makes first.
                match runtime_serves.await {
                    Ok(()) => stopping(run_agent(agent, shutdown.clone()), shutdown).await,
                    Err(_) => Ok(()),
                }
            };
            let (runtime, agent) = futures::future::join(runtime, agent).await;
            runtime.and(agent)
        }
    }
}

async fn stopping(
    part: impl Future<Output = Result<(), ExitError>>,
    shutdown: Shutdown,
) -> Result<(), ExitError> {
    let result = part.await;
    shutdown.trigger();
    result
}

async fn run_agent(config: node_agent::Config, shutdown: Shutdown) -> Result<(), ExitError> {
    node_agent::run(config, shutdown).await.map_err(ExitError::from)
}

async fn run_runtime(
    config: Config,
    shutdown: Shutdown,
    serving: oneshot::Sender<()>,
) -> Result<(), ExitError> {
    host::preflight::check(&config.root, &config.state)?;
    let config = absolute(config)?;
    let admin_listener = bind(&config.metrics_address).await?;
    let stream_listener = bind(&config.stream_address).await?;
    let Ok(ListenAddr::Tcp(stream_address)) = stream_listener.local_addr() else {
        return Err(ExitError::usage("--stream-address must be a TCP address"));
    };
    let cri_listener = bind(&config.address).await?;
    let (mut registry, readiness) = (Registry::default(), Readiness::new());
    flotilla_telemetry::register_process_metrics(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let channel = flotilla_client::channel(&config.image_endpoint)
        .map_err(|error| ExitError::usage(format!("--image-endpoint: {error}")))?;
    let node = make_node(
        &config,
        ImageService::new(channel.clone(), &config.image_endpoint, &config.snapshotter),
    )
    .await?;
    node.recover().await.map_err(ExitError::unavailable)?;
    registry.register_collector(Box::new(Population(node.clone())));

    let streams = StreamServer::new(stream_address, config.stream_idle_timeout);
    let about = About {
        pod_cidr: config.pod_cidr.to_string(),
        bridge: config.bridge_name.clone(),
        image_endpoint: config.image_endpoint.clone(),
        snapshotter: config.snapshotter.clone(),
    };
    let runtime = CriRuntime::new(node.clone(), metrics, streams.clone(), about);
    let engine = EngineService::new(node.clone(), config.root.join("logs"));
    let (router, health) = Grpc::new([cri::FILE_DESCRIPTOR_SET, engine_proto::FILE_DESCRIPTOR_SET])
        .add(
            cri::runtime::v1::runtime_service_server::RuntimeServiceServer::new(runtime)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add(
            cri::runtime::v1::image_service_server::ImageServiceServer::new(ImageProxy::new(
                channel,
            ))
            .max_encoding_message_size(MAX_MESSAGE),
        )
        .add(engine_proto::flotilla::engine::v1::engine_server::EngineServer::new(engine))
        .into_router()
        .await;
    let admin = Admin {
        registry: Arc::new(registry),
        readiness: readiness.clone(),
        service: "runtime-svc",
    };
    health.set_serving(true).await;
    readiness.set(true);
    tracing::info!("serving");
    // Nobody waits when the agent runs elsewhere.
    let _ = serving.send(());
    let options = ServeOptions::default;
    let servers = [
        serve(cri_listener, router, None, options(), shutdown.clone()),
        serve(admin_listener, admin.router(), None, options(), shutdown.clone()),
    ];
    let streaming = serve(stream_listener, streams.router(node), None, options(), shutdown.clone());
    futures::future::join(futures::future::join_all(servers), streaming).await;
    Ok(())
}

/// Folders as absolute paths: shims work from another folder.
fn absolute(mut config: Config) -> Result<Config, ExitError> {
    for (flag, dir) in [("--root", &mut config.root), ("--state", &mut config.state)] {
        let full = dir.canonicalize();
        *dir = full.map_err(|error| {
            ExitError::unavailable(format!("{flag} {}: {error}", dir.display()))
        })?;
    }
    Ok(config)
}

async fn bind(address: &ListenAddr) -> Result<Listener, ExitError> {
    let listener = Listener::bind(address).await.map_err(ExitError::unavailable)?;
    let bound = listener.local_addr().map_err(ExitError::unavailable)?;
    tracing::info!(address = %bound, "listening");
    Ok(listener)
}

async fn make_node(config: &Config, images: ImageService) -> Result<Arc<Node>, ExitError> {
    let settings =
        Settings { pod_cidr: config.pod_cidr, cgroup_parent: config.cgroup_parent.clone() };
    let machine = LocalMachine::open(&config.root, &config.state)
        .map_err(|error| ExitError::unavailable(format!("--root or --state: {error}")))?;
    let records = FileRecords::open(&config.root.join("records"))
        .map_err(|error| ExitError::unavailable(format!("--root: {error}")))?;
    let binary = OwnBinary::open().map_err(|error| {
        ExitError::unavailable(format!("cannot mount the program's own file read-only: {error}; Linux 5.12 and CAP_SYS_ADMIN are needed"))
    })?;
    let bridge = BridgeConfig { name: config.bridge_name.clone(), range: config.pod_cidr };
    let network = BridgeNetwork::open(bridge, Nft::new(&config.nft_table))
        .await
        .map_err(ExitError::unavailable)?;
    Ok(Node::new(
        settings,
        Arc::new(images),
        Arc::new(network),
        Arc::new(ShimProcesses::new(binary)),
        Arc::new(records),
        Arc::new(machine),
    ))
}
