//! Metrics under kube-scheduler's names.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sched_core::Counts;

type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics; one set a process.
pub(crate) struct Metrics {
    attempts: Family<Labels, Counter>,
    attempt_duration: Histograms,
    sli_duration: Histograms,
    pending: Family<Labels, Gauge>,
    incoming: Family<Labels, Counter>,
    preemptions: Counter,
    victims: Histogram,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    attempts: Family::default(),
    attempt_duration: Family::new_with_constructor(milliseconds as fn() -> Histogram),
    sli_duration: Family::new_with_constructor(ten_milliseconds as fn() -> Histogram),
    pending: Family::default(),
    incoming: Family::default(),
    preemptions: Counter::default(),
    victims: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
});

fn milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn ten_milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 20))
}

/// Adds the scheduler's metrics to a registry.
pub fn register_metrics(registry: &mut Registry) {
    let m = &*METRICS;
    registry.register(
        "scheduler_schedule_attempts",
        "Number of attempts to schedule pods, by the result",
        m.attempts.clone(),
    );
    registry.register(
        "scheduler_scheduling_attempt_duration_seconds",
        "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
        m.attempt_duration.clone(),
    );
    registry.register(
        "scheduler_pod_scheduling_sli_duration_seconds",
        "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue",
        m.sli_duration.clone(),
    );
    registry.register(
        "scheduler_pending_pods",
        "Number of pending pods, by the queue type",
        m.pending.clone(),
    );
    registry.register(
        "scheduler_queue_incoming_pods",
        "Number of pods added to scheduling queues by event and queue type",
        m.incoming.clone(),
    );
    registry.register(
        "scheduler_preemption_attempts",
        "Total preemption attempts in the cluster till now",
        m.preemptions.clone(),
    );
    registry.register(
        "scheduler_preemption_victims",
        "Number of selected preemption victims",
        m.victims.clone(),
    );
}

impl Metrics {
    pub(crate) fn attempt(&self, profile: &str, result: &str, seconds: f64) {
        let labels = vec![("profile", profile.to_owned()), ("result", result.to_owned())];
        self.attempts.get_or_create(&labels).inc();
        self.attempt_duration.get_or_create(&labels).observe(seconds);
    }

    pub(crate) fn scheduled(&self, attempts: u32, seconds: f64) {
        let attempts = if attempts >= 15 { "15+".to_owned() } else { attempts.to_string() };
        self.sli_duration.get_or_create(&vec![("attempts", attempts)]).observe(seconds);
    }

    pub(crate) fn pending(&self, counts: Counts) {
        let queues = [
            ("active", counts.active),
            ("backoff", counts.backoff),
            ("unschedulable", counts.unschedulable),
        ];
        for (queue, count) in queues {
            let gauge = self.pending.get_or_create(&vec![("queue", queue.to_owned())]).clone();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn incoming(&self, event: &str, queue: &str, count: usize) {
        let labels = vec![("event", event.to_owned()), ("queue", queue.to_owned())];
        self.incoming.get_or_create(&labels).inc_by(count as u64);
    }

    pub(crate) fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }
}
