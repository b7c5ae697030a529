//! The process beside every pod, and what the daemon and it say to each other.
//!
//! The daemon starts one shim per sandbox. The shim is single-threaded, so it may fork: it makes the pod's
//! namespaces by entering them itself, launches the containers, owns their stdio and CRI logs, reaps them and
//! writes their exit codes down. It survives the daemon; the daemon finds it again through its socket.
//!
//! Nothing of a pod is mounted in the host's mount namespace: the pod's /dev/shm lives in the shim's own mount
//! namespace and every root filesystem in its container's. When the shim and its containers are gone, so is
//! every mount and network device of the pod.
//!
//! Rooms: [`spec`] and [`wire`] are shared with the daemon, [`cgroup`] too; [`host`] holds the syscalls;
//! the rest is the shim process.

pub mod cgroup;
pub mod host;
pub mod spec;
pub mod wire;

mod attach;
mod containers;
mod cri_log;
mod exec;
mod pod;
mod reaper;
mod server;
mod stdio;

pub use containers::exit_file;
pub use pod::applet;
