//! The environment of a container: services, `envFrom`, `env`, in that order, later ones winning.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::expand::expand;
use super::field::{self, NodeFacts};
use super::kube::{Container, KeyRef, OptionalRef, Pod};
use flotilla_kube_client::ObjectMeta;

/// What a Service contributes to environments.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// Address and ports.
    pub spec: ServiceSpec,
}

/// Address and ports of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `None` or empty when headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; empty when there is only one.
    pub name: String,
    /// The Service's port.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// Data of the ConfigMaps and Secrets a container refers to.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// ConfigMaps by name; missing ones are absent.
    pub config_maps: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Secrets by name, decoded.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// Everything an environment is made of.
#[derive(Debug)]
pub struct EnvInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Services of the pod's namespace, and `kubernetes` of `default`.
    pub services: &'a [Service],
    /// Referred objects.
    pub sources: &'a Sources,
    /// The node.
    pub node: &'a NodeFacts,
    /// The pod's addresses.
    pub pod_ips: &'a [String],
}

/// The variables in the order they are set.
///
/// # Errors
/// When an object, key or field that is not optional is missing; the text is the container's waiting message.
pub fn environment(input: &EnvInput<'_>) -> Result<Vec<(String, String)>, String> {
    let mut set: Vec<(String, String)> = Vec::new();
    let links = input.pod.spec.enable_service_links.unwrap_or(true);
    let mut services = BTreeMap::new();
    for service in input.services {
        let is_api =
            service.metadata.namespace == "default" && service.metadata.name == "kubernetes";
        if is_api || (links && service.metadata.namespace == input.pod.metadata.namespace) {
            service_variables(service, &mut services);
        }
    }
    let container = input.container;
    for from in &container.env_from {
        let config_maps =
            from.config_map_ref.as_ref().map(|r| (r, &input.sources.config_maps, "configmap"));
        let secrets = from.secret_ref.as_ref().map(|r| (r, &input.sources.secrets, "secret"));
        for (reference, objects, kind) in config_maps.into_iter().chain(secrets) {
            for (key, value) in object(reference, objects, kind)? {
                put(
                    &mut set,
                    format!("{}{key}", from.prefix),
                    String::from_utf8_lossy(value).into_owned(),
                );
            }
        }
    }
    for variable in &container.env {
        if let Some(value) = value_of(input, variable, &set, &services)? {
            services.remove(&variable.name);
            put(&mut set, variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !set.iter().any(|(other, _)| *other == name) {
            set.push((name, value));
        }
    }
    Ok(set)
}

fn put(set: &mut Vec<(String, String)>, name: String, value: String) {
    set.retain(|(other, _)| *other != name);
    set.push((name, value));
}

fn object<'a>(
    reference: &OptionalRef,
    objects: &'a BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    kind: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Vec<u8>)> + use<'a>, String> {
    match objects.get(&reference.name) {
        Some(data) => Ok(Some(data).into_iter().flatten()),
        None if reference.optional == Some(true) => Ok(None.into_iter().flatten()),
        None => Err(format!("{kind} \"{}\" not found", reference.name)),
    }
}

fn value_of(
    input: &EnvInput<'_>,
    variable: &super::kube::EnvVar,
    set: &[(String, String)],
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        let lookup = |name: &str| {
            let known = set.iter().find(|(other, _)| other == name).map(|(_, value)| value);
            known.or_else(|| services.get(name)).cloned()
        };
        return Ok(Some(expand(&variable.value, lookup)));
    };
    if let Some(wanted) = &from.field_ref {
        return field::field(input.pod, &wanted.field_path, input.node, input.pod_ips).map(Some);
    }
    if let Some(wanted) = &from.resource_field_ref {
        return field::resource(input.pod, &input.container.name, wanted, input.node).map(Some);
    }
    let namespace = &input.pod.metadata.namespace;
    if let Some(wanted) = &from.config_map_key_ref {
        return key(wanted, &input.sources.config_maps, "configmap", "ConfigMap", namespace);
    }
    if let Some(wanted) = &from.secret_key_ref {
        return key(wanted, &input.sources.secrets, "secret", "Secret", namespace);
    }
    Ok(Some(String::new()))
}

fn key(
    wanted: &KeyRef,
    objects: &BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    kind: &str,
    title: &str,
    namespace: &str,
) -> Result<Option<String>, String> {
    let optional = wanted.optional == Some(true);
    let Some(data) = objects.get(&wanted.name) else {
        return if optional {
            Ok(None)
        } else {
            Err(format!("{kind} \"{}\" not found", wanted.name))
        };
    };
    match data.get(&wanted.key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => {
            Err(format!("couldn't find key {} in {title} {namespace}/{}", wanted.key, wanted.name))
        }
    }
}

/// The variables docker links had: `X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_PORT_80_TCP_ADDR`, ...
fn service_variables(service: &Service, out: &mut BTreeMap<String, String>) {
    let (ip, ports) = (&service.spec.cluster_ip, &service.spec.ports);
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else { return };
    let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
    let name = upper(&service.metadata.name);
    let protocol = |port: &ServicePort| {
        if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() }
    };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let url =
        |port: &ServicePort| format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port);
    out.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    out.insert(format!("{name}_PORT"), url(first));
    for port in ports {
        if !port.name.is_empty() {
            out.insert(format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port));
        out.insert(prefix.clone(), url(port));
        out.insert(format!("{prefix}_PROTO"), protocol(port).to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(
        container: serde_json::Value,
        sources: &Sources,
    ) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}})).unwrap();
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432, "protocol": "TCP"}]}},
            {"metadata": {"name": "other", "namespace": "x"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}},
            {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
        ]))
        .unwrap();
        let node = NodeFacts::default();
        let input = EnvInput {
            pod: &pod,
            container: &pod.spec.containers[0],
            services: &services,
            sources,
            node: &node,
            pod_ips: &[],
        };
        environment(&input).map(|all| all.into_iter().collect())
    }

    #[test]
    fn all_sources_are_merged() {
        let mut sources = Sources::default();
        sources.config_maps.insert("cm".into(), [("k".to_owned(), b"v".to_vec())].into());
        sources.secrets.insert("s".into(), [("pw".to_owned(), b"x y".to_vec())].into());
        let env = build(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(P_k)-$(MY_DB_SERVICE_HOST)-$(NO)"},
                        {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                        {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": true}}}]}),
            &sources,
        )
        .unwrap();
        assert_eq!(env["B"], "1-v-10.96.0.7-$(NO)");
        assert_eq!((env["N"].as_str(), env["PW"].as_str()), ("p", "x y"));
        assert!(!env.contains_key("O"));
        assert_eq!(env["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(env["MY_DB_PORT_5432_TCP"], "tcp://10.96.0.7:5432");
        assert!(!env.contains_key("OTHER_SERVICE_HOST"));
    }

    #[test]
    fn missing_objects_are_named() {
        let sources = Sources::default();
        let text =
            build(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}}]}), &sources)
                .unwrap_err();
        assert_eq!(text, "configmap \"cm\" not found");
        let mut sources = Sources::default();
        sources.secrets.insert("s".into(), BTreeMap::new());
        let variable = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        assert_eq!(build(variable, &sources).unwrap_err(), "couldn't find key k in Secret ns/s");
    }
}
