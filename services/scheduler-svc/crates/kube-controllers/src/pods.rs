//! What controllers ask about pods, and how they make them.

use std::time::Duration;

use flotilla_kube_client::{ObjectMeta, OwnerReference};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cache::kind::POD;
use crate::cache::{Object, parse_time};

/// Whether the pod has ended for good.
pub fn finished(pod: &Object) -> bool {
    matches!(pod.text("/status/phase"), "Succeeded" | "Failed")
}

/// Whether the pod counts for its controller: neither ended nor being deleted.
pub fn active(pod: &Object) -> bool {
    !finished(pod) && !pod.deleting()
}

/// Whether the Ready condition is true.
pub fn ready(pod: &Object) -> bool {
    pod.condition("Ready").is_some_and(|c| c["status"] == "True")
}

/// Since when the Ready condition has been true.
pub fn ready_since(pod: &Object) -> Option<Timestamp> {
    let condition = pod.condition("Ready").filter(|c| c["status"] == "True")?;
    parse_time(condition["lastTransitionTime"].as_str()?)
}

/// Whether the pod has been ready for `minimum` seconds; if it is ready but not yet that long, how long to wait.
pub fn available(pod: &Object, minimum: i64, now: Timestamp) -> Result<(), Option<Duration>> {
    if !ready(pod) {
        return Err(None);
    }
    if minimum <= 0 {
        return Ok(());
    }
    let Some(since) = ready_since(pod) else { return Err(Some(Duration::from_secs(1))) };
    let left = minimum * 1000 - (now.as_millisecond() - since.as_millisecond());
    if left <= 0 { Ok(()) } else { Err(Some(Duration::from_millis(left.unsigned_abs()))) }
}

/// The port a service's `targetPort` means on this pod.
pub fn port(pod: &Object, service_port: &Value) -> Option<i64> {
    let protocol = service_port["protocol"].as_str().unwrap_or("TCP");
    let name = match &service_port["targetPort"] {
        Value::Number(number) if number.as_i64() != Some(0) => return number.as_i64(),
        Value::String(name) if !name.is_empty() => name,
        _ => return service_port["port"].as_i64(),
    };
    let sidecars = pod.list("/spec/initContainers").iter();
    let sidecars = sidecars.filter(|c| c["restartPolicy"] == "Always");
    let containers = pod.list("/spec/containers").iter().chain(sidecars);
    let ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let wanted = |p: &&Value| {
        p["name"] == name.as_str() && p["protocol"].as_str().unwrap_or("TCP") == protocol
    };
    ports.clone().find(wanted).and_then(|p| p["containerPort"].as_i64())
}

/// A pod from a template, owned by `owner`; its name is left to the API.
pub fn from_template(
    template: &Value,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Object {
    let mut pod = Object::new(POD, namespace, "");
    let meta: ObjectMeta = serde_json::from_value(template["metadata"].clone()).unwrap_or_default();
    pod.metadata.labels = meta.labels;
    pod.metadata.annotations = meta.annotations;
    pod.metadata.finalizers = meta.finalizers;
    pod.metadata.owner_references = vec![owner];
    // The API appends five characters and allows 63 in all.
    let end = (0..=prefix.len().min(57)).rev().find(|at| prefix.is_char_boundary(*at)).unwrap_or(0);
    let prefix = format!("{}-", &prefix[..end]);
    pod.metadata.rest.insert("generateName".to_owned(), Value::String(prefix));
    let spec = template["spec"].as_object().cloned().unwrap_or_else(Map::new);
    pod.body.insert("spec".to_owned(), Value::Object(spec));
    pod
}

/// Restarts of all containers.
pub fn restarts(pod: &Object) -> i64 {
    let statuses = pod.list("/status/containerStatuses").iter();
    statuses.filter_map(|s| s["restartCount"].as_i64()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_port_is_looked_up_by_protocol() {
        let pod: Object = serde_json::from_value(json!({"spec": {"containers": [
            {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            {"ports": [{"name": "dns", "containerPort": 54}]}]}}))
        .unwrap();
        assert_eq!(
            port(&pod, &json!({"port": 1, "targetPort": "dns", "protocol": "UDP"})),
            Some(53)
        );
        assert_eq!(port(&pod, &json!({"port": 1, "targetPort": "dns"})), Some(54));
        assert_eq!(port(&pod, &json!({"port": 1, "targetPort": "web"})), None);
        assert_eq!(port(&pod, &json!({"port": 80, "targetPort": 8080})), Some(8080));
        assert_eq!(port(&pod, &json!({"port": 80})), Some(80));
    }
}
