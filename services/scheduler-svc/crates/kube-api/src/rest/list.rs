//! LIST: from the cache where the asked-for version allows, from the store for exact versions and later pages.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use http::Response;
use kube_spec::Resource;
use serde_json::{Value, json};

use super::Call;
use super::options::{ListOptions, Match};
use crate::error::ApiError;
use crate::output::{Encoding, Output, Shape, respond};
use crate::server::Api;
use crate::store::{Entry, StoreError};
use crate::{pages, stored, views};

const WAIT: Duration = Duration::from_secs(3);
const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start \
     a new list without the continue parameter, or use the continue token in this response to retrieve the remainder \
     of the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
     modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Objects and what the list's metadata says.
pub(super) struct Listed {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) revision: i64,
    continue_token: String,
    remaining: Option<usize>,
}

impl Api {
    pub(super) async fn list(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let options = ListOptions::parse(call.resource(), &call.query)?;
        let listed = self.listed(call, &options).await?;
        Ok(show_list(call.resource(), &listed, call.output, call.query.get("includeObject")))
    }

    pub(super) async fn listed(
        &self,
        call: &Call,
        options: &ListOptions,
    ) -> Result<Listed, ApiError> {
        let resource = call.resource();
        let namespace = &call.target.namespace;
        let prefix = if resource.namespaced && !namespace.is_empty() {
            format!("{namespace}/")
        } else {
            String::new()
        };
        if !options.continue_token.is_empty() {
            if options.version.is_some_and(|v| v != 0) || options.matching != Match::Unset {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let (revision, start) = decode_token(&options.continue_token)?;
            return self.stored_list(resource, &prefix, &start, revision, options).await;
        }
        if options.matching != Match::Unset && options.version.is_none() {
            return Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        match (options.version, options.matching) {
            (Some(0), Match::Exact) => Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            )),
            (Some(version), Match::Exact) => {
                self.stored_list(resource, &prefix, "", version, options).await
            }
            (Some(version), Match::Unset) if version > 0 && options.limit > 0 => {
                self.stored_list(resource, &prefix, "", version, options).await
            }
            (version, _) => {
                self.await_version(version).await?;
                self.cached_list(resource, &prefix, options)
            }
        }
    }

    /// Waits until the cache shows `version`; `None` asks for everything written before now.
    async fn await_version(&self, version: Option<i64>) -> Result<(), ApiError> {
        let wanted = match version {
            Some(0) => return self.loaded(),
            Some(version) => version,
            None => match self.etcd.revision(&self.prefix).await {
                Ok(revision) => revision,
                Err(StoreError::Unavailable(_)) if self.cache.revision() > 0 => return Ok(()),
                Err(error) => return Err(error.into()),
            },
        };
        if self.cache.wait(wanted, WAIT).await {
            Ok(())
        } else {
            Err(ApiError::version_ahead(wanted, self.cache.revision()))
        }
    }

    fn loaded(&self) -> Result<(), ApiError> {
        if self.cache.revision() > 0 {
            Ok(())
        } else {
            Err(ApiError::unavailable("storage is (re)initializing"))
        }
    }

    fn cached_list(
        &self,
        resource: &Resource,
        prefix: &str,
        options: &ListOptions,
    ) -> Result<Listed, ApiError> {
        let cache = self.cache.of(resource).ok_or_else(ApiError::no_such_path)?;
        let (all, revision) = cache.snapshot(prefix, || self.cache.revision());
        // An object may be newer than the progress of the whole: the list is as new as its newest object.
        let newest = all.iter().map(|e| e.revision).max().unwrap_or(0);
        let revision = revision.max(newest);
        let total = all.len();
        let mut listed = Listed {
            entries: Vec::new(),
            revision,
            continue_token: String::new(),
            remaining: None,
        };
        for (seen, entry) in all.into_iter().enumerate() {
            if !matches(&options.selector, resource, &entry.object) {
                continue;
            }
            if options.limit > 0 && listed.entries.len() == options.limit {
                let last = listed.entries.last().map(|e| e.key.clone()).unwrap_or_default();
                listed.continue_token = encode_token(revision, &last);
                listed.remaining = options.selector.is_empty().then_some(total - seen);
                break;
            }
            listed.entries.push(entry);
        }
        Ok(listed)
    }

    async fn stored_list(
        &self,
        resource: &'static Resource,
        prefix: &str,
        after: &str,
        revision: i64,
        options: &ListOptions,
    ) -> Result<Listed, ApiError> {
        let folder = self.store_key(resource, "");
        let end = crate::store::prefix_end(format!("{folder}{prefix}").as_bytes());
        let mut from = format!("{folder}{prefix}").into_bytes();
        if !after.is_empty() {
            from = format!("{folder}{after}").into_bytes();
            from.push(0);
        }
        let mut at = revision.max(0);
        let mut listed = Listed {
            entries: Vec::new(),
            revision: at,
            continue_token: String::new(),
            remaining: None,
        };
        loop {
            let want = if options.limit > 0 { options.limit as i64 + 1 } else { 500 };
            let page = self.etcd.range(&from, &end, at, want).await;
            let page = page.map_err(|error| self.page_error(error, after, revision))?;
            if at == 0 {
                at = page.revision;
                listed.revision = at;
            }
            for (i, kv) in page.kvs.iter().enumerate() {
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                let key = key.strip_prefix(&folder).unwrap_or(&key).to_owned();
                let object = stored::decode(views::stored_as(resource), &kv.value, kv.mod_revision)
                    .map_err(ApiError::internal)?;
                if !matches(&options.selector, resource, &object) {
                    continue;
                }
                if options.limit > 0 && listed.entries.len() == options.limit {
                    let last = listed.entries.last().map(|e| e.key.clone()).unwrap_or_default();
                    listed.continue_token = encode_token(at, &last);
                    let rest = usize::try_from(page.count).unwrap_or(0).saturating_sub(i);
                    listed.remaining = options.selector.is_empty().then_some(rest);
                    return Ok(listed);
                }
                listed.entries.push(Arc::new(Entry::new(
                    key,
                    object,
                    kv.value.clone(),
                    kv.mod_revision,
                )));
            }
            match page.kvs.last() {
                Some(last) if page.more => {
                    from = last.key.to_vec();
                    from.push(0);
                }
                _ => return Ok(listed),
            }
        }
    }

    fn page_error(&self, error: StoreError, after: &str, revision: i64) -> ApiError {
        match error {
            StoreError::Compacted if !after.is_empty() => {
                let mut error = ApiError::expired(EXPIRED);
                error.continue_token = Some(encode_token(-1, after));
                error
            }
            StoreError::Compacted => ApiError::expired(format!(
                "The resourceVersion for the provided list is too old: {revision}"
            )),
            StoreError::Future => ApiError::version_ahead(revision, self.cache.revision()),
            other => other.into(),
        }
    }
}

fn matches(selector: &crate::selector::Selector, resource: &Resource, object: &Value) -> bool {
    // Events are selected by the core form's fields, whichever group asks.
    let _ = resource;
    selector.is_empty() || selector.matches(object)
}

fn encode_token(revision: i64, last: &str) -> String {
    URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": last}).to_string())
}

fn decode_token(text: &str) -> Result<(i64, String), ApiError> {
    let invalid =
        || ApiError::bad_request("continue key is not valid: it is no token of this server");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let start =
        token["start"].as_str().filter(|s| !s.split('/').any(|p| p == "..")).ok_or_else(invalid)?;
    match token["rv"].as_i64() {
        Some(revision) if revision != 0 && token["v"] == "meta.k8s.io/v1" => {
            Ok((revision, start.to_owned()))
        }
        _ => Err(invalid()),
    }
}

fn metadata(listed: &Listed) -> Value {
    let mut metadata = json!({"resourceVersion": listed.revision.to_string()});
    if !listed.continue_token.is_empty() {
        metadata["continue"] = listed.continue_token.as_str().into();
    }
    if let Some(remaining) = listed.remaining.filter(|n| *n > 0) {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn show_list(
    resource: &'static Resource,
    listed: &Listed,
    output: Output,
    include: &str,
) -> Response<Body> {
    let metadata = metadata(listed);
    let (api_version, kind) = (resource.api_version(), format!("{}List", resource.kind));
    match output.shape {
        Shape::Table => {
            let views: Vec<_> =
                listed.entries.iter().map(|e| views::to_client(resource, &e.object)).collect();
            let objects: Vec<&Value> = views.iter().map(AsRef::as_ref).collect();
            let include = if include.is_empty() { "Metadata" } else { include };
            output.respond(200, &pages::table(resource, &objects, Some(metadata), include))
        }
        Shape::Metadata => {
            let items: Vec<Value> =
                listed.entries.iter().map(|e| views::partial(&e.object)).collect();
            output.respond(
                200,
                &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}),
            )
        }
        Shape::Object
            if output.encoding == Encoding::Json && !output.pretty && !views::differs(resource) =>
        {
            // The cached encodings go out as they are, between a head and a tail.
            let mut body = BytesMut::new();
            let head = format!(
                "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":["
            );
            body.extend_from_slice(head.as_bytes());
            for (i, entry) in listed.entries.iter().enumerate() {
                if i > 0 {
                    body.extend_from_slice(b",");
                }
                body.extend_from_slice(&entry.json());
            }
            body.extend_from_slice(b"]}");
            respond(200, "application/json", body.freeze())
        }
        Shape::Object => {
            let items: Vec<Value> = listed
                .entries
                .iter()
                .map(|e| views::to_client(resource, &e.object).into_owned())
                .collect();
            output.respond(200, &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_forged_ones_are_refused() {
        assert_eq!(decode_token(&encode_token(7, "a/b")).unwrap(), (7, "a/b".to_owned()));
        for bad in ["", "x", "e30", &encode_token(0, "a"), &encode_token(5, "../x")] {
            assert!(decode_token(bad).is_err(), "{bad}");
        }
    }
}
