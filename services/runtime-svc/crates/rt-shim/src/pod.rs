//! The shim process: from its arguments to its end.
//!
//! `shim SPEC` reads a [`SandboxSpec`], makes the pod and prints one line on stdout: `ok PID`, or `error: TEXT`
//! before it ends. After the line it no longer uses the stdio it was started with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::UnixListener;
use tokio::sync::{Notify, broadcast};

use crate::cgroup::Cgroups;
use crate::containers::Container;
use crate::host::launch::Ground;
use crate::host::mounts::write_sysctls;
use crate::host::{Step, failure, sys};
use crate::reaper::Reaper;
use crate::server;
use crate::spec::SandboxSpec;
use crate::wire::{ContainerReport, Failure};

/// Changes a slow daemon may lag behind before it must list anew.
const EVENT_BACKLOG: usize = 1024;

/// The pod this process serves.
pub(crate) struct Pod {
    pub(crate) spec: SandboxSpec,
    pub(crate) ground: Ground,
    pub(crate) reaper: Reaper,
    pub(crate) containers: RefCell<HashMap<String, Rc<Container>>>,
    pub(crate) events: broadcast::Sender<ContainerReport>,
    pub(crate) ended: Notify,
}

impl Pod {
    /// Kills all containers and waits for their exits to be written down.
    pub(crate) async fn kill_all(&self) {
        let containers: Vec<Rc<Container>> = self.containers.borrow().values().cloned().collect();
        for container in &containers {
            container.signal(&self.ground, libc::SIGKILL, true);
        }
        for container in containers {
            // A process in uninterruptible sleep must not keep the pod from being answered for.
            let _ = tokio::time::timeout(Duration::from_secs(10), container.ended()).await;
        }
    }
}

/// Runs the applet and returns its exit code. `args` are what follows `shim`.
pub fn applet(mut args: impl Iterator<Item = String>) -> i32 {
    let Some(path) = args.next() else {
        say("error: usage: shim SPEC");
        return 64;
    };
    match run(Path::new(&path)) {
        Ok(()) => 0,
        Err(failed) => {
            say(&format!("error: {}", failed.message.replace('\n', " ")));
            1
        }
    }
}

fn say(line: &str) {
    // The daemon may have gone; nobody else listens.
    let _ = writeln!(io::stdout(), "{line}");
}

fn run(path: &Path) -> Result<(), Failure> {
    let text = fs::read(path).step(|| format!("read {}", path.display()))?;
    let spec: SandboxSpec =
        serde_json::from_slice(&text).step(|| format!("parse {}", path.display()))?;
    // No session of its own means only that a terminal's signals reach it.
    let _ = nix::unistd::setsid();
    sys::not_dumpable().step(|| "protect the shim's memory".to_owned())?;
    sys::become_subreaper().step(|| "become a subreaper".to_owned())?;
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    nix::unistd::chdir("/").step(|| "enter /".to_owned())?;
    let ground = make_pod(&spec)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .step(|| "start the event loop".to_owned())?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(spec, ground))
}

/// Enters the namespaces that become the pod's.
fn make_pod(spec: &SandboxSpec) -> Result<Ground, Failure> {
    let cgroups = Cgroups::detect().step(|| "find the cgroup hierarchies".to_owned())?;
    cgroups.create(&spec.cgroup).step(|| format!("make cgroup {}", spec.cgroup))?;
    for file in cgroups.join_files(&spec.cgroup) {
        fs::write(&file, "0").step(|| format!("join cgroup {}", file.display()))?;
    }
    let open = |path: &str| File::open(path).step(|| format!("open {path}"));
    let (host_mounts, own_pids) = (open("/proc/self/ns/mnt")?, open("/proc/self/ns/pid")?);
    let own_exe = Ground::own_exe().step(|| "find the shim's executable".to_owned())?;
    let mut namespaces = CloneFlags::CLONE_NEWNS;
    for (own, flag) in [
        (spec.own_net, CloneFlags::CLONE_NEWNET),
        (spec.own_ipc, CloneFlags::CLONE_NEWIPC),
        (spec.own_uts, CloneFlags::CLONE_NEWUTS),
    ] {
        if own {
            namespaces |= flag;
        }
    }
    unshare(namespaces).step(|| "make the pod's namespaces".to_owned())?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .step(|| "cut the shim's mounts off from the host".to_owned())?;
    if spec.own_net {
        sys::loopback_up().step(|| "set lo up".to_owned())?;
    }
    if spec.own_uts {
        nix::unistd::sethostname(&spec.hostname)
            .step(|| format!("set the host name {:?}", spec.hostname))?;
    }
    let shm = if spec.own_ipc { mount_shm(spec)? } else { "/dev/shm".into() };
    write_sysctls(spec.sysctls.iter())?;
    let pod_pids = if spec.shared_pid { Some(start_pause(&own_pids)?) } else { None };
    Ok(Ground { host_mounts, own_pids, pod_pids, shm, cgroups, own_exe })
}

fn mount_shm(spec: &SandboxSpec) -> Result<std::path::PathBuf, Failure> {
    let shm = spec.dir.join("shm");
    fs::create_dir_all(&shm).step(|| format!("make {}", shm.display()))?;
    let data = format!("mode=1777,size={}", spec.shm_size);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(data.as_str()))
        .step(|| "mount the pod's /dev/shm".to_owned())?;
    Ok(shm)
}

/// Process 1 of a shared PID namespace: reaps orphans and ends with the shim.
fn start_pause(own_pids: &File) -> Result<File, Failure> {
    unshare(CloneFlags::CLONE_NEWPID).step(|| "make the pod's PID namespace".to_owned())?;
    let forked = sys::fork();
    if let Ok(None) = forked {
        pause();
    }
    setns(own_pids, CloneFlags::CLONE_NEWPID)
        .step(|| "leave the pod's PID namespace".to_owned())?;
    let pid = forked
        .step(|| "fork the pause process".to_owned())?
        .ok_or_else(|| failure("fork returned twice"))?;
    let path = format!("/proc/{pid}/ns/pid");
    File::open(&path).step(|| format!("open {path}"))
}

fn pause() -> ! {
    use nix::sys::wait::waitpid;
    sys::reset_signals();
    if sys::die_with_parent().is_err() || nix::unistd::setsid().is_err() {
        sys::exit_now(1);
    }
    // The daemon waits for the end of the shim's stdout; this copy must not hold it open.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let _ = nix::unistd::chdir("/");
    loop {
        // Without children it fails at once; then the next signal is waited for.
        if waitpid(None, None).is_err() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

async fn serve(spec: SandboxSpec, ground: Ground) -> Result<(), Failure> {
    // A stale socket of a pod that was never finished.
    let _ = fs::remove_file(&spec.socket);
    let listener =
        UnixListener::bind(&spec.socket).step(|| format!("listen on {}", spec.socket.display()))?;
    let reaper = Reaper::start().step(|| "watch for ended processes".to_owned())?;
    let (events, _) = broadcast::channel(EVENT_BACKLOG);
    let pod = Rc::new(Pod {
        spec,
        ground,
        reaper,
        containers: RefCell::default(),
        events,
        ended: Notify::new(),
    });
    say(&format!("ok {}", std::process::id()));
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step(|| "open /dev/null".to_owned())?;
    for redirected in [
        rustix::stdio::dup2_stdin(&null),
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
    ] {
        redirected.step(|| "let go of stdio".to_owned())?;
    }
    tokio::select! {
        () = server::accept(pod.clone(), listener) => {}
        () = pod.ended.notified() => {}
    }
    let _ = fs::remove_file(&pod.spec.socket);
    Ok(())
}
