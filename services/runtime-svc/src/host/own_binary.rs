//! This program's own file, in a form that containers cannot write to.
//!
//! A shim that is about to become a container's program is visible inside the container as /proc/PID/exe. Run
//! from a detached read-only mount of the file, that link cannot be opened for writing, whatever the container's
//! user may do to ordinary files.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{OpenTreeFlags, open_tree};

/// A handle on the program's file.
#[derive(Debug)]
pub struct OwnBinary {
    tree: OwnedFd,
}

impl OwnBinary {
    /// Clones the mount the program's file lies on and makes the clone read-only.
    ///
    /// # Errors
    /// When mounts may not be made: the process needs CAP_SYS_ADMIN.
    pub fn open() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, path, flags)?;
        rt_shim::host::sys::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)?;
        Ok(Self { tree })
    }

    /// Path to execute it by, valid in children of this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.tree.as_raw_fd()))
    }
}
