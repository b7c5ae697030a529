//! Writing limits into a cgroup's files.

use std::fs;
use std::io;
use std::path::Path;

use super::Cgroups;
use crate::spec::{DeviceRule, Resources};

impl Cgroups {
    /// Applies `resources` to cgroup `path`.
    ///
    /// # Errors
    /// The message names the file that could not be written.
    pub fn apply(&self, path: &str, resources: &Resources) -> io::Result<()> {
        if self.is_v2() { self.apply_v2(path, resources) } else { self.apply_v1(path, resources) }
    }

    fn apply_v1(&self, path: &str, resources: &Resources) -> io::Result<()> {
        let dir = |controller: &str| {
            self.controller_dir(controller, path).ok_or_else(|| {
                let text = format!(
                    "the kernel has no cgroup controller {controller}, which a limit needs"
                );
                io::Error::new(io::ErrorKind::Unsupported, text)
            })
        };
        if resources.memory_limit.is_some() || resources.memory_swap_limit.is_some() {
            memory_v1(&dir("memory")?, resources)?;
        }
        if let Some(shares) = resources.cpu_shares {
            put(&dir("cpu")?, "cpu.shares", shares.clamp(2, 262_144))?;
        }
        if let Some(period) = resources.cpu_period {
            put(&dir("cpu")?, "cpu.cfs_period_us", period)?;
        }
        if let Some(quota) = resources.cpu_quota {
            put(&dir("cpu")?, "cpu.cfs_quota_us", quota)?;
        }
        if let Some(cpus) = &resources.cpuset_cpus {
            put(&dir("cpuset")?, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &resources.cpuset_mems {
            put(&dir("cpuset")?, "cpuset.mems", mems)?;
        }
        if let Some(limit) = resources.pids_limit {
            put(&dir("pids")?, "pids.max", max_or(limit))?;
        }
        for (size, bytes) in &resources.hugepages {
            // A page size the kernel lacks cannot be used either.
            if let Some(dir) = self.controller_dir("hugetlb", path) {
                optional(put(&dir, &format!("hugetlb.{size}.limit_in_bytes"), bytes))?;
            }
        }
        if let Some(rules) = &resources.devices {
            let dir = dir("devices")?;
            put(&dir, "devices.deny", "a")?;
            rules.iter().try_for_each(|rule| put(&dir, "devices.allow", device_line(rule)))?;
        }
        Ok(())
    }

    fn apply_v2(&self, path: &str, resources: &Resources) -> io::Result<()> {
        let Some(dir) = self.controller_dir("", path) else { return Ok(()) };
        if let Some(limit) = resources.memory_limit {
            put(&dir, "memory.max", max_or(limit))?;
        }
        if let (Some(both), Some(memory)) = (resources.memory_swap_limit, resources.memory_limit) {
            // v2 counts swap alone. Without swap accounting the file is missing.
            let swap = if both < 0 { -1 } else { (both - memory).max(0) };
            optional(put(&dir, "memory.swap.max", max_or(swap)))?;
        }
        if let Some(shares) = resources.cpu_shares {
            put(&dir, "cpu.weight", weight(shares))?;
        }
        if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
            let quota = max_or(resources.cpu_quota.unwrap_or(-1));
            put(&dir, "cpu.max", format!("{quota} {}", resources.cpu_period.unwrap_or(100_000)))?;
        }
        if let Some(cpus) = &resources.cpuset_cpus {
            put(&dir, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &resources.cpuset_mems {
            put(&dir, "cpuset.mems", mems)?;
        }
        if let Some(limit) = resources.pids_limit {
            put(&dir, "pids.max", max_or(limit))?;
        }
        for (size, bytes) in &resources.hugepages {
            optional(put(&dir, &format!("hugetlb.{size}.max"), bytes))?;
        }
        for (file, value) in &resources.unified {
            if file.contains('/') {
                let text = format!("unified resource {file:?} is not the name of a cgroup file");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            put(&dir, file, value)?;
        }
        if let Some(rules) = &resources.devices {
            crate::host::device_filter::attach(&dir, rules)?;
        }
        Ok(())
    }
}

/// Memory may not exceed memory and swap at any moment, so the order depends on the direction.
fn memory_v1(dir: &Path, resources: &Resources) -> io::Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let both = resources.memory_swap_limit.filter(|_| dir.join(BOTH).exists());
    let Some(limit) = resources.memory_limit else {
        return both.map_or(Ok(()), |both| put(dir, BOTH, both));
    };
    let Some(both) = both else { return put(dir, LIMIT, limit) };
    let now: i64 = fs::read_to_string(dir.join(BOTH))?.trim().parse().unwrap_or(i64::MAX);
    let order = if both < 0 || both > now {
        [(BOTH, both), (LIMIT, limit)]
    } else {
        [(LIMIT, limit), (BOTH, both)]
    };
    order.into_iter().try_for_each(|(file, value)| put(dir, file, value))
}

/// v2 weight of v1 shares: the range 2..=262144 maps to 1..=10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn max_or(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn device_line(rule: &DeviceRule) -> String {
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
}

fn put(dir: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    let value = value.to_string();
    fs::write(dir.join(file), &value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot write {value:?} to cgroup file {file}: {error}"),
        )
    })
}

fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_to_weight_at_both_ends() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }
}
