//! `scale`: the replica count of a workload as `autoscaling/v1 Scale`.

use axum::body::Body;
use http::Response;
use kube_codec::Parsed;
use serde_json::{Value, json};

use crate::body;
use crate::error::{ApiError, FieldError};
use crate::object::{self, int};
use crate::policy::Phase;
use crate::rest::{Call, Change};
use crate::selector::selector_text;
use crate::server::Api;

impl Api {
    pub(super) async fn scale_get(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let entry = self.current(call.resource(), &call.key()).await?;
        let entry = entry.ok_or_else(|| ApiError::not_found(call.resource(), &call.target.name))?;
        Ok(call.output.respond(200, &scale_of(&entry.object)))
    }

    pub(super) async fn scale_write(
        &self,
        verb: &str,
        call: &Call,
    ) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let id =
            kube_spec::types().find("autoscaling/v1.Scale").ok_or_else(ApiError::no_such_path)?;
        let mode = call.field_validation()?;
        let change = Change {
            resource,
            namespace: &call.target.namespace,
            name: &call.target.name,
            phase: Phase::Main,
            dry_run: call.dry_run()?,
        };
        let wanted = if verb == "update" {
            Some(
                body::decode_as(&call.headers, &call.body, id, "autoscaling/v1", "Scale", mode)?
                    .object,
            )
        } else {
            None
        };
        let written = self
            .change(change, |current| {
                let scale = match &wanted {
                    Some(scale) => scale.clone(),
                    None => patched(call, &scale_of(current), id, mode)?,
                };
                let replicas = int(&scale, "/spec/replicas").unwrap_or(0);
                if replicas < 0 {
                    let why = "must be greater than or equal to 0";
                    let error = FieldError::invalid("spec.replicas", &replicas.into(), why);
                    return Err(ApiError::invalid(resource, object::name(current), &[error]));
                }
                let mut next = current.clone();
                object::remove_meta(&mut next, "resourceVersion");
                let version = object::version(&scale);
                if !version.is_empty() && (wanted.is_some() || version != object::version(current))
                {
                    next["metadata"]["resourceVersion"] = version.into();
                }
                next["spec"]["replicas"] = replicas.into();
                let manager = call.field_manager();
                crate::policy::track_update(resource, current, &mut next, &manager, Phase::Main);
                Ok(next)
            })
            .await?;
        Ok(call.output.respond(200, &scale_of(&written.into_object())))
    }
}

fn patched(
    call: &Call,
    scale: &Value,
    id: kube_spec::StructId,
    mode: body::FieldValidation,
) -> Result<Value, ApiError> {
    let patch =
        kube_codec::parse_json(&call.body).map_err(|e| ApiError::bad_request(e.to_string()))?.value;
    let value = match body::media_type(&call.headers).as_str() {
        "application/json-patch+json" => {
            kube_merge::json_patch(scale, patch.as_array().map(Vec::as_slice).unwrap_or_default())
                .map_err(|e| ApiError::bad_request(e.to_string()))?
        }
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            kube_merge::merge_patch(scale, &patch)
        }
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "not supported yet: PATCH of scale with {other}"
            )));
        }
    };
    let parsed = Parsed { value, duplicates: Vec::new() };
    Ok(body::decode_tree(parsed, id, "autoscaling/v1", "Scale", mode)?.object)
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut meta = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(key) {
            meta[key] = value.clone();
        }
    }
    let replicas = int(object, "/spec/replicas").unwrap_or(0);
    let mut spec = json!({});
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": int(object, "/status/replicas").unwrap_or(0)});
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status})
}
