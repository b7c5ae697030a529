//! The pages every process has: /metrics, /healthz, /livez, /readyz, /version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;

/// Whether the process can do its work. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Not ready yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether the process is ready.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the admin pages show.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The metrics to expose.
    pub registry: Arc<Registry>,
    /// What /readyz answers.
    pub readiness: Readiness,
    /// Name and version for /version.
    pub service: &'static str,
}

impl Admin {
    /// The admin pages as a router, to be served alone or merged with a service's own routes.
    pub fn router(self) -> Router {
        let Self { registry, readiness, service } = self;
        let version = format!(
            "{{\"service\":\"{service}\",\"version\":\"{}\"}}\n",
            flotilla_telemetry::VERSION
        );
        Router::new()
            .route("/metrics", get(move || std::future::ready(metrics(&registry))))
            .route("/healthz", get(|| std::future::ready("ok")))
            .route("/livez", get(|| std::future::ready("ok")))
            .route("/readyz", get(move || std::future::ready(ready(&readiness))))
            .route(
                "/version",
                get(move || {
                    std::future::ready((
                        [(header::CONTENT_TYPE, "application/json")],
                        version.clone(),
                    ))
                }),
            )
    }
}

fn metrics(registry: &Registry) -> impl IntoResponse + use<> {
    (
        [(header::CONTENT_TYPE, flotilla_telemetry::TEXT_FORMAT)],
        flotilla_telemetry::encode_text(registry),
    )
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    if readiness.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}
