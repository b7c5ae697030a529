//! State of the world: every response of a wildcard type holds everything.

use std::collections::BTreeMap;

use flotilla_proto::envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::apply::{Kind, Update};
use super::session::{Context, SessionError, nack};
use crate::bootstrap::pb::discovery::DiscoveryRequest;

/// What was last said about a type.
#[derive(Debug, Default)]
struct Subscription {
    names: Vec<String>,
    version: String,
    nonce: String,
    asked: bool,
}

/// One stream, until it breaks.
pub(super) async fn session(
    context: &Context,
    mut client: Client<Channel>,
    got_any: &mut bool,
) -> Result<(), SessionError> {
    let (requests, receiver) = mpsc::channel(64);
    let mut session = Session { context, requests, subscriptions: BTreeMap::new(), first: true };
    for kind in Kind::ALL {
        session.refresh(kind).await?;
    }
    let mut responses =
        client.stream_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
    context.applier.manager.state.stats.control_plane.connected_state.set(1);
    while let Some(response) = responses.message().await? {
        *got_any = true;
        let Some(kind) = Kind::of(&response.type_url) else {
            tracing::debug!(type_url = response.type_url, "a response of a type nobody asked for");
            continue;
        };
        let update = Update {
            resources: response.resources,
            removed: Vec::new(),
            complete: kind.is_wildcard(),
        };
        let result = context.applier.apply(kind, update).await;
        let subscription = session.subscriptions.entry(kind).or_default();
        subscription.nonce = response.nonce;
        let error = match result {
            Ok(()) => {
                subscription.version = response.version_info;
                None
            }
            Err(message) => {
                tracing::warn!(
                    kind = kind.message(),
                    message,
                    "refused an update of the control plane"
                );
                Some(nack(message))
            }
        };
        session.send(kind, error).await?;
        // New clusters need endpoints, new listeners routes.
        match kind {
            Kind::Cluster => session.refresh(Kind::Endpoint).await?,
            Kind::Listener => session.refresh(Kind::Route).await?,
            Kind::Endpoint | Kind::Route => {}
        }
    }
    Ok(())
}

struct Session<'a> {
    context: &'a Context,
    requests: mpsc::Sender<DiscoveryRequest>,
    subscriptions: BTreeMap<Kind, Subscription>,
    first: bool,
}

impl Session<'_> {
    /// Asks again when the names wanted are others than those asked for.
    async fn refresh(&mut self, kind: Kind) -> Result<(), SessionError> {
        if !self.context.wants(kind) {
            return Ok(());
        }
        let names = self.context.names(kind).await;
        let subscription = self.subscriptions.entry(kind).or_default();
        let new = !subscription.asked && (kind.is_wildcard() || !names.is_empty());
        if new || subscription.names != names {
            subscription.names = names;
            subscription.asked = true;
            self.send(kind, None).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        kind: Kind,
        error_detail: Option<crate::bootstrap::pb::rpc::Status>,
    ) -> Result<(), SessionError> {
        let subscription = self.subscriptions.entry(kind).or_default();
        let request = DiscoveryRequest {
            version_info: subscription.version.clone(),
            node: self.first.then(|| self.context.config.node.clone()),
            resource_names: subscription.names.clone(),
            type_url: kind.type_url(),
            response_nonce: subscription.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.first = false;
        self.requests.send(request).await.map_err(|_| SessionError::Closed)
    }
}
