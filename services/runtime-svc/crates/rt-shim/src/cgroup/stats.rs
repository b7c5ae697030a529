//! Reading usage out of a cgroup's files.

use std::fs;
use std::path::Path;

use super::{Cgroups, field};

/// Usage of one cgroup; absent where the kernel does not count it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory in bytes, caches included.
    pub memory_usage: Option<u64>,
    /// Usage without the caches that can be dropped first.
    pub memory_working_set: Option<u64>,
    /// Limit in bytes; `None` when unlimited.
    pub memory_limit: Option<u64>,
    /// Anonymous memory in bytes.
    pub memory_rss: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that needed the disk.
    pub major_page_faults: Option<u64>,
    /// Swap in bytes.
    pub swap_usage: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Limits at or above this are v1's way to say "none".
const UNLIMITED: u64 = 1 << 62;

impl Cgroups {
    /// Usage of cgroup `path`. Everything is `None` when the cgroup is gone.
    pub fn stats(&self, path: &str) -> CgroupStats {
        if self.is_v2() { self.stats_v2(path) } else { self.stats_v1(path) }
    }

    fn stats_v1(&self, path: &str) -> CgroupStats {
        let mut stats = CgroupStats::default();
        if let Some(dir) = self.controller_dir("cpuacct", path) {
            stats.cpu_nanos = number(&dir, "cpuacct.usage");
        }
        if let Some(dir) = self.controller_dir("memory", path) {
            let text = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            stats.memory_usage = number(&dir, "memory.usage_in_bytes");
            stats.memory_limit =
                field(&text, "hierarchical_memory_limit").filter(|limit| *limit < UNLIMITED);
            stats.memory_working_set =
                working_set(stats.memory_usage, field(&text, "total_inactive_file"));
            stats.memory_rss = field(&text, "total_rss");
            stats.page_faults = field(&text, "total_pgfault");
            stats.major_page_faults = field(&text, "total_pgmajfault");
            stats.swap_usage = field(&text, "total_swap");
        }
        if let Some(dir) = self.controller_dir("pids", path) {
            stats.pids = number(&dir, "pids.current");
        }
        stats
    }

    fn stats_v2(&self, path: &str) -> CgroupStats {
        let Some(dir) = self.controller_dir("", path) else { return CgroupStats::default() };
        let cpu = fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
        let memory = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let usage = number(&dir, "memory.current");
        CgroupStats {
            cpu_nanos: field(&cpu, "usage_usec").map(|micros| micros.saturating_mul(1000)),
            memory_usage: usage,
            memory_working_set: working_set(usage, field(&memory, "inactive_file")),
            memory_limit: number(&dir, "memory.max"),
            memory_rss: field(&memory, "anon"),
            page_faults: field(&memory, "pgfault"),
            major_page_faults: field(&memory, "pgmajfault"),
            swap_usage: number(&dir, "memory.swap.current"),
            pids: number(&dir, "pids.current"),
        }
    }
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn working_set(usage: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    usage.map(|usage| usage.saturating_sub(inactive.unwrap_or(0)))
}
