//! OCI registry, image store of a node, and image builder, over one content store.
//!
//! Rooms: [`registry`] speaks the distribution protocol over HTTP; [`api`] speaks gRPC (CRI image service,
//! containerd's content and snapshots services, the own image API); [`engine`] knows what images are; [`store`]
//! keeps blobs, names and snapshots. [`run`] wires them and is the only place that does.

mod api;
mod build;
pub mod config;
mod content;
pub mod engine;
mod error;
mod metrics;
mod node;
mod registry;
mod remote;
mod snapshot;
mod store;
pub mod unpack;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use flotilla_config::ListenAddr;
use flotilla_proto::containerd::containerd::services::content::v1::content_server::ContentServer;
use flotilla_proto::containerd::containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use flotilla_proto::cri::runtime::v1::image_service_server::ImageServiceServer;
use flotilla_proto::image::flotilla::image::v1::build_server::BuildServer;
use flotilla_proto::image::flotilla::image::v1::image_ops_server::ImageOpsServer;
use flotilla_server::{Admin, Grpc, Listener, Readiness, ServeOptions, Shutdown, TlsServer, serve};

pub use config::{Args, Command, Config};
pub use error::StartError;
pub use store::Store;

use api::{BuildApi, ContentApi, CriImages, ImageOpsApi, SnapshotsApi};
use build::Builder;
use content::Content;
use metrics::Metrics;
use node::Node;
use registry::Registry;
use remote::{Client, Hosts};
use snapshot::Snapshotter;

/// Largest gRPC message taken; content comes in smaller pieces.
const MAX_MESSAGE: usize = 16 << 20;
/// How often due content is looked at for removal: twice within the delay, within these bounds.
const GC_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Serves until `shutdown` fires and connections have drained.
///
/// # Errors
/// When an address cannot be bound, TLS files do not load or the store does not open.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), StartError> {
    let http = Listener::bind(&config.http).await?;
    let debug_listener = match &config.debug {
        Some(address) => Some(Listener::bind(address).await?),
        None => None,
    };
    let cri = match &config.cri {
        Some(address) => Some(Listener::bind(address).await?),
        None => None,
    };
    let tls = config.tls.clone().map(TlsServer::load).transpose()?.map(Arc::new);
    let store = Store::open(&config.root)?;
    store.set_gc_delay(config.gc_delay);

    let mut metric_registry = prometheus_client::registry::Registry::default();
    flotilla_telemetry::register_process_metrics(&mut metric_registry);
    let metrics = Metrics::new(&mut metric_registry);
    let readiness = Readiness::new();
    let admin = Admin {
        registry: Arc::new(metric_registry),
        readiness: readiness.clone(),
        service: "image-svc",
    };

    let registry =
        Arc::new(Registry::new(store.clone(), config.registry.clone(), metrics.clone())?);
    let hosts = Hosts { dir: config.hosts_dir.clone(), insecure: config.insecure.clone() };
    // With passwords the node asks its own registry as everybody does, and only the socket serves the image API.
    let open_to_all = config.registry.htpasswd.is_none();
    let own = if open_to_all { own_names(&http.local_addr()?) } else { Vec::new() };
    let node = Node::new(store.clone(), Client::new(hosts), own, metrics.clone());
    node.recover().await?;
    let api = if open_to_all { image_api(&node) } else { Grpc::new([]) };
    let (grpc, health) = api.into_router().await;
    let router = grpc.merge(admin.clone().router()).merge(registry_routes(registry));
    let (cri_router, cri_health) = node_api(&node).into_router().await;

    tokio::spawn(collect_garbage(store.clone(), config.gc_delay, metrics, shutdown.clone()));
    if let Some((age, interval)) = config.purge {
        tokio::spawn(purge_uploads(store.clone(), age, interval, shutdown.clone()));
    }
    tracing::info!(address = %http.local_addr()?, "registry listening");
    if let Some(listener) = &debug_listener {
        tracing::info!(address = %listener.local_addr()?, "debug listening");
    }
    if let Some(listener) = &cri {
        tracing::info!(address = %listener.local_addr()?, "image service listening");
    }
    readiness.set(true);
    health.set_serving(true).await;
    cri_health.set_serving(true).await;
    let options = ServeOptions { drain: config.drain, ..ServeOptions::default() };
    let serve_debug = async {
        if let Some(listener) = debug_listener {
            serve(listener, admin.router(), None, options.clone(), shutdown.clone()).await;
        }
    };
    let serve_cri = async {
        if let Some(listener) = cri {
            serve(listener, cri_router, None, options.clone(), shutdown.clone()).await;
        }
    };
    tokio::join!(
        serve(http, router, tls, options.clone(), shutdown.clone()),
        serve_cri,
        serve_debug
    );
    Ok(())
}

/// The own API, on the registry's port.
fn image_api(node: &Node) -> Grpc {
    Grpc::new([flotilla_proto::image::FILE_DESCRIPTOR_SET])
        .add(
            ImageOpsServer::new(ImageOpsApi::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add(
            BuildServer::new(BuildApi::new(Builder::new(node.clone())))
                .max_decoding_message_size(MAX_MESSAGE),
        )
}

/// What a container runtime needs, on the socket.
fn node_api(node: &Node) -> Grpc {
    let snapshotter = Snapshotter::new(node.store().clone());
    let content = ContentApi::new(Content::new(node.store().clone()));
    Grpc::new([
        flotilla_proto::cri::FILE_DESCRIPTOR_SET,
        flotilla_proto::containerd::FILE_DESCRIPTOR_SET,
        flotilla_proto::image::FILE_DESCRIPTOR_SET,
    ])
    .add(ImageServiceServer::new(CriImages::new(node.clone())))
    .add(SnapshotsServer::new(SnapshotsApi::new(snapshotter)))
    .add(ContentServer::new(content).max_decoding_message_size(MAX_MESSAGE))
    .add(ImageOpsServer::new(ImageOpsApi::new(node.clone())).max_decoding_message_size(MAX_MESSAGE))
    .add(
        BuildServer::new(BuildApi::new(Builder::new(node.clone())))
            .max_decoding_message_size(MAX_MESSAGE),
    )
}

/// Registry hosts that mean this process.
fn own_names(address: &ListenAddr) -> Vec<String> {
    let ListenAddr::Tcp(address) = address else { return Vec::new() };
    let port = address.port();
    let mut names = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        names.extend([
            format!("127.0.0.1:{port}"),
            format!("localhost:{port}"),
            format!("[::1]:{port}"),
        ]);
    }
    names
}

fn registry_routes(registry: Arc<Registry>) -> Router {
    let pages = axum::routing::any(answer);
    Router::new()
        .route("/v2", pages.clone())
        .route("/v2/", pages.clone())
        .route("/v2/{*path}", pages)
        .with_state(registry)
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    registry.handle(request).await
}

/// Seconds an image layer without an image is kept.
const LAYER_AGE: i64 = 60;

async fn collect_garbage(store: Store, delay: Duration, metrics: Arc<Metrics>, shutdown: Shutdown) {
    let interval = (delay / 2).clamp(GC_INTERVAL.0, GC_INTERVAL.1);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(interval) => {}
        }
        // Layers whose image went while a container still used them.
        match store.sweep_image_layers(node::NAMESPACE, store::now() - LAYER_AGE).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed image layers"),
            Err(error) => tracing::error!(%error, "image layers cannot be removed"),
        }
        match store.collect_garbage().await {
            Ok(report) if report.examined > 0 => {
                metrics.collected(report.removed, report.bytes);
                tracing::info!(
                    examined = report.examined,
                    removed = report.removed,
                    bytes = report.bytes,
                    "collected garbage"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "garbage collection failed"),
        }
    }
}

async fn purge_uploads(store: Store, age: Duration, interval: Duration, shutdown: Shutdown) {
    loop {
        let before = store::now() - age.as_secs().cast_signed();
        match store.purge_uploads(before).await {
            Ok(0) => {}
            Ok(purged) => tracing::info!(purged, "dropped old uploads"),
            Err(error) => tracing::error!(%error, "old uploads cannot be dropped"),
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}
