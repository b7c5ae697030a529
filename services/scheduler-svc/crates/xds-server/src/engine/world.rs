//! What is known of the cluster.

use std::collections::BTreeMap;

use super::kube::{EndpointSlice, Ingress, Objects, Service, key};
use flotilla_kube_client::{Change, ObjectMeta};

/// Every object that matters.
#[derive(Debug, Default)]
pub struct World {
    /// Services.
    pub services: Objects<Service>,
    /// EndpointSlices.
    pub slices: Objects<EndpointSlice>,
    /// Ingresses of every class.
    pub ingresses: Objects<Ingress>,
    listed: [bool; 3],
}

/// A change of one collection.
#[derive(Debug)]
pub enum WorldChange {
    /// Of Services.
    Service(Change<Service>),
    /// Of EndpointSlices.
    Slice(Change<EndpointSlice>),
    /// Of Ingresses.
    Ingress(Change<Ingress>),
}

impl World {
    /// Takes a change over.
    pub fn apply(&mut self, change: WorldChange) {
        let (index, listed) = match change {
            WorldChange::Service(change) => (0, merge(&mut self.services, change, |o| &o.metadata)),
            WorldChange::Slice(change) => (1, merge(&mut self.slices, change, |o| &o.metadata)),
            WorldChange::Ingress(change) => {
                (2, merge(&mut self.ingresses, change, |o| &o.metadata))
            }
        };
        self.listed[index] |= listed;
    }

    /// Whether every collection was listed once.
    pub fn is_complete(&self) -> bool {
        self.listed.iter().all(|listed| *listed)
    }
}

fn merge<T>(
    objects: &mut Objects<T>,
    change: Change<T>,
    metadata: impl Fn(&T) -> &ObjectMeta,
) -> bool {
    match change {
        Change::Replaced(all) => {
            *objects = all
                .into_iter()
                .map(|object| (key(metadata(&object)), object))
                .collect::<BTreeMap<_, _>>();
            return true;
        }
        Change::Applied(object) => {
            objects.insert(key(metadata(&object)), object);
        }
        Change::Deleted(object) => {
            objects.remove(&key(metadata(&object)));
        }
    }
    false
}
