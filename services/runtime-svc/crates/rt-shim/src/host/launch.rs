//! Forking: the first process of a container, or a further one in it.
//!
//! The shim already is in the pod's network, IPC and UTS namespaces, so children inherit those. A PID namespace
//! applies to children only: the shim enters it, forks and goes back to its own.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::unistd::pipe2;

use super::mounts::{self, Sources};
use super::{Step, devices, failure, program, rootfs, sys, terminal};
use crate::cgroup::Cgroups;
use crate::spec::{ContainerSpec, Identity, PidMode, ProcessSpec};
use crate::wire::Failure;

/// First byte of what a child sends before it executes its program.
pub(crate) const IDENTITY: u8 = b'I';
pub(crate) const TERMINAL: u8 = b'T';
pub(crate) const FAILURE: u8 = b'F';

/// What the shim knows about its pod when it forks.
#[derive(Debug)]
pub struct Ground {
    /// The host's mount namespace.
    pub host_mounts: File,
    /// The shim's own PID namespace.
    pub own_pids: File,
    /// The pod's PID namespace, when its containers share one.
    pub pod_pids: Option<File>,
    /// The pod's /dev/shm in the shim's mount namespace.
    pub shm: PathBuf,
    /// Hierarchies of the host.
    pub cgroups: Cgroups,
    /// Device and inode of the shim's executable.
    pub own_exe: (u64, u64),
}

impl Ground {
    /// Device and inode of the running executable.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn own_exe() -> io::Result<(u64, u64)> {
        fs::metadata("/proc/self/exe").map(|meta| (meta.dev(), meta.ino()))
    }
}

/// A forked child that has not necessarily executed its program yet.
#[derive(Debug)]
pub struct Launched {
    /// PID in the shim's namespace.
    pub pid: i32,
    /// Carries [`IDENTITY`], [`TERMINAL`] and [`FAILURE`] messages; its end means the program runs.
    pub sync: OwnedFd,
    /// Write end of stdin.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr.
    pub stderr: Option<OwnedFd>,
}

/// The child's ends of its streams; `None` is /dev/null or the terminal.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Launches the first process of a container. Its cgroup must exist.
///
/// # Errors
/// When the fork itself fails; what fails in the child comes through [`Launched::sync`].
pub fn container(ground: &Ground, spec: &ContainerSpec) -> Result<Launched, Failure> {
    let enter = match spec.pid {
        PidMode::Own => Enter::New,
        PidMode::Pod => Enter::Existing(
            ground.pod_pids.as_ref().ok_or_else(|| failure("the pod shares no PID namespace"))?,
        ),
        PidMode::Host => Enter::Stay,
        PidMode::Target(pid) => {
            let path = format!("/proc/{pid}/ns/pid");
            let target =
                File::open(&path).step(|| format!("open the target's PID namespace {path}"))?;
            return launch(
                ground,
                &spec.process,
                spec.stdin,
                &Enter::Existing(&target),
                |streams, sync| first_process(ground, spec, streams, sync),
            );
        }
    };
    launch(ground, &spec.process, spec.stdin, &enter, |streams, sync| {
        first_process(ground, spec, streams, sync)
    })
}

/// Launches a further process in the container whose first process is `init`.
///
/// # Errors
/// As [`container`].
pub fn exec(
    ground: &Ground,
    init: i32,
    cgroup: &str,
    process: &ProcessSpec,
    stdin: bool,
) -> Result<Launched, Failure> {
    let open = |name: &str| {
        let path = format!("/proc/{init}/ns/{name}");
        File::open(&path).step(|| format!("open {path}"))
    };
    let (mounts, cgroups, pids) = (open("mnt")?, open("cgroup")?, open("pid")?);
    launch(ground, process, stdin, &Enter::Existing(&pids), |streams, sync| {
        prepare(ground, cgroup)?;
        setns(&cgroups, CloneFlags::CLONE_NEWCGROUP)
            .step(|| "enter the cgroup namespace".to_owned())?;
        setns(&mounts, CloneFlags::CLONE_NEWNS).step(|| "enter the mount namespace".to_owned())?;
        if process.tty {
            send(sync, TERMINAL, b"", Some(terminal::adopt()?.as_fd()))?;
        } else {
            wire_streams(streams)?;
        }
        program::become_program(process, ground.own_exe, |identity| send_identity(sync, identity))
    })
}

enum Enter<'a> {
    Stay,
    New,
    Existing(&'a File),
}

fn launch(
    ground: &Ground,
    process: &ProcessSpec,
    stdin: bool,
    pids: &Enter<'_>,
    child: impl FnOnce(Streams, &OwnedFd) -> Result<Infallible, Failure>,
) -> Result<Launched, Failure> {
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).step(|| "make a pipe".to_owned());
    let (mut ours, mut theirs) = ([None, None, None], [None, None, None]);
    if !process.tty {
        if stdin {
            let (read, write) = pipe()?;
            (theirs[0], ours[0]) = (Some(read), Some(write));
        }
        for index in [1, 2] {
            let (read, write) = pipe()?;
            (ours[index], theirs[index]) = (Some(read), Some(write));
        }
    }
    let (sync, child_sync) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .step(|| "make a socket pair".to_owned())?;
    match pids {
        Enter::Stay => {}
        Enter::New => {
            unshare(CloneFlags::CLONE_NEWPID).step(|| "make a PID namespace".to_owned())?
        }
        Enter::Existing(ns) => {
            setns(ns, CloneFlags::CLONE_NEWPID).step(|| "enter the PID namespace".to_owned())?
        }
    }
    let forked = sys::fork();
    if let Ok(None) = forked {
        drop(sync);
        drop(ours);
        let [stdin, stdout, stderr] = theirs;
        let failed = match child(Streams { stdin, stdout, stderr }, &child_sync) {
            Ok(never) => match never {},
            Err(failed) => failed,
        };
        // When even this fails the parent sees the end of the socket and the exit code.
        let _ = send(&child_sync, FAILURE, &serde_json::to_vec(&failed).unwrap_or_default(), None);
        sys::exit_now(127);
    }
    if !matches!(pids, Enter::Stay) {
        setns(&ground.own_pids, CloneFlags::CLONE_NEWPID)
            .step(|| "leave the PID namespace".to_owned())?;
    }
    let Some(pid) = forked.step(|| "fork".to_owned())? else {
        return Err(failure("fork returned twice"));
    };
    let [stdin, stdout, stderr] = ours;
    Ok(Launched { pid: pid.as_raw(), sync, stdin, stdout, stderr })
}

fn first_process(
    ground: &Ground,
    spec: &ContainerSpec,
    streams: Streams,
    sync: &OwnedFd,
) -> Result<Infallible, Failure> {
    prepare(ground, &spec.cgroup)?;
    let mut sources = Sources::shared_memory(spec, &ground.shm)?;
    setns(&ground.host_mounts, CloneFlags::CLONE_NEWNS)
        .step(|| "enter the host's mount namespace".to_owned())?;
    sources.collect(spec, &ground.cgroups)?;
    let nodes = devices::find(spec)?;
    let mut new = CloneFlags::CLONE_NEWNS;
    if spec.own_cgroup_ns {
        new |= CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(new).step(|| "make a mount namespace".to_owned())?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .step(|| "cut mounts off from the host".to_owned())?;
    sources.collect_images(spec)?;
    rootfs::mount_root(&spec.rootfs, &spec.rootfs_dir)?;
    rootfs::pivot(&spec.rootfs_dir)?;
    mounts::mount_all(spec, sources, &nodes)?;
    if spec.process.tty {
        let master = terminal::adopt()?;
        terminal::show_console()?;
        send(sync, TERMINAL, b"", Some(master.as_fd()))?;
    } else {
        wire_streams(streams)?;
    }
    let cwd = Path::new(&spec.process.cwd);
    if spec.readonly_rootfs && cwd.is_absolute() && !cwd.exists() {
        super::tree::make_dirs(&spec.process.cwd)
            .step(|| format!("make working directory {}", cwd.display()))?;
    }
    spec.masked_paths.iter().try_for_each(|path| mounts::mask(path))?;
    spec.readonly_paths.iter().try_for_each(|path| mounts::make_readonly(path))?;
    if spec.readonly_rootfs {
        rootfs::make_root_readonly()?;
    }
    program::become_program(&spec.process, ground.own_exe, |identity| send_identity(sync, identity))
}

/// What every child does first: own session, default signals, its cgroup.
fn prepare(ground: &Ground, cgroup: &str) -> Result<(), Failure> {
    nix::unistd::setsid().step(|| "start a session".to_owned())?;
    sys::reset_signals();
    for file in ground.cgroups.join_files(cgroup) {
        // 0 is the writer itself, whatever PID namespace it is in.
        fs::write(&file, "0").step(|| format!("join cgroup {}", file.display()))?;
    }
    Ok(())
}

fn wire_streams(streams: Streams) -> Result<(), Failure> {
    let null = || -> Result<OwnedFd, Failure> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .step(|| "open /dev/null".to_owned())?;
        Ok(file.into())
    };
    let or_null = |fd: Option<OwnedFd>| fd.map_or_else(null, Ok);
    terminal::stdio_from(
        &or_null(streams.stdin)?,
        &or_null(streams.stdout)?,
        &or_null(streams.stderr)?,
    )
}

fn send_identity(sync: &OwnedFd, identity: &Identity) -> Result<(), Failure> {
    send(
        sync,
        IDENTITY,
        &serde_json::to_vec(identity).step(|| "encode the identity".to_owned())?,
        None,
    )
}

fn send(
    sync: &OwnedFd,
    kind: u8,
    payload: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let message = [&[kind], payload].concat();
    let fds: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let slices = [io::IoSlice::new(&message)];
    sendmsg::<()>(sync.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .step(|| "report to the shim".to_owned())
}
