//! Files, cgroups and devices of this host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::cgroup::{CgroupStats, Cgroups};
use rt_shim::spec::Resources;
use rt_shim::wire::ContainerReport;

use crate::engine::error::{Error, Result};
use crate::engine::ports::{Machine, PodFiles};

/// Longest file the host may hand in, such as a seccomp profile.
const MAX_FILE: u64 = 4 << 20;

/// This host, with the folders of one daemon.
#[derive(Debug)]
pub struct LocalMachine {
    root: PathBuf,
    state: PathBuf,
    cgroups: Cgroups,
}

impl LocalMachine {
    /// Uses `root` for what may outlive a reboot and `state` for what need not.
    ///
    /// # Errors
    /// When a folder cannot be made or no cgroup hierarchy is mounted.
    pub fn open(root: &Path, state: &Path) -> io::Result<Self> {
        for dir in [root.join("pods"), state.join("pods"), state.join("s")] {
            fs::create_dir_all(dir)?;
        }
        Ok(Self { root: root.to_owned(), state: state.to_owned(), cgroups: Cgroups::detect()? })
    }
}

fn wrap<T>(what: impl std::fmt::Display, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::failed(what, error))
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

impl Machine for LocalMachine {
    fn make_pod(&self, id: &str, files: &PodFiles) -> Result<()> {
        let (durable, state) = (self.pod_files(id), self.pod_state(id));
        for dir in [&durable, &state] {
            wrap(format!("make {}", dir.display()), fs::create_dir_all(dir))?;
        }
        let or_host = |text: &Option<String>, path: &str| match text {
            Some(text) => text.clone(),
            // A host without the file gives its pods an empty one.
            None => fs::read_to_string(path).unwrap_or_default(),
        };
        let texts = [
            ("resolv.conf", or_host(&files.resolv_conf, "/etc/resolv.conf")),
            ("hosts", or_host(&files.hosts, "/etc/hosts")),
            ("hostname", files.hostname.clone()),
        ];
        for (name, text) in texts {
            wrap(format!("write the pod's {name}"), fs::write(durable.join(name), text))?;
        }
        Ok(())
    }

    fn make_container(&self, sandbox: &str, id: &str) -> Result<PathBuf> {
        let dir = self.pod_state(sandbox).join(id).join("rootfs");
        wrap(format!("make {}", dir.display()), fs::create_dir_all(&dir))?;
        Ok(dir)
    }

    fn remove_container(&self, sandbox: &str, id: &str) -> Result<()> {
        remove_dir(&self.pod_state(sandbox).join(id))?;
        let exit = rt_shim::exit_file(&self.pod_state(sandbox), id);
        // Gone when the shim has forgotten the container.
        let _ = fs::remove_file(exit);
        Ok(())
    }

    fn remove_pod(&self, id: &str) -> Result<()> {
        // Removed by the shim when it ends by itself.
        let _ = fs::remove_file(self.socket(id));
        remove_dir(&self.pod_state(id))?;
        remove_dir(&self.pod_files(id))
    }

    fn pod_files(&self, id: &str) -> PathBuf {
        self.root.join("pods").join(id)
    }

    fn pod_state(&self, id: &str) -> PathBuf {
        self.state.join("pods").join(id)
    }

    fn socket(&self, id: &str) -> PathBuf {
        // Socket paths hold 107 bytes, too few for a whole id below a deep folder.
        self.state.join("s").join(&id[..id.len().min(16)])
    }

    fn pods_with_state(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state.join("pods")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn written_exit(&self, sandbox: &str, container: &str) -> Option<ContainerReport> {
        let text = fs::read(rt_shim::exit_file(&self.pod_state(sandbox), container)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn mount_source(&self, path: &str) -> Result<PathBuf> {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                wrap(format!("failed to mkdir {path:?}"), fs::create_dir_all(path))?;
                wrap(format!("failed to resolve {path:?}"), fs::canonicalize(path))
            }
            other => wrap(format!("failed to resolve {path:?}"), other),
        }
    }

    fn propagation(&self, path: &Path) -> (bool, bool) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut best: (usize, bool, bool) = (0, false, false);
        for line in table.lines() {
            let mut fields = line.split(' ');
            let Some(point) = fields.nth(4) else { continue };
            let point = point.replace("\\040", " ");
            if !path.starts_with(&point) || point.len() < best.0 {
                continue;
            }
            let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
            let has = |prefix: &str| optional.iter().any(|field| field.starts_with(prefix));
            best = (point.len(), has("shared:"), has("master:"));
        }
        (best.1, best.2)
    }

    fn device(&self, path: &Path) -> Option<(char, u32, u32)> {
        rt_shim::host::devices::number(path)
    }

    fn devices_below(&self, path: &Path) -> Vec<PathBuf> {
        if self.device(path).is_some() {
            return vec![path.to_owned()];
        }
        let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
        let mut found: Vec<PathBuf> =
            entries.flatten().flat_map(|entry| self.devices_below(&entry.path())).collect();
        found.sort();
        found
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let what = format!("read {}", path.display());
        let size = wrap(&what, fs::metadata(path))?.len();
        if size > MAX_FILE {
            return Err(Error::Invalid(format!("{what}: larger than {MAX_FILE} bytes")));
        }
        wrap(&what, fs::read(path))
    }

    fn missing_cgroups(&self, path: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let mut at = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            if !self.cgroups.dirs(&at).iter().all(|dir| dir.exists()) {
                missing.push(at.clone());
            }
        }
        missing
    }

    fn make_cgroup(&self, path: &str) -> Result<()> {
        wrap(format!("make cgroup {path}"), self.cgroups.create(path))
    }

    fn destroy_cgroup(&self, path: &str) -> Result<()> {
        if path.trim_matches('/').is_empty() {
            return Ok(());
        }
        if self.cgroups.dirs(path).iter().any(|dir| dir.exists()) {
            self.cgroups.kill(path);
        }
        wrap(format!("remove cgroup {path}"), self.cgroups.remove(path))
    }

    fn drop_cgroup(&self, path: &str) {
        self.cgroups.remove_if_empty(path);
    }

    fn limit_cgroup(&self, path: &str, resources: &Resources) -> Result<()> {
        wrap("failed to update resources", self.cgroups.apply(path, resources))
    }

    fn cgroup_stats(&self, path: &str) -> CgroupStats {
        self.cgroups.stats(path)
    }

    fn cgroup_v2(&self) -> bool {
        self.cgroups.is_v2()
    }

    fn interfaces(&self, pid: i32) -> Vec<cri::NetworkInterfaceUsage> {
        let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        table
            .lines()
            .filter_map(parse_interface)
            .filter(|interface| interface.name != "lo")
            .collect()
    }

    fn remove_logs(&self, dir: &str) -> Result<()> {
        remove_dir(Path::new(dir))
    }

    fn is_alive(&self, pid: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie has let go of everything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn now(&self) -> i64 {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

fn parse_interface(line: &str) -> Option<cri::NetworkInterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    let value = |index: usize| counters.get(index).map(|value| cri::UInt64Value { value: *value });
    Some(cri::NetworkInterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes: value(0),
        rx_errors: value(2),
        tx_bytes: value(8),
        tx_errors: value(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read() {
        let line = "  eth0: 1 2 3 4 0 0 0 0 9 10 11 12 0 0 0 0";
        let usage = parse_interface(line).unwrap();
        let numbers = [usage.rx_bytes, usage.rx_errors, usage.tx_bytes, usage.tx_errors]
            .map(|n| n.unwrap().value);
        assert_eq!((usage.name.as_str(), numbers), ("eth0", [1, 3, 9, 11]));
        assert!(parse_interface("Inter-|   Receive").is_none());
    }
}
