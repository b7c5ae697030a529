//! What the machine holds before and after a test; the difference is a leak.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flotilla_testkit::eventually;

/// Mounts, network devices, cgroups, shims and records that belong to one daemon.
pub fn held_by(dir: &Path, cgroup: &str, bridge: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let dir_text = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // The image service's own mounts are not the runtime's.
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&format!("{dir_text}/runtime")))
            .map(|line| format!("mount {line}")),
    );
    let links = Command::new("ip").args(["-o", "link", "show", "master", bridge]).output().unwrap();
    found.extend(String::from_utf8_lossy(&links.stdout).lines().map(|line| format!("link {line}")));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        collect_dirs(&hierarchy.path().join(cgroup.trim_start_matches('/')), &mut found);
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        if text.starts_with("runtime-svc-shim") && text.contains(&dir_text) {
            found.insert(format!("shim {text}"));
        }
    }
    for sub in [
        "runtime/root/pods",
        "runtime/root/records/sandboxes",
        "runtime/root/records/containers",
        "runtime/state/pods",
        "runtime/state/s",
    ] {
        let entries = fs::read_dir(dir.join(sub)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
    }
    found
}

fn collect_dirs(dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        found.insert(format!("cgroup {}", entry.path().display()));
        collect_dirs(&entry.path(), found);
    }
}

/// Waits until nothing is held.
pub fn assert_none(dir: &Path, cgroup: &str, bridge: &str) {
    let mut held = BTreeSet::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while std::time::Instant::now() < deadline {
        held = held_by(dir, cgroup, bridge);
        if held.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually(&format!("leaked: {held:#?}"), Duration::ZERO, || held.is_empty());
}
