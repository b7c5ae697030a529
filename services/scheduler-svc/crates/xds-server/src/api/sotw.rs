//! State of the world: a response holds every resource the proxy asked for.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::envoy::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::ads::{Protocol, refused};
use crate::engine::snapshot::{Kind, Resource, Snapshot};

#[derive(Debug, Default)]
struct Subscription {
    names: BTreeSet<String>,
    wildcard: bool,
    nonce: u64,
    /// Version of the last response; empty before the first.
    sent: String,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Sotw {
    node: String,
    nonce: u64,
    subscriptions: BTreeMap<Kind, Subscription>,
}

fn select<'a>(
    subscription: &'a Subscription,
    kind: Kind,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = (&'a String, &'a Resource)> {
    snapshot
        .resources(kind)
        .filter(|(name, _)| subscription.wildcard || subscription.names.contains(*name))
}

impl Sotw {
    fn respond(
        &mut self,
        kind: Kind,
        snapshot: &Snapshot,
        force: bool,
    ) -> Option<DiscoveryResponse> {
        let subscription = self.subscriptions.get_mut(&kind)?;
        let version = Snapshot::version_of(select(subscription, kind, snapshot));
        if !force && subscription.sent == version {
            return None;
        }
        let resources: Vec<_> = select(subscription, kind, snapshot)
            .map(|(_, resource)| resource.any.clone())
            .collect();
        // A named resource that does not exist is not answered: the proxy waits for it.
        if resources.is_empty() && !subscription.wildcard {
            return None;
        }
        self.nonce += 1;
        subscription.nonce = self.nonce;
        subscription.sent.clone_from(&version);
        Some(DiscoveryResponse {
            version_info: version,
            resources,
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            ..DiscoveryResponse::default()
        })
    }
}

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn request(
        &mut self,
        request: DiscoveryRequest,
        snapshot: Option<&Snapshot>,
    ) -> Vec<DiscoveryResponse> {
        if let Some(node) = request.node {
            self.node = node.id;
        }
        let Some(kind) = Kind::of(&request.type_url) else { return Vec::new() };
        let subscription = self.subscriptions.entry(kind).or_default();
        let current = request.response_nonce.is_empty()
            || request.response_nonce == subscription.nonce.to_string();
        if !current {
            // It answers a response that a newer one has replaced.
            return Vec::new();
        }
        if let Some(error) = &request.error_detail {
            refused(&self.node, kind, error);
        }
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        let wildcard = (names.is_empty() && matches!(kind, Kind::Cluster | Kind::Listener))
            || names.contains("*");
        let others = names != subscription.names || wildcard != subscription.wildcard;
        let first = request.response_nonce.is_empty();
        (subscription.names, subscription.wildcard) = (names, wildcard);
        match snapshot {
            Some(snapshot) if others || first => {
                self.respond(kind, snapshot, true).into_iter().collect()
            }
            // A change between the response and its ACK.
            Some(snapshot) if request.error_detail.is_none() => {
                self.respond(kind, snapshot, false).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn changed(&mut self, snapshot: &Snapshot) -> Vec<DiscoveryResponse> {
        let clusters = self.respond(Kind::Cluster, snapshot, false);
        // A proxy that warms a changed cluster waits for its endpoints, changed or not.
        let endpoints = self.respond(Kind::Endpoint, snapshot, clusters.is_some());
        let listeners = self.respond(Kind::Listener, snapshot, false);
        let routes = self.respond(Kind::Route, snapshot, false);
        [clusters, endpoints, listeners, routes].into_iter().flatten().collect()
    }
}
