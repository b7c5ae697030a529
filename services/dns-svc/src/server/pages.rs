//! The HTTP pages and the gRPC API, by address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use flotilla_config::{ExitError, ListenAddr};
use flotilla_proto::dns::flotilla::dns::v1 as pb;
use flotilla_server::{Grpc, Listener, ServeOptions, Shutdown, serve};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use crate::api::{self, AdminService, Running};
use crate::plan::Plan;

/// Which pages stand at one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    health: bool,
    ready: bool,
    metrics: bool,
    admin: bool,
}

/// The addresses of a plan's pages; the same page in several blocks is one page.
pub fn wanted(plan: &Plan) -> BTreeMap<SocketAddr, Kinds> {
    let mut pages: BTreeMap<SocketAddr, Kinds> = BTreeMap::new();
    for block in &plan.blocks {
        if let Some((address, _)) = block.health {
            pages.entry(address).or_default().health = true;
        }
        if let Some(address) = block.ready {
            pages.entry(address).or_default().ready = true;
        }
        if let Some(address) = block.prometheus {
            pages.entry(address).or_default().metrics = true;
        }
        if let Some(address) = block.admin {
            pages.entry(address).or_default().admin = true;
        }
    }
    pages
}

/// One listener that serves.
#[derive(Debug)]
pub struct Page {
    /// What it shows.
    pub kinds: Kinds,
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Page {
    /// Binds `address` and serves.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn open(
        address: SocketAddr,
        kinds: Kinds,
        registry: &Arc<Registry>,
        running: &Arc<Running>,
    ) -> Result<Self, ExitError> {
        let mut router = Router::new();
        if kinds.health {
            router = router.merge(api::health());
        }
        if kinds.ready {
            let running = running.clone();
            router = router.merge(api::ready(move || running.unready()));
        }
        if kinds.metrics {
            router = router.merge(api::metrics(registry.clone()));
        }
        if kinds.admin {
            let service = AdminService::new(running.clone());
            let grpc = Grpc::new([flotilla_proto::dns::FILE_DESCRIPTOR_SET])
                .add(pb::cache_service_server::CacheServiceServer::new(service.clone()))
                .add(pb::config_service_server::ConfigServiceServer::new(service.clone()))
                .add(pb::resolve_service_server::ResolveServiceServer::new(service));
            let (grpc, health) = grpc.into_router().await;
            health.set_serving(true).await;
            router = router.merge(grpc);
        }
        let listener =
            Listener::bind(&ListenAddr::Tcp(address)).await.map_err(ExitError::unavailable)?;
        let bound = listener.local_addr().map_err(ExitError::unavailable)?;
        tracing::info!(address = %bound, "listening for HTTP");
        let stop = Shutdown::new();
        let task =
            tokio::spawn(serve(listener, router, None, ServeOptions::default(), stop.clone()));
        Ok(Self { kinds, stop, task })
    }

    /// Stops serving; connections are finished first.
    pub async fn close(self) {
        self.stop.trigger();
        // A page that panicked has ended as well.
        let _ = self.task.await;
    }
}
