//! Where things lie on the node, in kubelet's layout.

use std::io;
use std::path::{Path, PathBuf};

use super::tmpfs;
use crate::engine::kube::Pod;
use crate::engine::names;

/// The folders of an agent.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
    logs: PathBuf,
}

impl Paths {
    /// Volumes and the like below `root`, logs below `logs`.
    pub fn new(root: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), logs: logs.into() }
    }

    /// The agent's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of all pods' logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Folder of all pods.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Folder of one pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// Folder of one volume; `kind` such as `kubernetes.io~empty-dir`.
    pub fn volume(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(kind).join(name)
    }

    /// The pod's /etc/hosts.
    pub fn hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Where a run's last words go.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Folder of a pod's logs.
    pub fn pod_logs(&self, pod: &Pod) -> PathBuf {
        self.logs.join(names::log_folder(&pod.metadata.namespace, &pod.metadata.name, pod.uid()))
    }

    /// Uids of the pods that have a folder.
    pub fn known_pods(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.pods()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Unmounts and removes the volumes of a pod.
    ///
    /// # Errors
    /// When something in them is still in use.
    pub fn remove_volumes(&self, uid: &str) -> io::Result<()> {
        for part in ["volume-subpaths", "volumes"] {
            remove_tree(&self.pod(uid).join(part))?;
        }
        Ok(())
    }

    /// Unmounts and removes everything of a pod but its logs.
    ///
    /// # Errors
    /// As [`Paths::remove_volumes`].
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{uid:?} is no pod uid"),
            ));
        }
        remove_tree(&self.pod(uid))
    }

    /// Removes the logs of a pod.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn remove_logs(&self, pod: &Pod) -> io::Result<()> {
        ignore_missing(std::fs::remove_dir_all(self.pod_logs(pod)))
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    // A mount that is left would have its content removed: of a host folder, that is data.
    tmpfs::unmount_below(path)?;
    ignore_missing(std::fs::remove_dir_all(path))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
