//! QoS classes, cgroups and the limits of containers.

use flotilla_proto::cri::runtime::v1::LinuxContainerResources;

use super::kube::{Container, Pod, ResourceList};
use super::quantity;

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// How a pod is treated when the node runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits equal to its requests.
    Guaranteed,
    /// Some container has a request or limit.
    Burstable,
    /// No container has any.
    BestEffort,
}

impl Qos {
    /// The API's name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// How a runtime names cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Paths.
    #[default]
    Cgroupfs,
    /// Slices.
    Systemd,
}

/// The class of a pod, from cpu and memory of its containers.
pub fn qos(pod: &Pod) -> Qos {
    let (mut any, mut guaranteed) = (false, true);
    for container in pod.all_containers() {
        for name in ["cpu", "memory"] {
            let amount = |list: &ResourceList| {
                list.get(name).and_then(|q| quantity::nanos(&q.0)).filter(|n| *n > 0)
            };
            let (request, limit) =
                (amount(&container.resources.requests), amount(&container.resources.limits));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The pod's cgroup below `root`: `/kubepods/burstable/podUID`, or the slice of the same meaning.
pub fn cgroup_parent(root: &str, pod: &Pod, driver: CgroupDriver) -> String {
    let class = match qos(pod) {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    match driver {
        CgroupDriver::Cgroupfs => {
            let class = class.map(|class| format!("/{class}")).unwrap_or_default();
            format!("{}/kubepods{class}/pod{}", root.trim_end_matches('/'), pod.uid())
        }
        CgroupDriver::Systemd => {
            let class = class.map(|class| format!("-{class}")).unwrap_or_default();
            format!("kubepods{class}-pod{}.slice", pod.uid().replace('-', "_"))
        }
    }
}

/// Limits of one container; `memory_capacity` is the node's, for the OOM score.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> LinuxContainerResources {
    let cpu = |list: &ResourceList| list.get("cpu").and_then(|q| quantity::milli(&q.0));
    let memory = |list: &ResourceList| list.get("memory").and_then(|q| quantity::value(&q.0));
    let (requests, limits) = (&container.resources.requests, &container.resources.limits);
    let request = cpu(requests).or(cpu(limits)).unwrap_or(0);
    LinuxContainerResources {
        cpu_shares: shares(request),
        cpu_period: if cpu(limits).is_some_and(|limit| limit > 0) { PERIOD } else { 0 },
        cpu_quota: quota(cpu(limits).unwrap_or(0)),
        memory_limit_in_bytes: memory(limits).unwrap_or(0).max(0),
        oom_score_adj: oom_score(
            qos(pod),
            memory(requests).or(memory(limits)).unwrap_or(0),
            memory_capacity,
        ),
        ..LinuxContainerResources::default()
    }
}

/// Limits of the pod's own cgroup: sums of what all containers have, or `None` where one has no limit.
pub fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    let sum = |read: &dyn Fn(&Container) -> Option<i64>| -> Option<i64> {
        let all: Option<Vec<i64>> = pod.spec.containers.iter().map(read).collect();
        let sidecars: i64 =
            pod.spec.init_containers.iter().filter(|c| c.is_sidecar()).filter_map(read).sum();
        let largest = pod
            .spec
            .init_containers
            .iter()
            .filter(|c| !c.is_sidecar())
            .filter_map(read)
            .max()
            .unwrap_or(0);
        all.map(|all| (all.iter().sum::<i64>() + sidecars).max(largest)).filter(|total| *total > 0)
    };
    let cpu_limit = sum(&|c| quantity::milli(&c.resources.limits.get("cpu")?.0));
    let memory = sum(&|c| quantity::value(&c.resources.limits.get("memory")?.0));
    let request: i64 = pod
        .all_containers()
        .filter_map(|c| c.resources.requests.get("cpu").or(c.resources.limits.get("cpu")))
        .filter_map(|q| quantity::milli(&q.0))
        .sum();
    LinuxContainerResources {
        cpu_shares: shares(request),
        cpu_period: if cpu_limit.is_some() { PERIOD } else { 0 },
        cpu_quota: quota(cpu_limit.unwrap_or(0)),
        memory_limit_in_bytes: memory.unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA) }
}

fn oom_score(qos: Qos, memory: i64, capacity: i64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => (1000 - memory.saturating_mul(1000) / capacity.max(1)).clamp(3, 999),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u-1"}, "spec": {"containers": [{"name": "a", "resources": resources}]}})).unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let best = pod(json!({}));
        let burst = pod(json!({"requests": {"cpu": "100m"}}));
        let sure = pod(json!({"limits": {"cpu": 1, "memory": "1Gi"}}));
        assert_eq!(
            [qos(&best), qos(&burst), qos(&sure)],
            [Qos::BestEffort, Qos::Burstable, Qos::Guaranteed]
        );
        assert_eq!(
            cgroup_parent("/", &best, CgroupDriver::Cgroupfs),
            "/kubepods/besteffort/podu-1"
        );
        assert_eq!(cgroup_parent("/x", &sure, CgroupDriver::Cgroupfs), "/x/kubepods/podu-1");
        assert_eq!(
            cgroup_parent("", &burst, CgroupDriver::Systemd),
            "kubepods-burstable-podu_1.slice"
        );
    }

    #[test]
    fn requests_become_shares_and_limits_become_quota() {
        let pod = pod(
            json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}),
        );
        let got = container_resources(&pod, &pod.spec.containers[0], 4 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.cpu_period), (256, 50_000, 100_000));
        assert_eq!((got.memory_limit_in_bytes, got.oom_score_adj), (2 << 30, 750));
    }
}
