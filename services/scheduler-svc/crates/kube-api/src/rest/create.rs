//! POST of a new object.

use axum::body::Body;
use http::Response;
use kube_spec::Resource;
use serde_json::Value;

use super::Call;
use super::read::show;
use crate::error::{ApiError, FieldError};
use crate::output::warn;
use crate::server::Api;
use crate::{body, object, policy, views};

const GENERATED_ATTEMPTS: usize = 8;

impl Api {
    pub(super) async fn create(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        if !call.target.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let decoded = body::decode(&call.headers, &call.body, resource, call.field_validation()?)?;
        let mut created = views::to_stored(resource, decoded.object);
        set_namespace(resource, &mut created, &call.target.namespace)?;
        policy::track_create(&mut created, &call.field_manager());
        let object =
            self.create_object(views::stored_as(resource), created, call.dry_run()?).await?;
        let mut response = show(201, resource, &object, call.output);
        warn(&mut response, &decoded.warnings);
        Ok(response)
    }

    /// Defaults, checks and stores a new object.
    pub(crate) async fn create_object(
        &self,
        resource: &'static Resource,
        object: Value,
        dry_run: bool,
    ) -> Result<Value, ApiError> {
        let generate = object::text(&object, "/metadata/generateName").to_owned();
        let named = !object::name(&object).is_empty();
        if !named && generate.is_empty() {
            let error = FieldError::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(resource, "", &[error]));
        }
        for _ in 0..GENERATED_ATTEMPTS {
            let mut object = object.clone();
            if !named {
                object["metadata"]["name"] = policy::generated_name(&generate).into();
            }
            let (object, guards) = policy::prepare_create(self, resource, object).await?;
            if dry_run {
                return Ok(object);
            }
            let result = self.store_new(resource, object, guards).await;
            match result {
                Err(error) if error.reason == "AlreadyExists" && !named => {}
                Ok(object) => {
                    self.after_create(resource, &object).await;
                    return Ok(object);
                }
                result => return result,
            }
        }
        Err(ApiError::already_exists(resource, &generate))
    }
}

/// Puts the path's namespace into the object.
pub(super) fn set_namespace(
    resource: &Resource,
    object: &mut Value,
    namespace: &str,
) -> Result<(), ApiError> {
    let metadata = object::meta_mut(object);
    if !resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".to_owned(), namespace.into());
    Ok(())
}
