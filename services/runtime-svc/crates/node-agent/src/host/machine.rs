//! Size and identity of the node.

use std::net::IpAddr;
use std::path::Path;

/// What a Node object says about its machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// CPUs online.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the file system that holds the agent's root.
    pub storage: i64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the distribution.
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
}

/// How much is left.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Bytes of memory the machine has.
    pub memory_total: i64,
    /// Bytes of memory programs can still get.
    pub memory_available: i64,
    /// Bytes of memory used and not reclaimable.
    pub memory_working_set: i64,
    /// Bytes free on the file system.
    pub disk_available: i64,
    /// Size of the file system in bytes.
    pub disk_total: i64,
    /// Free inodes.
    pub inodes_free: i64,
    /// All inodes.
    pub inodes: i64,
    /// Tasks that exist.
    pub tasks: i64,
    /// Tasks that may exist.
    pub max_tasks: i64,
    /// Nanoseconds of CPU used since boot.
    pub cpu_nanos: u64,
}

/// Reads the machine; `root` lies on the file system that counts.
pub fn machine(root: &Path) -> Machine {
    let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = line("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    Machine {
        cpus: cpus(),
        memory: meminfo("MemTotal"),
        storage: usage(root).disk_total,
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel: line("/proc/sys/kernel/osrelease"),
        os_image: pretty.trim_matches('"').to_owned(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
    }
}

/// Reads what is left of the machine.
pub fn usage(root: &Path) -> Usage {
    let mut usage = Usage {
        memory_available: meminfo("MemAvailable"),
        memory_total: meminfo("MemTotal"),
        memory_working_set: meminfo("MemTotal") - meminfo("MemAvailable"),
        max_tasks: number("/proc/sys/kernel/pid_max"),
        ..Usage::default()
    };
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if let Ok(fs) = rustix::fs::statvfs(existing) {
        let bytes =
            |blocks: u64| i64::try_from(blocks.saturating_mul(fs.f_frsize)).unwrap_or(i64::MAX);
        (usage.disk_available, usage.disk_total) = (bytes(fs.f_bavail), bytes(fs.f_blocks));
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        (usage.inodes_free, usage.inodes) = (whole(fs.f_ffree), whole(fs.f_files));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = load.split(' ').nth(3).and_then(|pair| pair.split('/').nth(1));
    usage.tasks = tasks.and_then(|count| count.parse().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq, in hundredths of a second (proc_stat(5)).
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|t| t.parse().ok())
        .collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
    usage.cpu_nanos = busy.saturating_mul(10_000_000);
    usage
}

fn number(path: &str) -> i64 {
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn cpus() -> i64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat
        .lines()
        .filter(|l| l.starts_with("cpu") && l.as_bytes().get(3).is_some_and(u8::is_ascii_digit))
        .count();
    i64::try_from(count.max(1)).unwrap_or(1)
}

fn meminfo(field: &str) -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The node's name: the host name in lower case.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned()).to_lowercase()
}

/// The first address that is neither loopback nor link-local, IPv4 first; else 127.0.0.1.
pub fn node_ip() -> IpAddr {
    let route = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // Connecting a UDP socket sends nothing: it asks the routing table for the source address.
        socket.connect("192.0.2.254:9")?;
        socket.local_addr()
    });
    if let Ok(address) = route
        && !address.ip().is_loopback()
        && !address.ip().is_unspecified()
    {
        return address.ip();
    }
    let mut all: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|entry| address(&entry))
        .collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all.into_iter().next().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn address(entry: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let storage = entry.address?;
    let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => IpAddr::from(v4.ip()),
        (_, Some(v6)) => IpAddr::from(v6.ip()),
        _ => return None,
    };
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!ip.is_loopback() && !link_local).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_has_a_size() {
        let machine = machine(Path::new("/tmp/does/not/exist"));
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && machine.storage > 1 << 20);
        let usage = usage(Path::new("/"));
        assert!(
            usage.memory_available > 0
                && usage.disk_available > 0
                && usage.tasks > 0
                && usage.cpu_nanos > 0
        );
    }
}
