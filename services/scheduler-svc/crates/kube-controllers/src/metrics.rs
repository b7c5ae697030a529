//! `workqueue_*` metrics under kube-controller-manager's names.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Key;
use crate::queue::Queue;

type Labels = Vec<(&'static str, &'static str)>;

static WORK: LazyLock<Family<Labels, Histogram, fn() -> Histogram>> =
    LazyLock::new(|| Family::new_with_constructor(buckets as fn() -> Histogram));
static QUEUES: Mutex<Vec<(&'static str, Arc<Queue<Key>>)>> = Mutex::new(Vec::new());

fn buckets() -> Histogram {
    Histogram::new([1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
}

/// Adds the controllers' metrics to a registry.
pub fn register_metrics(registry: &mut Registry) {
    let help = "How long in seconds processing an item from workqueue takes";
    registry.register("workqueue_work_duration_seconds", help, WORK.clone());
    registry.register_collector(Box::new(Depths));
}

pub(crate) fn worked(name: &'static str, time: Duration) {
    WORK.get_or_create(&vec![("name", name)]).observe(time.as_secs_f64());
}

pub(crate) fn watch_queue(name: &'static str, queue: &Arc<Queue<Key>>) {
    let mut queues = QUEUES.lock();
    queues.retain(|(other, _)| *other != name);
    queues.push((name, queue.clone()));
}

#[derive(Debug)]
struct Depths;

impl Collector for Depths {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let queues = QUEUES.lock().clone();
        let gauge = ConstGauge::new(0_i64);
        let counter = ConstCounter::new(0_u64);
        let help = "Current depth of workqueue";
        let kind = EncodeMetric::metric_type(&gauge);
        let mut depth = encoder.encode_descriptor("workqueue_depth", help, None, kind)?;
        for (name, queue) in &queues {
            let value = ConstGauge::new(i64::try_from(queue.depth().waiting).unwrap_or(i64::MAX));
            value.encode(depth.encode_family(&[("name", *name)])?)?;
        }
        let kind = EncodeMetric::metric_type(&counter);
        let help = "Total number of adds handled by workqueue";
        let mut adds = encoder.encode_descriptor("workqueue_adds", help, None, kind)?;
        for (name, queue) in &queues {
            ConstCounter::new(queue.depth().added)
                .encode(adds.encode_family(&[("name", *name)])?)?;
        }
        let help = "Total number of retries handled by workqueue";
        let mut retries = encoder.encode_descriptor("workqueue_retries", help, None, kind)?;
        for (name, queue) in &queues {
            let value = ConstCounter::new(queue.depth().retried);
            value.encode(retries.encode_family(&[("name", *name)])?)?;
        }
        Ok(())
    }
}
