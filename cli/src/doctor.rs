//! `flotilla doctor`: what the machine lacks, and how to fix it. `up` asks the same questions first.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use flotilla_config::ExitError;

use crate::args::{DoctorArgs, UpArgs};
use crate::layout::{Layout, Ports};
use crate::plan::Plan;
use crate::state::State;
use crate::{table, up};

const BINARIES: [&str; 7] =
    ["kv-svc", "image-svc", "scheduler-svc", "runtime-svc", "dns-svc", "metrics-svc", "gateway"];
const ENOUGH_DISK: u64 = 1 << 30;

/// One thing the suite needs.
#[derive(Debug)]
struct Check {
    what: String,
    /// Without it pods cannot run, but everything else can.
    for_pods_only: bool,
    /// `None` when all is well, else what is wrong and how to fix it.
    problem: Option<String>,
}

impl Check {
    fn new(what: impl Into<String>, ok: bool, fix: impl Into<String>) -> Self {
        Self { what: what.into(), for_pods_only: false, problem: (!ok).then(|| fix.into()) }
    }

    fn for_pods(mut self) -> Self {
        self.for_pods_only = true;
        self
    }
}

/// Prints every check; fails when one does.
pub async fn run(args: &DoctorArgs) -> Result<(), ExitError> {
    let layout = Layout::new(&args.root.root);
    let bin_dir = up::bin_dir(args.bin_dir.clone())?;
    let mut checks = binaries(&bin_dir);
    checks.extend(machine());
    checks.push(disk(layout.root()));
    let running = State::load(&layout.state())
        .ok()
        .flatten()
        .is_some_and(|state| state.supervisor.is_alive());
    if !running {
        checks.extend(ports(&Ports::choose(args.port_base)));
    }
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| match &check.problem {
            None => vec!["ok".to_owned(), check.what.clone(), String::new()],
            Some(fix) => vec!["PROBLEM".to_owned(), check.what.clone(), fix.clone()],
        })
        .collect();
    #[allow(clippy::print_stdout, reason = "the answer")]
    {
        print!("{}", table::render(&["", "WHAT", "FIX"], &rows));
    }
    match checks.iter().filter(|check| check.problem.is_some()).count() {
        0 => Ok(()),
        count => Err(ExitError::unavailable(format!("{count} problems"))),
    }
}

/// Refuses to start anything when it cannot work, with the first reason.
pub fn refuse_if_impossible(args: &UpArgs, plan: &Plan, bin_dir: &Path) -> Result<(), ExitError> {
    let wanted: Vec<&str> = plan.services.iter().map(|service| service.name).collect();
    let mut checks = binaries(bin_dir);
    checks.retain(|check| wanted.iter().any(|name| check.what.ends_with(name)));
    checks.extend(
        machine().into_iter().filter(|check| !(check.for_pods_only && args.without_runtime)),
    );
    let started = ports(&plan.ports);
    checks.extend(
        started.into_iter().filter(|check| wanted.iter().any(|name| check.what.starts_with(name))),
    );
    match checks
        .into_iter()
        .find_map(|check| check.problem.map(|fix| format!("{}: {fix}", check.what)))
    {
        None => Ok(()),
        Some(reason) => Err(ExitError::unavailable(reason)),
    }
}

fn binaries(dir: &Path) -> Vec<Check> {
    BINARIES
        .iter()
        .map(|name| {
            let fix = format!(
                "not in {}; build it with `make build` or name the folder with --bin-dir",
                dir.display()
            );
            Check::new(format!("program {name}"), dir.join(name).exists(), fix)
        })
        .collect()
}

fn machine() -> Vec<Check> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let has = |name: &str| controllers.lines().any(|line| line.split('\t').next() == Some(name));
    vec![
        Check::new(
            "root",
            nix::unistd::geteuid().is_root(),
            "pods need namespaces, mounts and cgroups: run with sudo, or `flotilla up --without-runtime`",
        )
        .for_pods(),
        Check::new("overlay file system", filesystems.contains("overlay"), "run `modprobe overlay`").for_pods(),
        Check::new("network namespaces", Path::new("/proc/self/ns/net").exists(), "use a kernel with CONFIG_NET_NS").for_pods(),
        Check::new("cgroup file system", mounts.contains(" cgroup"), "mount it: `mount -t cgroup2 none /sys/fs/cgroup`").for_pods(),
        Check::new("cgroup controllers memory, cpu, pids", has("memory") && has("cpu") && has("pids"), "boot with cgroup_enable=memory").for_pods(),
        Check::new("program nft", on_path("nft"), "run `apt-get install nftables`").for_pods(),
        Check::new("program ip", on_path("ip"), "run `apt-get install iproute2`").for_pods(),
    ]
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).exists())
}

fn disk(root: &Path) -> Check {
    let existing = root.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(existing)
        .map(|s| s.blocks_available() * s.fragment_size())
        .unwrap_or_default();
    let fix =
        format!("{} MiB are free in {}; choose another --root", free >> 20, existing.display());
    Check::new("1 GiB of disk", free >= ENOUGH_DISK, fix)
}

fn ports(ports: &Ports) -> Vec<Check> {
    ports
        .all()
        .into_iter()
        .map(|(service, port)| {
            let address = (Ipv4Addr::LOCALHOST, port);
            let free = TcpListener::bind(address).is_ok() && (port != ports.dns || UdpSocket::bind(address).is_ok());
            let fix = "taken by another process; stop it, or choose other ports with --port-base (`ss -ltnp` names it)";
            Check::new(format!("{service} port {port}"), free, fix)
        })
        .collect()
}
