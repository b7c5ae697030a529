//! A consistent set of Envoy resources with their versions.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use flotilla_proto::envoy::envoy::config::cluster::v3::Cluster;
use flotilla_proto::envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;
use prost_types::Any;

use super::world::World;
use super::{endpoints, ingress, listener};
use crate::Config;

/// The types served, in the order a proxy must get them: what is referred to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    /// `type.googleapis.com/` and the message.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// A resource and its version, a hash of its content.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Version.
    pub version: String,
    /// Content.
    pub any: Any,
}

/// All resources.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    types: BTreeMap<Kind, BTreeMap<String, Resource>>,
}

impl Snapshot {
    /// Builds the resources for `world`. Equal worlds give equal snapshots.
    pub fn build(world: &World, config: &Config) -> Self {
        let mut this = Self::default();
        let (routes, backends) = ingress::build(world, config);
        for backend in &backends {
            let name = backend.cluster_name();
            this.add::<Cluster>(Kind::Cluster, &name, &endpoints::cluster(&name, backend));
            this.add::<ClusterLoadAssignment>(
                Kind::Endpoint,
                &name,
                &endpoints::assignment(&name, backend, world),
            );
        }
        this.add(Kind::Listener, listener::NAME, &listener::build(config));
        this.add(Kind::Route, ingress::ROUTES, &routes);
        this
    }

    fn add<M: Message>(&mut self, kind: Kind, name: &str, message: &M) {
        let value = message.encode_to_vec();
        let resource = Resource {
            version: version(&value),
            any: Any { type_url: kind.type_url().to_owned(), value },
        };
        self.types.entry(kind).or_default().insert(name.to_owned(), resource);
    }

    /// The resources of a type.
    pub fn resources(&self, kind: Kind) -> impl Iterator<Item = (&String, &Resource)> {
        self.types.get(&kind).into_iter().flatten()
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.types.get(&kind)?.get(name)
    }

    /// The version of a selection of resources: changes when one of them does.
    pub fn version_of<'a>(list: impl Iterator<Item = (&'a String, &'a Resource)>) -> String {
        let versions: Vec<(&String, &String)> =
            list.map(|(name, resource)| (name, &resource.version)).collect();
        version(&versions)
    }
}

fn version(content: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Packs a message.
pub(super) fn pack(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}
