//! Usage of containers and pods.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_proto::cri::runtime::v1 as cri;
use parking_lot::Mutex;
use rt_shim::cgroup::CgroupStats;

use super::convert::visible_containers;
use crate::engine::filter::matches;
use crate::engine::node::Node;
use crate::engine::records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};

/// Keeps the last CPU reading of every cgroup, because a rate needs two.
#[derive(Debug, Clone, Default)]
pub(super) struct Sampler(Arc<Mutex<HashMap<String, Sample>>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    nanos: u64,
    rate: Option<u64>,
}

/// Readings closer together than this give no useful rate.
const MIN_INTERVAL: i64 = 100_000_000;
/// Readings of cgroups that nobody asked for in this time are forgotten.
const MAX_AGE: i64 = 600_000_000_000;

impl Sampler {
    fn rate(&self, key: &str, at: i64, nanos: u64) -> Option<u64> {
        let mut samples = self.0.lock();
        let Some(last) = samples.get_mut(key) else {
            samples.retain(|_, sample| at - sample.at < MAX_AGE);
            samples.insert(key.to_owned(), Sample { at, nanos, rate: None });
            return None;
        };
        let passed = at - last.at;
        if passed < MIN_INTERVAL {
            return last.rate;
        }
        let used = nanos.saturating_sub(last.nanos);
        let rate =
            u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(passed.unsigned_abs()))
                .ok();
        *last = Sample { at, nanos, rate };
        rate
    }

    fn cpu(&self, key: &str, at: i64, stats: &CgroupStats) -> Option<cri::CpuUsage> {
        let nanos = stats.cpu_nanos?;
        let rate = self.rate(key, at, nanos);
        Some(cri::CpuUsage {
            timestamp: at,
            usage_core_nano_seconds: value(Some(nanos)),
            usage_nano_cores: value(rate),
            psi: None,
        })
    }
}

fn value(number: Option<u64>) -> Option<cri::UInt64Value> {
    number.map(|value| cri::UInt64Value { value })
}

fn memory(at: i64, stats: &CgroupStats) -> Option<cri::MemoryUsage> {
    stats.memory_usage?;
    let available = stats
        .memory_limit
        .zip(stats.memory_working_set)
        .map(|(limit, used)| limit.saturating_sub(used));
    Some(cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(stats.memory_working_set),
        available_bytes: value(available),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.memory_rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: None,
    })
}

/// Usage of one container.
pub(super) async fn container(
    node: &Node,
    sampler: &Sampler,
    record: &ContainerRecord,
) -> cri::ContainerStats {
    let (machine, at) = (node.machine(), node.machine().now());
    let stats = machine.cgroup_stats(&record.cgroup);
    // Left out when the image service does not answer: the other numbers still count.
    let disk = match record.snapshots.first() {
        Some(key) => node.images().usage(key).await.ok(),
        None => None,
    };
    let writable_layer = disk.map(|(bytes, inodes)| cri::FilesystemUsage {
        timestamp: at,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: machine.pod_files("").display().to_string(),
        }),
        used_bytes: value(Some(bytes)),
        inodes_used: value(Some(inodes)),
    });
    let swap = stats.swap_usage.map(|used| cri::SwapUsage {
        timestamp: at,
        swap_available_bytes: None,
        swap_usage_bytes: value(Some(used)),
    });
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: sampler.cpu(&record.cgroup, at, &stats),
        memory: memory(at, &stats),
        writable_layer,
        swap,
        io: None,
    }
}

/// Usage of the running containers a filter lets through.
pub(super) async fn containers(
    node: &Node,
    sampler: &Sampler,
    filter: Option<cri::ContainerStatsFilter>,
) -> Vec<cri::ContainerStats> {
    let filter = filter.unwrap_or_default();
    let passes = |record: &ContainerRecord| {
        let id = filter.id.is_empty() || record.id.starts_with(&filter.id);
        let sandbox = filter.pod_sandbox_id.is_empty()
            || record.sandbox_id.starts_with(&filter.pod_sandbox_id);
        let running = record.phase() == ContainerPhase::Running;
        running && id && sandbox && matches(&record.config.labels, &filter.label_selector)
    };
    let records: Vec<ContainerRecord> =
        visible_containers(node).into_iter().filter(passes).collect();
    futures::future::join_all(records.iter().map(|record| container(node, sampler, record))).await
}

/// Usage of one pod.
pub(super) async fn sandbox(
    node: &Node,
    sampler: &Sampler,
    record: &SandboxRecord,
) -> cri::PodSandboxStats {
    let (machine, at) = (node.machine(), node.machine().now());
    let stats = machine.cgroup_stats(&record.cgroup_parent);
    let filter =
        cri::ContainerStatsFilter { pod_sandbox_id: record.id.clone(), ..Default::default() };
    let containers = containers(node, sampler, Some(filter)).await;
    let mut interfaces = machine.interfaces(record.shim_pid);
    let default = interfaces
        .iter()
        .position(|interface| interface.name == "eth0")
        .map(|index| interfaces.remove(index));
    let network = cri::NetworkUsage { timestamp: at, default_interface: default, interfaces };
    let linux = cri::LinuxPodSandboxStats {
        cpu: sampler.cpu(&record.cgroup_parent, at, &stats),
        memory: memory(at, &stats),
        network: (!record.host_network()).then_some(network),
        process: stats
            .pids
            .map(|pids| cri::ProcessUsage { timestamp: at, process_count: value(Some(pids)) }),
        containers,
        io: None,
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// Usage of the ready pods a filter lets through.
pub(super) async fn sandboxes(
    node: &Node,
    sampler: &Sampler,
    filter: Option<cri::PodSandboxStatsFilter>,
) -> Vec<cri::PodSandboxStats> {
    let filter = filter.unwrap_or_default();
    let passes = |record: &SandboxRecord| {
        let id = filter.id.is_empty() || record.id.starts_with(&filter.id);
        let ready = record.phase() == SandboxPhase::Ready && !record.engine_owned;
        ready && id && matches(&record.config.labels, &filter.label_selector)
    };
    let records: Vec<SandboxRecord> =
        node.sandboxes().iter().map(|s| s.record()).filter(passes).collect();
    futures::future::join_all(records.iter().map(|record| sandbox(node, sampler, record))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_needs_two_readings_apart() {
        let sampler = Sampler::default();
        assert_eq!(sampler.rate("a", 0, 0), None);
        assert_eq!(sampler.rate("a", 1_000_000, 9), None);
        assert_eq!(sampler.rate("a", 1_000_000_000, 500_000_000), Some(500_000_000));
        assert_eq!(sampler.rate("a", 1_000_000_001, 500_000_001), Some(500_000_000));
    }
}
