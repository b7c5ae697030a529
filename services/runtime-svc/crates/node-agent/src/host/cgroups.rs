//! The cgroups of pods, on version 1 (one tree per controller) and version 2 (one tree).
//!
//! Runtimes make containers' cgroups below; the pod's own carries its limits and is removed with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flotilla_proto::cri::runtime::v1::LinuxContainerResources;

/// Mount point of the cgroup trees.
const ROOT: &str = "/sys/fs/cgroup";

/// The trees of this node.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version1: bool,
    trees: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the trees.
    pub fn detect() -> Self {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Self { version1: false, trees: vec![ROOT.into()] };
        }
        let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
        let trees =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink());
        Self { version1: true, trees: trees.collect() }
    }

    /// Makes the pod's cgroup and sets its limits.
    ///
    /// # Errors
    /// When a tree refuses the cgroup. Limits it refuses are logged: the containers' own still hold.
    pub fn ensure(&self, cgroup: &str, limits: &LinuxContainerResources) -> io::Result<()> {
        for tree in &self.trees {
            let path = tree.join(cgroup.trim_start_matches('/'));
            let missing = !path.exists();
            fs::create_dir_all(&path)?;
            if missing && tree.ends_with("cpuset") {
                inherit_cpuset(tree, &path)?;
            }
            for (file, value) in self.settings(tree, limits) {
                let file = path.join(file);
                if let (true, Err(error)) = (file.exists(), fs::write(&file, &value)) {
                    tracing::warn!(file = %file.display(), value, %error, "the pod's cgroup takes no limit");
                }
            }
        }
        Ok(())
    }

    fn settings(
        &self,
        tree: &Path,
        limits: &LinuxContainerResources,
    ) -> Vec<(&'static str, String)> {
        let name = tree.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let quota = |none: &str| {
            if limits.cpu_quota > 0 { limits.cpu_quota.to_string() } else { none.to_owned() }
        };
        let memory = |none: &str| {
            if limits.memory_limit_in_bytes > 0 {
                limits.memory_limit_in_bytes.to_string()
            } else {
                none.to_owned()
            }
        };
        match (self.version1, name) {
            (true, "cpu" | "cpu,cpuacct") => vec![
                ("cpu.shares", limits.cpu_shares.to_string()),
                ("cpu.cfs_quota_us", quota("-1")),
            ],
            (true, "memory") => vec![("memory.limit_in_bytes", memory("-1"))],
            (true, _) => Vec::new(),
            (false, _) => {
                let weight = 1 + (limits.cpu_shares.clamp(2, 262_144) - 2) * 9_999 / 262_142;
                vec![
                    ("cpu.weight", weight.to_string()),
                    ("cpu.max", format!("{} 100000", quota("max"))),
                    ("memory.max", memory("max")),
                ]
            }
        }
    }

    /// Removes the pod's cgroup with the empty ones below it.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove(&self, cgroup: &str) -> io::Result<()> {
        for tree in &self.trees {
            remove_tree(&tree.join(cgroup.trim_start_matches('/')))?;
        }
        Ok(())
    }
}

fn inherit_cpuset(tree: &Path, path: &Path) -> io::Result<()> {
    let below = path.strip_prefix(tree).map_err(io::Error::other)?;
    let mut current = tree.to_owned();
    for part in below.components() {
        let parent = current.clone();
        current.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(current.join(file))?.trim().is_empty() {
                fs::write(current.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
