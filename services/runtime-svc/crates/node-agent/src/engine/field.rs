//! Fields of a pod as text: `fieldRef` and `resourceFieldRef`.

use super::kube::{Pod, ResourceFieldRef};
use super::quantity;

/// What the node knows beside the pod.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Name of the node.
    pub name: String,
    /// Address of the node.
    pub ip: String,
    /// Allocatable thousandths of a CPU.
    pub cpu_milli: i64,
    /// Allocatable bytes of memory.
    pub memory: i64,
    /// Allocatable bytes of disk.
    pub storage: i64,
}

/// The value of `path`, or why there is none.
///
/// # Errors
/// When the pod has no such field.
pub fn field(
    pod: &Pod,
    path: &str,
    node: &NodeFacts,
    pod_ips: &[String],
) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(values.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => node.ip.clone(),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    rest.strip_suffix("']").map(|key| (map, key))
}

fn format_map(map: &std::collections::BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A request or limit divided by its divisor, rounded up. A missing limit is the node's allocatable.
///
/// # Errors
/// When the container or the resource is unknown.
pub fn resource(
    pod: &Pod,
    own: &str,
    wanted: &ResourceFieldRef,
    node: &NodeFacts,
) -> Result<String, String> {
    let name = if wanted.container_name.is_empty() { own } else { &wanted.container_name };
    let container = pod.container(name).ok_or_else(|| format!("container {name} not found"))?;
    let (kind, resource) = wanted.resource.split_once('.').unwrap_or_default();
    let list = match kind {
        "limits" => &container.resources.limits,
        "requests" => &container.resources.requests,
        _ => return Err(format!("unsupported container resource : {}", wanted.resource)),
    };
    let amount = list.get(resource).and_then(|q| quantity::nanos(&q.0));
    let missing = match (kind, resource) {
        ("requests", _) => 0,
        (_, "cpu") => i128::from(node.cpu_milli) * 1_000_000,
        (_, "memory") => i128::from(node.memory) * 1_000_000_000,
        (_, "ephemeral-storage") => i128::from(node.storage) * 1_000_000_000,
        _ => 0,
    };
    let divisor = wanted.divisor.as_ref().and_then(|q| quantity::nanos(&q.0)).filter(|n| *n > 0);
    let divisor = divisor.unwrap_or(1_000_000_000);
    let amount = amount.unwrap_or(missing);
    Ok((amount / divisor + i128::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources_are_read() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b", "c": "d\"e"}},
            "spec": {"containers": [{"name": "m", "resources": {"limits": {"cpu": "1500m"}}}]}
        }))
        .unwrap();
        let node = NodeFacts { name: "n1".into(), memory: 1 << 30, ..NodeFacts::default() };
        let get = |path| field(&pod, path, &node, &["10.0.0.1".into(), "fd::1".into()]);
        assert_eq!(get("metadata.name").unwrap(), "p");
        assert_eq!(get("metadata.labels['a']").unwrap(), "b");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"b\"\nc=\"d\\\"e\"");
        assert_eq!(get("status.podIPs").unwrap(), "10.0.0.1,fd::1");
        assert_eq!(get("spec.nodeName").unwrap(), "n1");
        assert!(get("spec.containers").is_err());
        let ask = |resource: &str, divisor: &str| {
            let wanted =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            resource_text(&pod, &wanted, &node)
        };
        fn resource_text(pod: &Pod, wanted: &ResourceFieldRef, node: &NodeFacts) -> String {
            super::resource(pod, "m", wanted, node).unwrap()
        }
        assert_eq!(ask("limits.cpu", "1"), "2");
        assert_eq!(ask("limits.cpu", "1m"), "1500");
        assert_eq!(ask("limits.memory", "1Mi"), "1024");
        assert_eq!(ask("requests.memory", "0"), "0");
    }
}
