//! Making sockets inside another process's network namespace.
//!
//! A namespace belongs to a thread, and runtime threads must stay in their own; so a thread is made for it. The
//! socket stays in the namespace it was made in, whoever uses it later.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns};

/// Runs `make` in the network namespace of process `pid`, within the current runtime.
pub(super) async fn within<T: Send + 'static>(
    pid: i32,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let runtime = tokio::runtime::Handle::current();
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let _context = runtime.enter();
        let made = setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| make());
        // The one who asked may have given up.
        let _ = send.send(made);
    })?;
    receive
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the network namespace thread ended early")))
}
