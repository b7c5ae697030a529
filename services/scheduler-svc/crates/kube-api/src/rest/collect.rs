//! DELETE of a collection.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::Call;
use super::delete::DeleteOptions;
use super::options::ListOptions;
use crate::error::ApiError;
use crate::object;
use crate::server::Api;
use crate::views;

impl Api {
    pub(super) async fn delete_collection(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        if resource.plural == "namespaces" {
            return Err(ApiError::method_not_allowed());
        }
        let options = DeleteOptions::read(call)?;
        let list_options = ListOptions::parse(resource, &call.query)?;
        let listed = self.listed(call, &list_options).await?;
        let mut items: Vec<Value> = Vec::with_capacity(listed.entries.len());
        for entry in &listed.entries {
            let (namespace, name) = (object::namespace(&entry.object), object::name(&entry.object));
            match self.delete_object(views::stored_as(resource), namespace, name, &options).await {
                Ok(_) => items.push(views::to_client(resource, &entry.object).into_owned()),
                Err(error) if error.code == 404 || error.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        let list = json!({
            "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": listed.revision.to_string()}, "items": items,
        });
        Ok(crate::output::Output { shape: crate::output::Shape::Object, ..call.output }
            .respond(200, &list))
    }
}
