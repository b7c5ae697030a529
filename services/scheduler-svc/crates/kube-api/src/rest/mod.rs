//! The verbs of stored resources.

mod apply;
mod collect;
mod create;
mod delete;
mod list;
mod options;
mod patch;
mod read;
mod update;
mod watch;
mod write;

pub use delete::DeleteOptions;
pub use write::Change;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use kube_spec::Resource;

use crate::body::FieldValidation;
use crate::error::ApiError;
use crate::identity::User;
use crate::output::Output;
use crate::request::{Query, Target};
use crate::server::Api;

/// One request to a resource.
#[derive(Debug)]
pub struct Call {
    /// What it is about.
    pub target: Target,
    /// Query.
    pub query: Query,
    /// Who asks.
    pub user: User,
    /// What the client accepts.
    pub output: Output,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Call {
    /// The resource.
    pub fn resource(&self) -> &'static Resource {
        self.target.resource
    }

    /// Key of the object, without the store's prefix and the resource's folder.
    pub fn key(&self) -> String {
        key(self.target.resource, &self.target.namespace, &self.target.name)
    }

    /// Whether nothing is to be written.
    ///
    /// # Errors
    /// 400 for a value other than `All`.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.all("dryRun") {
            [] => Ok(false),
            values if values.iter().all(|v| v == "All") => Ok(true),
            values => Err(ApiError::bad_request(format!(
                "dryRun: Unsupported value: {:?}: supported values: \"All\"",
                values.iter().find(|v| *v != "All").map_or("", |v| v.as_str())
            ))),
        }
    }

    /// How unknown fields are treated.
    ///
    /// # Errors
    /// 400 for an unknown mode.
    pub fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        FieldValidation::parse(self.query.get("fieldValidation"))
    }

    /// Who is recorded as the manager of fields.
    pub fn field_manager(&self) -> String {
        let given = self.query.get("fieldManager");
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent =
            self.headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        agent.split('/').next().unwrap_or("unknown").chars().take(128).collect()
    }
}

/// Key of an object below its resource's folder.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

impl Api {
    /// Deletes a pod on behalf of an eviction.
    pub(crate) async fn delete_pod(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        let pods = kube_spec::find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
        self.delete_object(pods, namespace, name, options).await.map(drop)
    }

    /// Serves a verb of a stored resource.
    ///
    /// # Errors
    /// What goes to the client as a Status.
    pub async fn serve(&self, verb: &str, call: Call) -> Result<Response<Body>, ApiError> {
        let target = &call.target;
        if target.resource.storage.is_empty() && target.subresource.is_none() {
            return self.serve_virtual(call).await;
        }
        if target.subresource.is_some_and(|s| s.name != "status") {
            return self.serve_subresource(verb, call).await;
        }
        match verb {
            "get" => self.get(&call).await,
            "list" => self.list(&call).await,
            "watch" => self.watch(call).await,
            "create" => self.create(&call).await,
            "update" => self.update(&call).await,
            "patch" => self.patch(&call).await,
            "delete" => self.delete(&call).await,
            "deletecollection" => self.delete_collection(&call).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}
