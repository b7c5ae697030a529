//! Sandboxes and containers as they are kept, in memory and on disk.
//!
//! The messages are protobuf so that a newer version reads what an older one wrote; tags are never reused.

use flotilla_proto::cri::runtime::v1 as cri;

/// How far a sandbox got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum SandboxPhase {
    /// Being made; undone when found at start-up.
    Starting = 0,
    /// Its shim runs.
    Ready = 1,
    /// Stopped, or its shim is gone.
    Stopped = 2,
    /// Being removed; finished when found at start-up.
    Removing = 3,
}

/// How far a container got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerPhase {
    /// Being made; undone when found at start-up.
    Creating = 0,
    /// Made, never started.
    Created = 1,
    /// The shim was asked to start it.
    Starting = 2,
    /// Its first process runs.
    Running = 3,
    /// Its first process ended, or never started.
    Exited = 4,
    /// Being removed; finished when found at start-up.
    Removing = 5,
}

/// A sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SandboxRecord {
    /// 64 hexadecimal digits.
    #[prost(string, tag = "1")]
    pub id: String,
    /// As asked for.
    #[prost(message, required, tag = "2")]
    pub config: cri::PodSandboxConfig,
    /// As asked for.
    #[prost(string, tag = "3")]
    pub runtime_handler: String,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// How far it got.
    #[prost(enumeration = "SandboxPhase", tag = "5")]
    pub phase: i32,
    /// Address, empty in the host's network and after the stop.
    #[prost(string, tag = "6")]
    pub ip: String,
    /// PID of the shim.
    #[prost(int32, tag = "7")]
    pub shim_pid: i32,
    /// Cgroup its containers are below.
    #[prost(string, tag = "8")]
    pub cgroup_parent: String,
    /// Cgroups that were made for it, outermost first.
    #[prost(string, repeated, tag = "9")]
    pub made_cgroups: Vec<String>,
    /// Made through the engine API; kept out of CRI lists.
    #[prost(bool, tag = "10")]
    pub engine_owned: bool,
}

/// A container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox.
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    /// As asked for.
    #[prost(message, required, tag = "3")]
    pub config: cri::ContainerConfig,
    /// Id of the image.
    #[prost(string, tag = "4")]
    pub image_id: String,
    /// Digest reference of the image, or its id.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "6")]
    pub created_at: i64,
    /// How far it got.
    #[prost(enumeration = "ContainerPhase", tag = "7")]
    pub phase: i32,
    /// PID on the host.
    #[prost(int32, tag = "8")]
    pub pid: i32,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "9")]
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "10")]
    pub finished_at: i64,
    /// Exit code.
    #[prost(int32, tag = "11")]
    pub exit_code: i32,
    /// One word.
    #[prost(string, tag = "12")]
    pub reason: String,
    /// For people.
    #[prost(string, tag = "13")]
    pub message: String,
    /// Absolute path of the log.
    #[prost(string, tag = "14")]
    pub log_path: String,
    /// Signal that asks it to end.
    #[prost(int32, tag = "15")]
    pub stop_signal: i32,
    /// Its [`rt_shim::spec::ContainerSpec`] as JSON.
    #[prost(bytes = "vec", tag = "16")]
    pub spec: Vec<u8>,
    /// User it runs as, once known.
    #[prost(message, optional, tag = "17")]
    pub user: Option<cri::LinuxContainerUser>,
    /// Snapshots it holds: its root first, then image volumes.
    #[prost(string, repeated, tag = "18")]
    pub snapshots: Vec<String>,
    /// Cgroup.
    #[prost(string, tag = "19")]
    pub cgroup: String,
}

impl SandboxRecord {
    /// Metadata, which validation guarantees.
    pub fn metadata(&self) -> cri::PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// Name kubelet may not use twice.
    pub fn reserved_name(&self) -> String {
        let meta = self.metadata();
        format!("{}_{}_{}_{}", meta.name, meta.namespace, meta.uid, meta.attempt)
    }

    /// Namespace options, defaults when absent.
    pub fn namespaces(&self) -> cri::NamespaceOption {
        let context = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
    }

    /// Whether it is in the host's network.
    pub fn host_network(&self) -> bool {
        self.namespaces().network() == cri::NamespaceMode::Node
    }
}

impl ContainerRecord {
    /// Name kubelet may not use twice in a sandbox.
    pub fn reserved_name(&self) -> String {
        let meta = self.config.metadata.clone().unwrap_or_default();
        format!("{}_{}_{}", meta.name, self.sandbox_id, meta.attempt)
    }
}
