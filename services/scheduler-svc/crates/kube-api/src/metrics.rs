//! Metrics under kube-apiserver's names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::pages::RequestLabels;
use crate::store::Cache;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    code: u16,
    component: &'static str,
    dry_run: &'static str,
    group: String,
    resource: String,
    scope: String,
    subresource: String,
    verb: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    component: &'static str,
    group: String,
    resource: String,
    scope: String,
    subresource: String,
    verb: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stored {
    resource: String,
}

const BUCKETS: [f64; 16] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0];

/// The metrics of the API role.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Timed, Histogram>,
    objects: Family<Stored, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<Request, Counter>::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and code",
            requests.clone(),
        );
        let durations =
            Family::<Timed, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency in seconds by verb and resource",
            durations.clone(),
        );
        let objects = Family::<Stored, Gauge>::default();
        registry.register(
            "apiserver_storage_objects",
            "Stored objects by resource",
            objects.clone(),
        );
        flotilla_telemetry::register_process_metrics(&mut registry);
        Self { registry, requests, durations, objects }
    }
}

impl Metrics {
    /// Counts a request.
    pub fn observe(&self, labels: &RequestLabels, code: u16, took: Duration) {
        let RequestLabels { verb, group, version, resource, subresource, scope, dry_run } =
            labels.clone();
        let timed = Timed {
            component: "apiserver",
            group: group.clone(),
            resource: resource.clone(),
            scope: scope.clone(),
            subresource: subresource.clone(),
            verb: verb.clone(),
            version: version.clone(),
        };
        if verb != "WATCH" {
            self.durations.get_or_create(&timed).observe(took.as_secs_f64());
        }
        let request = Request {
            code,
            component: "apiserver",
            dry_run,
            group,
            resource,
            scope,
            subresource,
            verb,
            version,
        };
        self.requests.get_or_create(&request).inc();
    }

    /// The metrics as text.
    pub fn text(&self, cache: &Cache) -> String {
        for resource in cache.all() {
            let labels = Stored { resource: resource.resource.qualified() };
            self.objects
                .get_or_create(&labels)
                .set(i64::try_from(resource.count()).unwrap_or(i64::MAX));
        }
        flotilla_telemetry::encode_text(&self.registry)
    }
}
