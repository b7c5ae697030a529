//! Every metric of the service. The registry's carry distribution's names, the image service's containerd's.

use std::sync::Arc;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handler {
    handler: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerMethod {
    handler: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerCode {
    handler: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    in_flight: Family<Handler, Gauge>,
    duration: Family<HandlerMethod, Histogram, fn() -> Histogram>,
    requests: Family<HandlerCode, Counter>,
    pulls: Family<Status, Counter>,
    pulling: Gauge,
    gc_removed: Counter,
    gc_bytes: Counter,
}

fn seconds() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::POST => "post",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

impl Metrics {
    /// Makes and registers the metrics.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            in_flight: Family::default(),
            duration: Family::new_with_constructor(seconds),
            requests: Family::default(),
            pulls: Family::default(),
            pulling: Gauge::default(),
            gc_removed: Counter::default(),
            gc_bytes: Counter::default(),
        };
        registry.register(
            "registry_http_in_flight_requests",
            "The in-flight HTTP requests",
            metrics.in_flight.clone(),
        );
        registry.register(
            "registry_http_request_duration_seconds",
            "The HTTP request latencies in seconds",
            metrics.duration.clone(),
        );
        registry.register(
            "registry_http_requests",
            "Total number of HTTP requests made",
            metrics.requests.clone(),
        );
        registry.register(
            "containerd_cri_image_pulls",
            "succeeded and failed counters",
            metrics.pulls.clone(),
        );
        registry.register(
            "containerd_cri_in_progress_image_pulls",
            "in progress pulls",
            metrics.pulling.clone(),
        );
        registry.register(
            "image_gc_removed_blobs",
            "Blobs removed by garbage collection",
            metrics.gc_removed.clone(),
        );
        registry.register(
            "image_gc_freed_bytes",
            "Bytes freed by garbage collection",
            metrics.gc_bytes.clone(),
        );
        Arc::new(metrics)
    }

    /// Counts a request from now until [`RequestTimer::done`].
    pub fn request(self: &Arc<Self>, handler: &'static str, method: &Method) -> RequestTimer {
        self.in_flight.get_or_create(&Handler { handler }).inc();
        RequestTimer {
            metrics: self.clone(),
            handler,
            method: known_method(method),
            started: Instant::now(),
        }
    }

    /// Counts a pull that ended.
    pub fn pulled(&self, ok: bool) {
        self.pulls.get_or_create(&Status { status: if ok { "success" } else { "failure" } }).inc();
    }

    /// The number of pulls under way.
    pub fn pulling(&self) -> &Gauge {
        &self.pulling
    }

    /// Counts what garbage collection removed.
    pub fn collected(&self, blobs: u64, bytes: u64) {
        self.gc_removed.inc_by(blobs);
        self.gc_bytes.inc_by(bytes);
    }
}

/// A request being counted.
#[derive(Debug)]
pub struct RequestTimer {
    metrics: Arc<Metrics>,
    handler: &'static str,
    method: &'static str,
    started: Instant,
}

impl RequestTimer {
    /// The response head is ready.
    pub fn done(self, status: StatusCode) {
        let (handler, method) = (self.handler, self.method);
        let duration = self.metrics.duration.get_or_create(&HandlerMethod { handler, method });
        duration.observe(self.started.elapsed().as_secs_f64());
        self.metrics
            .requests
            .get_or_create(&HandlerCode { handler, method, code: status.as_u16() })
            .inc();
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.metrics.in_flight.get_or_create(&Handler { handler: self.handler }).dec();
    }
}
