//! Requests to a registry, with tokens, redirects and limits.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;

use super::auth::{Challenge, parse_challenge};
use super::{Credentials, Host, Hosts, RemoteError};
use crate::engine::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::engine::{Digest, Reference};

/// Time to connect and to get the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Redirects followed.
const MAX_REDIRECTS: usize = 5;
const MAX_MANIFEST: u64 = 8 << 20;
const MAX_TOKEN: usize = 1 << 20;

/// A manifest as a registry gave it out.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Media type from `Content-Type`.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// The document.
    pub bytes: Bytes,
}

/// A blob being downloaded.
#[derive(Debug)]
pub struct Opened {
    /// Its content from `offset` on.
    pub body: Incoming,
    /// Where it begins: the wanted offset, or 0 when the server ignores ranges.
    pub offset: u64,
}

/// A client of registries. It remembers tokens.
#[derive(Debug)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Body>,
    hosts: Hosts,
    tokens: Mutex<HashMap<String, String>>,
}

/// Who asks, and for what.
#[derive(Clone, Copy)]
struct Asking<'a> {
    host: &'a Host,
    credentials: &'a Credentials,
    scope: &'a str,
}

impl Client {
    /// A client that finds registries by `hosts`.
    pub fn new(hosts: Hosts) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        // A machine without certificates can still use registries without TLS.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { http, hosts, tokens: Mutex::default() }
    }

    /// The hosts that serve `reference`.
    ///
    /// # Errors
    /// When a settings file is malformed.
    pub fn hosts(&self, reference: &Reference) -> Result<Vec<Host>, RemoteError> {
        self.hosts.of(&reference.domain)
    }

    /// Fetches a manifest by tag or digest and checks its digest.
    ///
    /// # Errors
    /// What the registry answered, or that the bytes are not what was asked for.
    pub async fn manifest(
        &self,
        host: &Host,
        reference: &Reference,
        target: &str,
        credentials: &Credentials,
    ) -> Result<Fetched, RemoteError> {
        let url = address(host, &format!("/{}/manifests/{target}", reference.path));
        let scope = format!("repository:{}:pull", reference.path);
        let mut headers = HeaderMap::new();
        for accept in [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST] {
            headers.append(header::ACCEPT, HeaderValue::from_static(accept));
        }
        let asking = Asking { host, credentials, scope: &scope };
        let response = self.call(asking, Method::GET, &url, headers, Bytes::new()).await?;
        let told = response
            .headers()
            .get("docker-content-digest")
            .and_then(|v| v.to_str().ok()?.parse::<Digest>().ok());
        let media_type = text_header(response.headers(), header::CONTENT_TYPE);
        let bytes = collect(&url, response.into_body(), MAX_MANIFEST).await?;
        let expected = target.parse::<Digest>().ok().or(told);
        let found =
            Digest::of(expected.as_ref().map(Digest::algorithm).unwrap_or_default(), &bytes);
        match expected {
            Some(expected) if expected != found => {
                Err(RemoteError::Digest { url, found, expected })
            }
            _ => Ok(Fetched { media_type, digest: found, bytes }),
        }
    }

    /// Begins to download a blob at `offset`.
    ///
    /// # Errors
    /// What the registry answered.
    pub async fn blob(
        &self,
        host: &Host,
        reference: &Reference,
        digest: &Digest,
        offset: u64,
        credentials: &Credentials,
    ) -> Result<Opened, RemoteError> {
        let url = address(host, &format!("/{}/blobs/{digest}", reference.path));
        let scope = format!("repository:{}:pull", reference.path);
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range =
                HeaderValue::try_from(format!("bytes={offset}-")).expect("digits are ASCII");
            headers.insert(header::RANGE, range);
        }
        let asking = Asking { host, credentials, scope: &scope };
        let response = self.call(asking, Method::GET, &url, headers, Bytes::new()).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok(Opened { body: response.into_body(), offset: if partial { offset } else { 0 } })
    }

    /// Whether a registry has a blob.
    ///
    /// # Errors
    /// What the registry answered, other than 404.
    pub async fn has_blob(
        &self,
        host: &Host,
        reference: &Reference,
        digest: &Digest,
        credentials: &Credentials,
    ) -> Result<bool, RemoteError> {
        let url = address(host, &format!("/{}/blobs/{digest}", reference.path));
        let scope = push_scope(reference);
        let asking = Asking { host, credentials, scope: &scope };
        match self.call(asking, Method::HEAD, &url, HeaderMap::new(), Bytes::new()).await {
            Ok(_) => Ok(true),
            Err(RemoteError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob of `size` bytes.
    ///
    /// # Errors
    /// What the registry answered.
    pub async fn put_blob(
        &self,
        host: &Host,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        body: Body,
        credentials: &Credentials,
    ) -> Result<(), RemoteError> {
        let scope = push_scope(reference);
        let asking = Asking { host, credentials, scope: &scope };
        let start = address(host, &format!("/{}/blobs/uploads/", reference.path));
        let response =
            self.call(asking, Method::POST, &start, HeaderMap::new(), Bytes::new()).await?;
        let place = text_header(response.headers(), header::LOCATION);
        let place = absolute(&start, &place).ok_or_else(|| RemoteError::Transport {
            url: start.clone(),
            reason: format!("upload location {place:?} is no URL"),
        })?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{joint}digest={digest}");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_LENGTH, size.into());
        self.authorize(asking, &url, &mut headers);
        let response = self.send(Method::PUT, &url, &headers, body).await?;
        check(&url, response).await.map(drop)
    }

    /// Uploads a manifest under a tag or digest.
    ///
    /// # Errors
    /// What the registry answered.
    pub async fn put_manifest(
        &self,
        host: &Host,
        reference: &Reference,
        target: &str,
        media_type: &str,
        bytes: Bytes,
        credentials: &Credentials,
    ) -> Result<(), RemoteError> {
        let url = address(host, &format!("/{}/manifests/{target}", reference.path));
        let scope = push_scope(reference);
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(media_type) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        let asking = Asking { host, credentials, scope: &scope };
        self.call(asking, Method::PUT, &url, headers, bytes).await.map(drop)
    }

    /// Sends a request with a body that can be sent again, answers a challenge once, follows redirects of reads.
    async fn call(
        &self,
        asking: Asking<'_>,
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, RemoteError> {
        for (name, value) in &asking.host.headers {
            if let (Ok(name), Ok(value)) =
                (http::HeaderName::try_from(name), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        self.authorize(asking, url, &mut headers);
        let mut response = self.send(method.clone(), url, &headers, body.clone().into()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && self.answer_challenge(asking, response.headers()).await?
        {
            self.authorize(asking, url, &mut headers);
            response = self.send(method.clone(), url, &headers, body.into()).await?;
        }
        let mut place = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let readable = matches!(method, Method::GET | Method::HEAD);
            if !readable || !response.status().is_redirection() {
                break;
            }
            let next = text_header(response.headers(), header::LOCATION);
            let next = absolute(&place, &next).ok_or_else(|| RemoteError::Transport {
                url: place.clone(),
                reason: format!("redirect to {next:?}, which is no URL"),
            })?;
            if origin(&next) != origin(&place) {
                // Credentials are for the registry, not for where it sends us.
                headers.remove(header::AUTHORIZATION);
            }
            response = self.send(method.clone(), &next, &headers, Body::empty()).await?;
            place = next;
        }
        check(url, response).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, RemoteError> {
        let fail = |reason: String| RemoteError::Transport { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|error| fail(format!("no valid URL: {error}")))?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(body)
            .map_err(|error| fail(error.to_string()))?;
        *request.headers_mut() = headers.clone();
        let agent = HeaderValue::from_static(concat!("image-svc/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        match tokio::time::timeout(HEAD_TIMEOUT, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(fail(root_cause(&error))),
            Err(_) => Err(fail(format!("no answer within {HEAD_TIMEOUT:?}"))),
        }
    }

    fn authorize(&self, asking: Asking<'_>, url: &str, headers: &mut HeaderMap) {
        if origin(url) != origin(&asking.host.base) {
            return;
        }
        let value = if asking.credentials.registry_token.is_empty() {
            self.tokens.lock().get(&token_key(asking)).cloned()
        } else {
            Some(format!("Bearer {}", asking.credentials.registry_token))
        };
        if let Some(mut value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }

    /// Gets what a challenge asks for; `false` when there is nothing to offer.
    async fn answer_challenge(
        &self,
        asking: Asking<'_>,
        headers: &HeaderMap,
    ) -> Result<bool, RemoteError> {
        let challenges =
            headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let Some(challenge) = challenges.filter_map(parse_challenge).next() else {
            return Ok(false);
        };
        let value = match challenge {
            Challenge::Basic => asking.credentials.basic(),
            Challenge::Bearer { realm, service, scope } => {
                let scope = scope.unwrap_or_else(|| asking.scope.to_owned());
                Some(self.fetch_token(asking, &realm, service.as_deref(), &scope).await?)
            }
        };
        let Some(value) = value else { return Ok(false) };
        self.tokens.lock().insert(token_key(asking), value);
        Ok(true)
    }

    async fn fetch_token(
        &self,
        asking: Asking<'_>,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, RemoteError> {
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let mut query = format!("scope={}", encode(scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", encode(service)));
        }
        let mut headers = HeaderMap::new();
        let refresh = &asking.credentials.identity_token;
        let response = if refresh.is_empty() {
            let joint = if realm.contains('?') { '&' } else { '?' };
            if let Some(mut basic) =
                asking.credentials.basic().and_then(|b| HeaderValue::try_from(b).ok())
            {
                basic.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, basic);
            }
            self.send(Method::GET, &format!("{realm}{joint}{query}"), &headers, Body::empty())
                .await?
        } else {
            let form = "application/x-www-form-urlencoded";
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form));
            let body = format!(
                "grant_type=refresh_token&client_id=image-svc&refresh_token={}&{query}",
                encode(refresh)
            );
            self.send(Method::POST, realm, &headers, body.into()).await?
        };
        let bytes =
            collect(realm, check(realm, response).await?.into_body(), MAX_TOKEN as u64).await?;
        let token: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = token
            .get("token")
            .or_else(|| token.get("access_token"))
            .and_then(serde_json::Value::as_str);
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| RemoteError::Transport {
            url: realm.to_owned(),
            reason: "the answer holds no token".to_owned(),
        })
    }
}

fn push_scope(reference: &Reference) -> String {
    format!("repository:{}:pull,push", reference.path)
}

fn token_key(asking: Asking<'_>) -> String {
    format!("{} {} {}", asking.host.base, asking.scope, asking.credentials.username)
}

fn address(host: &Host, path: &str) -> String {
    match &host.namespace {
        Some(namespace) => format!("{}{path}?ns={namespace}", host.base),
        None => format!("{}{path}", host.base),
    }
}

fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    &url[..end]
}

fn absolute(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    location.starts_with('/').then(|| format!("{}{location}", origin(base)))
}

fn text_header(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn check(url: &str, response: Response<Incoming>) -> Result<Response<Incoming>, RemoteError> {
    let status = response.status();
    match status {
        _ if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(RemoteError::NotFound(url.to_owned())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(RemoteError::Denied { url: url.to_owned(), status: status.as_u16() })
        }
        _ => {
            let body = collect(url, response.into_body(), 4096).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).replace('\n', " ");
            Err(RemoteError::Status { url: url.to_owned(), status: status.as_u16(), body })
        }
    }
}

async fn collect(url: &str, body: Incoming, limit: u64) -> Result<Bytes, RemoteError> {
    let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match tokio::time::timeout(HEAD_TIMEOUT, limited.collect()).await {
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(RemoteError::TooLarge { url: url.to_owned(), limit })
        }
        Ok(Err(error)) => {
            Err(RemoteError::Transport { url: url.to_owned(), reason: error.to_string() })
        }
        Err(_) => Err(RemoteError::Transport {
            url: url.to_owned(),
            reason: "the answer stalled".to_owned(),
        }),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
