//! What the daemon asks for: a sandbox, a container, a process. Plain data, serialised as JSON.
//!
//! Everything that can be decided from outside the container is decided by the daemon. What must be looked up
//! inside the root filesystem (users, groups, the executable) stays a name here and is resolved by the launcher
//! after `pivot_root`, where no symlink can lead out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod's shared part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Sandbox id.
    pub id: String,
    /// Folder of the pod below the state folder; exit codes are written there.
    pub dir: PathBuf,
    /// Control socket to listen on.
    pub socket: PathBuf,
    /// Host name set in the pod's UTS namespace.
    pub hostname: String,
    /// Own network namespace (false: the host's).
    pub own_net: bool,
    /// Own IPC namespace (false: the host's).
    pub own_ipc: bool,
    /// Own UTS namespace (false: the host's).
    pub own_uts: bool,
    /// One PID namespace for all containers, held by a pause process.
    pub shared_pid: bool,
    /// Kernel parameters below /proc/sys that belong to the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Size of the pod's /dev/shm in bytes.
    pub shm_size: u64,
    /// Cgroup of the shim itself, relative to each hierarchy's root.
    pub cgroup: String,
}

/// One container of the pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Container id.
    pub id: String,
    /// How the root filesystem comes about, as the snapshotter answered.
    pub rootfs: Vec<RootMount>,
    /// Empty folder the root filesystem is mounted over, inside the container's mount namespace.
    pub rootfs_dir: PathBuf,
    /// Remount the root filesystem read-only once everything is set up.
    pub readonly_rootfs: bool,
    /// Mounts in order.
    pub mounts: Vec<MountSpec>,
    /// Paths hidden under an empty file or folder.
    pub masked_paths: Vec<String>,
    /// Paths remounted read-only.
    pub readonly_paths: Vec<String>,
    /// Device nodes besides the default ones.
    pub devices: Vec<DeviceSpec>,
    /// Make a node for every device of the host.
    pub all_devices: bool,
    /// PID namespace.
    pub pid: PidMode,
    /// Own cgroup namespace.
    pub own_cgroup_ns: bool,
    /// Cgroup relative to each hierarchy's root.
    pub cgroup: String,
    /// Limits.
    pub resources: Resources,
    /// The first process.
    pub process: ProcessSpec,
    /// CRI log file; its folder is made.
    pub log: Option<PathBuf>,
    /// Keep a stdin open for attached clients.
    pub stdin: bool,
    /// Close stdin when the first attached client leaves.
    pub stdin_once: bool,
}

/// One mount that makes the root filesystem.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootMount {
    /// `overlay` or `bind`.
    pub kind: String,
    /// Source; meaningful for `bind`.
    pub source: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// One mount in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path in the container.
    pub destination: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// procfs of the container's PID namespace.
    Proc,
    /// sysfs.
    Sysfs {
        /// Read-only.
        readonly: bool,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Mount data such as `size=64m,mode=1777`.
        data: String,
        /// Read-only.
        readonly: bool,
        /// Allow programs to be run from it.
        exec: bool,
    },
    /// /dev with the default nodes.
    Dev,
    /// A fresh devpts instance.
    Devpts,
    /// POSIX message queues of the pod's IPC namespace.
    Mqueue,
    /// The pod's shared memory.
    Shm,
    /// The container's view of its cgroups.
    Cgroup {
        /// Read-only.
        readonly: bool,
    },
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Read-only.
        readonly: bool,
        /// Read-only for submounts too.
        recursive_readonly: bool,
        /// Mount propagation.
        propagation: Propagation,
    },
    /// An image's files.
    Rootfs {
        /// How they come about.
        mounts: Vec<RootMount>,
        /// Folder of the image to show; empty for all.
        sub_path: String,
    },
}

/// Mount propagation of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// None.
    Private,
    /// Host to container.
    Slave,
    /// Both ways.
    Shared,
}

/// A device of the host shown in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Path on the host.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: String,
    /// Any of `rwm`.
    pub permissions: String,
}

/// PID namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidMode {
    /// Its own.
    Own,
    /// The pod's.
    Pod,
    /// The host's.
    Host,
    /// That of the process with this host PID.
    Target(i32),
}

/// A process to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments, never empty.
    pub args: Vec<String>,
    /// `NAME=value` lines.
    pub env: Vec<String>,
    /// Absolute working folder; made when missing.
    pub cwd: String,
    /// Who runs it.
    pub user: UserSpec,
    /// Capabilities in the bounding, permitted and effective sets, as kernel numbers.
    pub capabilities: Vec<u8>,
    /// Capabilities in the ambient and inheritable sets.
    pub ambient: Vec<u8>,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Wanted oom_score_adj; clamped to what the kernel allows.
    pub oom_score_adj: Option<i32>,
    /// Seccomp filter as the kernel takes it, 8 bytes an instruction.
    pub seccomp: Option<Vec<u8>>,
}

/// Who runs a process; names are looked up in the container's /etc/passwd and /etc/group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UserSpec {
    /// `""`, `user`, `uid`, `user:group` or any mix of names and numbers.
    pub user: String,
    /// Primary group that wins over the one found by `user`.
    pub gid: Option<u32>,
    /// Further groups.
    pub supplemental: Vec<u32>,
    /// Leave out the groups /etc/group grants.
    pub strict_groups: bool,
}

/// The identity a process got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// Limits of a cgroup; `None` leaves the kernel's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap_limit: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// `0`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
    /// Page size such as `2MB`, and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of the v2 hierarchy to write as they are.
    pub unified: BTreeMap<String, String>,
    /// Device access; `None` allows everything.
    pub devices: Option<Vec<DeviceRule>>,
}

/// One allowed device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `c`, `b` or `a`.
    pub kind: char,
    /// Major number; `None` for all.
    pub major: Option<u32>,
    /// Minor number; `None` for all.
    pub minor: Option<u32>,
    /// Any of `rwm`.
    pub access: String,
}
