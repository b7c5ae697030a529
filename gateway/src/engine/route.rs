//! The compiled form of routes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use rand::Rng;
use regex::Regex;

use super::headers::HeaderEdits;
use super::matcher::{HeaderMatch, PathMatch, QueryMatch, RequestView};
use super::path::split_query;
use super::retry::RetryPolicy;

/// A virtual host: what its domains lead to.
#[derive(Debug)]
pub struct VirtualHost {
    /// Name from the configuration.
    pub name: String,
    /// First match wins.
    pub routes: Vec<Arc<Route>>,
    /// Redirect plain HTTP to HTTPS.
    pub require_tls: bool,
    /// Add `x-envoy-attempt-count` to requests.
    pub attempt_count: bool,
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Name from the configuration.
    pub name: String,
    /// Path predicate.
    pub path: PathMatch,
    /// Whether it looks at the case of the path.
    pub case_sensitive: bool,
    /// All must hold.
    pub headers: Vec<HeaderMatch>,
    /// All must hold.
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// What happens.
    pub action: Action,
    /// Edits of the request: route, virtual host, table.
    pub request_edits: Vec<HeaderEdits>,
    /// Edits of the response: route, virtual host, table.
    pub response_edits: Vec<HeaderEdits>,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Sends the request on.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Answers itself.
    Direct(StatusCode, Bytes),
}

/// Where to send a request and how.
#[derive(Debug)]
pub struct Forward {
    /// Which cluster.
    pub cluster: ClusterChoice,
    /// Status when the cluster does not exist.
    pub not_found: StatusCode,
    /// Replaces the matched literal.
    pub prefix_rewrite: Option<String>,
    /// Replaces what the expression matches.
    pub regex_rewrite: Option<(Regex, String)>,
    /// New authority.
    pub host_rewrite: HostRewrite,
    /// From the end of the request to the end of the response; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Overrides the connection manager's idle limit; zero is no limit.
    pub idle_timeout: Option<Duration>,
    /// When to try again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Upgrades turned on or off for this route.
    pub upgrades: Vec<(String, bool)>,
    /// Bytes of a request body kept for retries.
    pub buffer_limit: usize,
}

/// Which cluster a request goes to.
#[derive(Debug)]
pub enum ClusterChoice {
    /// Always this one.
    One(Arc<str>),
    /// By weight.
    Weighted(Vec<(Arc<str>, u64)>, u64),
    /// The one a request header names.
    Header(HeaderName),
}

/// Whether the upstream sees another authority.
#[derive(Debug)]
pub enum HostRewrite {
    /// As the client sent it.
    Keep,
    /// This one.
    Literal(HeaderValue),
    /// The host name of the endpoint.
    Endpoint,
    /// What a request header says.
    Header(HeaderName),
}

/// A redirect.
#[derive(Debug, Default)]
pub struct Redirect {
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New port; 0 keeps it.
    pub port: u16,
    /// New path.
    pub path: PathRedirect,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Drop the query.
    pub strip_query: bool,
}

/// The path of a redirect.
#[derive(Debug, Default)]
pub enum PathRedirect {
    /// Unchanged.
    #[default]
    Keep,
    /// This one.
    Path(String),
    /// The matched prefix replaced.
    Prefix(String),
}

impl Route {
    /// Whether the request takes this route. `path` is the request path without query.
    pub fn matches(&self, request: &RequestView<'_>, path: &str, query: &str) -> bool {
        self.path.matches(path, self.case_sensitive)
            && self.headers.iter().all(|test| test.matches(request))
            && self.query.iter().all(|test| test.matches(query))
            && (!self.grpc || is_grpc(request.headers))
    }

    /// The path to send upstream, when the route changes it.
    pub fn rewritten_path(&self, path: &str) -> Option<String> {
        let Action::Forward(forward) = &self.action else { return None };
        if let Some(rewrite) = &forward.prefix_rewrite {
            return self.replace_prefix(path, rewrite);
        }
        let (regex, substitution) = forward.regex_rewrite.as_ref()?;
        let (bare, query) = split_query(path);
        Some(format!("{}{query}", regex.replace_all(bare, substitution.as_str())))
    }

    fn replace_prefix(&self, path: &str, rewrite: &str) -> Option<String> {
        let (bare, query) = split_query(path);
        // A regular expression has no literal; Envoy then replaces the whole path.
        let rest = self.path.literal().map_or("", |literal| &bare[literal.len().min(bare.len())..]);
        Some(format!("{rewrite}{rest}{query}"))
    }

    /// The `location` of a redirect.
    pub fn location(&self, redirect: &Redirect, request: &RequestView<'_>) -> String {
        let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
        let (host, port) = split_port(request.authority);
        let host = redirect.host.as_deref().unwrap_or(host);
        let port = match (redirect.port, port) {
            (0, Some(port)) => {
                // A default port of the old scheme makes no sense with the new one.
                let default = (request.scheme == "http" && port == "80")
                    || (request.scheme == "https" && port == "443");
                if scheme != request.scheme && default { String::new() } else { format!(":{port}") }
            }
            (0, None) => String::new(),
            (port, _) => format!(":{port}"),
        };
        let (bare, query) = split_query(request.path);
        let query = if redirect.strip_query { "" } else { query };
        let path = match &redirect.path {
            PathRedirect::Keep => format!("{bare}{query}"),
            PathRedirect::Path(path) if path.contains('?') => path.clone(),
            PathRedirect::Path(path) => format!("{path}{query}"),
            PathRedirect::Prefix(prefix) => {
                format!(
                    "{}{query}",
                    self.replace_prefix(bare, prefix).unwrap_or_else(|| bare.to_owned())
                )
            }
        };
        format!("{scheme}://{host}{port}{path}")
    }
}

impl ClusterChoice {
    /// The cluster for this request; `None` when the header is missing.
    pub fn choose(&self, headers: &http::HeaderMap) -> Option<Arc<str>> {
        match self {
            Self::One(name) => Some(name.clone()),
            Self::Weighted(list, total) => {
                let mut ticket = rand::rng().random_range(0..(*total).max(1));
                for (name, weight) in list {
                    if ticket < *weight {
                        return Some(name.clone());
                    }
                    ticket -= weight;
                }
                list.last().map(|(name, _)| name.clone())
            }
            Self::Header(name) => headers.get(name).and_then(|v| v.to_str().ok()).map(Arc::from),
        }
    }
}

/// Whether the request is a gRPC call.
pub fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(
        |kind| {
            kind.strip_prefix("application/grpc")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
        },
    )
}

/// Host and port of an authority; IPv6 literals keep their brackets.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}
