//! ADS: snapshots to proxies.

mod ads;
mod delta;
mod sotw;

use std::sync::Arc;

use flotilla_proto::envoy::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer as Server;
use flotilla_server::Shutdown;
use tokio::sync::watch;

use crate::engine::snapshot::Snapshot;

/// The latest snapshot; `None` until everything was listed.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// The service.
pub fn service(snapshots: Snapshots, shutdown: Shutdown) -> Server<ads::Ads> {
    Server::new(ads::Ads::new(snapshots, shutdown))
}
