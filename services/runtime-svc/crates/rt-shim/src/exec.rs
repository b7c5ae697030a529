//! Further processes in a container: one connection carries one process.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, pipe};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::containers::{Container, confirm};
use crate::host::{Step, launch, sys};
use crate::pod::Pod;
use crate::spec::ProcessSpec;
use crate::stdio;
use crate::wire::{Answer, Failure, Kind, read_frame, write_frame, write_json};

/// How long output of children that outlive the process is waited for.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 << 10;

/// Runs the process and moves its streams until it ends or the client leaves, which kills it.
pub(crate) async fn run(
    pod: Rc<Pod>,
    container: Rc<Container>,
    process: ProcessSpec,
    stdin: bool,
    stream: UnixStream,
) {
    let (reader, mut writer) = stream.into_split();
    let started = start(&pod, &container, &process, stdin).await;
    let mut session = match started {
        Ok(session) => session,
        Err(failed) => {
            // The client may have gone.
            let _ = write_json(&mut writer, &Answer::Failed(failed)).await;
            return;
        }
    };
    let started = Answer::Started { pid: session.pid, identity: session.identity.clone() };
    if write_json(&mut writer, &started).await.is_err() {
        return session.kill();
    }
    let (frames, mut queue) = mpsc::channel::<(Kind, Vec<u8>)>(16);
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    for (kind, from) in session.outputs.drain(..) {
        pumps.push(tokio::task::spawn_local(forward(kind, from, frames.clone())));
    }
    drop(frames);
    let writing = tokio::task::spawn_local(async move {
        while let Some((kind, payload)) = queue.recv().await {
            if write_frame(&mut writer, kind, &payload).await.is_err() {
                return None;
            }
        }
        Some(writer)
    });
    let (input, terminal) = (session.input.take(), session.terminal.take());
    let mut listening = tokio::task::spawn_local(listen(reader, input, terminal));
    let code = tokio::select! {
        code = &mut session.code => code.unwrap_or(255),
        _ = &mut listening => {
            session.kill();
            // Reaped by the reaper; nobody is left to tell.
            let _ = (&mut session.code).await;
            return pumps.iter().for_each(JoinHandle::abort);
        }
    };
    let drained = async {
        for pump in &mut pumps {
            let _ = pump.await;
        }
    };
    if tokio::time::timeout(OUTPUT_GRACE, drained).await.is_err() {
        pumps.iter().for_each(JoinHandle::abort);
    }
    if let Ok(Some(mut writer)) = writing.await {
        let _ = write_json(&mut writer, &Answer::Exited { code }).await;
    }
    listening.abort();
}

struct Session {
    pid: i32,
    identity: crate::spec::Identity,
    code: tokio::sync::oneshot::Receiver<i32>,
    input: Option<mpsc::Sender<Vec<u8>>>,
    terminal: Option<std::os::fd::OwnedFd>,
    outputs: Vec<(Kind, pipe::Receiver)>,
}

impl Session {
    fn kill(&self) {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

async fn start(
    pod: &Pod,
    container: &Container,
    process: &ProcessSpec,
    stdin: bool,
) -> Result<Session, Failure> {
    let launched = launch::exec(&pod.ground, container.pid, &container.cgroup, process, stdin)?;
    let code = pod.reaper.watch(launched.pid);
    let running = confirm(launched).await?;
    let what = || "follow the process's output".to_owned();
    let mut outputs = Vec::new();
    let mut input = None;
    if let Some(master) = &running.terminal {
        let clone = || master.try_clone().step(what);
        outputs.push((Kind::Stdout, stdio::reader(clone()?).step(what)?));
        input = stdin.then(|| stdio::writer(clone()?).step(what).map(stdio::feed)).transpose()?;
    }
    for (kind, fd) in [(Kind::Stdout, running.child.stdout), (Kind::Stderr, running.child.stderr)] {
        if let Some(fd) = fd {
            outputs.push((kind, stdio::reader(fd).step(what)?));
        }
    }
    if let Some(fd) = running.child.stdin {
        input = Some(stdio::feed(stdio::writer(fd).step(what)?));
    }
    let (pid, identity) = (running.child.pid, running.identity);
    Ok(Session { pid, identity, code, input, terminal: running.terminal, outputs })
}

async fn forward(kind: Kind, mut from: pipe::Receiver, to: mpsc::Sender<(Kind, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK];
    while let Some(text) = stdio::read_chunk(&mut from, &mut buffer).await {
        if to.send((kind, text.to_vec())).await.is_err() {
            return;
        }
    }
}

/// Takes input and resizes from the client; returns when it left.
async fn listen(
    mut reader: OwnedReadHalf,
    mut input: Option<mpsc::Sender<Vec<u8>>>,
    terminal: Option<std::os::fd::OwnedFd>,
) {
    while let Ok(Some((kind, payload))) = read_frame(&mut reader).await {
        match kind {
            Kind::Stdin if payload.is_empty() => input = None,
            Kind::Stdin => {
                if let Some(to) = &input
                    && to.send(payload).await.is_err()
                {
                    input = None;
                }
            }
            Kind::Resize => resize(terminal.as_ref(), &payload),
            _ => return,
        }
    }
}

/// Applies a resize frame.
pub(crate) fn resize(terminal: Option<&std::os::fd::OwnedFd>, payload: &[u8]) {
    if let (Some(terminal), [a, b, c, d]) = (terminal, payload) {
        // The program may have closed its terminal.
        let _ = sys::set_window_size(
            terminal.as_fd(),
            u16::from_le_bytes([*a, *b]),
            u16::from_le_bytes([*c, *d]),
        );
    }
}
