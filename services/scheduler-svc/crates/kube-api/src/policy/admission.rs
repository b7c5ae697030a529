//! What upstream's default admission plugins do: namespace lifecycle, service accounts, priorities, tolerations.

use kube_codec::Quantity;
use kube_spec::{Resource, find};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::object;
use crate::server::Api;

/// NamespaceLifecycle: the namespace exists and is not on its way out.
pub(super) async fn namespace_accepts(
    api: &Api,
    resource: &Resource,
    object: &Value,
) -> Result<(), ApiError> {
    let namespace = object::namespace(object);
    let resource_ns =
        find("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    let mut entry = api.cache.of(resource_ns).and_then(|c| c.get(namespace));
    if entry.is_none() {
        entry = api.fetch(resource_ns, namespace).await?;
    }
    let Some(entry) = entry else { return Err(ApiError::not_found(resource_ns, namespace)) };
    if object::is_set(&entry.object, "/metadata/deletionTimestamp") {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error =
            ApiError::forbidden(resource.group, resource.plural, object::name(object), why);
        if let Some(details) = &mut error.details {
            details["causes"] = json!([{"reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}]);
        }
        return Err(error);
    }
    Ok(())
}

/// Everything else that happens on creation.
pub(super) async fn mutate_create(
    api: &Api,
    resource: &Resource,
    object: &mut Value,
) -> Result<(), ApiError> {
    match (resource.group, resource.plural) {
        ("", "pods") => {
            service_account(api, object).await?;
            priority(api, object)?;
            tolerations(object);
            Ok(())
        }
        ("networking.k8s.io", "ingresses") => {
            default_ingress_class(api, object);
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn service_account(api: &Api, pod: &mut Value) -> Result<(), ApiError> {
    let spec = object::map_mut(pod, "spec");
    let given = |key: &str| {
        spec.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned)
    };
    let name = given("serviceAccountName")
        .or_else(|| given("serviceAccount"))
        .unwrap_or_else(|| "default".to_owned());
    spec.insert("serviceAccountName".to_owned(), name.as_str().into());
    spec.insert("serviceAccount".to_owned(), name.as_str().into());
    if name == "default" {
        return Ok(());
    }
    let accounts = find("", "v1", "serviceaccounts")
        .ok_or_else(|| ApiError::internal("no serviceaccounts"))?;
    let key = format!("{}/{name}", object::namespace(pod));
    let known = api.cache.of(accounts).and_then(|c| c.get(&key)).is_some()
        || api.fetch(accounts, &key).await?.is_some();
    if known {
        return Ok(());
    }
    let why = format!("error looking up service account {key}: serviceaccount {name:?} not found");
    Err(ApiError::forbidden("", "pods", object::name(pod), why))
}

fn priority(api: &Api, pod: &mut Value) -> Result<(), ApiError> {
    let class = object::text(pod, "/spec/priorityClassName").to_owned();
    let (value, preemption) = match class.as_str() {
        "system-cluster-critical" => (2_000_000_000, "PreemptLowerPriority".to_owned()),
        "system-node-critical" => (2_000_001_000, "PreemptLowerPriority".to_owned()),
        _ => {
            let classes =
                find("scheduling.k8s.io", "v1", "priorityclasses").and_then(|r| api.cache.of(r));
            let found = classes.and_then(|c| {
                if class.is_empty() {
                    c.list("").into_iter().find(|e| e.object["globalDefault"] == true)
                } else {
                    c.get(&class)
                }
            });
            match found {
                Some(entry) => (
                    object::int(&entry.object, "/value").unwrap_or(0),
                    object::text(&entry.object, "/preemptionPolicy").to_owned(),
                ),
                None if class.is_empty() => (0, String::new()),
                None => {
                    let why = format!("no PriorityClass with name {class} was found");
                    return Err(ApiError::forbidden("", "pods", object::name(pod), why));
                }
            }
        }
    };
    let preemption =
        if preemption.is_empty() { "PreemptLowerPriority".to_owned() } else { preemption };
    pod["spec"]["priority"] = value.into();
    object::default_to(&mut pod["spec"], "preemptionPolicy", preemption);
    Ok(())
}

/// DefaultTolerationSeconds.
fn tolerations(pod: &mut Value) {
    let tolerations = object::list(pod, "/spec/tolerations").to_vec();
    let mut next = tolerations.clone();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|t| {
            let (own, effect) = (object::text(t, "/key"), object::text(t, "/effect"));
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !covered {
            next.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    pod["spec"]["tolerations"] = Value::Array(next);
}

fn default_ingress_class(api: &Api, ingress: &mut Value) {
    let legacy = ingress.pointer("/metadata/annotations/kubernetes.io~1ingress.class").is_some();
    if legacy || object::is_set(ingress, "/spec/ingressClassName") {
        return;
    }
    let classes = find("networking.k8s.io", "v1", "ingressclasses").and_then(|r| api.cache.of(r));
    let default = classes.map(|c| c.list("")).unwrap_or_default().into_iter().find(|e| {
        e.object
            .pointer("/metadata/annotations/ingressclass.kubernetes.io~1is-default-class")
            .and_then(Value::as_str)
            == Some("true")
    });
    if let Some(class) = default {
        ingress["spec"]["ingressClassName"] = object::name(&class.object).into();
    }
}

/// Guaranteed, Burstable or BestEffort.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers = object::list(pod, "/spec/containers")
        .iter()
        .chain(object::list(pod, "/spec/initContainers"));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let amount = |kind: &str, resource: &str| {
            let text = object::text(container, &format!("/resources/{kind}/{resource}"));
            text.parse::<Quantity>().ok().filter(|q| q.signum() > 0)
        };
        for resource in ["cpu", "memory"] {
            let (limit, request) = (amount("limits", resource), amount("requests", resource));
            any |= limit.is_some() || request.is_some();
            let equal = match (limit, request) {
                (Some(limit), Some(request)) => limit.nanos() == request.nanos(),
                (Some(_), None) => true,
                _ => false,
            };
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_service_follows_the_resources() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
    }
}
