//! The addresses behind services: EndpointSlices, and Endpoints for clients that know nothing newer.

#[allow(clippy::module_inception, reason = "Endpoints objects beside EndpointSlices")]
mod endpoints;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cache::kind::{NODE, POD, SERVICE};
use crate::cache::{Event, Key, Object};
use crate::cluster::Cluster;
use crate::pods;

pub use endpoints::Endpoints;
pub use slices::EndpointSlices;

/// A service's pods that have an address and have not ended, in order of name.
fn backends(cluster: &Cluster, service: &Object) -> Vec<Arc<Object>> {
    let selector = selector(service);
    let all = cluster.store(POD).namespace(&service.metadata.namespace);
    let matches = |pod: &Arc<Object>| matches(&selector, &pod.metadata.labels);
    all.into_iter()
        .filter(matches)
        .filter(|p| !pods::finished(p) && !p.text("/status/podIP").is_empty())
        .collect()
}

fn selector(service: &Object) -> Vec<(String, String)> {
    let fields = service.at("/spec/selector").and_then(Value::as_object);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    fields.into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect()
}

fn matches(selector: &[(String, String)], labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether the controllers keep the addresses of this service.
fn managed(service: &Object) -> bool {
    !selector(service).is_empty() && service.text("/spec/type") != "ExternalName"
}

/// Keys of the services that a change of a service or a pod concerns.
fn services(cluster: &Cluster, event: &Event) -> Vec<Key> {
    if event.kind == SERVICE {
        return vec![event.object().key()];
    }
    if event.kind != POD {
        return Vec::new();
    }
    let same = event.old.as_ref().zip(event.new.as_ref()).is_some_and(|(old, new)| {
        old.metadata.labels == new.metadata.labels
            && old.deleting() == new.deleting()
            && ["/status/podIPs", "/status/podIP", "/status/phase", "/spec/nodeName"]
                .iter()
                .all(|field| old.at(field) == new.at(field))
            && pods::ready(old) == pods::ready(new)
    });
    if same {
        return Vec::new();
    }
    let all = cluster.store(SERVICE).namespace(&event.object().metadata.namespace);
    let concerned = all.into_iter().filter(|service| {
        let selector = selector(service);
        event.sides().any(|pod| matches(&selector, &pod.metadata.labels))
    });
    concerned.map(|service| service.key()).collect()
}

/// Addresses of a pod in one family, `IPv4` or `IPv6`.
fn address(pod: &Object, family: &str) -> Option<String> {
    let listed = pod.list("/status/podIPs").iter().filter_map(|ip| ip["ip"].as_str());
    let all = listed.chain(Some(pod.text("/status/podIP")).filter(|ip| !ip.is_empty()));
    let wanted = |ip: &&str| ip.contains(':') == (family == "IPv6");
    all.into_iter().find(wanted).map(str::to_owned)
}

/// Zone of the node a pod runs on.
fn zone(cluster: &Cluster, node: &str) -> Option<String> {
    let node = cluster.cached(NODE, &Key::new("", node))?;
    node.metadata.labels.get("topology.kubernetes.io/zone").cloned()
}

/// The ports of a service on one pod: name, protocol, number; ports the pod does not name are left out.
fn ports(service: &Object, pod: &Object) -> Vec<Value> {
    let resolve = |port: &Value| {
        let mut resolved = serde_json::json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "protocol": port["protocol"].as_str().unwrap_or("TCP"),
            "port": pods::port(pod, port)?,
        });
        if let Some(protocol) = port["appProtocol"].as_str() {
            resolved["appProtocol"] = Value::String(protocol.to_owned());
        }
        Some(resolved)
    };
    service.list("/spec/ports").iter().filter_map(resolve).collect()
}

/// Host name under which a pod is known below a headless service.
fn hostname(service: &Object, pod: &Object) -> Option<String> {
    let name = pod.text("/spec/hostname");
    let known = !name.is_empty() && pod.text("/spec/subdomain") == service.metadata.name;
    known.then(|| name.to_owned())
}
