//! Every metric of the service, under CoreDNS's names.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
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

/// Types below this have a counter of their own; the last one stands for all others.
const TYPES: usize = 258;

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
struct VersionLabels {
    hash: &'static str,
    value: String,
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
    version: Family<VersionLabels, Gauge>,
    /// Reloads that did not work.
    pub reload_failed: Counter,
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
            version: Family::default(),
            reload_failed: Counter::default(),
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
            "coredns_reload_failed",
            "Counter of the number of failed reload attempts",
            metrics.reload_failed.clone(),
        );
        registry.register(
            "coredns_reload_version_info",
            "A metric with a constant '1' value labeled by hash, and value which type of hash generated",
            metrics.version.clone(),
        );
        registry.register(
            "coredns_reload_timestamp_seconds",
            "When the configuration was loaded",
            metrics.reloaded.clone(),
        );
        flotilla_telemetry::register_process_metrics(registry);
        metrics
    }

    /// A configuration was loaded.
    pub fn loaded(&self, digest: &str) {
        self.version.clear();
        let labels = VersionLabels { hash: "sha512", value: digest.to_owned() };
        self.version.get_or_create(&labels).set(1);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = since.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        self.reloaded.set(seconds.unwrap_or_default());
    }
}

/// Counters of one zone of one server, looked up once and then only counted.
#[derive(Debug)]
pub struct SiteMetrics {
    counted: bool,
    labels: ZoneLabels,
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Histogram,
    hits: [Counter; 2],
    misses: Counter,
    by_request: Vec<OnceLock<Counter>>,
    by_response: Mutex<Vec<(&'static str, u8, Counter)>>,
}

impl SiteMetrics {
    /// The counters of a zone; without `counted` only the cache's count.
    pub fn new(metrics: &Metrics, server: &str, zone: &str, counted: bool) -> Self {
        let (server, zone) = (server.to_owned(), zone.to_owned());
        let hit = |kind| {
            metrics.hits.get_or_create_owned(&HitLabels {
                server: server.clone(),
                zones: zone.clone(),
                r#type: kind,
                view: String::new(),
            })
        };
        let miss = MissLabels { server: server.clone(), zones: zone.clone(), view: String::new() };
        let labels = ZoneLabels { server: server.clone(), zone: zone.clone(), view: String::new() };
        Self {
            counted,
            requests: metrics.requests.clone(),
            responses: metrics.responses.clone(),
            duration: metrics.duration.get_or_create_owned(&labels),
            hits: [hit("success"), hit("denial")],
            misses: metrics.misses.get_or_create_owned(&miss),
            by_request: (0..4 * TYPES).map(|_| OnceLock::new()).collect(),
            by_response: Mutex::default(),
            labels,
        }
    }

    /// Counts an answer.
    pub fn response(
        &self,
        client: &Client,
        query: &Query,
        rcode: u8,
        plugin: &'static str,
        took: Duration,
    ) {
        if !self.counted {
            return;
        }
        let slot = usize::from(client.tcp) + 2 * usize::from(client.remote.is_ipv6());
        let kind = usize::from(query.qtype).min(TYPES - 1);
        let request =
            self.by_request[slot * TYPES + kind].get_or_init(|| self.request(client, query));
        // Types above the table share a slot, not a label.
        if kind == TYPES - 1 && type_text(query.qtype) != "other" {
            self.request(client, query).inc();
        } else {
            request.inc();
        }
        self.count_response(rcode, plugin);
        self.duration.observe(took.as_secs_f64());
    }

    fn count_response(&self, rcode: u8, plugin: &'static str) {
        let mut known = self.by_response.lock();
        if let Some((_, _, counter)) = known.iter().find(|(p, r, _)| *r == rcode && *p == plugin) {
            counter.inc();
            return;
        }
        let ZoneLabels { server, zone, view } = self.labels.clone();
        let labels = ResponseLabels { server, zone, view, rcode: rcode_text(rcode), plugin };
        let counter = self.responses.get_or_create_owned(&labels);
        counter.inc();
        known.push((plugin, rcode, counter));
    }

    fn request(&self, client: &Client, query: &Query) -> Counter {
        let ZoneLabels { server, zone, view } = self.labels.clone();
        self.requests.get_or_create_owned(&RequestLabels {
            server,
            zone,
            view,
            proto: if client.tcp { "tcp" } else { "udp" },
            family: if client.remote.is_ipv4() { "1" } else { "2" },
            r#type: type_text(query.qtype),
        })
    }

    /// Counts an answer from the cache.
    pub fn cache_hit(&self, rcode: u8) {
        self.hits[usize::from(rcode != 0)].inc();
    }

    /// Counts a query the cache had no answer to.
    pub fn cache_miss(&self) {
        self.misses.inc();
    }
}
