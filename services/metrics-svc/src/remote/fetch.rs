//! Fetching one exposition page: time limit, size limit, compression, credentials, redirects.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics_model::Format;
use thiserror::Error;

use super::connector;
use crate::config::{HttpClientConfig, ScrapeConfig};

/// What a page may have when no limit is configured; more is never read.
const CEILING: usize = 1 << 30;
const MOST_REDIRECTS: usize = 10;

/// Why a target gave no samples; the text is shown as the target's last error.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Nothing, or not in time.
    #[error("Get {url:?}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The system's error.
        reason: String,
    },
    /// Another status than 200.
    #[error("server returned HTTP status {0}")]
    Status(StatusCode),
    /// More bytes than `body_size_limit`.
    #[error("body size limit exceeded")]
    TooLarge,
    /// The content type names no known format.
    #[error("{0}")]
    ContentType(String),
    /// The page is not what it claims.
    #[error("{0}")]
    Malformed(String),
    /// Credentials cannot be read.
    #[error("{0}")]
    Credentials(String),
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) text: String,
    pub(super) format: Format,
    /// Bytes before decompression.
    pub(super) size: usize,
}

/// Fetches the pages of one scrape section's targets.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    http: HttpClientConfig,
    limit: usize,
    compression: bool,
    accept: HeaderValue,
    fallback: Option<String>,
}

impl Fetcher {
    pub(super) fn new(config: &ScrapeConfig) -> Result<Self, String> {
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5 * 60))
            .pool_max_idle_per_host(2)
            .build(connector(&config.http)?);
        let limit = config.body_size_limit.map_or(0, |size| size.0 as usize);
        Ok(Self {
            client,
            http: config.http.clone(),
            limit: if limit == 0 { CEILING } else { limit },
            compression: config.enable_compression,
            accept: accept(&config.scrape_protocols),
            fallback: config.fallback_scrape_protocol.clone(),
        })
    }

    /// The page at `url`.
    pub(super) async fn fetch(&self, url: &str, timeout: Duration) -> Result<Page, FetchError> {
        let unreachable = |reason: String| FetchError::Unreachable { url: url.to_owned(), reason };
        let work = async {
            let response = self.follow(url, timeout).await?;
            self.read(response).await
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result.map_err(|error| match error {
                FetchError::Unreachable { reason, .. } => unreachable(reason),
                other => other,
            }),
            Err(_) => Err(unreachable("context deadline exceeded".to_owned())),
        }
    }

    async fn follow(&self, url: &str, timeout: Duration) -> Result<Response<Incoming>, FetchError> {
        let bad = |reason: String| FetchError::Unreachable { url: url.to_owned(), reason };
        let mut uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| bad(e.to_string()))?;
        let home = uri.authority().cloned();
        for _ in 0..=MOST_REDIRECTS {
            // Credentials stay with the host they were configured for.
            let request = self.request(&uri, uri.authority() == home.as_ref(), timeout)?;
            let response = self.client.request(request).await.map_err(|e| bad(chain(&e)))?;
            let status = response.status();
            if !(status.is_redirection() && self.http.follow_redirects) {
                return if status == StatusCode::OK {
                    Ok(response)
                } else {
                    Err(FetchError::Status(status))
                };
            }
            let target =
                response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
            uri = join(&uri, target)
                .ok_or_else(|| bad(format!("redirect to {target:?} cannot be followed")))?;
        }
        Err(bad(format!("stopped after {MOST_REDIRECTS} redirects")))
    }

    fn request(
        &self,
        uri: &Uri,
        with_credentials: bool,
        timeout: Duration,
    ) -> Result<Request<Empty<Bytes>>, FetchError> {
        let mut request = Request::get(uri.clone())
            .header(ACCEPT, self.accept.clone())
            .header(USER_AGENT, concat!("metrics-svc/", env!("CARGO_PKG_VERSION")))
            .header("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_secs_f64().to_string())
            .header(ACCEPT_ENCODING, if self.compression { "gzip" } else { "identity" });
        if let (true, Some(value)) = (with_credentials, self.credentials()?) {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Empty::new()).map_err(|e| FetchError::Malformed(e.to_string()))
    }

    /// Read anew each time: files may rotate.
    fn credentials(&self) -> Result<Option<HeaderValue>, FetchError> {
        let text = if let Some(basic) = &self.http.basic_auth {
            let user =
                from_file(basic.username_file.as_ref())?.unwrap_or_else(|| basic.username.clone());
            let inline = basic.password.as_ref().map(|s| s.0.clone());
            let password = from_file(basic.password_file.as_ref())?.or(inline).unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        } else if let Some(auth) = &self.http.authorization {
            let inline = auth.credentials.as_ref().map(|s| s.0.clone());
            let credentials =
                from_file(auth.credentials_file.as_ref())?.or(inline).unwrap_or_default();
            format!("{} {credentials}", auth.kind)
        } else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            FetchError::Credentials("credentials hold characters a header cannot".to_owned())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Page, FetchError> {
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let format = self.format(&header(CONTENT_TYPE))?;
        let gzip = header(CONTENT_ENCODING) == "gzip";
        let mut body = response.into_body();
        let mut raw = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|e| FetchError::Unreachable { url: String::new(), reason: chain(&e) })?;
            if let Some(data) = frame.data_ref() {
                if raw.len() + data.len() > self.limit {
                    return Err(FetchError::TooLarge);
                }
                raw.extend_from_slice(data);
            }
        }
        let size = raw.len();
        let bytes = if gzip { self.unzip(&raw)? } else { raw };
        let text = String::from_utf8(bytes)
            .map_err(|_| FetchError::Malformed("invalid UTF-8 label value".to_owned()))?;
        Ok(Page { text, format, size })
    }

    fn unzip(&self, raw: &[u8]) -> Result<Vec<u8>, FetchError> {
        let mut out = Vec::new();
        let mut decoder = MultiGzDecoder::new(raw).take(self.limit as u64 + 1);
        decoder.read_to_end(&mut out).map_err(|e| FetchError::Malformed(format!("gzip: {e}")))?;
        if out.len() > self.limit { Err(FetchError::TooLarge) } else { Ok(out) }
    }

    fn format(&self, content_type: &str) -> Result<Format, FetchError> {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "text/plain" => Ok(Format::Text),
            "application/openmetrics-text" => Ok(Format::OpenMetrics),
            _ => match self.fallback.as_deref() {
                Some(name) if name.starts_with("OpenMetrics") => Ok(Format::OpenMetrics),
                Some(_) => Ok(Format::Text),
                None if media.is_empty() => Err(FetchError::ContentType(
                    "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target".to_owned(),
                )),
                None => Err(FetchError::ContentType(format!(
                    "received unsupported Content-Type {content_type:?} and no fallback_scrape_protocol specified for target"
                ))),
            },
        }
    }
}

fn from_file(path: Option<&PathBuf>) -> Result<Option<String>, FetchError> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|e| FetchError::Credentials(format!("{}: {e}", path.display())))?;
    Ok(Some(text.trim().to_owned()))
}

fn accept(protocols: &[String]) -> HeaderValue {
    let all = ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText0.0.4"];
    let wanted: Vec<&str> = if protocols.is_empty() {
        all.to_vec()
    } else {
        protocols.iter().map(String::as_str).collect()
    };
    let mut weight = wanted.len() + 1;
    let mut parts = Vec::new();
    for protocol in wanted {
        let media = match protocol {
            "OpenMetricsText1.0.0" => "application/openmetrics-text;version=1.0.0",
            "OpenMetricsText0.0.1" => "application/openmetrics-text;version=0.0.1",
            "PrometheusText1.0.0" => "text/plain;version=1.0.0",
            _ => "text/plain;version=0.0.4",
        };
        parts.push(format!("{media};q=0.{weight}"));
        weight -= 1;
    }
    parts.push(format!("*/*;q=0.{weight}"));
    HeaderValue::from_str(&parts.join(",")).unwrap_or(HeaderValue::from_static("*/*"))
}

fn join(base: &Uri, target: &str) -> Option<Uri> {
    if target.starts_with("http://") || target.starts_with("https://") {
        return target.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if target.starts_with('/') {
        return format!("{scheme}://{authority}{target}").parse().ok();
    }
    let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
    format!("{scheme}://{authority}{dir}/{target}").parse().ok()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        innermost = format!("{innermost}: {inner}");
        source = inner.source();
    }
    innermost
}
