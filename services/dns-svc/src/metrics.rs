//! Every metric of the service, under CoreDNS's names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::engine::Client;
use crate::wire::Query;
use crate::wire::types::{rcode_text, type_text};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    server: String,
    zone: String,
    view: String,
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    server: String,
    zone: String,
    view: String,
    rcode: &'static str,
    plugin: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ZoneLabels {
    server: String,
    zone: String,
    view: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HitLabels {
    server: String,
    zones: String,
    r#type: &'static str,
    view: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MissLabels {
    server: String,
    zones: String,
    view: String,
}

/// The metrics. One instance a process.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Family<ZoneLabels, Histogram>,
    hits: Family<HitLabels, Counter>,
    misses: Family<MissLabels, Counter>,
    panics: Counter,
    /// When the configuration was loaded last, seconds since 1970.
    pub reloaded: Gauge,
}

impl Metrics {
    /// Registers everything.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            responses: Family::default(),
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.00025, 2.0, 16))
            }),
            hits: Family::default(),
            misses: Family::default(),
            panics: Counter::default(),
            reloaded: Gauge::default(),
        };
        let build = Info::new(vec![
            ("version", crate::COREDNS_VERSION),
            ("revision", ""),
            ("goversion", ""),
        ]);
        registry.register(
            "coredns_build",
            "A metric with a constant '1' value labeled by version",
            build,
        );
        registry.register(
            "coredns_dns_requests",
            "Counter of DNS requests made per zone, protocol and family",
            metrics.requests.clone(),
        );
        registry.register(
            "coredns_dns_responses",
            "Counter of response status codes",
            metrics.responses.clone(),
        );
        registry.register(
            "coredns_dns_request_duration_seconds",
            "Histogram of the time each request took per zone",
            metrics.duration.clone(),
        );
        registry.register("coredns_cache_hits", "The count of cache hits", metrics.hits.clone());
        registry.register(
            "coredns_cache_misses",
            "The count of cache misses",
            metrics.misses.clone(),
        );
        registry.register(
            "coredns_panics",
            "A metrics that counts the number of panics",
            metrics.panics.clone(),
        );
        registry.register(
            "coredns_reload_timestamp_seconds",
            "When the configuration was loaded",
            metrics.reloaded.clone(),
        );
        flotilla_telemetry::register_process_metrics(registry);
        metrics
    }

    /// Counts an answer.
    #[allow(clippy::too_many_arguments, reason = "one label each")]
    pub fn response(
        &self,
        server: &str,
        zone: &str,
        client: &Client,
        query: &Query,
        rcode: u8,
        plugin: &'static str,
        took: Duration,
    ) {
        let (server, zone, view) = (server.to_owned(), zone.to_owned(), String::new());
        let labels = RequestLabels {
            server: server.clone(),
            zone: zone.clone(),
            view: view.clone(),
            proto: if client.tcp { "tcp" } else { "udp" },
            family: if client.remote.is_ipv4() { "1" } else { "2" },
            r#type: type_text(query.qtype),
        };
        self.requests.get_or_create(&labels).inc();
        let labels = ResponseLabels {
            server: server.clone(),
            zone: zone.clone(),
            view: view.clone(),
            rcode: rcode_text(rcode),
            plugin,
        };
        self.responses.get_or_create(&labels).inc();
        self.duration.get_or_create(&ZoneLabels { server, zone, view }).observe(took.as_secs_f64());
    }

    /// Counts an answer from the cache.
    pub fn cache_hit(&self, server: &str, zone: &str, rcode: u8) {
        let kind = if rcode == 0 { "success" } else { "denial" };
        let labels = HitLabels {
            server: server.to_owned(),
            zones: zone.to_string(),
            r#type: kind,
            view: String::new(),
        };
        self.hits.get_or_create(&labels).inc();
    }

    /// Counts a query the cache had no answer to.
    pub fn cache_miss(&self, server: &str, zone: &str) {
        let labels =
            MissLabels { server: server.to_owned(), zones: zone.to_owned(), view: String::new() };
        self.misses.get_or_create(&labels).inc();
    }
}
