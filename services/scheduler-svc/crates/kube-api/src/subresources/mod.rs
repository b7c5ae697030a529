//! Parts of objects with rules of their own.

mod binding;
mod eviction;
mod proxy;
mod scale;
mod token;

pub use proxy::KubeletClient;

use axum::body::Body;
use http::Response;

use crate::error::ApiError;
use crate::policy::Phase;
use crate::rest::{Call, Change};
use crate::server::Api;
use crate::{body, object};

impl Api {
    pub(crate) async fn serve_subresource(
        &self,
        verb: &str,
        call: Call,
    ) -> Result<Response<Body>, ApiError> {
        match (call.resource().plural, call.target.sub(), verb) {
            (_, "scale", "get") => self.scale_get(&call).await,
            (_, "scale", "update" | "patch") => self.scale_write(verb, &call).await,
            ("pods", "binding", "create") => {
                let decoded = body::decode_as(
                    &call.headers,
                    &call.body,
                    kube_spec::types()
                        .find("core/v1.Binding")
                        .ok_or_else(ApiError::no_such_path)?,
                    "v1",
                    "Binding",
                    call.field_validation()?,
                )?;
                self.bind(&call, &decoded.object).await
            }
            ("pods", "eviction", "create") => self.evict(&call).await,
            ("pods", "ephemeralcontainers" | "resize", _) => {
                Err(ApiError::not_supported_yet(&format!("pods/{}", call.target.sub())))
            }
            ("serviceaccounts", "token", "create") => self.issue_token(&call).await,
            ("namespaces", "finalize", "update") => self.finalize(&call).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// `namespaces/finalize`: only `spec.finalizers` changes.
    async fn finalize(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let decoded = body::decode(&call.headers, &call.body, resource, call.field_validation()?)?;
        let wanted = decoded.object;
        let change = Change {
            resource,
            namespace: "",
            name: &call.target.name,
            phase: Phase::Server,
            dry_run: call.dry_run()?,
        };
        let written = self
            .change(change, |current| {
                let mut next = current.clone();
                object::remove_meta(&mut next, "resourceVersion");
                let version = object::version(&wanted);
                if !version.is_empty() {
                    next["metadata"]["resourceVersion"] = version.into();
                }
                next["spec"]["finalizers"] = wanted["spec"]["finalizers"].clone();
                Ok(next)
            })
            .await?;
        Ok(call.output.respond(200, &written.into_object()))
    }
}
