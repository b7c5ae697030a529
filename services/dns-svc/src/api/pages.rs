//! The HTTP pages of the plugins health, ready and prometheus.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::registry::Registry;

/// `/health` says OK for as long as the process lives.
pub fn health() -> Router {
    Router::new().route("/health", get(|| std::future::ready("OK")))
}

/// `/ready` says OK once every plugin is ready, and lists the others until then. Once ready, always ready.
pub fn ready(unready: impl Fn() -> Vec<&'static str> + Clone + Send + Sync + 'static) -> Router {
    let page = move || {
        let waiting = unready();
        let answer = if waiting.is_empty() {
            (StatusCode::OK, "OK".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, waiting.join(","))
        };
        std::future::ready(answer)
    };
    Router::new().route("/ready", get(page))
}

/// `/metrics`.
pub fn metrics(registry: Arc<Registry>) -> Router {
    let page = move || {
        let text = flotilla_telemetry::encode_text(&registry);
        std::future::ready(([(header::CONTENT_TYPE, flotilla_telemetry::TEXT_FORMAT)], text))
    };
    Router::new().route("/metrics", get(page))
}
