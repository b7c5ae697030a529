//! The control plane of the gateway: Services, EndpointSlices and Ingresses in, Envoy configuration out.
//!
//! `remote/` follows the Kubernetes API and writes the status of Ingresses; `engine/` turns what is known into a
//! [`engine::snapshot::Snapshot`], without any I/O; `api/` serves snapshots to any Envoy over ADS, state of the world
//! and delta. Nothing is served before everything was listed once: a restart never takes routes away from a proxy.

pub mod api;
pub mod config;
pub mod engine;
mod remote;

use std::sync::Arc;

pub use config::Config;
use flotilla_kube_client::Client;
use flotilla_server::{BindError, Grpc, Listener, ServeOptions, Shutdown, serve};
use thiserror::Error;
use tokio::sync::watch;

/// Why the server ended early.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let listener = Listener::bind(&config.xds_address).await?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(service = "xds", %address, "listening");
    }
    let (publish, snapshots) = watch::channel(None);
    let follow =
        tokio::spawn(remote::follow(client, config.clone(), Arc::new(publish), shutdown.clone()));
    let (router, health) = Grpc::new([flotilla_proto::envoy::FILE_DESCRIPTOR_SET])
        .add(api::service(snapshots, shutdown.clone()))
        .into_router()
        .await;
    health.set_serving(true).await;
    // Streams end with the shutdown, so there is little to wait for.
    let options =
        ServeOptions { drain: std::time::Duration::from_secs(1), ..ServeOptions::default() };
    serve(listener, router, None, options, shutdown).await;
    follow.abort();
    Ok(())
}
