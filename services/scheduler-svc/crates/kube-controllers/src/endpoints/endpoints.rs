//! Endpoints objects: the same addresses for clients that do not read slices.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{address, backends, hostname, managed, ports, services};
use crate::Error;
use crate::cache::kind::{ENDPOINTS, POD, SERVICE};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::pods;
use crate::runner::{Again, Controller};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OWN: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses one object may have.
const MOST: usize = 1000;

/// The controller.
#[derive(Debug)]
pub struct Endpoints(pub Cluster);

impl Controller for Endpoints {
    const NAME: &'static str = "endpoints-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![SERVICE, POD, ENDPOINTS]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == ENDPOINTS {
            return vec![event.object().key()];
        }
        services(&self.0, event)
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let existing = self.0.cached(ENDPOINTS, key);
        let Some(service) = self.0.cached(SERVICE, key) else {
            if let Some(old) = existing.filter(|e| e.metadata.labels.contains_key(MANAGED_BY)) {
                self.0.delete(ENDPOINTS, &old, Propagation::Background, None).await?;
            }
            return Ok(None);
        };
        if service.deleting() || !managed(&service) {
            return Ok(None);
        }
        let (subsets, over) = self.subsets(&service);
        let mut target = match &existing {
            Some(old) => (**old).clone(),
            None => Object::new(ENDPOINTS, &key.namespace, &key.name),
        };
        target.metadata.labels = service.metadata.labels.clone();
        target.metadata.labels.insert(MANAGED_BY.to_owned(), OWN.to_owned());
        target.metadata.labels.remove(HEADLESS);
        if service.text("/spec/clusterIP") == "None" {
            target.metadata.labels.insert(HEADLESS.to_owned(), String::new());
        }
        target.metadata.annotations.remove(OVER_CAPACITY);
        if over {
            let value = "truncated".to_owned();
            target.metadata.annotations.insert(OVER_CAPACITY.to_owned(), value);
        }
        target.body.insert("subsets".to_owned(), json!(subsets));
        match existing {
            None => drop(self.0.create(ENDPOINTS, &target).await?),
            Some(old) => {
                let same = old.list("/subsets") == target.list("/subsets")
                    && old.metadata.labels == target.metadata.labels
                    && old.metadata.annotations == target.metadata.annotations;
                if !same {
                    self.0.replace(ENDPOINTS, &target).await?;
                }
            }
        }
        Ok(None)
    }
}

#[derive(Debug, Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    waiting: Vec<Value>,
}

impl Endpoints {
    fn subsets(&self, service: &Object) -> (Vec<Value>, bool) {
        let publish = service.flag("/spec/publishNotReadyAddresses");
        let families = service.list("/spec/ipFamilies");
        let family = families.first().and_then(Value::as_str).unwrap_or("IPv4");
        let mut groups: BTreeMap<String, Subset> = BTreeMap::new();
        let mut count = 0;
        for pod in backends(&self.0, service) {
            if pod.deleting() && !publish {
                continue;
            }
            let Some(ip) = address(&pod, family) else { continue };
            count += 1;
            if count > MOST {
                continue;
            }
            let ports = ports(service, &pod);
            let headless = service.text("/spec/clusterIP") == "None";
            if ports.is_empty() && !headless {
                continue;
            }
            let subset = groups.entry(json!(ports).to_string()).or_default();
            subset.ports = ports;
            let entry = entry(service, &pod, &ip);
            let ready = publish || pods::ready(&pod);
            if ready { subset.ready.push(entry) } else { subset.waiting.push(entry) }
        }
        let subsets = groups.into_values().map(|subset| {
            let parts = [
                ("addresses", subset.ready),
                ("notReadyAddresses", subset.waiting),
                ("ports", subset.ports.into_iter().map(named).collect()),
            ];
            let mut value = json!({});
            for (name, list) in parts {
                if !list.is_empty() {
                    value[name] = Value::Array(list);
                }
            }
            value
        });
        (subsets.collect(), count > MOST)
    }
}

fn entry(service: &Object, pod: &Object, ip: &str) -> Value {
    let mut entry = json!({"ip": ip, "targetRef": {"kind": "Pod",
        "namespace": pod.metadata.namespace, "name": pod.metadata.name, "uid": pod.metadata.uid}});
    let node = pod.text("/spec/nodeName");
    if !node.is_empty() {
        entry["nodeName"] = json!(node);
    }
    if let Some(name) = hostname(service, pod) {
        entry["hostname"] = json!(name);
    }
    entry
}

/// Endpoints leave an empty port name out.
fn named(mut port: Value) -> Value {
    if port["name"] == ""
        && let Some(fields) = port.as_object_mut()
    {
        fields.remove("name");
    }
    port
}
