//! Small kinds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::map;
use crate::object::{default_to, is_set, items_mut, map_mut, text};

/// Secret.
pub(super) fn secret(object: &mut Value) {
    merge_string_data(object);
    default_to(object, "type", "Opaque");
}

/// `stringData` becomes `data`.
pub(in crate::policy) fn merge_string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    let data = map_mut(object, "data");
    for (key, value) in texts {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
    }
}

/// PersistentVolumeClaim.
pub(super) fn claim(object: &mut Value) {
    default_to(map(object, "spec"), "volumeMode", "Filesystem");
}

/// NetworkPolicy.
pub(super) fn network_policy(object: &mut Value) {
    let spec = map(object, "spec");
    for (rules, _) in [("ingress", ()), ("egress", ())] {
        for rule in items_mut(spec, rules) {
            items_mut(rule, "ports").for_each(|port| default_to(port, "protocol", "TCP"));
        }
    }
    if !is_set(spec, "/policyTypes") {
        let egress = is_set(spec, "/egress");
        spec["policyTypes"] =
            if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}

/// RoleBinding and ClusterRoleBinding.
pub(super) fn binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default_to(map(object, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(object, "subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}
