//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;

pub(super) async fn healthy() -> &'static str {
    "Prometheus Server is Healthy.\n"
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.ready.is_ready() {
        (StatusCode::OK, "Prometheus Server is Ready.\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
    }
}

const DISABLED: (StatusCode, &str) = (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.");

pub(super) async fn reload(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if !app.flags.lifecycle {
        return (DISABLED.0, DISABLED.1.to_owned());
    }
    match tokio::task::block_in_place(|| app.reload()) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {error}\n"))
        }
    }
}

pub(super) async fn quit(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if !app.flags.lifecycle {
        return DISABLED;
    }
    tracing::info!("termination request over HTTP, shutting down");
    app.shutdown.trigger();
    (StatusCode::OK, "Requesting termination... Goodbye!")
}
