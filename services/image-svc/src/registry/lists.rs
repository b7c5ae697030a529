//! end-8, end-12 and docker's catalog.

use axum::extract::Request;
use http::{HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::blobs::digest_of;
use super::{Answer, Code, Registry, RegistryError, json as json_response, query};
use crate::engine::manifest::OCI_INDEX;

/// Entries of a page when the client does not say, and the most it gets (CVE-2023-2253).
const PAGE: usize = 1_000;
/// Bytes of a page of referrers; the rest follows by Link.
const REFERRERS_PAGE: usize = 2 << 20;

impl Registry {
    pub(super) fn tags(&self, name: &str, request: &Request) -> Answer {
        if !self.store.has_repo(name)? {
            return Err(RegistryError::new(
                Code::NameUnknown,
                "repository name not known to registry",
            )
            .with_details(vec![json!({"name": name})]));
        }
        let limit = page_size(request, usize::MAX)?;
        let last = query(request, "last").unwrap_or_default();
        let page = self.store.tags(name, &last, limit)?;
        let next = page
            .more
            .then(|| next_link(&format!("/v2/{name}/tags/list"), page.names.last(), limit))
            .flatten();
        paged(json!({"name": name, "tags": page.names}).to_string(), next)
    }

    pub(super) fn catalog(&self, request: &Request) -> Answer {
        let limit = page_size(request, PAGE)?;
        let last = query(request, "last").unwrap_or_default();
        let page = self.store.repos(&last, limit)?;
        let next = page.more.then(|| next_link("/v2/_catalog", page.names.last(), limit)).flatten();
        paged(json!({"repositories": page.names}).to_string(), next)
    }

    pub(super) fn referrers(&self, name: &str, digest: &str, request: &Request) -> Answer {
        let subject = digest_of(digest)?;
        let wanted = query(request, "artifactType").filter(|t| !t.is_empty());
        let last = query(request, "last").unwrap_or_default();
        let mut manifests = Vec::new();
        let (mut bytes, mut next) = (0, None);
        for descriptor in self.store.referrers(name, &subject, wanted.as_deref())? {
            if !last.is_empty() && descriptor.digest.as_str() <= last.as_str() {
                continue;
            }
            let text = serde_json::to_string(&descriptor).unwrap_or_default();
            if bytes > 0 && bytes + text.len() > REFERRERS_PAGE {
                next = manifests.last().map(|(digest, _): &(String, serde_json::Value)| {
                    let filter = wanted
                        .as_deref()
                        .map(|t| format!("&artifactType={}", encode(t)))
                        .unwrap_or_default();
                    format!("</v2/{name}/referrers/{subject}?last={digest}{filter}>; rel=\"next\"")
                });
                break;
            }
            bytes += text.len();
            manifests.push((descriptor.digest.to_string(), json!(descriptor)));
        }
        let manifests: Vec<serde_json::Value> =
            manifests.into_iter().map(|(_, value)| value).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        let mut response = paged(index.to_string(), next)?;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
        if wanted.is_some() {
            response
                .headers_mut()
                .insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }
}

fn page_size(request: &Request, default: usize) -> Result<usize, RegistryError> {
    let Some(text) = query(request, "n") else { return Ok(default) };
    let wrong = || {
        RegistryError::new(Code::PageNumberInvalid, "invalid number of results requested")
            .with_details(vec![json!({"n": text})])
    };
    let number: i64 = text.parse().map_err(|_| wrong())?;
    usize::try_from(number).map(|n| n.min(default.max(PAGE))).map_err(|_| wrong())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn next_link(path: &str, last: Option<&String>, limit: usize) -> Option<String> {
    last.map(|last| format!("<{path}?last={}&n={limit}>; rel=\"next\"", encode(last)))
}

fn paged(text: String, next: Option<String>) -> Answer {
    let mut response = json_response(text);
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}
