//! EndpointSlices of services with a selector.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{address, backends, hostname, managed, ports, services, zone};
use crate::cache::kind::{ENDPOINT_SLICE, NODE, POD, SERVICE};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::runner::{Again, Controller};
use crate::{Error, pods};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OWN: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The controller.
#[derive(Debug)]
pub struct EndpointSlices(pub Cluster);

/// Slices with the same address type and ports share endpoints.
type Group = (String, String);

#[derive(Debug, Default)]
struct Wanted {
    ports: Vec<Value>,
    /// By uid of the pod.
    endpoints: BTreeMap<String, Value>,
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![SERVICE, POD, NODE, ENDPOINT_SLICE]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == ENDPOINT_SLICE {
            let meta = &event.object().metadata;
            let own = meta.labels.get(MANAGED_BY).is_some_and(|by| by == OWN);
            let service = meta.labels.get(SERVICE_NAME).filter(|_| own);
            return service.map(|name| Key::new(&meta.namespace, name)).into_iter().collect();
        }
        services(&self.0, event)
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let service = self.0.cached(SERVICE, key);
        let existing = self.existing(key);
        let Some(service) = service.filter(|s| !s.deleting() && managed(s)) else {
            for slice in existing {
                self.0.delete(ENDPOINT_SLICE, &slice, Propagation::Background, None).await?;
            }
            return Ok(None);
        };
        let wanted = self.wanted(&service);
        self.reconcile(&service, existing, wanted).await?;
        Ok(None)
    }
}

impl EndpointSlices {
    fn existing(&self, key: &Key) -> Vec<Arc<Object>> {
        let all = self.0.store(ENDPOINT_SLICE).namespace(&key.namespace);
        let own = |slice: &Arc<Object>| {
            let labels = &slice.metadata.labels;
            labels.get(SERVICE_NAME) == Some(&key.name)
                && labels.get(MANAGED_BY).is_some_and(|by| by == OWN)
                && !slice.deleting()
        };
        all.into_iter().filter(own).collect()
    }

    fn wanted(&self, service: &Object) -> BTreeMap<Group, Wanted> {
        let mut groups: BTreeMap<Group, Wanted> = BTreeMap::new();
        let families = service.list("/spec/ipFamilies").iter().filter_map(Value::as_str);
        let mut families: Vec<&str> = families.collect();
        if families.is_empty() {
            families.push("IPv4");
        }
        let pods = backends(&self.0, service);
        for family in families {
            for pod in &pods {
                let Some(address) = address(pod, family) else { continue };
                let ports = ports(service, pod);
                let group = (family.to_owned(), json!(ports).to_string());
                let wanted = groups.entry(group).or_default();
                wanted.ports = ports;
                let endpoint = self.endpoint(service, pod, &address);
                wanted.endpoints.insert(pod.metadata.uid.clone(), endpoint);
            }
            if !groups.keys().any(|(known, _)| known == family) {
                // A slice without endpoints tells clients that the controller has seen the service.
                let empty = (family.to_owned(), json!([]).to_string());
                groups.insert(empty, Wanted::default());
            }
        }
        groups
    }

    fn endpoint(&self, service: &Object, pod: &Object, address: &str) -> Value {
        let (serving, terminating) = (pods::ready(pod), pod.deleting());
        let publish = service.flag("/spec/publishNotReadyAddresses");
        let mut endpoint = json!({
            "addresses": [address],
            "conditions": {"ready": publish || (serving && !terminating), "serving": serving,
                "terminating": terminating},
            "targetRef": {"kind": "Pod", "namespace": pod.metadata.namespace,
                "name": pod.metadata.name, "uid": pod.metadata.uid},
        });
        let node = pod.text("/spec/nodeName");
        if !node.is_empty() {
            endpoint["nodeName"] = json!(node);
            if let Some(zone) = zone(&self.0, node) {
                endpoint["zone"] = json!(zone);
            }
        }
        if let Some(name) = hostname(service, pod) {
            endpoint["hostname"] = json!(name);
        }
        endpoint
    }

    /// Endpoints stay in the slice they are in, new ones fill what has room, so that few slices change.
    async fn reconcile(
        &self,
        service: &Object,
        existing: Vec<Arc<Object>>,
        mut wanted: BTreeMap<Group, Wanted>,
    ) -> Result<(), Error> {
        let most = self.0.config.max_endpoints_per_slice;
        let mut slices: Vec<(Arc<Object>, Group, Vec<Value>)> = Vec::new();
        let mut unused: Vec<Arc<Object>> = Vec::new();
        for slice in existing {
            let group = (slice.text("/addressType").to_owned(), normal_ports(&slice));
            let Some(target) = wanted.get_mut(&group) else {
                unused.push(slice);
                continue;
            };
            let mut kept = Vec::new();
            for endpoint in slice.list("/endpoints") {
                let uid = endpoint["targetRef"]["uid"].as_str().unwrap_or_default();
                if kept.len() < most
                    && let Some(current) = target.endpoints.remove(uid)
                {
                    kept.push(current);
                }
            }
            slices.push((slice, group, kept));
        }
        for (group, target) in &mut wanted {
            let mut fresh: Vec<Value> =
                std::mem::take(&mut target.endpoints).into_values().collect();
            for (_, _, kept) in slices.iter_mut().filter(|(_, g, _)| g == group) {
                let room = most - kept.len();
                kept.extend(fresh.drain(..room.min(fresh.len())));
            }
            let known = slices.iter().any(|(_, g, _)| g == group);
            let mut chunks: Vec<Vec<Value>> = fresh.chunks(most).map(<[Value]>::to_vec).collect();
            if chunks.is_empty() && !known {
                chunks.push(Vec::new());
            }
            for endpoints in chunks {
                let mut slice = self.slice(service, &group.0, &target.ports, endpoints);
                match unused.iter().position(|old| old.text("/addressType") == group.0) {
                    // A slice that would go is used again: one write instead of two.
                    Some(at) => {
                        let old = unused.swap_remove(at);
                        slice.metadata.name.clone_from(&old.metadata.name);
                        slice.metadata.rest.remove("generateName");
                        slice.metadata.resource_version.clone_from(&old.metadata.resource_version);
                        self.0.replace(ENDPOINT_SLICE, &slice).await?;
                    }
                    None => drop(self.0.create(ENDPOINT_SLICE, &slice).await?),
                }
            }
        }
        self.update(service, slices, &wanted).await?;
        for slice in unused {
            self.0.delete(ENDPOINT_SLICE, &slice, Propagation::Background, None).await?;
        }
        Ok(())
    }

    async fn update(
        &self,
        service: &Object,
        slices: Vec<(Arc<Object>, Group, Vec<Value>)>,
        wanted: &BTreeMap<Group, Wanted>,
    ) -> Result<(), Error> {
        let mut seen: HashSet<Group> = HashSet::new();
        let filled: HashSet<Group> =
            slices.iter().filter(|s| !s.2.is_empty()).map(|s| s.1.clone()).collect();
        for (slice, group, endpoints) in slices {
            let spare = filled.contains(&group) || seen.contains(&group);
            if endpoints.is_empty() && spare {
                self.0.delete(ENDPOINT_SLICE, &slice, Propagation::Background, None).await?;
                continue;
            }
            let ports = wanted.get(&group).map(|w| w.ports.as_slice()).unwrap_or_default();
            seen.insert(group.clone());
            let target = self.slice(service, &group.0, ports, endpoints);
            let same = slice.list("/endpoints") == target.list("/endpoints")
                && slice.metadata.labels == target.metadata.labels;
            if same {
                continue;
            }
            let mut changed = (*slice).clone();
            changed.metadata.labels = target.metadata.labels;
            changed.body.extend(target.body);
            self.0.replace(ENDPOINT_SLICE, &changed).await?;
        }
        Ok(())
    }

    fn slice(&self, service: &Object, family: &str, ports: &[Value], all: Vec<Value>) -> Object {
        let meta = &service.metadata;
        let mut slice = Object::new(ENDPOINT_SLICE, &meta.namespace, "");
        let prefix = json!(format!("{}-", meta.name));
        slice.metadata.rest.insert("generateName".to_owned(), prefix);
        slice.metadata.labels = meta.labels.clone();
        slice.metadata.labels.remove(HEADLESS);
        slice.metadata.labels.insert(SERVICE_NAME.to_owned(), meta.name.clone());
        slice.metadata.labels.insert(MANAGED_BY.to_owned(), OWN.to_owned());
        if service.text("/spec/clusterIP") == "None" {
            slice.metadata.labels.insert(HEADLESS.to_owned(), String::new());
        }
        slice.metadata.owner_references = vec![service.owner_reference(SERVICE)];
        slice.body.insert("addressType".to_owned(), json!(family));
        slice.body.insert("endpoints".to_owned(), json!(all));
        slice.body.insert("ports".to_owned(), json!(ports));
        slice
    }
}

/// The ports of a slice in the form in which [`ports`] makes them.
fn normal_ports(slice: &Object) -> String {
    let normal = |port: &Value| {
        let mut normal = json!({"name": port["name"].as_str().unwrap_or_default(),
            "protocol": port["protocol"].as_str().unwrap_or("TCP"), "port": port["port"]});
        if let Some(protocol) = port["appProtocol"].as_str() {
            normal["appProtocol"] = json!(protocol);
        }
        normal
    };
    json!(slice.list("/ports").iter().map(normal).collect::<Vec<_>>()).to_string()
}
