//! The cells of tables, kind by kind.

use kube_codec::{now, parse_time};
use kube_spec::Resource;
use serde_json::Value;

use crate::object::{self, int, list, map, text};

mod pods;
mod workloads;

/// A column: header, JSON type, whether only wide output shows it, and how its cell is made.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) wide: bool,
    pub(super) cell: fn(&Value) -> Value,
}

const fn col(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", wide: false, cell }
}

const fn num(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "integer", wide: false, cell }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", wide: true, cell }
}

/// The columns of a resource.
pub(super) fn columns(resource: &Resource) -> Vec<Column> {
    let name = col("Name", |o| object::name(o).into());
    let age = || col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into());
    let mut columns = vec![name];
    columns.extend(match (resource.group, resource.plural) {
        ("", "pods") => pods::columns(),
        ("", "services") => services(),
        ("", "nodes") => nodes(),
        ("", "namespaces") => vec![col("Status", |o| text(o, "/status/phase").into()), age()],
        ("", "configmaps") => {
            vec![num("Data", |o| (count(o, "/data") + count(o, "/binaryData")).into()), age()]
        }
        ("", "secrets") => {
            vec![
                col("Type", |o| text(o, "/type").into()),
                num("Data", |o| count(o, "/data").into()),
                age(),
            ]
        }
        ("", "serviceaccounts") => {
            vec![num("Secrets", |o| list(o, "/secrets").len().into()), age()]
        }
        ("", "endpoints") => vec![col("Endpoints", |o| endpoints(o).into()), age()],
        ("", "persistentvolumeclaims") => claims(),
        ("", "replicationcontrollers") | ("apps" | "batch", _) => workloads::columns(resource),
        (_, "events") => return events(),
        ("coordination.k8s.io", _) => {
            vec![col("Holder", |o| text(o, "/spec/holderIdentity").into()), age()]
        }
        ("discovery.k8s.io", _) => vec![
            col("AddressType", |o| text(o, "/addressType").into()),
            col("Ports", |o| slice_ports(o).into()),
            col("Endpoints", |o| slice_endpoints(o).into()),
            age(),
        ],
        ("networking.k8s.io", "ingresses") => ingresses(),
        ("networking.k8s.io", "ingressclasses") => vec![
            col("Controller", |o| text(o, "/spec/controller").into()),
            col("Parameters", |_| "<none>".into()),
            age(),
        ],
        ("networking.k8s.io", "networkpolicies") => {
            vec![col("Pod-Selector", |o| selector(&o["spec"]["podSelector"]).into()), age()]
        }
        ("networking.k8s.io", "ipaddresses") => vec![col("ParentRef", |o| {
            let parent = &o["spec"]["parentRef"];
            format!(
                "{}/{}/{}",
                text(parent, "/resource"),
                text(parent, "/namespace"),
                text(parent, "/name")
            )
            .into()
        })],
        ("node.k8s.io", _) => vec![col("Handler", |o| text(o, "/handler").into()), age()],
        ("policy", _) => vec![
            col("Min Available", |o| or_na(&o["spec"]["minAvailable"])),
            col("Max Unavailable", |o| or_na(&o["spec"]["maxUnavailable"])),
            num("Allowed Disruptions", |o| {
                int(o, "/status/disruptionsAllowed").unwrap_or(0).into()
            }),
            age(),
        ],
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => {
            vec![col("Created At", |o| text(o, "/metadata/creationTimestamp").into())]
        }
        ("rbac.authorization.k8s.io", _) => vec![
            col("Role", |o| {
                format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")).into()
            }),
            age(),
        ],
        ("scheduling.k8s.io", _) => vec![
            num("Value", |o| int(o, "/value").unwrap_or(0).into()),
            col("Global-Default", |o| (o["globalDefault"] == true).into()),
            age(),
            col("PreemptionPolicy", |o| text(o, "/preemptionPolicy").into()),
        ],
        ("storage.k8s.io", "storageclasses") => vec![
            col("Provisioner", |o| text(o, "/provisioner").into()),
            col("ReclaimPolicy", |o| text(o, "/reclaimPolicy").into()),
            col("VolumeBindingMode", |o| text(o, "/volumeBindingMode").into()),
            col("AllowVolumeExpansion", |o| (o["allowVolumeExpansion"] == true).into()),
            age(),
        ],
        _ => vec![col("Created At", |o| text(o, "/metadata/creationTimestamp").into())],
    });
    columns
}

fn or_na(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

fn count(object: &Value, pointer: &str) -> usize {
    map(object, pointer).map_or(0, serde_json::Map::len)
}

fn none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `5m30s`, `3h12m`, `2d3h`, `15d`: how long ago, as kubectl prints it.
pub(super) fn age(since: &str) -> String {
    match parse_time(since) {
        Some((at, _)) => human(now() - at),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds as kubectl prints a duration.
pub(super) fn human(seconds: i64) -> String {
    let pair = |a: i64, x: char, b: i64, y: char| {
        if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(seconds / 60, 'm', seconds % 60, 's'),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => pair(seconds / 3600, 'h', seconds / 60 % 60, 'm'),
        28_800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => pair(seconds / 86_400, 'd', seconds / 3600 % 24, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / 86_400),
        63_072_000..252_288_000 => pair(seconds / 31_536_000, 'y', seconds / 86_400 % 365, 'd'),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

/// A label selector as text.
pub(super) fn selector(selector: &Value) -> String {
    none(crate::selector::selector_text(selector))
}

/// A plain map selector as text.
pub(super) fn labels(labels: Option<&serde_json::Map<String, Value>>) -> String {
    let terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    none(terms.join(","))
}

fn services() -> Vec<Column> {
    vec![
        col("Type", |o| text(o, "/spec/type").into()),
        col("Cluster-IP", |o| none(text(o, "/spec/clusterIP").to_owned()).into()),
        col("External-IP", |o| external_ip(o).into()),
        col("Port(s)", |o| {
            let ports: Vec<String> = list(o, "/spec/ports")
                .iter()
                .map(|p| {
                    let (port, protocol) = (int(p, "/port").unwrap_or(0), text(p, "/protocol"));
                    match int(p, "/nodePort").filter(|n| *n > 0) {
                        Some(node) => format!("{port}:{node}/{protocol}"),
                        None => format!("{port}/{protocol}"),
                    }
                })
                .collect();
            none(ports.join(",")).into()
        }),
        col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()),
        wide("Selector", |o| labels(map(o, "/spec/selector")).into()),
    ]
}

fn external_ip(service: &Value) -> String {
    let external: Vec<&str> =
        list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<&str> =
                list(service, "/status/loadBalancer/ingress")
                    .iter()
                    .map(|i| {
                        if text(i, "/ip").is_empty() {
                            text(i, "/hostname")
                        } else {
                            text(i, "/ip")
                        }
                    })
                    .collect();
            all.extend(external);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => none(external.join(",")),
    }
}

fn nodes() -> Vec<Column> {
    fn address(node: &Value, kind: &str) -> Value {
        let found = list(node, "/status/addresses").iter().find(|a| text(a, "/type") == kind);
        none(found.map(|a| text(a, "/address").to_owned()).unwrap_or_default()).into()
    }
    vec![
        col("Status", |o| {
            let ready = list(o, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
            let mut status = match ready.map(|c| text(c, "/status")) {
                Some("True") => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            }
            .to_owned();
            if o["spec"]["unschedulable"] == true {
                status.push_str(",SchedulingDisabled");
            }
            status.into()
        }),
        col("Roles", |o| {
            let roles: Vec<&str> = map(o, "/metadata/labels")
                .into_iter()
                .flatten()
                .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
                .filter(|r| !r.is_empty())
                .collect();
            none(roles.join(",")).into()
        }),
        col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()),
        col("Version", |o| text(o, "/status/nodeInfo/kubeletVersion").into()),
        wide("Internal-IP", |o| address(o, "InternalIP")),
        wide("External-IP", |o| address(o, "ExternalIP")),
        wide("OS-Image", |o| text(o, "/status/nodeInfo/osImage").into()),
        wide("Kernel-Version", |o| text(o, "/status/nodeInfo/kernelVersion").into()),
        wide("Container-Runtime", |o| text(o, "/status/nodeInfo/containerRuntimeVersion").into()),
    ]
}

fn claims() -> Vec<Column> {
    vec![
        col("Status", |o| {
            let leaving = object::is_set(o, "/metadata/deletionTimestamp");
            if leaving { "Terminating".into() } else { text(o, "/status/phase").into() }
        }),
        col("Volume", |o| text(o, "/spec/volumeName").into()),
        col("Capacity", |o| text(o, "/status/capacity/storage").into()),
        col("Access Modes", |o| {
            let modes: Vec<&str> = list(o, "/status/accessModes")
                .iter()
                .filter_map(Value::as_str)
                .map(|m| match m {
                    "ReadWriteOnce" => "RWO",
                    "ReadOnlyMany" => "ROX",
                    "ReadWriteMany" => "RWX",
                    "ReadWriteOncePod" => "RWOP",
                    other => other,
                })
                .collect();
            modes.join(",").into()
        }),
        col("StorageClass", |o| text(o, "/spec/storageClassName").into()),
        col("VolumeAttributesClass", |o| {
            none(text(o, "/spec/volumeAttributesClassName").to_owned()).into()
        }),
        col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()),
        wide("VolumeMode", |o| text(o, "/spec/volumeMode").into()),
    ]
}

fn endpoints(object: &Value) -> String {
    const SHOWN: usize = 3;
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        for port in list(subset, "/ports") {
            for address in list(subset, "/addresses") {
                all.push(format!("{}:{}", text(address, "/ip"), int(port, "/port").unwrap_or(0)));
            }
        }
    }
    shortened(&all, SHOWN)
}

fn shortened(all: &[String], shown: usize) -> String {
    if all.len() > shown {
        return format!("{} + {} more...", all[..shown].join(","), all.len() - shown);
    }
    none(all.join(","))
}

fn slice_ports(object: &Value) -> String {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(|p| int(p, "/port").map_or_else(|| text(p, "/name").to_owned(), |n| n.to_string()))
        .collect();
    if ports.is_empty() { "<unset>".to_owned() } else { shortened(&ports, 3) }
}

fn slice_endpoints(object: &Value) -> String {
    let all: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|e| list(e, "/addresses").iter().filter_map(Value::as_str))
        .map(str::to_owned)
        .collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all, 3) }
}

fn ingresses() -> Vec<Column> {
    vec![
        col("Class", |o| none(text(o, "/spec/ingressClassName").to_owned()).into()),
        col("Hosts", |o| {
            let hosts: Vec<String> = list(o, "/spec/rules")
                .iter()
                .map(|r| text(r, "/host"))
                .filter(|h| !h.is_empty())
                .map(str::to_owned)
                .collect();
            if hosts.is_empty() { "*".into() } else { shortened(&hosts, 3).into() }
        }),
        col("Address", |o| {
            let all: Vec<&str> =
                list(o, "/status/loadBalancer/ingress")
                    .iter()
                    .map(|i| {
                        if text(i, "/ip").is_empty() {
                            text(i, "/hostname")
                        } else {
                            text(i, "/ip")
                        }
                    })
                    .collect();
            all.join(",").into()
        }),
        col(
            "Ports",
            |o| if list(o, "/spec/tls").is_empty() { "80".into() } else { "80, 443".into() },
        ),
        col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()),
    ]
}

fn events() -> Vec<Column> {
    fn seen(event: &Value, keys: &[&str]) -> Value {
        let at = keys.iter().map(|k| text(event, k)).find(|t| !t.is_empty()).unwrap_or_default();
        age(at).into()
    }
    fn involved(event: &Value) -> &Value {
        event.get("involvedObject").or_else(|| event.get("regarding")).unwrap_or(&Value::Null)
    }
    vec![
        col("Last Seen", |o| {
            seen(
                o,
                &[
                    "/series/lastObservedTime",
                    "/lastTimestamp",
                    "/deprecatedLastTimestamp",
                    "/eventTime",
                    "/metadata/creationTimestamp",
                ],
            )
        }),
        col("Type", |o| text(o, "/type").into()),
        col("Reason", |o| text(o, "/reason").into()),
        col("Object", |o| {
            let about = involved(o);
            format!("{}/{}", text(about, "/kind").to_lowercase(), text(about, "/name")).into()
        }),
        wide("Subobject", |o| text(involved(o), "/fieldPath").into()),
        wide("Source", |o| {
            let component = text(o, "/source/component");
            if component.is_empty() {
                text(o, "/reportingComponent").into()
            } else {
                component.into()
            }
        }),
        col("Message", |o| {
            let message =
                if text(o, "/message").is_empty() { text(o, "/note") } else { text(o, "/message") };
            message.trim().into()
        }),
        wide("First Seen", |o| {
            seen(
                o,
                &[
                    "/firstTimestamp",
                    "/deprecatedFirstTimestamp",
                    "/eventTime",
                    "/metadata/creationTimestamp",
                ],
            )
        }),
        wide("Count", |o| {
            int(o, "/count").or_else(|| int(o, "/series/count")).unwrap_or(1).to_string().into()
        }),
        wide("Name", |o| object::name(o).into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3600, "60m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(human(seconds), want);
        }
    }
}
