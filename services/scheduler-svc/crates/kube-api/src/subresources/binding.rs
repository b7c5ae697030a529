//! `pods/binding`: a pod gets its node, once.

use axum::body::Body;
use http::Response;
use kube_codec::{now, seconds_time};
use kube_spec::find;
use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::object::{self, text};
use crate::policy::Phase;
use crate::rest::{Call, Change};
use crate::server::Api;

impl Api {
    /// Binds the pod a Binding names (or the path's) to its target.
    pub(crate) async fn bind(
        &self,
        call: &Call,
        binding: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let pods = find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
        let name =
            if call.target.name.is_empty() { object::name(binding) } else { &call.target.name };
        let node = text(binding, "/target/name");
        let kind = text(binding, "/target/kind");
        let mut errors = Vec::new();
        if node.is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        if !matches!(kind, "" | "Node") {
            errors.push(FieldError::not_supported(
                "target.kind",
                &kind.into(),
                &["Node", "<empty>"],
            ));
        }
        if !errors.is_empty() {
            let bindings = find("", "v1", "bindings").ok_or_else(ApiError::no_such_path)?;
            return Err(ApiError::invalid(bindings, name, &errors));
        }
        let change = Change {
            resource: pods,
            namespace: &call.target.namespace,
            name,
            phase: Phase::Server,
            dry_run: call.dry_run()?,
        };
        self.change(change, |current| bound(pods, current, binding, node)).await?;
        let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(call.output.respond(201, &answer))
    }
}

fn bound(
    pods: &kube_spec::Resource,
    current: &Value,
    binding: &Value,
    node: &str,
) -> Result<Value, ApiError> {
    let name = object::name(current);
    let uid = object::uid(binding);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(current)
        );
        return Err(ApiError::conflict(pods, name, &why));
    }
    let refuse = |why: String| {
        // The kind is spelled so upstream.
        let mut error = ApiError::conflict(pods, name, &why);
        error.message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
        error
    };
    if object::is_set(current, "/metadata/deletionTimestamp") {
        return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let has = text(current, "/spec/nodeName");
    if !has.is_empty() {
        return Err(refuse(format!("pod {name} is already assigned to node {has:?}")));
    }
    if !object::list(current, "/spec/schedulingGates").is_empty() {
        return Err(refuse(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut next = current.clone();
    object::remove_meta(&mut next, "resourceVersion");
    next["spec"]["nodeName"] = node.into();
    for (key, value) in object::map(binding, "/metadata/annotations").into_iter().flatten() {
        object::map_mut(&mut next["metadata"], "annotations").insert(key.clone(), value.clone());
    }
    let mut conditions = object::list(current, "/status/conditions").to_vec();
    conditions.retain(|c| text(c, "/type") != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": seconds_time(now()).unwrap_or_default(),
    }));
    object::map_mut(&mut next, "status").insert("conditions".to_owned(), Value::Array(conditions));
    Ok(next)
}
