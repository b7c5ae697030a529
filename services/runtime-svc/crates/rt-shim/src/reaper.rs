//! Collects the exit codes of child processes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

type Waiting = Rc<RefCell<HashMap<i32, oneshot::Sender<i32>>>>;

/// Knows who waits for which child.
#[derive(Debug, Clone)]
pub(crate) struct Reaper(Waiting);

impl Reaper {
    /// Starts reaping. Must run inside a `LocalSet`.
    pub(crate) fn start() -> io::Result<Self> {
        let mut children = signal(SignalKind::child())?;
        let waiting = Waiting::default();
        let watched = waiting.clone();
        tokio::task::spawn_local(async move {
            while children.recv().await.is_some() {
                reap(&watched);
            }
        });
        Ok(Self(waiting))
    }

    /// The exit code of child `pid`. Call before the first await after the fork, or the code may be lost.
    pub(crate) fn watch(&self, pid: i32) -> oneshot::Receiver<i32> {
        let (tell, code) = oneshot::channel();
        self.0.borrow_mut().insert(pid, tell);
        code
    }
}

fn reap(waiting: &Waiting) {
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        if let Some(tell) = waiting.borrow_mut().remove(&pid.as_raw()) {
            // The one who waited may have gone.
            let _ = tell.send(code);
        }
    }
}
