//! System calls that neither nix nor rustix wraps. The only file of the crate with `unsafe`, but for `fork`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::{ForkResult, Pid};

const EMPTY: &CStr = c"";

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks this process. The child must end in `execve` or `_exit`.
///
/// # Errors
/// As fork(2).
pub fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: the shim is single-threaded, so the child's heap and locks are in a sane state.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends the process without running destructors of state shared with the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Changes attributes of the mount `fd` refers to.
///
/// # Errors
/// As mount_setattr(2).
pub fn mount_setattr(
    fd: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` lives across the call and its size is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// As close_range(2).
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers; the call only sets flags.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })
    .map(drop)
}

/// Sets the permitted, effective and inheritable capability sets, bit n being capability n.
///
/// # Errors
/// As capset(2).
pub fn set_capabilities(permitted: u64, effective: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes one header and two data elements, which live across the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

fn prctl(option: i32, a: u64, b: u64) -> io::Result<i32> {
    // SAFETY: only options without pointer arguments are passed by the callers below.
    let result = unsafe { libc::prctl(option, a, b, 0u64, 0u64) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Removes a capability from the bounding set.
///
/// # Errors
/// EINVAL when the kernel does not know it.
pub fn drop_bounding(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

/// Whether a capability is in the bounding set; an error when the kernel does not know it.
///
/// # Errors
/// EINVAL when the kernel does not know it.
pub fn in_bounding(capability: u8) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0).map(|set| set == 1)
}

/// Adds a capability to the ambient set.
///
/// # Errors
/// EPERM when it is not both permitted and inheritable.
pub fn raise_ambient(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability)).map(drop)
}

/// Keeps permitted capabilities across the next change of user.
///
/// # Errors
/// As prctl(2).
pub fn keep_capabilities() -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}

/// Sets `no_new_privs`.
///
/// # Errors
/// As prctl(2).
pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Makes /proc/PID of this process belong to root alone, and core dumps off, until the next `execve`.
///
/// # Errors
/// As prctl(2).
pub fn not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// Orphans below this process become its children.
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(drop)
}

/// The kernel kills this process when its parent ends.
///
/// # Errors
/// As prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).map(drop)
}

/// Default action for every signal, and none blocked. Rust ignores SIGPIPE, which programs would inherit.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: installing the default action runs no code of ours; unknown numbers fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let all = nix::sys::signal::SigSet::all();
    // Cannot fail: the set is valid.
    let _ =
        nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_UNBLOCK, Some(&all), None);
}

/// Installs a seccomp filter; `program` is a sequence of 8-byte BPF instructions.
///
/// # Errors
/// As seccomp(2).
pub fn install_seccomp(program: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|b| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let length = u16::try_from(instructions.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let filter = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `filter.len` instructions out of a vector of that length.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    })
    .map(drop)
}

/// Makes the terminal `fd` the controlling one of this session.
///
/// # Errors
/// As ioctl(TIOCSCTTY).
pub fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(i64::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Opens the slave side of a pseudo terminal without a path.
///
/// # Errors
/// As ioctl(TIOCGPTPEER).
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number; the result is a new descriptor that nobody else owns.
    let fd =
        check(i64::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }))?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sets the size of a terminal.
///
/// # Errors
/// As ioctl(TIOCSWINSZ).
pub fn set_window_size(fd: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    check(i64::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }))
        .map(drop)
}

/// Sets the loopback device of the current network namespace up.
///
/// # Errors
/// As socket(2) and ioctl(SIOCSIFFLAGS).
pub fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the kernel reads one ifreq.
    check(i64::from(unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))
    .map(drop)
}

/// bpf(2) with an attribute block.
///
/// # Errors
/// As bpf(2).
pub(super) fn bpf(command: u32, attributes: &[u8]) -> io::Result<i64> {
    // SAFETY: the kernel reads `attributes.len()` bytes; pointers inside are valid for the call (the caller's duty,
    // met in `device_filter` alone).
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) })
}

/// Takes ownership of a descriptor number the kernel just returned.
pub(super) fn own(fd: i64) -> OwnedFd {
    // SAFETY: callers pass a descriptor a system call has just made.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Registers a descriptor for reading with the event loop.
///
/// # Errors
/// When it cannot be polled.
pub fn watch_readable(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the same descriptor open until it is dropped, and nothing here swaps it.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(|e| e.into_parts().1)
}
