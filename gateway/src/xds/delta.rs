//! Delta: responses hold what changed.

use std::collections::{BTreeMap, HashMap};

use flotilla_proto::envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::apply::{Kind, Update};
use super::session::{Context, SessionError, nack};
use crate::bootstrap::pb::discovery::DeltaDiscoveryRequest;

/// The versions in force, kept over reconnects.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<Kind, HashMap<String, String>>);

/// One stream, until it breaks.
pub(super) async fn session(
    context: &Context,
    mut client: Client<Channel>,
    memory: &mut Memory,
    got_any: &mut bool,
) -> Result<(), SessionError> {
    let (requests, receiver) = mpsc::channel(64);
    let mut session = Session { context, requests, names: BTreeMap::new(), first: true };
    for kind in Kind::ALL {
        session.refresh(kind, memory).await?;
    }
    let mut responses =
        client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
    context.applier.manager.state.stats.control_plane.connected_state.set(1);
    while let Some(response) = responses.message().await? {
        *got_any = true;
        let Some(kind) = Kind::of(&response.type_url) else { continue };
        let mut versions: Vec<(String, String)> = Vec::new();
        let mut update = Update { removed: response.removed_resources, ..Update::default() };
        for resource in response.resources {
            versions.push((resource.name, resource.version));
            update.resources.extend(resource.resource);
        }
        let removed = update.removed.clone();
        let error_detail = match context.applier.apply(kind, update).await {
            Ok(()) => {
                let known = memory.0.entry(kind).or_default();
                known.extend(versions);
                known.retain(|name, _| !removed.contains(name));
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
        let answer = DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            response_nonce: response.nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        session.send(answer).await?;
        match kind {
            Kind::Cluster => session.refresh(Kind::Endpoint, memory).await?,
            Kind::Listener => session.refresh(Kind::Route, memory).await?,
            Kind::Endpoint | Kind::Route => {}
        }
    }
    Ok(())
}

struct Session<'a> {
    context: &'a Context,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    names: BTreeMap<Kind, Vec<String>>,
    first: bool,
}

impl Session<'_> {
    /// Subscribes to names that are wanted and unsubscribes from those that are not any more.
    async fn refresh(&mut self, kind: Kind, memory: &mut Memory) -> Result<(), SessionError> {
        if !self.context.wants(kind) {
            return Ok(());
        }
        let wanted = self.context.names(kind).await;
        let begins = !self.names.contains_key(&kind);
        let asked = self.names.get(&kind).cloned().unwrap_or_default();
        let subscribe: Vec<String> =
            wanted.iter().filter(|name| !asked.contains(name)).cloned().collect();
        let unsubscribe: Vec<String> =
            asked.iter().filter(|name| !wanted.contains(name)).cloned().collect();
        let nothing = subscribe.is_empty() && unsubscribe.is_empty();
        if nothing && !(begins && kind.is_wildcard()) {
            return Ok(());
        }
        let known = memory.0.entry(kind).or_default();
        known.retain(|name, _| kind.is_wildcard() || wanted.contains(name));
        // Only the first request of a type may say what is known already.
        let initial = if begins { known.clone() } else { HashMap::new() };
        self.names.insert(kind, wanted);
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: initial,
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await
    }

    async fn send(&mut self, mut request: DeltaDiscoveryRequest) -> Result<(), SessionError> {
        if std::mem::take(&mut self.first) {
            request.node = Some(self.context.config.node.clone());
        }
        self.requests.send(request).await.map_err(|_| SessionError::Closed)
    }
}
