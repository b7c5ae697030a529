//! Envoy's admin pages. Pages that change something take POST alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Query, State as Extract};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use flotilla_server::Shutdown;
use regex::Regex;
use serde_json::json;

use super::dump;
use crate::bootstrap::pb;
use crate::manager::Manager;
use crate::stats::{Filter, Format, render};

/// What the pages show and change.
pub struct Admin {
    /// Configuration in force.
    pub manager: Arc<Manager>,
    /// The bootstrap as read.
    pub bootstrap: pb::bootstrap::Bootstrap,
    /// The flags, for `/server_info`.
    pub options: serde_json::Value,
    /// As `--version` prints it.
    pub version: String,
    /// Fired by `/quitquitquit`.
    pub shutdown: Shutdown,
}

type Shared = Arc<Admin>;
type Params = Query<HashMap<String, String>>;

const HELP: &str = "admin commands are:
  /: Admin home page
  /clusters: upstream cluster status
  /config_dump: dump current Envoy configs
  /drain_listeners (POST): drain listeners
  /healthcheck/fail (POST): cause the server to fail health checks
  /healthcheck/ok (POST): cause the server to pass health checks
  /help: print out list of admin commands
  /listeners: print listener info
      format: File format to use; One of (text, json)
  /logging (POST): query the logging level
  /metrics: print server stats in prometheus format
  /quitquitquit (POST): exit the server
  /ready: print server state, return 200 if LIVE, otherwise return 503
  /reopen_logs (POST): reopen access logs
  /reset_counters (POST): reset all counters to zero
  /server_info: print server version/status information
  /stats: print server stats
      usedonly: Only include stats that have been written by system since restart
      filter: Regular expression (Google re2) for filtering stats
      format: Format to use; One of (text, json, prometheus)
  /stats/prometheus: print server stats in prometheus format
";

/// The pages as a router.
pub fn router(admin: Shared) -> Router {
    Router::new()
        .route("/", any(async || text(HELP)))
        .route("/help", any(async || text(HELP)))
        .route("/ready", any(ready))
        .route("/healthz", any(ready))
        .route("/stats", any(stats))
        .route("/stats/prometheus", any(prometheus))
        .route("/metrics", any(prometheus))
        .route(
            "/clusters",
            any(async |Extract(admin): Extract<Shared>| text(dump::clusters(&admin.manager))),
        )
        .route("/config_dump", any(config_dump))
        .route("/listeners", any(listeners))
        .route("/server_info", any(server_info))
        .route(
            "/healthcheck/fail",
            any(async |method, admin| {
                post(&method, admin, |a| a.manager.state.failing.store(true, Ordering::Release))
            }),
        )
        .route(
            "/healthcheck/ok",
            any(async |method, admin| {
                post(&method, admin, |a| a.manager.state.failing.store(false, Ordering::Release))
            }),
        )
        .route(
            "/quitquitquit",
            any(async |method, admin| post(&method, admin, |a| a.shutdown.trigger())),
        )
        .route(
            "/reset_counters",
            any(async |method, admin| {
                post(&method, admin, |a| a.manager.state.stats.reset_counters())
            }),
        )
        .route(
            "/reopen_logs",
            any(async |method, admin| post(&method, admin, |a| a.manager.state.sinks.reopen())),
        )
        .route("/drain_listeners", any(drain_listeners))
        .route("/logging", any(logging))
        .fallback(async || (StatusCode::NOT_FOUND, text(format!("invalid path. {HELP}"))))
        .with_state(admin)
}

fn text(body: impl Into<String>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=UTF-8"),
        (header::CACHE_CONTROL, "no-cache, max-age=0"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::SERVER, "envoy"),
    ];
    (headers, body.into()).into_response()
}

fn json_page(value: &serde_json::Value) -> Response {
    let body = serde_json::to_string_pretty(value).unwrap_or_default();
    (
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-cache, max-age=0"),
        ],
        body + "\n",
    )
        .into_response()
}

fn refuse(method: &Method) -> Option<Response> {
    if method == Method::POST {
        return None;
    }
    Some(
        (
            StatusCode::METHOD_NOT_ALLOWED,
            text(format!("Method {method} not allowed, POST required.")),
        )
            .into_response(),
    )
}

fn post(method: &Method, Extract(admin): Extract<Shared>, change: impl FnOnce(&Admin)) -> Response {
    refuse(method).unwrap_or_else(|| {
        change(&admin);
        text("OK\n")
    })
}

async fn ready(Extract(admin): Extract<Shared>) -> Response {
    let phase = admin.manager.state.phase();
    let status = if phase == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text(format!("{phase}\n"))).into_response()
}

fn server_gauges(admin: &Admin) -> Vec<(String, i64)> {
    let state = match admin.manager.state.phase() {
        "LIVE" => 0,
        "DRAINING" => 1,
        _ => 2,
    };
    vec![("server.live".to_owned(), i64::from(state == 0)), ("server.state".to_owned(), state)]
}

fn filter(params: &HashMap<String, String>) -> Result<Filter, Box<Response>> {
    let name = params.get("filter").map(|text| {
        Regex::new(text).map_err(|_| {
            Box::new(
                (StatusCode::BAD_REQUEST, text_line(&format!("Invalid re2 regex: {text}")))
                    .into_response(),
            )
        })
    });
    Ok(Filter { name: name.transpose()?, used_only: params.contains_key("usedonly") })
}

fn text_line(line: &str) -> Response {
    text(format!("{line}\n"))
}

async fn stats(Extract(admin): Extract<Shared>, Query(params): Params) -> Response {
    let format = match params.get("format").map(String::as_str) {
        None | Some("text" | "") => Format::Text,
        Some("json") => Format::Json,
        Some("prometheus") => Format::Prometheus,
        Some(_) => {
            let message = "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n";
            return (StatusCode::BAD_REQUEST, text(message)).into_response();
        }
    };
    match filter(&params) {
        Ok(filter) => {
            text(render(&admin.manager.state.stats, &server_gauges(&admin), &filter, format))
        }
        Err(response) => *response,
    }
}

async fn prometheus(Extract(admin): Extract<Shared>, Query(params): Params) -> Response {
    match filter(&params) {
        Ok(filter) => {
            let body = render(
                &admin.manager.state.stats,
                &server_gauges(&admin),
                &filter,
                Format::Prometheus,
            );
            ([(header::CONTENT_TYPE, flotilla_telemetry::TEXT_FORMAT)], body).into_response()
        }
        Err(response) => *response,
    }
}

async fn config_dump(Extract(admin): Extract<Shared>, Query(params): Params) -> Response {
    if let Some(name) = ["resource", "mask", "name_regex", "include_eds"]
        .into_iter()
        .find(|name| params.contains_key(*name))
    {
        return (StatusCode::BAD_REQUEST, text_line(&format!("not supported yet: {name}")))
            .into_response();
    }
    json_page(&dump::config_dump(&admin.manager, &admin.bootstrap).await)
}

async fn listeners(Extract(admin): Extract<Shared>, Query(params): Params) -> Response {
    let list = admin.manager.listeners.list().await;
    if params.get("format").map(String::as_str) == Some("json") {
        let statuses: Vec<_> = list
            .iter()
            .map(|(name, bound, _, _)| match bound {
                flotilla_config::ListenAddr::Tcp(address) => json!({ "name": name, "local_address": {
                    "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } } }),
                flotilla_config::ListenAddr::Unix(path) => json!({ "name": name, "local_address": { "pipe": { "path": path } } }),
            })
            .collect();
        return json_page(&json!({ "listener_statuses": statuses }));
    }
    let lines: Vec<String> =
        list.iter().map(|(name, bound, _, _)| format!("{name}::{bound}\n")).collect();
    text(lines.concat())
}

async fn server_info(Extract(admin): Extract<Shared>) -> Response {
    let uptime = format!("{}s", admin.manager.state.stats.started.elapsed().as_secs());
    json_page(&json!({
        "version": admin.version,
        "state": admin.manager.state.phase(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": admin.options,
        "node": crate::bootstrap::to_json("envoy.config.core.v3.Node", &admin.bootstrap.node.clone().unwrap_or_default()),
    }))
}

async fn drain_listeners(method: Method, Extract(admin): Extract<Shared>) -> Response {
    if let Some(refused) = refuse(&method) {
        return refused;
    }
    admin.manager.listeners.stop_accepting().await;
    text("OK\n")
}

async fn logging(
    method: Method,
    Extract(admin): Extract<Shared>,
    Query(params): Params,
) -> Response {
    if let Some(refused) = refuse(&method) {
        return refused;
    }
    if let Some(name) = params.keys().next() {
        return (
            StatusCode::BAD_REQUEST,
            text_line(&format!("not supported yet: {name}; use --log-level")),
        )
            .into_response();
    }
    let level = admin.options["log_level"].as_str().unwrap_or("info").to_owned();
    text(format!("active loggers:\n  gateway: {level}\n"))
}
