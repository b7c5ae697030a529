//! end-3, end-7 and end-9: manifests and tags.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::blobs::{digest_of, finish, not_modified};
use super::{Answer, Code, Registry, RegistryError, header_text, query, query_all};
use crate::engine::reference::valid_tag;
use crate::engine::{Digest, Manifest};
use crate::store::{ManifestPut, PutError};

/// Tags one request may set.
const MAX_TAGS: usize = 100;
/// Bytes read of a body that is refused; who sends more is cut off.
const DRAIN: usize = 16 << 20;

impl From<PutError> for RegistryError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Missing(digests) => {
                let details =
                    digests.iter().map(|d| serde_json::json!({"digest": d.as_str()})).collect();
                Self::new(Code::ManifestBlobUnknown, "blob unknown to registry")
                    .with_details(details)
            }
            PutError::Store(error) => error.into(),
        }
    }
}

fn unknown(reference: &str) -> RegistryError {
    RegistryError::new(Code::ManifestUnknown, "manifest unknown")
        .with_details(vec![serde_json::json!({"reference": reference})])
}

fn invalid(reason: impl Into<String>) -> RegistryError {
    RegistryError::new(Code::ManifestInvalid, reason)
}

impl Registry {
    pub(super) async fn get_manifest(
        &self,
        name: &str,
        reference: &str,
        headers: &HeaderMap,
    ) -> Answer {
        let digest = if reference.contains(':') {
            digest_of(reference)?
        } else {
            if !valid_tag(reference) {
                return Err(unknown(&reference.chars().take(200).collect::<String>()));
            }
            self.store.tag(name, reference)?.ok_or_else(|| unknown(reference))?
        };
        self.store.gc_touch(&digest).await;
        let manifest =
            self.store.manifest(name, &digest).await?.ok_or_else(|| unknown(reference))?;
        let response = Response::builder()
            .header(header::CONTENT_TYPE, &manifest.media_type)
            .header(header::ETAG, format!("\"{digest}\""))
            .header("docker-content-digest", digest.as_str());
        if not_modified(headers, digest.as_str()) {
            return finish(response.status(StatusCode::NOT_MODIFIED), Body::empty());
        }
        finish(
            response.header(header::CONTENT_LENGTH, manifest.bytes.len()),
            Body::from(manifest.bytes),
        )
    }

    pub(super) async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        request: Request,
    ) -> Answer {
        let by_digest = reference.contains(':').then(|| digest_of(reference)).transpose()?;
        let mut tags = query_all(&request, "tag");
        if by_digest.is_none() {
            tags.insert(0, reference.to_owned());
        }
        if let Some(bad) = tags.iter().find(|tag| !valid_tag(tag)) {
            let bad: String = bad.chars().take(200).collect();
            return Err(RegistryError::new(Code::TagInvalid, "manifest tag did not match URI")
                .with_details(vec![bad.into()]));
        }
        if tags.len() > MAX_TAGS {
            return Err(invalid(format!("one request may set {MAX_TAGS} tags")));
        }
        let param = query(&request, "digest").map(|digest| digest_of(&digest)).transpose()?;
        let extra_tags = query(&request, "tag").is_some();
        let content_type =
            header_text(&request, header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let bytes = self.manifest_bytes(request).await?;
        let wanted = by_digest.or(param);
        let algorithm = wanted.as_ref().map(Digest::algorithm).unwrap_or_default();
        let digest = Digest::of(algorithm, &bytes);
        if wanted.is_some_and(|wanted| wanted != digest) {
            return Err(RegistryError::new(
                Code::DigestInvalid,
                "provided digest did not match uploaded content",
            ));
        }
        let manifest =
            Manifest::parse(&content_type, &bytes).map_err(|error| invalid(error.to_string()))?;
        let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
        let sparse = self.settings.sparse;
        let put = ManifestPut {
            repo: name.to_owned(),
            digest: digest.clone(),
            bytes,
            manifest,
            tags: tags.clone(),
            sparse,
        };
        self.store.put_manifest(put).await?;
        let mut response = Response::builder()
            .status(StatusCode::CREATED)
            .header(header::LOCATION, self.location(&format!("/v2/{name}/manifests/{digest}")))
            .header(header::CONTENT_LENGTH, 0)
            .header("docker-content-digest", digest.as_str());
        if let Some(subject) = subject {
            response = response.header("oci-subject", subject.as_str());
        }
        if extra_tags {
            for tag in &tags {
                response = response.header("oci-tag", tag);
            }
        }
        finish(response, Body::empty())
    }

    async fn manifest_bytes(&self, request: Request) -> Result<Bytes, RegistryError> {
        let limit = self.settings.max_manifest;
        let too_large = || {
            RegistryError::new(Code::ManifestTooLarge, format!("a manifest may have {limit} bytes"))
        };
        let announced = header_text(&request, header::CONTENT_LENGTH)
            .and_then(|text| text.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            // A client that is still sending would see a broken connection instead of the answer.
            drop(Limited::new(request.into_body(), DRAIN).collect().await);
            return Err(
                too_large().with_header(header::CONNECTION, HeaderValue::from_static("close"))
            );
        }
        match Limited::new(request.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(_) => Err(RegistryError::new(Code::SizeInvalid, "the body ended early")),
        }
    }

    pub(super) async fn delete_manifest(&self, name: &str, reference: &str) -> Answer {
        let gone = if reference.contains(':') {
            self.store.delete_manifest(name, &digest_of(reference)?).await?
        } else {
            self.store.delete_tag(name, reference).await?
        };
        if !gone {
            return Err(unknown(&reference.chars().take(200).collect::<String>()));
        }
        finish(
            Response::builder().status(StatusCode::ACCEPTED).header(header::CONTENT_LENGTH, 0),
            Body::empty(),
        )
    }
}
