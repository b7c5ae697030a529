//! Services.

use serde_json::{Value, json};

use super::map;
use crate::object::{default_to, is_set, items_mut, text};

/// Service: type, ports, families and policies.
pub(super) fn service(object: &mut Value) {
    let spec = map(object, "spec");
    default_to(spec, "sessionAffinity", "None");
    default_to(spec, "type", "ClusterIP");
    if text(spec, "/sessionAffinity") == "ClientIP" {
        default_to(map(map(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10_800);
    }
    for port in items_mut(spec, "ports") {
        default_to(port, "protocol", "TCP");
        let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
            || port["targetPort"] == 0
            || port["targetPort"] == "";
        if unset {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = text(spec, "/type").to_owned();
    if kind == "ExternalName" {
        return;
    }
    default_to(spec, "internalTrafficPolicy", "Cluster");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" && !is_set(spec, "/allocateLoadBalancerNodePorts") {
        spec["allocateLoadBalancerNodePorts"] = true.into();
    }
    default_to(spec, "ipFamilyPolicy", "SingleStack");
    if !is_set(spec, "/ipFamilies") {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
}
