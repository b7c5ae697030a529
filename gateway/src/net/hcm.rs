//! The HTTP connection manager: a request comes in, a route is found, its action is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{HOST, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;

use super::cluster_config::Http2Options;
use super::forward;
use super::local_reply::reply;
use super::request::{authority, prepare};
use super::response::ResponseBody;
use super::stream::{Logged, Stream};
use crate::access_log::{AccessLog, Flags};
use crate::engine::matcher::RequestView;
use crate::engine::path::{merge_slashes, normalize};
use crate::engine::route::{Action, Redirect, Route, is_grpc};
use crate::engine::table::{Found, RouteTable};
use crate::state::State;
use crate::stats::HttpStats;

/// Which protocols a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Whatever the client speaks.
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
}

/// A connection manager's settings, with its routes.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are named after the API's")]
pub struct Hcm {
    pub state: Arc<State>,
    pub stats: Arc<HttpStats>,
    /// The routes in force; `None` until the control plane sent them.
    pub routes: Arc<ArcSwapOption<RouteTable>>,
    pub accepts: Accepts,
    pub server_name: HeaderValue,
    /// 0 overwrites `server`, 1 adds it if absent, 2 passes it through.
    pub server_transformation: i32,
    pub access_logs: Vec<AccessLog>,
    pub use_remote_address: bool,
    pub xff_trusted_hops: u32,
    pub generate_request_id: bool,
    pub preserve_request_id: bool,
    pub request_id_in_response: bool,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub strip_port: bool,
    pub suppress_envoy_headers: bool,
    pub via: Option<HeaderValue>,
    pub upgrades: Vec<(String, bool)>,
    pub stream_idle: Option<Duration>,
    pub connection_idle: Duration,
    pub request_headers_timeout: Option<Duration>,
    pub max_headers_bytes: usize,
    pub max_headers: usize,
    pub accept_http_10: bool,
    pub http2: Http2Options,
    pub max_streams: u32,
}

/// What is known about a client's connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Peer; `None` on unix sockets.
    pub remote: Option<SocketAddr>,
    /// Own address; `None` on unix sockets.
    pub local: Option<SocketAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Spreads connections over upstream ones.
    pub turn: usize,
}

/// Answers one request.
pub async fn handle(
    hcm: Arc<Hcm>,
    connection: Arc<ConnectionInfo>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let stream =
        Box::new(Stream::new(hcm.clone(), request.version(), request.body().is_end_stream()));
    let (mut parts, body) = request.into_parts();
    let grpc = is_grpc(&parts.headers);
    if parts.version == Version::HTTP_10 && !hcm.accept_http_10 {
        return reply(stream, StatusCode::UPGRADE_REQUIRED, "", Flags::default(), false);
    }
    let Some(mut host) = authority(&parts) else {
        return reply(stream, StatusCode::BAD_REQUEST, "", Flags::DOWNSTREAM_PROTOCOL_ERROR, grpc);
    };
    if hcm.strip_port {
        let bare =
            host.to_str().ok().map(|text| crate::engine::route::split_port(text).0.to_owned());
        host = bare.and_then(|text| text.parse().ok()).unwrap_or(host);
    }
    if !clean_path(&hcm, &mut parts) {
        hcm.stats.downstream_rq_failed_path_normalization.inc();
        return reply(stream, StatusCode::BAD_REQUEST, "", Flags::default(), grpc);
    }
    prepare(&hcm, &connection, &mut parts.headers);
    let mut stream = stream;
    if !hcm.access_logs.is_empty() {
        stream.logged = Some(Box::new(logged(&hcm, &connection, &parts, &host)));
    }
    // CONNECT needs a route that asks for it, and none can yet.
    let found = if parts.method == Method::CONNECT {
        Found::Nothing
    } else {
        find(&hcm, &connection, &parts, &host)
    };
    match found {
        Found::Nothing => {
            hcm.stats.no_route.inc();
            reply(stream, StatusCode::NOT_FOUND, "", Flags::NO_ROUTE, grpc)
        }
        Found::NeedsTls => {
            let location = format!(
                "https://{}{}",
                host.to_str().unwrap_or_default(),
                parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)
            );
            let mut response =
                reply(stream, StatusCode::MOVED_PERMANENTLY, "", Flags::default(), false);
            insert(&mut response, LOCATION, &location);
            response
        }
        Found::Route(virtual_host, route) => {
            if let Some(logged) = &mut stream.logged {
                logged.route.clone_from(&route.name);
            }
            let request_id = hcm
                .request_id_in_response
                .then(|| parts.headers.get(super::request::REQUEST_ID).cloned())
                .flatten();
            let mut response = act(
                stream,
                &connection,
                &route,
                virtual_host.attempt_count,
                (parts, body),
                host,
                grpc,
            )
            .await;
            for edits in &route.response_edits {
                edits.apply(response.headers_mut());
            }
            if let Some(id) = request_id {
                response.headers_mut().insert(super::request::REQUEST_ID, id);
            }
            response
        }
    }
}

async fn act(
    stream: Box<Stream>,
    connection: &Arc<ConnectionInfo>,
    route: &Arc<Route>,
    attempt_count: bool,
    (parts, body): (request::Parts, Incoming),
    host: HeaderValue,
    grpc: bool,
) -> Response<ResponseBody> {
    let hcm = stream.hcm.clone();
    match &route.action {
        Action::Direct(status, bytes) => {
            hcm.stats.rq_direct_response.inc();
            // Like Envoy: these statuses come with a `location`, the request's own.
            let location = (*status == StatusCode::CREATED || status.is_redirection())
                .then(|| route.location(&Redirect::default(), &view(connection, &parts, &host)));
            let mut response = reply(stream, *status, bytes.clone(), Flags::default(), grpc);
            if let Some(location) = location {
                insert(&mut response, LOCATION, &location);
            }
            response
        }
        Action::Redirect(redirect) => {
            hcm.stats.rq_redirect.inc();
            let location = route.location(redirect, &view(connection, &parts, &host));
            let mut response = reply(stream, redirect.status, "", Flags::default(), false);
            insert(&mut response, LOCATION, &location);
            response
        }
        Action::Forward(action) => {
            hcm.stats.rq_total.inc();
            let job = forward::Job {
                connection: connection.clone(),
                route: route.clone(),
                action,
                parts,
                body,
                host,
                grpc,
                attempt_count,
            };
            forward::forward(stream, job).await
        }
    }
}

fn insert(response: &mut Response<ResponseBody>, name: http::HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(name, value);
    }
}

fn view<'a>(
    connection: &ConnectionInfo,
    parts: &'a request::Parts,
    host: &'a HeaderValue,
) -> RequestView<'a> {
    RequestView {
        method: parts.method.as_str(),
        path: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str),
        authority: host.to_str().unwrap_or_default(),
        scheme: parts
            .headers
            .get(super::request::FORWARDED_PROTO)
            .and_then(|v| v.to_str().ok())
            .unwrap_or(connection.scheme),
        headers: &parts.headers,
    }
}

fn find(
    hcm: &Hcm,
    connection: &ConnectionInfo,
    parts: &request::Parts,
    host: &HeaderValue,
) -> Found {
    match hcm.routes.load().as_ref() {
        Some(table) => table.find(&view(connection, parts, host)),
        None => Found::Nothing,
    }
}

/// Normalises the path as configured; false when it must be refused.
fn clean_path(hcm: &Hcm, parts: &mut request::Parts) -> bool {
    if !hcm.normalize_path && !hcm.merge_slashes {
        return true;
    }
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if path == "*" {
        return true;
    }
    let mut clean = path.to_owned();
    if hcm.normalize_path {
        match normalize(&clean) {
            Some(normal) => clean = normal,
            None => return false,
        }
    }
    if hcm.merge_slashes {
        clean = merge_slashes(&clean);
    }
    clean == path || set_path(parts, &clean)
}

/// Replaces the path of a request; false when it is no path.
pub fn set_path(parts: &mut request::Parts, path: &str) -> bool {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let parsed: Result<PathAndQuery, _> = path.parse();
    let good = parsed.is_ok();
    uri.path_and_query = parsed.ok().or(uri.path_and_query);
    if let Ok(uri) = http::Uri::from_parts(uri) {
        parts.uri = uri;
    }
    good
}

fn logged(
    hcm: &Hcm,
    connection: &ConnectionInfo,
    parts: &request::Parts,
    host: &HeaderValue,
) -> Logged {
    let mut request = http::HeaderMap::new();
    for name in hcm.access_logs.iter().flat_map(|log| log.format.request_headers()) {
        if name == HOST {
            request.insert(name, host.clone());
        } else if let Some(value) = parts.headers.get(&name) {
            request.insert(name, value.clone());
        }
    }
    let text = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    Logged {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        original_path: None,
        authority: host.to_str().unwrap_or_default().to_owned(),
        request,
        response: http::HeaderMap::new(),
        route: String::new(),
        remote: text(connection.remote),
        local: text(connection.local),
    }
}
