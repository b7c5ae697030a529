//! Connecting to the control plane, again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flotilla_proto::envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client;
use flotilla_server::Shutdown;
use rand::Rng;
use thiserror::Error;
use tonic::transport::Channel;

use super::apply::Applier;
use super::{delta, sotw};
use crate::bootstrap::pb;
use crate::manager::Manager;

/// Biggest message of the control plane.
const MAX_MESSAGE: usize = 256 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long start-up waits for the control plane before the process counts as ready.
const INITIAL_FETCH: Duration = Duration::from_secs(15);

/// Where the control plane is and how to talk to it.
#[derive(Debug, Clone)]
pub struct AdsConfig {
    /// `http://HOST:PORT` or `unix:///path`.
    pub endpoint: String,
    /// Delta rather than state of the world.
    pub delta: bool,
    /// Who asks.
    pub node: pb::core::Node,
    /// Clusters and listeners are wanted.
    pub clusters: bool,
    /// Listeners are wanted.
    pub listeners: bool,
}

/// Why a session ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The connection or the call failed.
    #[error("{0}")]
    Rpc(#[from] tonic::Status),
    /// The control plane ended the stream.
    #[error("the control plane closed the stream")]
    Closed,
}

/// What sessions need.
pub(super) struct Context {
    pub(super) config: AdsConfig,
    pub(super) applier: Applier,
}

/// Follows the control plane until `shutdown`.
///
/// # Errors
/// When the endpoint is no endpoint.
pub async fn run(
    config: AdsConfig,
    manager: Arc<Manager>,
    shutdown: Shutdown,
) -> Result<(), flotilla_client::EndpointError> {
    flotilla_client::channel(&config.endpoint)?;
    tokio::spawn(initialize(config.listeners, manager.clone()));
    let context = Context { config, applier: Applier { manager: manager.clone() } };
    let mut pause = FIRST_PAUSE;
    // Versions survive a reconnect, so that an unchanged world is not sent again.
    let mut memory = delta::Memory::default();
    loop {
        // A new connection each time: the old one may lead to an instance that only ends streams.
        let client = Client::new(flotilla_client::channel(&context.config.endpoint)?)
            .max_decoding_message_size(MAX_MESSAGE);
        let session = session(&context, client, &mut memory);
        let (ended, got_any) = tokio::select! {
            ended = session => ended,
            () = shutdown.triggered() => return Ok(()),
        };
        manager.state.stats.control_plane.connected_state.set(0);
        if got_any {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(endpoint = context.config.endpoint, error = %ended, "lost the control plane; serving what is known");
        let jittered = pause.mul_f64(0.5 + rand::rng().random::<f64>() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = shutdown.triggered() => return Ok(()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn session(
    context: &Context,
    client: Client<Channel>,
    memory: &mut delta::Memory,
) -> (SessionError, bool) {
    let mut got_any = false;
    let result = if context.config.delta {
        delta::session(context, client, memory, &mut got_any).await
    } else {
        sotw::session(context, client, &mut got_any).await
    };
    (result.err().unwrap_or(SessionError::Closed), got_any)
}

/// The process is ready when the first listeners came and nothing warms, or after the time for that.
async fn initialize(listeners: bool, manager: Arc<Manager>) {
    let arrived = async {
        loop {
            let stats = &manager.state.stats;
            let came =
                !listeners || stats.lds.update_success.get() + stats.lds.update_rejected.get() > 0;
            if came
                && !manager.clusters.is_warming()
                && stats.listener_manager.total_listeners_warming.get() == 0
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Late is as good as never here: what is there is served either way.
    let _ = tokio::time::timeout(INITIAL_FETCH, arrived).await;
    manager.state.initialized.store(true, Ordering::Release);
}

impl Context {
    /// The names to subscribe to for a named type.
    pub(super) async fn names(&self, kind: super::apply::Kind) -> Vec<String> {
        match kind {
            super::apply::Kind::Endpoint => self.applier.manager.clusters.services(),
            super::apply::Kind::Route => self.applier.manager.listeners.route_names().await,
            _ => Vec::new(),
        }
    }

    /// Whether the type is wanted at all.
    pub(super) fn wants(&self, kind: super::apply::Kind) -> bool {
        match kind {
            super::apply::Kind::Cluster => self.config.clusters,
            super::apply::Kind::Listener => self.config.listeners,
            _ => true,
        }
    }
}

/// `google.rpc.Status` of a NACK.
pub(super) fn nack(message: String) -> pb::rpc::Status {
    const INVALID_ARGUMENT: i32 = 3;
    pb::rpc::Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}
