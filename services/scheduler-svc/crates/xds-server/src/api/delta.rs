//! Delta: a response holds what the proxy does not have yet and names what is gone.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

use super::ads::{Protocol, refused};
use crate::engine::snapshot::{Kind, Snapshot};

#[derive(Debug, Default)]
struct Subscription {
    names: BTreeSet<String>,
    wildcard: bool,
    /// The first answer was sent.
    answered: bool,
    /// What the proxy has: names and versions.
    known: BTreeMap<String, String>,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Delta {
    node: String,
    nonce: u64,
    subscriptions: BTreeMap<Kind, Subscription>,
}

impl Delta {
    fn respond(&mut self, kind: Kind, snapshot: &Snapshot) -> Option<DeltaDiscoveryResponse> {
        let subscription = self.subscriptions.get_mut(&kind)?;
        let wanted = |name: &String| subscription.wildcard || subscription.names.contains(name);
        let resources: Vec<Resource> = snapshot
            .resources(kind)
            .filter(|(name, resource)| {
                wanted(name) && subscription.known.get(*name) != Some(&resource.version)
            })
            .map(|(name, resource)| Resource {
                name: name.clone(),
                version: resource.version.clone(),
                resource: Some(resource.any.clone()),
                ..Resource::default()
            })
            .collect();
        let removed_resources: Vec<String> = subscription
            .known
            .keys()
            .filter(|name| snapshot.get(kind, name).is_none())
            .cloned()
            .collect();
        if resources.is_empty()
            && removed_resources.is_empty()
            && (subscription.answered || !subscription.wildcard)
        {
            return None;
        }
        subscription.answered = true;
        for name in &removed_resources {
            subscription.known.remove(name);
        }
        subscription.known.extend(resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        self.nonce += 1;
        Some(DeltaDiscoveryResponse {
            system_version_info: Snapshot::version_of(snapshot.resources(kind)),
            resources,
            type_url: kind.type_url().to_owned(),
            removed_resources,
            nonce: self.nonce.to_string(),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        snapshot: Option<&Snapshot>,
    ) -> Vec<DeltaDiscoveryResponse> {
        if let Some(node) = request.node {
            self.node = node.id;
        }
        let Some(kind) = Kind::of(&request.type_url) else { return Vec::new() };
        if let Some(error) = &request.error_detail {
            refused(&self.node, kind, error);
        }
        let first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        if first {
            subscription.known = request.initial_resource_versions.into_iter().collect();
            subscription.wildcard = request.resource_names_subscribe.is_empty()
                && matches!(kind, Kind::Cluster | Kind::Listener);
        }
        for name in &request.resource_names_unsubscribe {
            subscription.names.remove(name);
            subscription.known.remove(name);
            subscription.wildcard &= name != "*";
        }
        let subscribes = !request.resource_names_subscribe.is_empty();
        for name in request.resource_names_subscribe {
            subscription.wildcard |= name == "*";
            // Subscribing again asks for the resource again.
            if !first {
                subscription.known.remove(&name);
            }
            subscription.names.insert(name);
        }
        match snapshot {
            // The first answer of a wildcard is sent even when there is nothing: the proxy waits for it.
            Some(snapshot) if first || subscribes => {
                self.respond(kind, snapshot).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn changed(&mut self, snapshot: &Snapshot) -> Vec<DeltaDiscoveryResponse> {
        let clusters = self.respond(Kind::Cluster, snapshot);
        if let (Some(clusters), Some(endpoints)) =
            (&clusters, self.subscriptions.get_mut(&Kind::Endpoint))
        {
            // A proxy that warms a changed cluster waits for its endpoints, changed or not.
            for cluster in &clusters.resources {
                endpoints.known.remove(&cluster.name);
            }
        }
        let rest =
            [Kind::Endpoint, Kind::Listener, Kind::Route].map(|kind| self.respond(kind, snapshot));
        clusters.into_iter().chain(rest.into_iter().flatten()).collect()
    }
}
