//! gRPC services with health and reflection, as one router.

use std::convert::Infallible;

use axum::Router;
use http::Request;
use opentelemetry::propagation::Extractor;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Collects the gRPC services of a process.
///
/// Health answers for `""` and for every added service; reflection v1 and v1alpha describe all of them.
#[derive(Debug)]
pub struct Grpc {
    routes: Routes,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
    reporter: HealthReporter,
}

/// Sets what the health service answers.
#[derive(Debug, Clone)]
pub struct HealthHandle {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Grpc {
    /// No services yet. `descriptors` are encoded `FileDescriptorSet`s.
    pub fn new(descriptors: impl IntoIterator<Item = &'static [u8]>) -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut descriptors: Vec<&'static [u8]> = descriptors.into_iter().collect();
        descriptors.push(tonic_health::pb::FILE_DESCRIPTOR_SET);
        Self { routes: Routes::new(health), names: Vec::new(), descriptors, reporter }
    }

    /// Adds a service.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "reads as what it does; there is nothing to sum"
    )]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// The router, and the handle that turns health to SERVING. Until then every name is NOT_SERVING.
    pub async fn into_router(self) -> (Router, HealthHandle) {
        let mut routes = self.routes;
        let mut v1 = tonic_reflection::server::Builder::configure();
        let mut v1alpha = tonic_reflection::server::Builder::configure();
        for set in &self.descriptors {
            v1 = v1.register_encoded_file_descriptor_set(set);
            v1alpha = v1alpha.register_encoded_file_descriptor_set(set);
        }
        match (v1.build_v1(), v1alpha.build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => routes = routes.add_service(v1).add_service(v1alpha),
            (Err(error), _) | (_, Err(error)) => {
                // The descriptors are committed files that a test checks; without them calls still work.
                tracing::error!(%error, "reflection is off");
            }
        }
        let handle = HealthHandle { reporter: self.reporter, names: self.names };
        handle.set_serving(false).await;
        (routes.into_axum_router(), handle)
    }
}

impl HealthHandle {
    /// Sets the status of every service and of `""`.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// A span for a request, child of the caller's when it sent W3C trace context.
pub(crate) fn request_span<B>(request: &Request<B>) -> tracing::Span {
    let span =
        tracing::debug_span!("request", method = %request.method(), path = request.uri().path());
    if request.headers().contains_key("traceparent") && !span.is_disabled() {
        let parent = opentelemetry::global::get_text_map_propagator(|p| {
            p.extract(&Headers(request.headers()))
        });
        // Fails only when no OTLP layer is installed, and then nobody reads the parent.
        let _ = span.set_parent(parent);
    }
    span
}
