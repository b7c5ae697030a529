//! Metrics under etcd's names.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::engine::server::Server;

/// Reads the member's state at every scrape.
#[derive(Debug)]
struct ServerCollector(Weak<Server>);

/// The registry of a member.
pub fn registry(server: &Arc<Server>) -> Registry {
    let mut registry = Registry::default();
    flotilla_telemetry::register_process_metrics(&mut registry);
    registry.register_collector(Box::new(ServerCollector(Arc::downgrade(server))));
    registry
}

impl Collector for ServerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(server) = self.0.upgrade() else { return Ok(()) };
        let standing = server.consensus().standing();
        let usage = server.keyspace().store().usage();
        let (watchers, behind) = server.keyspace().hub().counts();
        let state = server.keyspace().state();
        let (revision, compacted, keys) =
            (state.revision, state.compacted, state.index.live_keys());
        drop(state);
        let leads = standing.leader == server.identity().member;
        let gauges: [(&str, &str, f64); 13] = [
            (
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not",
                f64::from(standing.leader != 0),
            ),
            (
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise",
                f64::from(leads),
            ),
            (
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise",
                f64::from(standing.learner),
            ),
            (
                "etcd_server_proposals_committed_total",
                "The total number of consensus proposals committed",
                standing.committed as f64,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The total number of consensus proposals applied",
                standing.applied as f64,
            ),
            (
                "etcd_server_quota_backend_bytes",
                "Current backend storage quota size in bytes",
                server.quota() as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes",
                usage.total as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes",
                usage.live as f64,
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "The current revision of store",
                revision as f64,
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction in store",
                compacted.max(0) as f64,
            ),
            ("etcd_debugging_mvcc_keys_total", "Total number of keys", keys as f64),
            ("etcd_debugging_mvcc_watcher_total", "Total number of watchers", watchers as f64),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers",
                behind as f64,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
