//! Calls: get, list, create, replace, patch, delete, watch.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::watch::WatchStream;
use crate::{Error, KubeConfig, List, Status};

const QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'%');
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A pooled, thread-safe client. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: Arc<KubeConfig>,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
}

/// What to list or watch of a collection.
#[derive(Debug, Clone, Default)]
pub struct ListParams {
    /// `app=web,tier!=db`
    pub label_selector: Option<String>,
    /// `spec.nodeName=n1`
    pub field_selector: Option<String>,
    /// Objects per page; `None` asks for everything at once.
    pub limit: Option<u32>,
    /// Token of the next page.
    pub continue_token: Option<String>,
    /// Version to read or watch from.
    pub resource_version: Option<String>,
}

/// A patch and its type.
#[derive(Debug, Clone, Copy)]
pub enum Patch<'a, T> {
    /// RFC 7386.
    Merge(&'a T),
    /// RFC 6902.
    Json(&'a T),
    /// Lists merge by their key.
    Strategic(&'a T),
}

impl Client {
    /// A client that introduces itself as `user_agent`.
    ///
    /// # Errors
    /// When certificates, key, token or URL cannot be used.
    pub fn new(config: KubeConfig, user_agent: &str) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(5)));
        http.set_keepalive(Some(Duration::from_secs(15)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&config)?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let header =
            |text: String| HeaderValue::from_str(&text).map_err(|e| Error::Settings(e.to_string()));
        let authorization =
            config.token.as_ref().map(|token| header(format!("Bearer {token}"))).transpose()?;
        let user_agent = header(user_agent.to_owned())?;
        Ok(Self { http, config: Arc::new(config), authorization, user_agent })
    }

    /// GET of one object or any other JSON page.
    ///
    /// # Errors
    /// What the server says, or why it could not be asked.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, "application/json", Bytes::new()).await
    }

    /// GET of a collection.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &ListParams,
    ) -> Result<List<T>, Error> {
        self.get(&params.apply(path, false)).await
    }

    /// POST to a collection or subresource.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::POST, path, "application/json", serde_json::to_vec(object)?.into()).await
    }

    /// PUT of an object or subresource; a stale `resourceVersion` is a conflict.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn replace<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::PUT, path, "application/json", serde_json::to_vec(object)?.into()).await
    }

    /// PATCH of an object or subresource.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: Patch<'_, impl Serialize>,
    ) -> Result<T, Error> {
        let (kind, body) = match patch {
            Patch::Merge(body) => ("application/merge-patch+json", serde_json::to_vec(body)?),
            Patch::Json(body) => ("application/json-patch+json", serde_json::to_vec(body)?),
            Patch::Strategic(body) => {
                ("application/strategic-merge-patch+json", serde_json::to_vec(body)?)
            }
        };
        self.call(Method::PATCH, path, kind, body.into()).await
    }

    /// DELETE, with `DeleteOptions` such as `{"gracePeriodSeconds": 0}`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str, options: &impl Serialize) -> Result<(), Error> {
        let body = serde_json::to_vec(options)?.into();
        self.call::<serde_json::Value>(Method::DELETE, path, "application/json", body)
            .await
            .map(drop)
    }

    /// Watches a collection from `params.resource_version`, with bookmarks.
    ///
    /// # Errors
    /// When the server refuses the watch, for example with 410 because the version is too old.
    pub async fn watch<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &ListParams,
    ) -> Result<WatchStream<T>, Error> {
        let request =
            self.request(Method::GET, &params.apply(path, true), "application/json", Bytes::new())?;
        let response = tokio::time::timeout(CALL_TIMEOUT, self.http.request(request)).await;
        let response = response
            .map_err(|_| Error::Connection("no answer to the watch".to_owned()))?
            .map_err(|e| Error::Connection(chain(&e)))?;
        if !response.status().is_success() {
            return Err(failure(response.status().as_u16(), &collect(response.into_body()).await?));
        }
        Ok(WatchStream::new(response.into_body()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let request = self.request(method, path, kind, body)?;
        let exchange = async {
            let response =
                self.http.request(request).await.map_err(|e| Error::Connection(chain(&e)))?;
            let status = response.status();
            let body = collect(response.into_body()).await?;
            if status.is_success() {
                Ok(serde_json::from_slice(&body)?)
            } else {
                Err(failure(status.as_u16(), &body))
            }
        };
        tokio::time::timeout(CALL_TIMEOUT, exchange).await.unwrap_or_else(|_| {
            Err(Error::Connection(format!("no answer within {CALL_TIMEOUT:?}")))
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.config.server))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, self.user_agent.clone());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.body(Full::new(body)).map_err(|e| Error::Settings(e.to_string()))
    }
}

impl ListParams {
    fn apply(&self, path: &str, watch: bool) -> String {
        let mut query: Vec<String> = Vec::new();
        if watch {
            query.push("watch=true&allowWatchBookmarks=true&timeoutSeconds=300".to_owned());
        }
        let texts = [
            ("labelSelector", self.label_selector.clone()),
            ("fieldSelector", self.field_selector.clone()),
            ("limit", self.limit.map(|n| n.to_string())),
            ("continue", self.continue_token.clone()),
            ("resourceVersion", self.resource_version.clone()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                query.push(format!("{name}={}", utf8_percent_encode(&value, QUERY)));
            }
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}{separator}{}", query.join("&"))
        }
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|e| Error::Connection(chain(&e)))
}

fn failure(code: u16, body: &[u8]) -> Error {
    let mut status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned(),
        ..Status::default()
    });
    status.code = code;
    Error::Api(status)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn tls(config: &KubeConfig) -> Result<ClientConfig, Error> {
    let settings = |e: &dyn std::fmt::Display| Error::Settings(e.to_string());
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &config.ca {
        for cert in CertificateDer::pem_reader_iter(Cursor::new(ca)) {
            roots.add(cert.map_err(|e| settings(&e))?).map_err(|e| settings(&e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| settings(&e))?;
    let builder = if config.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crate::config::AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    match &config.client_cert {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_reader_iter(Cursor::new(cert)).collect();
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| settings(&e))?;
            builder
                .with_client_auth_cert(chain.map_err(|e| settings(&e))?, key)
                .map_err(|e| settings(&e))
        }
    }
}
