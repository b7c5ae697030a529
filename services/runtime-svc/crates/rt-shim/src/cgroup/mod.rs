//! Control groups of either version, and the mix of both that many hosts have.
//!
//! A cgroup is named by its path below the hierarchy roots (`/flotilla/POD/CONTAINER`). With v1 every controller
//! has its own tree; when the v2 core is mounted beside it (`/sys/fs/cgroup/unified`), the same path is made
//! there too, because `cgroup.kill` ends a whole group at once.
//!
//! Shared by the shim (create, join, kill, remove) and the daemon (update, statistics).

mod layout;
mod limits;
mod stats;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layout::Cgroups;
pub use stats::CgroupStats;

use layout::Layout;

impl Cgroups {
    /// Folders of cgroup `path`, one per hierarchy; the v2 one last.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        self.roots().map(|root| root.join(relative)).collect()
    }

    /// Makes cgroup `path` with its ancestors.
    ///
    /// # Errors
    /// When a folder cannot be made; what was made is removed.
    pub fn create(&self, path: &str) -> io::Result<()> {
        let made = self.make_dirs(path);
        if made.is_err() {
            // The first error is the one to report.
            let _ = self.remove(path);
        }
        made
    }

    fn make_dirs(&self, path: &str) -> io::Result<()> {
        let relative = path.trim_start_matches('/');
        match self.layout() {
            Layout::V2 { root } => make_v2(root, relative),
            Layout::V1 { controllers, unified } => {
                for controller in controllers {
                    let dir = controller.root.join(relative);
                    if controller.has("cpuset") {
                        make_cpuset(&controller.root, relative)?;
                    } else {
                        fs::create_dir_all(dir)?;
                    }
                }
                unified.iter().try_for_each(|root| fs::create_dir_all(root.join(relative)))
            }
        }
    }

    /// Files a process writes its PID to in order to join cgroup `path`.
    pub fn join_files(&self, path: &str) -> Vec<PathBuf> {
        self.dirs(path).into_iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// PIDs in the cgroup, as this process's PID namespace numbers them.
    pub fn pids(&self, path: &str) -> Vec<i32> {
        let Some(dir) = self.dirs(path).into_iter().next_back() else { return Vec::new() };
        let mut pids = pids_in(&dir);
        for child in child_dirs(&dir) {
            pids.extend(pids_in(&child));
        }
        pids
    }

    /// Kills every process in the cgroup and below it.
    pub fn kill(&self, path: &str) {
        for dir in self.dirs(path) {
            if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                return;
            }
        }
        // Without the v2 core: freeze, so that nothing forks away, kill, thaw.
        let freezer = self.controller_dir("freezer", path);
        if let Some(dir) = &freezer {
            let _ = fs::write(dir.join("freezer.state"), "FROZEN");
        }
        for pid in self.pids(path) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        if let Some(dir) = &freezer {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
        }
    }

    /// Removes cgroup `path` and what is below it. Missing folders count as removed.
    ///
    /// # Errors
    /// When processes are left in it after half a second.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        if path.trim_matches('/').is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root cgroup stays"));
        }
        self.dirs(path).iter().try_for_each(|dir| remove_tree(dir))
    }

    /// Removes cgroup `path` where it is empty; says nothing when it is not.
    pub fn remove_if_empty(&self, path: &str) {
        if path.trim_matches('/').is_empty() {
            return;
        }
        for dir in self.dirs(path) {
            // In use by others: theirs to remove.
            let _ = fs::remove_dir(dir);
        }
    }

    /// Processes the kernel killed in the cgroup for lack of memory.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let (name, dir) = match self.layout() {
            Layout::V2 { root } => ("memory.events", Some(root.join(path.trim_start_matches('/')))),
            Layout::V1 { .. } => ("memory.oom_control", self.controller_dir("memory", path)),
        };
        let text = dir.and_then(|dir| fs::read_to_string(dir.join(name)).ok()).unwrap_or_default();
        field(&text, "oom_kill").unwrap_or(0)
    }
}

/// Value of `key value` in a flat keyed file.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn make_v2(root: &Path, relative: &str) -> io::Result<()> {
    let mut dir = root.to_path_buf();
    for part in Path::new(relative).components() {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            // A controller may be in use elsewhere; limits that need it fail later with a name.
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A cpuset cgroup takes no process until it has CPUs and memory nodes: they are copied from the parent.
fn make_cpuset(root: &Path, relative: &str) -> io::Result<()> {
    let mut dir = root.to_path_buf();
    for part in Path::new(relative).components() {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read(parent.join(file))?)?;
            }
        }
    }
    Ok(())
}

fn pids_in(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn child_dirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect();
    let below: Vec<PathBuf> = dirs.iter().flat_map(|dir| child_dirs(dir)).collect();
    dirs.extend(below);
    dirs
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    const ATTEMPTS: u32 = 50;
    let mut below = child_dirs(dir);
    // Deepest first.
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    below.push(dir.to_path_buf());
    for dir in below {
        let mut attempt = 0;
        loop {
            match fs::remove_dir(&dir) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                // Busy until the last process that was killed is reaped.
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(if attempt < 10 { 1 } else { 12 }))
                }
            }
            attempt += 1;
        }
    }
    Ok(())
}
