//! Containers of the pod: starting them, watching them end.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::cri_log::{CriLog, Output, now_nanos};
use crate::host::launch::{self, Ground, Launched};
use crate::host::{Step, failure, sys};
use crate::pod::Pod;
use crate::spec::{ContainerSpec, Identity};
use crate::stdio::{self, Outputs};
use crate::wire::{ContainerReport, Exit, Failure};

/// How long output may still come after a container's last process is gone.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// A container that was started.
pub(crate) struct Container {
    pub(crate) pid: i32,
    pub(crate) cgroup: String,
    pub(crate) outputs: Rc<Outputs>,
    /// Input for attached clients; taken away when it is closed.
    pub(crate) stdin: RefCell<Option<mpsc::Sender<Vec<u8>>>>,
    pub(crate) stdin_once: bool,
    /// The terminal's master, for resizing.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) report: RefCell<ContainerReport>,
    running: Cell<bool>,
    end: watch::Sender<bool>,
}

impl Container {
    /// Sends a signal, to every process when `all`.
    pub(crate) fn signal(&self, ground: &Ground, signal: i32, all: bool) {
        if !self.running.get() {
            return;
        }
        if all && signal == libc::SIGKILL {
            ground.cgroups.kill(&self.cgroup);
        }
        let others = if all { ground.cgroups.pids(&self.cgroup) } else { Vec::new() };
        for pid in others.into_iter().chain([self.pid]) {
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal_of(signal));
        }
    }

    /// Whether its first process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Waits until its end is written down.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as `self`.
        let _ = self.end.subscribe().wait_for(|ended| *ended).await;
    }
}

fn signal_of(number: i32) -> Option<nix::sys::signal::Signal> {
    nix::sys::signal::Signal::try_from(number).ok()
}

/// File the exit of container `id` is kept in.
pub fn exit_file(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.exit"))
}

/// Launches a container and waits until its program runs.
pub(crate) async fn start(pod: &Rc<Pod>, spec: ContainerSpec) -> Result<(i32, Identity), Failure> {
    if pod.containers.borrow().contains_key(&spec.id) {
        return Err(failure(format!("container {} was started before", spec.id)));
    }
    let log = CriLog::open(spec.log.clone()).step(|| "open the container log".to_owned())?;
    let cgroups = &pod.ground.cgroups;
    cgroups.create(&spec.cgroup).step(|| format!("make cgroup {}", spec.cgroup))?;
    let launched =
        match cgroups.apply(&spec.cgroup, &spec.resources).step(|| "set limits".to_owned()) {
            Ok(()) => launch_in(pod, &spec).await,
            Err(failed) => Err(failed),
        };
    match launched {
        Ok((launched, code)) => {
            let identity = launched.identity.clone();
            let container = register(pod, spec, log, launched)?;
            let pid = container.pid;
            tokio::task::spawn_local(watch_end(pod.clone(), container, code));
            Ok((pid, identity))
        }
        Err(failed) => {
            cgroups.kill(&spec.cgroup);
            // The failure that led here is the one to report.
            let _ = cgroups.remove(&spec.cgroup);
            Err(failed)
        }
    }
}

/// A child whose program runs.
pub(crate) struct Running {
    pub(crate) child: Launched,
    pub(crate) identity: Identity,
    pub(crate) terminal: Option<OwnedFd>,
}

async fn launch_in(
    pod: &Pod,
    spec: &ContainerSpec,
) -> Result<(Running, oneshot::Receiver<i32>), Failure> {
    let launched = launch::container(&pod.ground, spec)?;
    let code = pod.reaper.watch(launched.pid);
    confirm(launched).await.map(|running| (running, code))
}

/// Reads what the child says until its program runs.
pub(crate) async fn confirm(child: Launched) -> Result<Running, Failure> {
    let (mut identity, mut terminal) = (Identity::default(), None);
    rustix::io::ioctl_fionbio(&child.sync, true).step(|| "watch the child".to_owned())?;
    let sync = child.sync.try_clone().step(|| "watch the child".to_owned())?;
    let sync = sys::watch_readable(sync).step(|| "watch the child".to_owned())?;
    loop {
        let mut ready = sync.readable().await.step(|| "watch the child".to_owned())?;
        let received = match ready.try_io(|fd| receive(fd.get_ref())) {
            Err(_would_block) => continue,
            Ok(received) => received.step(|| "read from the child".to_owned())?,
        };
        let Some((message, fd)) = received else {
            return Ok(Running { child, identity, terminal });
        };
        match message.first() {
            Some(&launch::IDENTITY) => {
                identity = serde_json::from_slice(&message[1..])
                    .step(|| "parse the child's identity".to_owned())?;
            }
            Some(&launch::TERMINAL) => terminal = fd,
            Some(&launch::FAILURE) => {
                let failed = serde_json::from_slice(&message[1..]);
                return Err(
                    failed.unwrap_or_else(|_| failure("the container's process failed to start"))
                );
            }
            _ => {}
        }
    }
}

fn receive(fd: &OwnedFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut buffer = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        fd,
        &mut [io::IoSliceMut::new(&mut buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 || received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(None);
    }
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    buffer.truncate(received.bytes);
    Ok(Some((buffer, passed)))
}

fn register(
    pod: &Rc<Pod>,
    spec: ContainerSpec,
    log: CriLog,
    running: Running,
) -> Result<Rc<Container>, Failure> {
    let Running { child, identity, terminal } = running;
    let outputs = Rc::new(Outputs::new(log));
    let what = || "follow the container's output".to_owned();
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    let mut stdin = None;
    if let Some(master) = &terminal {
        let clone = || master.try_clone().step(what);
        pumps.push(follow(clone()?, Output::Stdout, &outputs)?);
        stdin = Some(stdio::feed(stdio::writer(clone()?).step(what)?));
    }
    for (fd, output) in [(child.stdout, Output::Stdout), (child.stderr, Output::Stderr)] {
        if let Some(fd) = fd {
            pumps.push(follow(fd, output, &outputs)?);
        }
    }
    if let Some(fd) = child.stdin {
        stdin = Some(stdio::feed(stdio::writer(fd).step(what)?));
    }
    let report = ContainerReport {
        id: spec.id.clone(),
        pid: child.pid,
        started_at: now_nanos(),
        identity,
        exit: None,
    };
    let container = Rc::new(Container {
        pid: child.pid,
        cgroup: spec.cgroup,
        outputs,
        stdin: RefCell::new(stdin.filter(|_| spec.stdin)),
        stdin_once: spec.stdin_once,
        terminal,
        report: RefCell::new(report.clone()),
        running: Cell::new(true),
        end: watch::Sender::new(false),
    });
    let outputs = container.outputs.clone();
    tokio::task::spawn_local(async move {
        for pump in pumps {
            // A pump that panicked has ended too.
            let _ = pump.await;
        }
        outputs.close();
    });
    pod.containers.borrow_mut().insert(spec.id, container.clone());
    // Nobody may listen.
    let _ = pod.events.send(report);
    Ok(container)
}

fn follow(fd: OwnedFd, output: Output, outputs: &Rc<Outputs>) -> Result<JoinHandle<()>, Failure> {
    let reader = stdio::reader(fd).step(|| "follow the container's output".to_owned())?;
    Ok(tokio::task::spawn_local(stdio::pump(reader, output, outputs.clone())))
}

async fn watch_end(pod: Rc<Pod>, container: Rc<Container>, code: oneshot::Receiver<i32>) {
    // The reaper keeps the sender until the child ended.
    let code = code.await.unwrap_or(255);
    container.running.set(false);
    let cgroups = &pod.ground.cgroups;
    // In a PID namespace of its own everything died with process 1; elsewhere the rest must go too.
    cgroups.kill(&container.cgroup);
    let drained = async {
        let mut output = container.outputs.subscribe();
        while output.recv().await.is_some() {}
    };
    let _ = tokio::time::timeout(OUTPUT_GRACE, drained).await;
    container.outputs.close();
    container.stdin.borrow_mut().take();
    let oom = cgroups.oom_kills(&container.cgroup) > 0;
    // Left over only when a process is in uninterruptible sleep; the daemon tries again.
    let _ = cgroups.remove(&container.cgroup);
    let exit = Exit { code, at: now_nanos(), oom };
    let report = {
        let mut report = container.report.borrow_mut();
        report.exit = Some(exit);
        report.clone()
    };
    write_exit(&pod.spec.dir, &report);
    container.end.send_replace(true);
    let _ = pod.events.send(report);
}

fn write_exit(dir: &Path, report: &ContainerReport) {
    let path = exit_file(dir, &report.id);
    let partial = path.with_extension("partial");
    let Ok(text) = serde_json::to_vec(report) else { return };
    // The daemon also gets it as an event; the file is for a daemon that is away while the shim ends too.
    if fs::write(&partial, text).is_ok() {
        let _ = fs::rename(&partial, &path);
    }
}
