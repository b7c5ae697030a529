//! The cluster's names, kept in step by watches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use flotilla_kube_client::Change;
use parking_lot::RwLock;

use super::model::{Endpoint, NamedPort, Namespace, Pod, Service, Slice};

/// `(namespace, name)`.
pub type Id = (String, String);

/// Everything names are made of. Clones of the `Arc` around it share the state.
#[derive(Debug, Default)]
pub struct Store {
    data: RwLock<Data>,
    synced: AtomicU8,
}

/// The collections; each one that has been listed sets its bit.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Collection {
    /// Namespaces.
    Namespaces = 1,
    /// Services.
    Services = 2,
    /// EndpointSlices.
    Slices = 4,
    /// Pods.
    Pods = 8,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub struct Data {
    /// Names of the namespaces.
    pub namespaces: HashSet<String>,
    /// Services.
    pub services: HashMap<Id, Service>,
    /// Slices by Service, then by slice name.
    pub slices: HashMap<Id, BTreeMap<String, Slice>>,
    /// Which Service has a virtual address.
    pub service_of_ip: HashMap<IpAddr, Id>,
    /// Which Services have an endpoint address, and how often.
    pub endpoint_services: HashMap<IpAddr, Vec<Id>>,
    /// Which namespaces have a pod with this address.
    pub pods: HashMap<IpAddr, HashMap<Id, ()>>,
}

impl Store {
    /// Reads under the lock.
    pub fn read<T>(&self, reader: impl FnOnce(&Data) -> T) -> T {
        reader(&self.data.read())
    }

    /// Whether all of `wanted` (bits of [`Collection`]) have been listed once.
    pub fn is_synced(&self, wanted: u8) -> bool {
        self.synced.load(Ordering::Acquire) & wanted == wanted
    }

    /// Applies a change of the namespaces.
    pub fn namespaces(&self, change: Change<Namespace>) {
        let mut data = self.data.write();
        match change {
            Change::Replaced(all) => {
                data.namespaces = all.into_iter().map(|namespace| namespace.metadata.name).collect()
            }
            Change::Applied(namespace) => _ = data.namespaces.insert(namespace.metadata.name),
            Change::Deleted(namespace) => _ = data.namespaces.remove(&namespace.metadata.name),
        }
        drop(data);
        self.mark(Collection::Namespaces);
    }

    /// Applies a change of the Services.
    pub fn services(&self, change: Change<Service>) {
        let mut data = self.data.write();
        match change {
            Change::Replaced(all) => {
                data.services.clear();
                data.service_of_ip.clear();
                all.into_iter().for_each(|service| data.add_service(service));
            }
            Change::Applied(service) => {
                data.remove_service(&id(&service.metadata));
                data.add_service(service);
            }
            Change::Deleted(service) => data.remove_service(&id(&service.metadata)),
        }
        drop(data);
        self.mark(Collection::Services);
    }

    /// Applies a change of the EndpointSlices.
    pub fn slices(&self, change: Change<Slice>) {
        let mut data = self.data.write();
        match change {
            Change::Replaced(all) => {
                data.slices.clear();
                data.endpoint_services.clear();
                all.into_iter().for_each(|slice| data.add_slice(slice));
            }
            Change::Applied(slice) => {
                data.remove_slice(&slice);
                data.add_slice(slice);
            }
            Change::Deleted(slice) => data.remove_slice(&slice),
        }
        drop(data);
        self.mark(Collection::Slices);
    }

    /// Applies a change of the pods.
    pub fn pods(&self, change: Change<Pod>) {
        let mut data = self.data.write();
        match change {
            Change::Replaced(all) => {
                data.pods.clear();
                all.iter().for_each(|pod| data.add_pod(pod));
            }
            Change::Applied(pod) => data.add_pod(&pod),
            Change::Deleted(pod) => {
                let gone = id(&pod.metadata);
                data.pods.retain(|_, owners| {
                    owners.remove(&gone);
                    !owners.is_empty()
                });
            }
        }
        drop(data);
        self.mark(Collection::Pods);
    }

    fn mark(&self, collection: Collection) {
        self.synced.fetch_or(collection as u8, Ordering::AcqRel);
    }
}

impl Data {
    /// The endpoints of a Service that names are made of, with the ports of their slice.
    pub fn endpoints(&self, service: &Id) -> Vec<(&Endpoint, &[NamedPort])> {
        let unready = self
            .services
            .get(service)
            .is_some_and(|service| service.spec.publish_not_ready_addresses);
        let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
        slices
            .flat_map(|slice| {
                slice.endpoints.iter().map(|endpoint| (endpoint, slice.ports.as_slice()))
            })
            .filter(|(endpoint, _)| unready || endpoint.conditions.ready.unwrap_or(true))
            .collect()
    }

    fn add_service(&mut self, service: Service) {
        let id = id(&service.metadata);
        for ip in service.addresses() {
            self.service_of_ip.insert(ip, id.clone());
        }
        self.services.insert(id, service);
    }

    fn remove_service(&mut self, id: &Id) {
        for ip in self.services.remove(id).iter().flat_map(Service::addresses) {
            self.service_of_ip.remove(&ip);
        }
    }

    fn add_slice(&mut self, slice: Slice) {
        let Some(name) = slice.service() else { return };
        let service = (slice.metadata.namespace.clone(), name.to_owned());
        for ip in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            self.endpoint_services.entry(*ip).or_default().push(service.clone());
        }
        self.slices.entry(service).or_default().insert(slice.metadata.name.clone(), slice);
    }

    fn remove_slice(&mut self, slice: &Slice) {
        let Some(name) = slice.service() else { return };
        let service = (slice.metadata.namespace.clone(), name.to_owned());
        let Some(slices) = self.slices.get_mut(&service) else { return };
        let old = slices.remove(&slice.metadata.name);
        if slices.is_empty() {
            self.slices.remove(&service);
        }
        for ip in
            old.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses)
        {
            if let Some(owners) = self.endpoint_services.get_mut(ip) {
                if let Some(index) = owners.iter().position(|owner| *owner == service) {
                    owners.swap_remove(index);
                }
                if owners.is_empty() {
                    self.endpoint_services.remove(ip);
                }
            }
        }
    }

    fn add_pod(&mut self, pod: &Pod) {
        if let Some(ip) = pod.status.pod_ip {
            self.pods.entry(ip).or_default().insert(id(&pod.metadata), ());
        }
    }
}

fn id(meta: &flotilla_kube_client::ObjectMeta) -> Id {
    (meta.namespace.clone(), meta.name.clone())
}
