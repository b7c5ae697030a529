//! A pseudo terminal out of the container's own /dev/pts.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{Step, sys, tree};
use crate::wire::Failure;

/// Opens a terminal, makes it this session's and stdin, stdout and stderr; returns the master.
pub(super) fn adopt() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())
        .step(|| "open a terminal in /dev/pts".to_owned())?;
    rustix::pty::unlockpt(&master).step(|| "unlock the terminal".to_owned())?;
    let slave = sys::terminal_peer(master.as_fd()).step(|| "open the terminal".to_owned())?;
    sys::set_controlling_terminal(slave.as_fd()).step(|| "take the terminal".to_owned())?;
    stdio_from(&slave, &slave, &slave)?;
    Ok(master)
}

/// Shows this process's terminal as /dev/console.
pub(super) fn show_console() -> Result<(), Failure> {
    let what = || "mount the terminal at /dev/console".to_owned();
    let target = std::fs::read_link("/proc/self/fd/0").step(what)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, target, flags).step(what)?;
    let point = tree::mount_point("/dev/console", true, false).step(what)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", flags).step(what)
}

/// Makes three descriptors stdin, stdout and stderr.
pub(super) fn stdio_from(
    stdin: &OwnedFd,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
) -> Result<(), Failure> {
    // dup2 onto itself would keep close-on-exec; descriptors below 3 are always taken in the shim.
    debug_assert!([stdin, stdout, stderr].iter().all(|fd| fd.as_raw_fd() > 2));
    let what = || "set up stdio".to_owned();
    rustix::stdio::dup2_stdin(stdin).step(what)?;
    rustix::stdio::dup2_stdout(stdout).step(what)?;
    rustix::stdio::dup2_stderr(stderr).step(what)
}
