//! end-2 and end-10: blobs out, and away.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::body::blob_body;
use super::{Answer, Code, Registry, RegistryError};
use crate::engine::Digest;
use crate::engine::range::{Wanted, wanted};

/// Reads the digest of a path.
pub(super) fn digest_of(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_| {
        RegistryError::new(Code::DigestInvalid, "provided digest did not match uploaded content")
            .with_details(vec![text.chars().take(200).collect::<String>().into()])
    })
}

/// Whether `If-None-Match` names `etag`.
pub(super) fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let Some(given) = given else { return false };
    given
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == etag)
}

impl Registry {
    pub(super) async fn get_blob(
        &self,
        name: &str,
        digest: &str,
        headers: &HeaderMap,
        content: bool,
    ) -> Answer {
        let digest = digest_of(digest)?;
        let unknown = || {
            RegistryError::new(Code::BlobUnknown, "blob unknown to registry")
                .with_details(vec![serde_json::json!({"digest": digest.as_str()})])
        };
        if !self.store.is_linked(name, &digest)?
            && self.store.manifest_row(name, &digest)?.is_none()
        {
            return Err(unknown());
        }
        self.store.gc_touch(&digest).await;
        let size = self.store.blob(&digest)?.ok_or_else(unknown)?.size;
        let mut response = Response::builder()
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CACHE_CONTROL, "max-age=31536000")
            .header(header::ETAG, format!("\"{digest}\""))
            .header("docker-content-digest", digest.as_str());
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        if not_modified(headers, digest.as_str()) {
            return finish(response.status(StatusCode::NOT_MODIFIED), Body::empty());
        }
        let (offset, length) = match wanted(range, size) {
            Wanted::All => (0, size),
            Wanted::Part { start, end } => {
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, format!("bytes {start}-{end}/{size}"));
                (start, end - start + 1)
            }
            Wanted::Unsatisfiable => {
                let range =
                    HeaderValue::try_from(format!("bytes */{size}")).expect("digits are ASCII");
                return Err(RegistryError::new(Code::RangeInvalid, "invalid content range")
                    .with_header(header::CONTENT_RANGE, range));
            }
        };
        response = response.header(header::CONTENT_LENGTH, length);
        if !content {
            return finish(response, Body::empty());
        }
        let blob = self.store.open_blob(&digest)?.ok_or_else(unknown)?;
        finish(response, blob_body(blob, offset, length))
    }

    pub(super) async fn delete_blob(&self, name: &str, digest: &str) -> Answer {
        let digest = digest_of(digest)?;
        if !self.store.unlink_blob(name, &digest).await? {
            return Err(RegistryError::new(Code::BlobUnknown, "blob unknown to registry"));
        }
        let response =
            Response::builder().status(StatusCode::ACCEPTED).header(header::CONTENT_LENGTH, 0);
        finish(response.header("docker-content-digest", digest.as_str()), Body::empty())
    }
}

/// Ends a response whose headers are all our own and thus valid.
pub(super) fn finish(response: http::response::Builder, body: Body) -> Answer {
    response.body(body).map_err(|error| RegistryError::new(Code::Unknown, error.to_string()))
}
