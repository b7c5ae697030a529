//! GET of one object.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use kube_spec::Resource;
use serde_json::Value;

use super::Call;
use super::options::parse_version;
use crate::error::ApiError;
use crate::output::{Encoding, Output, Shape, respond};
use crate::server::Api;
use crate::store::{Entry, StoreError};
use crate::{pages, stored, views};

impl Api {
    pub(super) async fn get(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let key = call.key();
        let version = parse_version(call.query.get("resourceVersion"))?;
        let entry = match version {
            Some(version) => {
                if version > 0 && !self.cache.wait(version, std::time::Duration::from_secs(3)).await
                {
                    return Err(ApiError::version_ahead(version, self.cache.revision()));
                }
                self.cache.of(resource).and_then(|c| c.get(&key))
            }
            None => self.current(views::stored_as(resource), &key).await?,
        };
        let entry = entry.ok_or_else(|| ApiError::not_found(resource, &call.target.name))?;
        Ok(show_entry(resource, &entry, call.output))
    }

    /// The newest state of an object: from the cache when the store says that it is the newest, from the cache
    /// alone when the store does not answer.
    pub(crate) async fn current(
        &self,
        resource: &'static Resource,
        key: &str,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        let cached = self.cache.of(resource).and_then(|c| c.get(key));
        match self.etcd.get(&self.store_key(resource, key)).await {
            Ok((None, _)) => Ok(None),
            Ok((Some(kv), _)) => match cached {
                Some(entry) if entry.revision == kv.mod_revision => Ok(Some(entry)),
                _ => {
                    let object = stored::decode(resource, &kv.value, kv.mod_revision)
                        .map_err(ApiError::internal)?;
                    Ok(Some(Arc::new(Entry::new(
                        key.to_owned(),
                        object,
                        kv.value,
                        kv.mod_revision,
                    ))))
                }
            },
            Err(StoreError::Unavailable(_)) if self.cache.revision() > 0 => Ok(cached),
            Err(error) => Err(error.into()),
        }
    }

    /// Key in the store.
    pub(crate) fn store_key(&self, resource: &Resource, key: &str) -> String {
        format!("{}{}/{key}", self.prefix, resource.storage)
    }
}

fn show_entry(resource: &'static Resource, entry: &Entry, output: Output) -> Response<Body> {
    let plain =
        output.encoding == Encoding::Json && output.shape == Shape::Object && !output.pretty;
    if plain && !views::differs(resource) {
        return respond(200, "application/json", entry.json());
    }
    show(200, resource, &entry.object, output)
}

/// Shows an object in the shape the client wants.
pub(crate) fn show(
    status: u16,
    resource: &'static Resource,
    object: &Value,
    output: Output,
) -> Response<Body> {
    match output.shape {
        Shape::Object => output.respond(status, &views::to_client(resource, object)),
        Shape::Metadata => output.respond(status, &views::partial(object)),
        Shape::Table => {
            let view = views::to_client(resource, object);
            output.respond(status, &pages::table(resource, &[&view], None, "Metadata"))
        }
    }
}
