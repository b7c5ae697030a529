//! The registry: OCI distribution-spec and docker's additions over HTTP.
//!
//! Requests are split by hand from the right end of the path, because repository names hold slashes. Handlers
//! decode, call the store and encode; they keep nothing between requests.

mod auth;
mod blobs;
mod body;
mod errors;
mod lists;
mod manifests;
mod route;
mod uploads;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, Method, header};

use crate::Store;
use crate::config::RegistrySettings;
use crate::metrics::Metrics;

pub use auth::{AuthError, Htpasswd};
pub use body::blob_body;
pub use errors::{Code, RegistryError};
use route::Route;

/// The registry of one process.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    settings: RegistrySettings,
    metrics: Arc<Metrics>,
    access: Option<Htpasswd>,
}

type Answer = Result<Response, RegistryError>;

impl Registry {
    /// A registry over `store`.
    ///
    /// # Errors
    /// When the htpasswd file cannot be read.
    pub fn new(
        store: Store,
        settings: RegistrySettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AuthError> {
        let access = settings
            .htpasswd
            .clone()
            .map(|(realm, path)| Htpasswd::load(realm, path))
            .transpose()?;
        Ok(Self { store, settings, metrics, access })
    }

    /// Answers one request below `/v2/`.
    pub async fn handle(self: Arc<Self>, request: Request) -> Response {
        let method = request.method().clone();
        let route = Route::parse(request.uri().path());
        let timer = self.metrics.request(route.as_ref().map_or("unknown", Route::name), &method);
        let answer = match route {
            Ok(route) => self.dispatch(route, request).await,
            Err(error) => Err(error),
        };
        let mut response = answer.unwrap_or_else(RegistryError::into_response);
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        for (name, value) in &self.settings.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        timer.done(response.status());
        response
    }

    async fn dispatch(&self, route: Route, request: Request) -> Answer {
        if let Some(access) = &self.access {
            access.check(request.headers().get(header::AUTHORIZATION)).await?;
        }
        let method = request.method().clone();
        let write = !matches!(method, Method::GET | Method::HEAD);
        if write && self.settings.read_only {
            return Err(RegistryError::new(Code::Unsupported, "the registry is read-only"));
        }
        if method == Method::DELETE
            && !self.settings.delete
            && !matches!(route, Route::Upload { .. })
        {
            return Err(RegistryError::new(
                Code::Unsupported,
                "deletion is off (storage.delete.enabled)",
            ));
        }
        match (route, method) {
            (Route::Base, Method::GET | Method::HEAD) => Ok(json("{}".into())),
            (Route::Catalog, Method::GET) => self.catalog(&request),
            (Route::Tags { name }, Method::GET) => self.tags(&name, &request),
            (Route::Referrers { name, digest }, Method::GET) => {
                self.referrers(&name, &digest, &request)
            }
            (Route::Blob { name, digest }, Method::GET) => {
                self.get_blob(&name, &digest, &request.into_parts().0.headers, true).await
            }
            (Route::Blob { name, digest }, Method::HEAD) => {
                self.get_blob(&name, &digest, &request.into_parts().0.headers, false).await
            }
            (Route::Blob { name, digest }, Method::DELETE) => {
                self.delete_blob(&name, &digest).await
            }
            (Route::Manifest { name, reference }, Method::GET | Method::HEAD) => {
                let (parts, _) = request.into_parts();
                self.get_manifest(&name, &reference, &parts.headers).await
            }
            (Route::Manifest { name, reference }, Method::PUT) => {
                self.put_manifest(&name, &reference, request).await
            }
            (Route::Manifest { name, reference }, Method::DELETE) => {
                self.delete_manifest(&name, &reference).await
            }
            (Route::Uploads { name }, Method::POST) => self.start_upload(&name, request).await,
            (Route::Upload { name, id }, Method::GET | Method::HEAD) => {
                self.upload_status(&name, &id)
            }
            (Route::Upload { name, id }, Method::PATCH) => {
                self.patch_upload(&name, &id, request).await
            }
            (Route::Upload { name, id }, Method::PUT) => {
                self.finish_upload(&name, &id, request).await
            }
            (Route::Upload { name, id }, Method::DELETE) => self.cancel_upload(&name, &id).await,
            (route, _) => Err(RegistryError::method(route.allowed())),
        }
    }

    /// `path` as a Location: relative, or absolute when `http.host` is configured.
    fn location(&self, path: &str) -> String {
        match &self.settings.host {
            Some(host) => format!("{}{path}", host.trim_end_matches('/')),
            None => path.to_owned(),
        }
    }
}

fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The values of `name` in the query, percent-decoded.
fn query_all(request: &Request, name: &str) -> Vec<String> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    let decode = |value: &str| {
        let value = value.replace('+', " ");
        percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned()
    };
    pairs.map(decode).collect()
}

/// The first value of `name` in the query.
fn query(request: &Request, name: &str) -> Option<String> {
    query_all(request, name).into_iter().next()
}

fn header_text(request: &Request, name: impl header::AsHeaderName) -> Option<&str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}
