//! Server-side apply.

use axum::body::Body;
use http::Response;
use kube_codec::{now, seconds_time};
use kube_merge::apply;
use kube_spec::Resource;
use serde_json::Value;

use super::create::set_namespace;
use super::patch::check_identity;
use super::read::show;
use super::{Call, Change};
use crate::body::{self, FieldValidation};
use crate::error::{ApiError, FieldError};
use crate::policy::{self, Phase};
use crate::server::Api;
use crate::{object, views};

impl Api {
    pub(super) async fn apply(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let manager = call.query.get("fieldManager");
        if manager.is_empty() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            let mut error = ApiError::invalid(resource, "", &[error]);
            error.message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".to_owned();
            return Err(error);
        }
        if views::differs(resource) {
            return Err(ApiError::not_supported_yet(
                "server-side apply of events.k8s.io/v1 events (apply them as v1)",
            ));
        }
        let applied = read(call)?;
        let phase = if call.target.sub() == "status" { Phase::Status } else { Phase::Main };
        let change = Change {
            resource,
            namespace: &call.target.namespace,
            name: &call.target.name,
            phase,
            dry_run: call.dry_run()?,
        };
        let force = call.query.flag("force");
        let written = self
            .change(change, |live| applied_to(resource, live, &applied, manager, phase, force))
            .await;
        match written {
            Err(error)
                if error.code == 404 && error.reason == "NotFound" && phase == Phase::Main =>
            {
                let object = first(resource, applied, manager)?;
                let object = self.create_object(resource, object, change.dry_run).await?;
                Ok(show(201, resource, &object, call.output))
            }
            written => Ok(show(200, resource, &written?.into_object(), call.output)),
        }
    }
}

/// The applied configuration: only what the client wrote.
fn read(call: &Call) -> Result<Value, ApiError> {
    let resource = call.resource();
    let parsed = kube_codec::parse_yaml(&call.body)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    let mut applied = parsed.value.clone();
    let typed = body::decode_tree(
        parsed,
        resource.type_id(),
        &resource.api_version(),
        resource.kind,
        FieldValidation::Strict,
    )?;
    // Values in canonical form, but no field the client left out.
    canonical_values(&mut applied, &typed.object);
    if object::is_set(&applied, "/metadata/managedFields") {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    check_identity(call, &applied)?;
    set_namespace(resource, &mut applied, &call.target.namespace)?;
    Ok(applied)
}

fn canonical_values(applied: &mut Value, typed: &Value) {
    match (applied, typed) {
        (Value::Object(applied), Value::Object(typed)) => {
            applied.retain(|_, value| !value.is_null());
            for (key, value) in applied {
                if let Some(typed) = typed.get(key) {
                    canonical_values(value, typed);
                }
            }
        }
        (Value::Array(applied), Value::Array(typed)) => {
            for (value, typed) in applied.iter_mut().zip(typed) {
                canonical_values(value, typed);
            }
        }
        (applied, typed) => *applied = typed.clone(),
    }
}

fn first(resource: &'static Resource, applied: Value, manager: &str) -> Result<Value, ApiError> {
    let mut managers = Vec::new();
    let mine = policy::position(&mut managers, manager, true, "", &resource.api_version());
    managers[mine].fields = kube_merge::fields_of(resource.type_id().get(), &applied);
    let mut object = applied;
    policy::write_managers(&mut object, &managers);
    typed(resource, object)
}

fn typed(resource: &'static Resource, object: Value) -> Result<Value, ApiError> {
    let parsed = kube_codec::Parsed { value: object, duplicates: Vec::new() };
    let mode = FieldValidation::Ignore;
    Ok(body::decode_tree(parsed, resource.type_id(), &resource.api_version(), resource.kind, mode)?
        .object)
}

fn applied_to(
    resource: &'static Resource,
    live: &Value,
    applied: &Value,
    manager: &str,
    phase: Phase,
    force: bool,
) -> Result<Value, ApiError> {
    let subresource = if phase == Phase::Status { "status" } else { "" };
    let mut managers = policy::managers_of(live);
    if managers.is_empty() {
        managers.push(policy::before_first_apply(resource, live));
    }
    let mine = policy::position(&mut managers, manager, true, subresource, &resource.api_version());
    let before = managers[mine].fields.clone();
    let merged = apply(resource.type_id().get(), live, applied, &mut managers, mine, force);
    let mut merged = merged.map_err(|conflicts| ApiError::apply_conflicts(&conflicts))?;
    managers[mine].api_version = resource.api_version();
    if managers[mine].fields != before {
        managers[mine].time = seconds_time(now()).unwrap_or_default();
    }
    policy::write_managers(&mut merged, &managers);
    if object::version(applied).is_empty() {
        object::remove_meta(&mut merged, "resourceVersion");
    }
    typed(resource, merged)
}
