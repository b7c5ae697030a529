//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use axum::body::Body;
use http::Response;
use kube_codec::Parsed;
use kube_merge::{PatchError, json_patch, merge_patch, strategic_merge};
use kube_spec::Resource;
use serde_json::Value;

use super::create::set_namespace;
use super::read::show;
use super::{Call, Change};
use crate::body::{self, FieldValidation, media_type};
use crate::error::ApiError;
use crate::output::warn;
use crate::policy::{self, Phase};
use crate::server::Api;
use crate::{object, views};

/// A patch, read.
enum Patch {
    Json(Vec<Value>),
    Merge(Value),
    Strategic(Value),
}

impl Api {
    pub(super) async fn patch(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let media = media_type(&call.headers);
        if media == "application/apply-patch+yaml" {
            return self.apply(call).await;
        }
        if call.query.has("force") {
            return Err(ApiError::bad_request(
                "force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        let resource = call.resource();
        let (patch, mut warnings) = read(&media, &call.body)?;
        let mode = call.field_validation()?;
        let phase = if call.target.sub() == "status" { Phase::Status } else { Phase::Main };
        let change = Change {
            resource: views::stored_as(resource),
            namespace: &call.target.namespace,
            name: &call.target.name,
            phase,
            dry_run: call.dry_run()?,
        };
        let manager = call.field_manager();
        let mut heard = Vec::new();
        let written = self
            .change(change, |current| {
                let view = views::to_client(resource, current);
                let (patched, said) = patch.apply(resource, &view, mode)?;
                heard = said;
                let mut next = views::to_stored(resource, patched);
                let unchanged_version = object::version(&next) == object::version(current);
                if unchanged_version && !patch.names_version() {
                    object::remove_meta(&mut next, "resourceVersion");
                }
                check_identity(call, &next)?;
                set_namespace(resource, &mut next, &call.target.namespace)?;
                policy::track_update(
                    views::stored_as(resource),
                    current,
                    &mut next,
                    &manager,
                    phase,
                );
                Ok(next)
            })
            .await?;
        warnings.extend(heard);
        let mut response = show(200, resource, &written.into_object(), call.output);
        warn(&mut response, &warnings);
        Ok(response)
    }
}

/// A patch must not rename the object.
pub(super) fn check_identity(call: &Call, object: &Value) -> Result<(), ApiError> {
    let (name, given) = (&call.target.name, object::name(object));
    if given == name {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({given}) does not match the name on the URL ({name})"
    )))
}

fn read(media: &str, text: &[u8]) -> Result<(Patch, Vec<String>), ApiError> {
    let parse = || kube_codec::parse_json(text).map_err(|e| ApiError::bad_request(e.to_string()));
    match media {
        "application/json-patch+json" => match parse()?.value {
            Value::Array(list) if list.len() > 10_000 => Err(ApiError::bad_request(
                "The allowed maximum operations in a JSON patch is 10000",
            )),
            Value::Array(list) => Ok((Patch::Json(list), Vec::new())),
            _ => Err(ApiError::bad_request(
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
            )),
        },
        "application/merge-patch+json" => {
            let Parsed { value, duplicates } = parse()?;
            Ok((Patch::Merge(value), named(&duplicates)))
        }
        "application/strategic-merge-patch+json" => {
            let Parsed { value, duplicates } = parse()?;
            Ok((Patch::Strategic(value), named(&duplicates)))
        }
        _ => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
             application/strategic-merge-patch+json",
        )),
    }
}

fn named(duplicates: &[String]) -> Vec<String> {
    duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect()
}

impl Patch {
    fn apply(
        &self,
        resource: &'static Resource,
        current: &Value,
        mode: FieldValidation,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let patched = match self {
            Self::Json(operations) => json_patch(current, operations),
            Self::Merge(patch) => Ok(merge_patch(current, patch)),
            Self::Strategic(patch) => strategic_merge(resource.type_id().get(), current, patch),
        };
        let patched = patched.map_err(|error| match error {
            PatchError::TestFailed(why) | PatchError::Missing(why) => {
                let mut error = ApiError::bad_request(format!(
                    "the server rejected our request due to an error in our request: {why}"
                ));
                error.code = 422;
                error.reason = "Invalid";
                error
            }
            PatchError::Malformed(why) => ApiError::bad_request(why),
        })?;
        let parsed = Parsed { value: patched, duplicates: Vec::new() };
        let decoded = body::decode_tree(
            parsed,
            resource.type_id(),
            &resource.api_version(),
            resource.kind,
            mode,
        )?;
        Ok((decoded.object, decoded.warnings))
    }

    /// Whether the patch itself asks for a resource version.
    fn names_version(&self) -> bool {
        match self {
            Self::Json(operations) => {
                operations.iter().any(|op| object::text(op, "/path") == "/metadata/resourceVersion")
            }
            Self::Merge(patch) | Self::Strategic(patch) => !object::version(patch).is_empty(),
        }
    }
}
