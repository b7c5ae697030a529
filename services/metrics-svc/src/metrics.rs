//! The server's own metrics, under Prometheus' names.

use std::sync::Arc;

use metrics_tsdb::Db;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Labels of `prometheus_http_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Path, without parameters.
    pub handler: String,
    /// Status.
    pub code: String,
}

/// Counters of all parts.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the help texts below say it")]
pub struct Metrics {
    pub scrapes: Counter,
    pub scrape_bytes: Counter,
    pub sample_limit_hits: Counter,
    pub body_limit_hits: Counter,
    pub out_of_order: Counter,
    pub out_of_bounds: Counter,
    pub duplicate: Counter,
    pub queries_running: Gauge,
    pub queries_limit: Gauge,
    pub requests: Family<RequestLabels, Counter>,
    pub reload_successful: Gauge,
    pub reload_time: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub rule_evaluations: Counter,
    pub rule_failures: Counter,
    pub rule_iterations: Counter,
    pub rule_iterations_missed: Counter,
    pub active_targets: Gauge,
}

impl Metrics {
    /// A registry that shows these counters, the process and the database.
    pub fn registry(&self, db: Arc<Db>) -> Registry {
        let mut registry = Registry::default();
        flotilla_telemetry::register_process_metrics(&mut registry);
        let build = vec![
            ("version", crate::flags::COMPATIBLE.to_owned()),
            ("revision", format!("metrics-svc-{}", flotilla_telemetry::VERSION)),
            ("branch", "flotilla".to_owned()),
            ("goversion", String::new()),
        ];
        registry.register(
            "prometheus_build",
            "Version of Prometheus this server follows, and its own",
            Info::new(build),
        );
        let counters = [
            ("prometheus_target_scrapes", "Scrapes", &self.scrapes),
            (
                "prometheus_target_scrape_body_bytes",
                "Bytes scraped, before decompression",
                &self.scrape_bytes,
            ),
            (
                "prometheus_target_scrapes_exceeded_sample_limit",
                "Scrapes that hit the sample limit and were rejected",
                &self.sample_limit_hits,
            ),
            (
                "prometheus_target_scrapes_exceeded_body_size_limit",
                "Scrapes that hit the body size limit",
                &self.body_limit_hits,
            ),
            (
                "prometheus_target_scrapes_sample_out_of_order",
                "Samples rejected due to not being out of the expected order",
                &self.out_of_order,
            ),
            (
                "prometheus_target_scrapes_sample_out_of_bounds",
                "Samples rejected due to timestamp falling outside of the time bounds",
                &self.out_of_bounds,
            ),
            (
                "prometheus_target_scrapes_sample_duplicate_timestamp",
                "Samples rejected due to duplicate timestamps but different values",
                &self.duplicate,
            ),
            ("prometheus_rule_evaluations", "Rule evaluations", &self.rule_evaluations),
            (
                "prometheus_rule_evaluation_failures",
                "Rule evaluation failures",
                &self.rule_failures,
            ),
            (
                "prometheus_rule_group_iterations",
                "Scheduled rule group evaluations",
                &self.rule_iterations,
            ),
            (
                "prometheus_rule_group_iterations_missed",
                "Rule group evaluations missed due to slow rule group evaluation",
                &self.rule_iterations_missed,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("prometheus_http_requests", "HTTP requests", self.requests.clone());
        registry.register(
            "prometheus_engine_queries",
            "Queries being executed or waiting",
            self.queries_running.clone(),
        );
        registry.register(
            "prometheus_engine_queries_concurrent_max",
            "Max number of concurrent queries",
            self.queries_limit.clone(),
        );
        registry.register(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful",
            self.reload_successful.clone(),
        );
        registry.register(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload",
            self.reload_time.clone(),
        );
        registry.register(
            "prometheus_sd_active_targets",
            "Targets being scraped",
            self.active_targets.clone(),
        );
        registry.register_collector(Box::new(DbCollector(db)));
        registry
    }
}

#[derive(Debug)]
struct DbCollector(Arc<Db>);

impl Collector for DbCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        let head = stats.head;
        let seconds = |millis: i64| {
            if millis == i64::MAX || millis == i64::MIN { 0.0 } else { millis as f64 }
        };
        let gauges = [
            ("prometheus_tsdb_head_series", "Series in the head block", head.series as f64),
            ("prometheus_tsdb_head_chunks", "Chunks in the head block", head.chunks as f64),
            (
                "prometheus_tsdb_head_min_time",
                "Minimum time of the head block in milliseconds",
                seconds(head.min_time),
            ),
            (
                "prometheus_tsdb_head_max_time",
                "Maximum time of the head block in milliseconds",
                seconds(head.max_time),
            ),
            ("prometheus_tsdb_blocks_loaded", "Blocks that are open", stats.blocks as f64),
            (
                "prometheus_tsdb_storage_blocks_bytes",
                "Bytes of the blocks",
                stats.block_bytes as f64,
            ),
            (
                "prometheus_tsdb_lowest_timestamp",
                "Lowest timestamp stored, in milliseconds",
                stats.lowest_timestamp as f64,
            ),
            (
                "prometheus_tsdb_wal_segment_current",
                "Segment the write-ahead log writes to",
                f64::from(stats.wal_segment),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("prometheus_tsdb_head_series_created", "Series created in the head", head.created),
            ("prometheus_tsdb_head_series_removed", "Series removed from the head", head.removed),
            ("prometheus_tsdb_head_samples_appended", "Samples appended", head.appended),
            (
                "prometheus_tsdb_compactions",
                "Blocks written from the head or by merging",
                stats.compactions,
            ),
            (
                "prometheus_tsdb_compactions_failed",
                "Compactions that failed",
                stats.compactions_failed,
            ),
            (
                "prometheus_tsdb_wal_corruptions",
                "Repairs of the write-ahead log",
                stats.wal_corruptions,
            ),
            ("prometheus_tsdb_checkpoint_creations", "Checkpoints written", stats.checkpoints),
            (
                "prometheus_tsdb_time_retentions",
                "Blocks removed by retention",
                stats.blocks_deleted,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
