//! What the domain needs from outside: images, network, shims, records, the machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::cgroup::CgroupStats;
use rt_shim::spec::{Resources, RootMount, SandboxSpec};
use rt_shim::wire::{Answer, ContainerReport, Request};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::error::Result;
use super::image_config::ImageInfo;
use super::records::{ContainerRecord, SandboxRecord};

/// The image service and its snapshotter.
#[async_trait]
pub trait Images: Send + Sync {
    /// What a container needs to know of an image, by name or id.
    async fn find(&self, image: &str) -> Result<ImageInfo>;
    /// Prepares a writable snapshot on top of `chain_id` and returns how to mount it.
    async fn prepare(&self, key: &str, chain_id: &str) -> Result<Vec<RootMount>>;
    /// Prepares a read-only view of `chain_id`.
    async fn view(&self, key: &str, chain_id: &str) -> Result<Vec<RootMount>>;
    /// Removes a snapshot; one that is missing counts as removed.
    async fn remove(&self, key: &str) -> Result<()>;
    /// Bytes and inodes a snapshot holds itself.
    async fn usage(&self, key: &str) -> Result<(u64, u64)>;
}

/// A port of the host that leads into a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Host address; `None` for all.
    pub host_ip: Option<Ipv4Addr>,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
}

/// A pod's place in the network.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    /// Sandbox id.
    pub id: String,
    /// Address of the pod.
    pub ip: Ipv4Addr,
    /// Process in whose network namespace the pod lives.
    pub pid: i32,
    /// Host ports that lead to it.
    pub ports: Vec<PortMapping>,
}

/// The pod network.
#[async_trait]
pub trait Network: Send + Sync {
    /// Connects a pod's network namespace.
    async fn attach(&self, pod: &PodNetwork) -> Result<()>;
    /// Takes away what [`Network::attach`] made outside of the namespace. Missing parts count as removed.
    async fn detach(&self, id: &str) -> Result<()>;
    /// Removes every pod device and host port that belongs to none of `known`.
    async fn sweep(&self, known: &[PodNetwork]) -> Result<()>;
    /// Connects to a port inside a network namespace.
    async fn connect(&self, pid: i32, port: u16) -> Result<tokio::net::TcpStream>;
}

/// Containers of a pod as its shim reports them; the channel closes when the shim ends.
pub type Reports = mpsc::Receiver<Vec<ContainerReport>>;

/// The shim processes.
#[async_trait]
pub trait Shims: Send + Sync {
    /// Starts a shim and waits until its pod exists. Returns its PID.
    async fn spawn(&self, spec: &SandboxSpec) -> Result<i32>;
    /// Asks one thing.
    async fn ask(&self, socket: &Path, request: &Request) -> Result<Answer>;
    /// Asks for something that keeps the connection; the first answer is read.
    async fn open(&self, socket: &Path, request: &Request) -> Result<(Answer, UnixStream)>;
    /// Follows the pod's containers. The first item is the whole list.
    async fn watch(&self, socket: &Path) -> Result<Reports>;
    /// Kills a shim that does not answer, when `pid` really is the shim of `socket`.
    fn kill(&self, pid: i32, socket: &Path);
}

/// Durable records of sandboxes and containers.
pub trait Records: Send + Sync {
    /// Saves a sandbox.
    fn save_sandbox(&self, record: &SandboxRecord) -> Result<()>;
    /// Saves a container.
    fn save_container(&self, record: &ContainerRecord) -> Result<()>;
    /// Deletes a sandbox.
    fn delete_sandbox(&self, id: &str) -> Result<()>;
    /// Deletes a container.
    fn delete_container(&self, id: &str) -> Result<()>;
    /// Everything that was saved.
    fn load(&self) -> Result<(Vec<SandboxRecord>, Vec<ContainerRecord>)>;
}

/// Files, cgroups and devices of the machine.
pub trait Machine: Send + Sync {
    /// Makes a pod's folders and files.
    fn make_pod(&self, id: &str, files: &PodFiles) -> Result<()>;
    /// Makes a container's folders; returns the empty one its root is mounted over.
    fn make_container(&self, sandbox: &str, id: &str) -> Result<PathBuf>;
    /// Removes a container's folders.
    fn remove_container(&self, sandbox: &str, id: &str) -> Result<()>;
    /// Removes a pod's folders.
    fn remove_pod(&self, id: &str) -> Result<()>;
    /// Folder of the pod's files.
    fn pod_files(&self, id: &str) -> PathBuf;
    /// Folder of the pod's state, lost at reboot.
    fn pod_state(&self, id: &str) -> PathBuf;
    /// Control socket of the pod's shim.
    fn socket(&self, id: &str) -> PathBuf;
    /// Sandboxes that have a state folder.
    fn pods_with_state(&self) -> Vec<String>;
    /// Exit the shim wrote down for a container, if any.
    fn written_exit(&self, sandbox: &str, container: &str) -> Option<ContainerReport>;
    /// Resolves a bind source, making a missing folder.
    fn mount_source(&self, path: &str) -> Result<PathBuf>;
    /// Propagation of the mount `path` is on: whether it is shared, whether it is a slave.
    fn propagation(&self, path: &Path) -> (bool, bool);
    /// Type, major and minor of a device.
    fn device(&self, path: &Path) -> Option<(char, u32, u32)>;
    /// Devices in a folder of the host, or the device itself.
    fn devices_below(&self, path: &Path) -> Vec<PathBuf>;
    /// A file of the host, such as a seccomp profile.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;
    /// A cgroup and its ancestors as far as they do not exist, outermost first.
    fn missing_cgroups(&self, path: &str) -> Vec<String>;
    /// Makes a cgroup with its ancestors.
    fn make_cgroup(&self, path: &str) -> Result<()>;
    /// Kills what is in a cgroup and removes it.
    fn destroy_cgroup(&self, path: &str) -> Result<()>;
    /// Removes a cgroup if it is empty.
    fn drop_cgroup(&self, path: &str);
    /// Changes limits.
    fn limit_cgroup(&self, path: &str, resources: &Resources) -> Result<()>;
    /// Usage of a cgroup.
    fn cgroup_stats(&self, path: &str) -> CgroupStats;
    /// Whether the host has cgroup v2 alone.
    fn cgroup_v2(&self) -> bool;
    /// Receive and send counters of a process's network namespace.
    fn interfaces(&self, pid: i32) -> Vec<cri::NetworkInterfaceUsage>;
    /// Removes a folder of logs.
    fn remove_logs(&self, dir: &str) -> Result<()>;
    /// Whether a process lives.
    fn is_alive(&self, pid: i32) -> bool;
    /// Name of the host.
    fn hostname(&self) -> String;
    /// Nanoseconds since the epoch.
    fn now(&self) -> i64;
}

/// Files the pod's containers see.
#[derive(Debug, Clone, Default)]
pub struct PodFiles {
    /// /etc/resolv.conf; `None` copies the host's.
    pub resolv_conf: Option<String>,
    /// /etc/hosts; `None` copies the host's.
    pub hosts: Option<String>,
    /// /etc/hostname.
    pub hostname: String,
}
