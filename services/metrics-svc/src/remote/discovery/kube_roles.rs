//! From objects to groups of targets, one function per role.

use std::collections::BTreeMap;

use serde_json::Value;

use super::kube_labels::{
    LabelMap, address, attached_node, container, container_port, list, metadata, pod, put, service,
    text,
};
use super::kubernetes::Kind;
use super::{ADDRESS, Group};
use crate::config::Role;

type Store = BTreeMap<(String, String), (usize, Value)>;

/// Every object a section follows, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Objects(BTreeMap<Kind, Store>);

impl Objects {
    pub(super) fn of(&mut self, kind: Kind) -> &mut Store {
        self.0.entry(kind).or_default()
    }

    fn all(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        self.0.get(&kind).into_iter().flat_map(BTreeMap::values).map(|(_, object)| object)
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.get(&kind)?.get(&key).map(|(_, object)| object)
    }
}

/// The groups of a role.
pub(super) fn groups(role: Role, objects: &Objects, with_node: bool) -> Vec<Group> {
    match role {
        Role::Node => objects.all(Kind::Node).map(node_group).collect(),
        Role::Pod => {
            objects.all(Kind::Pod).filter_map(|p| pod_group(objects, p, with_node)).collect()
        }
        Role::Service => objects.all(Kind::Service).map(service_group).collect(),
        Role::Endpoints => {
            objects.all(Kind::Endpoints).map(|e| endpoints_group(objects, e, with_node)).collect()
        }
        Role::EndpointSlice => {
            objects.all(Kind::EndpointSlice).map(|e| slice_group(objects, e, with_node)).collect()
        }
        Role::Ingress => objects.all(Kind::Ingress).map(ingress_group).collect(),
    }
}

fn target(host: &str, port: &str) -> LabelMap {
    BTreeMap::from([(ADDRESS.to_owned(), address(host, port))])
}

fn namespace(labels: &mut LabelMap, object: &Value) -> String {
    let namespace = text(&object["metadata"]["namespace"]);
    put(labels, "namespace", namespace.clone());
    namespace
}

fn node_group(node: &Value) -> Group {
    let name = text(&node["metadata"]["name"]);
    let addresses = list(&node["status"]["addresses"]);
    let mut labels = LabelMap::new();
    put(&mut labels, "node_name", name.clone());
    put(&mut labels, "node_provider_id", text(&node["spec"]["providerID"]));
    metadata(&mut labels, "node", node);
    // Prometheus' order of preference.
    let order =
        ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];
    let host = order
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == *kind))
        .map(|a| text(&a["address"]));
    let port = text(&node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]);
    let port = if port.is_empty() { "10250".to_owned() } else { port };
    let Some(host) = host else { return Group { targets: Vec::new(), labels } };
    let mut one = target(&host, &port);
    one.insert("instance".to_owned(), name);
    for entry in addresses {
        let key = format!("node_address_{}", text(&entry["type"]));
        if !one.contains_key(&format!("__meta_kubernetes_{key}")) {
            put(&mut one, &key, text(&entry["address"]));
        }
    }
    Group { targets: vec![one], labels }
}

fn pod_group(objects: &Objects, object: &Value, with_node: bool) -> Option<Group> {
    let ip = text(&object["status"]["podIP"]);
    // A pod without an address cannot be reached yet.
    if ip.is_empty() {
        return None;
    }
    let mut labels = LabelMap::new();
    namespace(&mut labels, object);
    pod(&mut labels, object);
    if with_node {
        attached_node(&mut labels, objects.get(Kind::Node, "", &text(&object["spec"]["nodeName"])));
    }
    let mut targets = Vec::new();
    for (field, init) in [("containers", false), ("initContainers", true)] {
        for one in list(&object["spec"][field]) {
            let ports = list(&one["ports"]);
            if ports.is_empty() {
                let mut found = target(&ip, "");
                container(&mut found, object, one, init);
                targets.push(found);
            }
            for port in ports {
                let mut found = target(&ip, &text(&port["containerPort"]));
                container(&mut found, object, one, init);
                container_port(&mut found, port);
                targets.push(found);
            }
        }
    }
    Some(Group { targets, labels })
}

fn service_group(object: &Value) -> Group {
    let mut labels = LabelMap::new();
    let namespace = namespace(&mut labels, object);
    service(&mut labels, object);
    let (name, spec) = (text(&object["metadata"]["name"]), &object["spec"]);
    let kind = text(&spec["type"]);
    let targets = list(&spec["ports"]).iter().map(|port| {
        let mut one = target(&format!("{name}.{namespace}.svc"), &text(&port["port"]));
        put(&mut one, "service_port_name", text(&port["name"]));
        put(&mut one, "service_port_number", text(&port["port"]));
        put(&mut one, "service_port_protocol", text(&port["protocol"]));
        put(&mut one, "service_type", kind.clone());
        if kind == "ExternalName" {
            put(&mut one, "service_external_name", text(&spec["externalName"]));
        } else {
            put(&mut one, "service_cluster_ip", text(&spec["clusterIP"]));
        }
        if kind == "LoadBalancer" {
            put(&mut one, "service_loadbalancer_ip", text(&spec["loadBalancerIP"]));
        }
        one
    });
    Group { targets: targets.collect(), labels }
}

/// Joins an endpoint's pod, and answers whether the endpoint's port is one of its containers'.
fn attach_pod(
    objects: &Objects,
    one: &mut LabelMap,
    reference: &Value,
    default_namespace: &str,
    port: &str,
) -> Option<(Value, String)> {
    put(one, "endpoint_address_target_kind", text(&reference["kind"]));
    put(one, "endpoint_address_target_name", text(&reference["name"]));
    if reference["kind"] != "Pod" {
        return None;
    }
    let named = text(&reference["namespace"]);
    let namespace = if named.is_empty() { default_namespace } else { &named };
    let found = objects.get(Kind::Pod, namespace, &text(&reference["name"]))?;
    pod(one, found);
    for holder in list(&found["spec"]["containers"]) {
        if let Some(own) = list(&holder["ports"]).iter().find(|p| text(&p["containerPort"]) == port)
        {
            container(one, found, holder, false);
            container_port(one, own);
        }
    }
    Some((found.clone(), port.to_owned()))
}

/// Container ports of the endpoints' pods that no endpoint names; they are targets too.
fn other_ports(pods: &[(Value, String)]) -> Vec<LabelMap> {
    let mut out = Vec::new();
    let mut done: Vec<&Value> = Vec::new();
    for (found, _) in pods {
        if done.contains(&&found["metadata"]["uid"]) {
            continue;
        }
        done.push(&found["metadata"]["uid"]);
        let used = |port: &str| {
            pods.iter()
                .any(|(p, used)| p["metadata"]["uid"] == found["metadata"]["uid"] && used == port)
        };
        for holder in list(&found["spec"]["containers"]) {
            for port in list(&holder["ports"]).iter().filter(|p| !used(&text(&p["containerPort"])))
            {
                let mut one =
                    target(&text(&found["status"]["podIP"]), &text(&port["containerPort"]));
                pod(&mut one, found);
                container(&mut one, found, holder, false);
                container_port(&mut one, port);
                out.push(one);
            }
        }
    }
    out
}

fn endpoints_group(objects: &Objects, object: &Value, with_node: bool) -> Group {
    let mut labels = LabelMap::new();
    let namespace = namespace(&mut labels, object);
    let name = text(&object["metadata"]["name"]);
    put(&mut labels, "endpoints_name", name.clone());
    metadata(&mut labels, "endpoints", object);
    if let Some(owner) = objects.get(Kind::Service, &namespace, &name) {
        service(&mut labels, owner);
    }
    let (mut targets, mut pods) = (Vec::new(), Vec::new());
    for subset in list(&object["subsets"]) {
        for port in list(&subset["ports"]) {
            for (field, ready) in [("addresses", "true"), ("notReadyAddresses", "false")] {
                for entry in list(&subset[field]) {
                    let number = text(&port["port"]);
                    let mut one = target(&text(&entry["ip"]), &number);
                    put(&mut one, "endpoint_port_name", text(&port["name"]));
                    put(&mut one, "endpoint_port_protocol", text(&port["protocol"]));
                    put(&mut one, "endpoint_ready", ready);
                    put(&mut one, "endpoint_hostname", text(&entry["hostname"]));
                    put(&mut one, "endpoint_node_name", text(&entry["nodeName"]));
                    if with_node {
                        attached_node(
                            &mut one,
                            objects.get(Kind::Node, "", &text(&entry["nodeName"])),
                        );
                    }
                    pods.extend(attach_pod(
                        objects,
                        &mut one,
                        &entry["targetRef"],
                        &namespace,
                        &number,
                    ));
                    targets.push(one);
                }
            }
        }
    }
    targets.extend(other_ports(&pods));
    Group { targets, labels }
}

fn slice_group(objects: &Objects, object: &Value, with_node: bool) -> Group {
    let mut labels = LabelMap::new();
    let namespace = namespace(&mut labels, object);
    put(&mut labels, "endpointslice_name", text(&object["metadata"]["name"]));
    put(&mut labels, "endpointslice_address_type", text(&object["addressType"]));
    metadata(&mut labels, "endpointslice", object);
    let owner = text(&object["metadata"]["labels"]["kubernetes.io/service-name"]);
    if let Some(owner) = objects.get(Kind::Service, &namespace, &owner) {
        service(&mut labels, owner);
    }
    let (mut targets, mut pods) = (Vec::new(), Vec::new());
    for port in list(&object["ports"]) {
        for endpoint in list(&object["endpoints"]) {
            for host in list(&endpoint["addresses"]) {
                let number = text(&port["port"]);
                let mut one = target(&text(host), &number);
                put(&mut one, "endpointslice_port", number.clone());
                put(&mut one, "endpointslice_port_name", text(&port["name"]));
                put(&mut one, "endpointslice_port_protocol", text(&port["protocol"]));
                put(&mut one, "endpointslice_port_app_protocol", text(&port["appProtocol"]));
                for condition in ["ready", "serving", "terminating"] {
                    put(
                        &mut one,
                        &format!("endpointslice_endpoint_conditions_{condition}"),
                        text(&endpoint["conditions"][condition]),
                    );
                }
                put(&mut one, "endpointslice_endpoint_hostname", text(&endpoint["hostname"]));
                put(&mut one, "endpointslice_endpoint_node_name", text(&endpoint["nodeName"]));
                put(&mut one, "endpointslice_endpoint_zone", text(&endpoint["zone"]));
                put(
                    &mut one,
                    "endpointslice_address_target_kind",
                    text(&endpoint["targetRef"]["kind"]),
                );
                put(
                    &mut one,
                    "endpointslice_address_target_name",
                    text(&endpoint["targetRef"]["name"]),
                );
                if with_node {
                    attached_node(
                        &mut one,
                        objects.get(Kind::Node, "", &text(&endpoint["nodeName"])),
                    );
                }
                let mut joined = LabelMap::new();
                pods.extend(attach_pod(
                    objects,
                    &mut joined,
                    &endpoint["targetRef"],
                    &namespace,
                    &number,
                ));
                joined.retain(|name, _| !name.contains("_endpoint_address_target_"));
                one.extend(joined);
                targets.push(one);
            }
        }
    }
    targets.extend(other_ports(&pods));
    Group { targets, labels }
}

fn ingress_group(object: &Value) -> Group {
    let mut labels = LabelMap::new();
    namespace(&mut labels, object);
    put(&mut labels, "ingress_name", text(&object["metadata"]["name"]));
    put(&mut labels, "ingress_class_name", text(&object["spec"]["ingressClassName"]));
    metadata(&mut labels, "ingress", object);
    let secured: Vec<String> =
        list(&object["spec"]["tls"]).iter().flat_map(|t| list(&t["hosts"])).map(text).collect();
    let mut targets = Vec::new();
    for rule in list(&object["spec"]["rules"]) {
        let host = text(&rule["host"]);
        let wildcard = |pattern: &String| {
            pattern
                .strip_prefix("*.")
                .is_some_and(|zone| host.split_once('.').is_some_and(|(_, rest)| rest == zone))
        };
        let scheme =
            if secured.iter().any(|s| *s == host || wildcard(s)) { "https" } else { "http" };
        let paths = list(&rule["http"]["paths"]);
        let mut found: Vec<String> = paths
            .iter()
            .map(|p| text(&p["path"]))
            .map(|p| if p.is_empty() { "/".to_owned() } else { p })
            .collect();
        if found.is_empty() {
            found.push("/".to_owned());
        }
        for path in found {
            let mut one = BTreeMap::from([(ADDRESS.to_owned(), host.clone())]);
            put(&mut one, "ingress_scheme", scheme);
            put(&mut one, "ingress_host", host.clone());
            put(&mut one, "ingress_path", path);
            targets.push(one);
        }
    }
    Group { targets, labels }
}
