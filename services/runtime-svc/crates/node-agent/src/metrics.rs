//! Figures of the agent, under kubelet's names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::engine::probe::ProbeKind;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProbeLabels {
    probe_type: &'static str,
    result: &'static str,
}

/// All figures and their registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What /metrics shows.
    pub registry: Arc<Registry>,
    /// Containers started.
    pub started_containers: Counter,
    probes: Family<ProbeLabels, Counter>,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let (started, probes) = (Counter::default(), Family::<ProbeLabels, Counter>::default());
        registry.register(
            "kubelet_started_containers",
            "Cumulative number of containers started",
            started.clone(),
        );
        registry.register(
            "prober_probe",
            "Cumulative number of probes for a container by result",
            probes.clone(),
        );
        flotilla_telemetry::register_process_metrics(&mut registry);
        Self { registry: Arc::new(registry), started_containers: started, probes }
    }

    /// Counts a probe.
    pub fn probe(&self, kind: ProbeKind, passed: bool) {
        let result = if passed { "successful" } else { "failed" };
        self.probes.get_or_create(&ProbeLabels { probe_type: kind.title(), result }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
