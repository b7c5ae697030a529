//! end-4 to end-6, end-11, end-13 and end-14: blobs in.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::blobs::{digest_of, finish};
use super::{Answer, Code, Registry, RegistryError, header_text, query};
use crate::engine::range::chunk;
use crate::engine::reference::valid_name;
use crate::engine::{Algorithm, Digest};
use crate::store::{AppendError, Claim, Session};

impl From<AppendError> for RegistryError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Body => Self::new(Code::SizeInvalid, error.to_string()),
            AppendError::TooLarge(_) => Self::new(Code::Denied, error.to_string()),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl Registry {
    pub(super) async fn start_upload(&self, name: &str, request: Request) -> Answer {
        if let Some(mount) = query(&request, "mount") {
            let digest = digest_of(&mount)?;
            let from = query(&request, "from").filter(|from| !from.is_empty());
            let usable = from.as_deref().is_none_or(valid_name);
            if usable && self.store.mount_blob(name, &digest, from.as_deref()).await? {
                return self.created(name, &digest);
            }
        }
        let whole = query(&request, "digest").map(|digest| digest_of(&digest)).transpose()?;
        let algorithm = match (query(&request, "digest-algorithm"), &whole) {
            (Some(name), _) => Algorithm::by_name(&name).ok_or_else(|| {
                RegistryError::new(
                    Code::DigestInvalid,
                    format!("digest-algorithm {name:?} is not sha256 or sha512"),
                )
            })?,
            (None, Some(digest)) => digest.algorithm(),
            (None, None) => Algorithm::Sha256,
        };
        self.admit_upload()?;
        let session = self.store.begin_upload(name, algorithm).await?;
        let Some(digest) = whole else {
            return self.progress(&session, StatusCode::ACCEPTED);
        };
        let mut claim = session.try_claim().ok_or_else(busy)?;
        let result = self.append_and_finish(&session, &mut claim, &digest, request).await;
        if result.is_err() {
            self.store.cancel_upload(&session).await?;
        }
        result
    }

    fn admit_upload(&self) -> Result<(), RegistryError> {
        if self.store.uploads().len() >= self.settings.max_uploads {
            return Err(RegistryError::new(Code::TooManyRequests, "too many unfinished uploads")
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("5")));
        }
        Ok(())
    }

    pub(super) fn upload_status(&self, name: &str, id: &str) -> Answer {
        let session = self.session(name, id)?;
        self.progress(&session, StatusCode::NO_CONTENT)
    }

    pub(super) async fn patch_upload(&self, name: &str, id: &str, request: Request) -> Answer {
        let session = self.session(name, id)?;
        let mut claim = session.try_claim().ok_or_else(|| self.out_of_order(&session))?;
        self.append(&session, &mut claim, request).await?;
        self.progress(&session, StatusCode::ACCEPTED)
    }

    pub(super) async fn finish_upload(&self, name: &str, id: &str, request: Request) -> Answer {
        let session = self.session(name, id)?;
        let digest = query(&request, "digest")
            .ok_or_else(|| RegistryError::new(Code::DigestInvalid, "the query names no digest"))?;
        let digest = digest_of(&digest)?;
        let mut claim = session.try_claim().ok_or_else(|| self.out_of_order(&session))?;
        self.append_and_finish(&session, &mut claim, &digest, request).await
    }

    pub(super) async fn cancel_upload(&self, name: &str, id: &str) -> Answer {
        let session = self.session(name, id)?;
        let _claim = session.try_claim().ok_or_else(busy)?;
        self.store.cancel_upload(&session).await?;
        finish(Response::builder().status(StatusCode::NO_CONTENT), Body::empty())
    }

    fn session(&self, name: &str, id: &str) -> Result<std::sync::Arc<Session>, RegistryError> {
        self.store.upload(name, id).ok_or_else(|| {
            RegistryError::new(Code::BlobUploadUnknown, "blob upload unknown to registry")
        })
    }

    async fn append_and_finish(
        &self,
        session: &Session,
        claim: &mut Claim,
        digest: &Digest,
        request: Request,
    ) -> Answer {
        self.append(session, claim, request).await?;
        if self.store.finish_upload(session, claim, digest).await? {
            return self.created(&session.repo, digest);
        }
        Err(RegistryError::new(
            Code::DigestInvalid,
            "provided digest did not match uploaded content",
        )
        .with_details(vec![digest.as_str().into()]))
    }

    async fn append(
        &self,
        session: &Session,
        claim: &mut Claim,
        request: Request,
    ) -> Result<(), RegistryError> {
        let length = match header_text(&request, header::CONTENT_LENGTH) {
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                RegistryError::new(Code::SizeInvalid, "Content-Length is no number")
            })?),
            None => None,
        };
        let mut expected = length;
        if let Some(range) = header_text(&request, header::CONTENT_RANGE) {
            let (start, end) = chunk(range).ok_or_else(|| {
                RegistryError::new(Code::SizeInvalid, "Content-Range must read START-END")
            })?;
            if start != session.offset() {
                return Err(self.out_of_order(session));
            }
            let announced = end - start + 1;
            if length.is_some_and(|length| length != announced) {
                return Err(RegistryError::new(
                    Code::SizeInvalid,
                    "Content-Range and Content-Length differ",
                ));
            }
            expected = Some(announced);
        }
        if expected == Some(0) {
            return Ok(());
        }
        let limit = self.settings.max_blob;
        self.store.append_upload(session, claim, expected, limit, request.into_body()).await?;
        Ok(())
    }

    fn out_of_order(&self, session: &Session) -> RegistryError {
        let mut error = RegistryError::new(
            Code::RangeInvalid,
            "the chunk does not begin where the upload ends",
        );
        for (name, value) in self.progress_headers(session) {
            error = error.with_header(name, value);
        }
        error
    }

    fn progress_headers(&self, session: &Session) -> Vec<(HeaderName, HeaderValue)> {
        let last = session.offset().saturating_sub(1);
        let place = self.location(&format!("/v2/{}/blobs/uploads/{}", session.repo, session.id));
        let value =
            |text: String| HeaderValue::try_from(text).expect("names, ids and digits are ASCII");
        vec![
            (header::LOCATION, value(place)),
            (header::RANGE, value(format!("0-{last}"))),
            (HeaderName::from_static("docker-upload-uuid"), value(session.id.clone())),
        ]
    }

    fn progress(&self, session: &Session, status: StatusCode) -> Answer {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.headers_mut().extend(self.progress_headers(session));
        Ok(response)
    }

    fn created(&self, name: &str, digest: &Digest) -> Answer {
        let response = Response::builder()
            .status(StatusCode::CREATED)
            .header(header::LOCATION, self.location(&format!("/v2/{name}/blobs/{digest}")))
            .header(header::CONTENT_LENGTH, 0)
            .header("docker-content-digest", digest.as_str());
        finish(response, Body::empty())
    }
}

fn busy() -> RegistryError {
    RegistryError::new(Code::BlobUploadInvalid, "another request writes to this upload")
}
