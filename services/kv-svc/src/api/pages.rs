//! HTTP pages beside gRPC: /health, /livez, /readyz, /version, /metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::api::health::{Check, unhealthy};
use crate::config::{CLUSTER_VERSION, ETCD_VERSION, STORAGE_VERSION};
use crate::engine::server::Server;

/// The pages.
pub fn router(server: Arc<Server>, registry: Arc<Registry>) -> Router {
    let mut router = Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .route(
            "/livez",
            get(|State(s): State<Arc<Server>>, RawQuery(q)| checks(s, Check::LIVE, "livez", q)),
        )
        .route(
            "/readyz",
            get(|State(s): State<Arc<Server>>, RawQuery(q)| checks(s, Check::READY, "readyz", q)),
        );
    for (page, list) in [("livez", Check::LIVE), ("readyz", Check::READY)] {
        for check in list {
            let only = std::slice::from_ref(check);
            let path = format!("/{page}/{}", check.name());
            router = router.route(
                &path,
                get(move |State(s): State<Arc<Server>>, RawQuery(q)| checks(s, only, page, q)),
            );
        }
    }
    let metrics = move || std::future::ready(metrics(&registry));
    router.route("/metrics", get(metrics)).with_state(server)
}

fn metrics(registry: &Registry) -> Response {
    let text = flotilla_telemetry::encode_text(registry);
    ([(header::CONTENT_TYPE, flotilla_telemetry::TEXT_FORMAT)], text).into_response()
}

/// Values of a query parameter.
fn values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
        .collect()
}

async fn health(State(server): State<Arc<Server>>, RawQuery(query): RawQuery) -> Response {
    let exclude = values(query.as_deref(), "exclude");
    let serializable = values(query.as_deref(), "serializable").iter().any(|value| value == "true");
    let reason = unhealthy(&server, &exclude, serializable).await;
    let code = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let healthy = if reason.is_none() { "true" } else { "false" };
    let body =
        format!("{{\"health\":\"{healthy}\",\"reason\":{}}}", json!(reason.unwrap_or_default()));
    (code, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

async fn version() -> Response {
    let body = json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": CLUSTER_VERSION,
        "storage": STORAGE_VERSION,
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn checks(
    server: Arc<Server>,
    list: &'static [Check],
    page: &'static str,
    query: Option<String>,
) -> Response {
    let exclude = values(query.as_deref(), "exclude");
    let verbose =
        query.as_deref().unwrap_or_default().split('&').any(|pair| pair.starts_with("verbose"));
    let mut report = String::new();
    let mut failed = false;
    for check in list.iter().filter(|check| !exclude.iter().any(|name| name == check.name())) {
        match check.run(&server).await {
            Ok(()) => report.push_str(&format!("[+]{} ok\n", check.name())),
            Err(reason) => {
                failed = true;
                report.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
            }
        }
    }
    if failed {
        let body = format!("{report}{page} check failed\n");
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    let body = if verbose { format!("{report}ok\n") } else { "ok\n".to_owned() };
    (StatusCode::OK, body).into_response()
}
