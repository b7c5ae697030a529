//! Metrics: durations of operations under containerd's names, and what runs.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::Node;
use crate::engine::records::{ContainerPhase, SandboxPhase};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation_type: &'static str,
}

/// All metrics of the service.
#[derive(Debug, Clone)]
pub struct Metrics {
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
    errors: Family<Operation, Counter>,
    named: Vec<(&'static str, Histogram)>,
}

fn buckets() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        120.0,
    ])
}

/// Operation, and containerd's name of its duration.
const NAMED: &[(&str, &str)] = &[
    ("list_podsandbox", "containerd_cri_sandbox_list_seconds"),
    ("run_podsandbox", "containerd_cri_sandbox_runtime_create_seconds"),
    ("stop_podsandbox", "containerd_cri_sandbox_runtime_stop_seconds"),
    ("remove_podsandbox", "containerd_cri_sandbox_remove_seconds"),
    ("list_containers", "containerd_cri_container_list_seconds"),
    ("create_container", "containerd_cri_container_create_seconds"),
    ("start_container", "containerd_cri_container_start_seconds"),
    ("stop_container", "containerd_cri_container_stop_seconds"),
    ("remove_container", "containerd_cri_container_remove_seconds"),
];

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        let errors = Family::default();
        let name = "runtime_operations_duration_seconds";
        registry.register(name, "Duration in seconds of runtime operations", seconds.clone());
        registry.register("runtime_operations_errors", "Failed runtime operations", errors.clone());
        let named = NAMED.iter().map(|(operation, name)| {
            let histogram = buckets();
            registry.register(
                *name,
                format!("Duration in seconds of {operation}"),
                histogram.clone(),
            );
            (*operation, histogram)
        });
        Self { named: named.collect(), seconds, errors }
    }

    /// Notes one operation.
    pub fn observe(&self, operation: &'static str, took: Duration, failed: bool) {
        let label = Operation { operation_type: operation };
        self.seconds.get_or_create(&label).observe(took.as_secs_f64());
        if failed {
            self.errors.get_or_create(&label).inc();
        }
        if let Some((_, histogram)) = self.named.iter().find(|(name, _)| *name == operation) {
            histogram.observe(took.as_secs_f64());
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Counts sandboxes and containers when asked.
pub struct Population(pub Arc<Node>);

impl std::fmt::Debug for Population {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Population")
    }
}

impl Collector for Population {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let sandboxes = self.0.sandboxes();
        let containers = self.0.containers();
        let count = |phase| sandboxes.iter().filter(|s| s.phase() == phase).count() as i64;
        let states =
            [("ready", count(SandboxPhase::Ready)), ("notready", count(SandboxPhase::Stopped))];
        encode(&mut encoder, "runtime_sandboxes", "Sandboxes by state", &states)?;
        let count = |phase| containers.iter().filter(|c| c.phase() == phase).count() as i64;
        let states = [
            ("created", count(ContainerPhase::Created)),
            ("running", count(ContainerPhase::Running)),
            ("exited", count(ContainerPhase::Exited)),
        ];
        encode(&mut encoder, "runtime_containers", "Containers by state", &states)
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    states: &[(&'static str, i64)],
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(
        name,
        help,
        None,
        prometheus_client::metrics::MetricType::Gauge,
    )?;
    for (state, count) in states {
        let label = State { state };
        ConstGauge::new(*count).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}
