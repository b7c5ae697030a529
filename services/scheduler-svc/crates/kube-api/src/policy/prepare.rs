//! What the server sets on objects before it stores them.

use bytes::Bytes;
use kube_codec::{now, seconds_time, typed};
use kube_spec::Resource;
use serde_json::{Value, json};

use super::{admission, apply_defaults, validate_create, validate_update};
use crate::error::ApiError;
use crate::object;
use crate::server::Api;

/// What part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything but the status (and the metadata the server owns).
    Main,
    /// The status.
    Status,
    /// Anything: the server itself writes (bindings, finalizers of namespaces).
    Server,
}

/// A name out of `generateName`.
pub fn generated_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 63 - 5;
    let base: String = base.chars().take(LONGEST).collect();
    let tail: String =
        (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    format!("{base}{tail}")
}

/// Kinds whose objects count changes of their spec.
fn has_generation(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.plural),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
            | ("batch", _)
            | ("autoscaling", _)
            | ("networking.k8s.io", "ingresses" | "networkpolicies" | "ingressclasses")
            | ("policy", _)
            | ("discovery.k8s.io", _)
            | ("scheduling.k8s.io", _)
            | ("", "pods" | "replicationcontrollers")
    )
}

/// Kinds whose creator may set the status.
fn keeps_status_on_create(resource: &Resource) -> bool {
    !resource.has_status() || resource.plural == "nodes"
}

/// Makes an object ready to be stored for the first time; with it come keys that must not exist yet.
///
/// # Errors
/// Admission's 403 and 404, validation's 422.
pub async fn prepare_create(
    api: &Api,
    resource: &'static Resource,
    mut object: Value,
) -> Result<(Value, Vec<(String, Bytes)>), ApiError> {
    let namespaced = !object::namespace(&object).is_empty();
    let metadata = object::meta_mut(&mut object);
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| !v.is_empty() && v != "0")
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    for key in [
        "resourceVersion",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), seconds_time(now()).unwrap_or_default().into());
    if has_generation(resource) {
        metadata.insert("generation".to_owned(), 1.into());
    }
    if !keeps_status_on_create(resource)
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert("status".to_owned(), json!({}));
    }
    initial_state(resource, &mut object);
    if namespaced {
        admission::namespace_accepts(api, resource, &object).await?;
    }
    admission::mutate_create(api, resource, &mut object).await?;
    apply_defaults(resource, &mut object);
    let guards = api.addresses.allocate(api, resource, None, &mut object)?;
    let object = canonical(resource, object)?;
    let errors = validate_create(resource, &object);
    if errors.is_empty() {
        Ok((object, guards))
    } else {
        Err(ApiError::invalid(resource, object::name(&object), &errors))
    }
}

/// Sets what a kind's first state holds.
fn initial_state(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "namespaces" => {
            let name = object::name(object).to_owned();
            let labels = object::map_mut(&mut object["metadata"], "labels");
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "pods" => {
            object["status"] = json!({"phase": "Pending", "qosClass": admission::qos_class(object)})
        }
        "persistentvolumeclaims" | "persistentvolumes" => {
            object["status"] = json!({"phase": "Pending"})
        }
        _ => {}
    }
}

/// Canonical form once more, after the server's own changes.
fn canonical(resource: &'static Resource, object: Value) -> Result<Value, ApiError> {
    let mut object = typed(resource.type_id().get(), object, &mut Vec::new())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.into();
    Ok(object)
}

/// Makes the next state of an object out of its current one and what a client wants.
///
/// # Errors
/// 409 for another uid, 422 for what validation finds.
pub fn prepare_update(
    api: &Api,
    resource: &'static Resource,
    phase: Phase,
    current: &Value,
    mut next: Value,
) -> Result<Value, ApiError> {
    let name = object::name(current).to_owned();
    let uid = object::uid(&next);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(current)
        );
        return Err(ApiError::conflict(resource, &name, &why));
    }
    keep_metadata(current, &mut next);
    match phase {
        Phase::Main if resource.has_status() => object::copy(&mut next, current, "status"),
        Phase::Status => keep_all_but_status(resource, current, &mut next),
        _ => {}
    }
    if phase == Phase::Main && resource.plural == "namespaces" {
        next["spec"]["finalizers"] = current["spec"]["finalizers"].clone();
    }
    if phase == Phase::Main && resource.plural == "secrets" {
        super::defaults::merge_string_data(&mut next);
    }
    let mut defaulted = next;
    inherit(resource, current, &mut defaulted);
    apply_defaults(resource, &mut defaulted);
    if phase != Phase::Status {
        api.addresses.allocate(api, resource, Some(current), &mut defaulted)?;
    }
    let mut next = canonical(resource, defaulted)?;
    count_generation(resource, current, &mut next);
    if phase != Phase::Server {
        let errors = validate_update(resource, phase, current, &next);
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource, &name, &errors));
        }
    }
    Ok(next)
}

fn keep_metadata(current: &Value, next: &mut Value) {
    let old = &current["metadata"];
    let metadata = object::meta_mut(next);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "namespace",
        "name",
    ] {
        match old.get(key) {
            Some(value) => {
                metadata.insert(key.to_owned(), value.clone());
            }
            None => {
                metadata.remove(key);
            }
        }
    }
    metadata.remove("selfLink");
    // No finalizer may be added to an object that is on its way out.
    let leaving = old.get("deletionTimestamp").is_some_and(|t| !t.is_null());
    if leaving {
        let before: Vec<Value> = object::list(current, "/metadata/finalizers").to_vec();
        if let Some(Value::Array(list)) = metadata.get_mut("finalizers") {
            list.retain(|f| before.contains(f));
        }
    }
}

fn keep_all_but_status(resource: &Resource, current: &Value, next: &mut Value) {
    let keys: Vec<String> = current
        .as_object()
        .into_iter()
        .flatten()
        .chain(next.as_object().into_iter().flatten())
        .map(|(k, _)| k.clone())
        .filter(|k| !matches!(k.as_str(), "status" | "metadata" | "apiVersion" | "kind"))
        .collect();
    for key in keys {
        object::copy(next, current, &key);
    }
    let kept: &[&str] = match (resource.group, resource.plural) {
        ("apps", _) => &["labels", "ownerReferences"],
        ("", "pods") => &["ownerReferences"],
        _ => &[],
    };
    for key in kept {
        let old = current["metadata"].get(*key).cloned();
        let metadata = object::meta_mut(next);
        match old {
            Some(value) => metadata.insert((*key).to_owned(), value),
            None => metadata.remove(*key),
        };
    }
}

/// Fields the server chose on creation, when an update leaves them out.
fn inherit(resource: &Resource, current: &Value, next: &mut Value) {
    match (resource.group, resource.plural) {
        ("batch", "jobs") if !object::is_set(next, "/spec/selector") => {
            next["spec"]["selector"] = current["spec"]["selector"].clone();
        }
        ("", "pods") => {
            for key in
                ["nodeName", "serviceAccountName", "schedulerName", "priority", "preemptionPolicy"]
            {
                if !object::is_set(&next["spec"], &format!("/{key}"))
                    || object::text(&next["spec"], &format!("/{key}")).is_empty()
                        && current["spec"][key].is_string()
                {
                    let old = current["spec"][key].clone();
                    if !old.is_null() {
                        next["spec"][key] = old;
                    }
                }
            }
        }
        _ => {}
    }
}

fn count_generation(resource: &Resource, current: &Value, next: &mut Value) {
    if !has_generation(resource) {
        return;
    }
    let body = |object: &Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("metadata");
            fields.remove("status");
        }
        object
    };
    let annotations =
        |object: &Value| object.pointer("/metadata/annotations").cloned().unwrap_or_default();
    let changed = body(current) != body(next)
        || (resource.plural == "deployments" && annotations(current) != annotations(next));
    let generation = object::int(current, "/metadata/generation").unwrap_or(0) + i64::from(changed);
    if generation > 0 {
        object::meta_mut(next).insert("generation".to_owned(), generation.into());
    }
}

/// Whether nothing keeps an object that is to be deleted.
pub fn finished(resource: &Resource, object: &Value) -> bool {
    let leaving = object::is_set(object, "/metadata/deletionTimestamp");
    let graceful = object::int(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) > 0;
    let held = !object::list(object, "/metadata/finalizers").is_empty()
        || (resource.plural == "namespaces"
            && !object::list(object, "/spec/finalizers").is_empty());
    leaving && !graceful && !held
}

/// Refuses to delete what the cluster cannot be without.
///
/// # Errors
/// 403 for the namespaces of the system.
pub fn check_delete(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let name = object::name(object);
    if resource.plural == "namespaces" && matches!(name, "default" | "kube-system" | "kube-public")
    {
        return Err(ApiError::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generated_name("web-").len(), 9);
        assert_eq!(generated_name(&"x".repeat(300)).len(), 63);
    }

    #[test]
    fn objects_go_when_nothing_holds_them() {
        let pods = kube_spec::find("", "v1", "pods").unwrap();
        let object = |extra: Value| {
            let mut metadata = json!({"name": "a", "deletionTimestamp": "2024-01-01T00:00:00Z"});
            for (k, v) in extra.as_object().unwrap() {
                metadata[k] = v.clone();
            }
            json!({"metadata": metadata})
        };
        assert!(finished(pods, &object(json!({"deletionGracePeriodSeconds": 0}))));
        assert!(!finished(pods, &object(json!({"deletionGracePeriodSeconds": 30}))));
        assert!(!finished(pods, &object(json!({"finalizers": ["x"]}))));
        assert!(!finished(pods, &json!({"metadata": {"name": "a"}})));
    }
}
