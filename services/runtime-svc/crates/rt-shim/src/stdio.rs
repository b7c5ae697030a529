//! A container's streams: output goes to the log and to attached clients, input comes from them.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::cri_log::{CriLog, Output};
use crate::wire::Kind;

/// Chunks an attached client may lag behind before it is cut off; the log never waits.
const CLIENT_BACKLOG: usize = 1024;
const CHUNK: usize = 64 << 10;

/// Where a container's output goes.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) log: RefCell<CriLog>,
    ended: Cell<bool>,
    clients: RefCell<Vec<mpsc::Sender<(Kind, Rc<[u8]>)>>>,
}

impl Outputs {
    pub(crate) fn new(log: CriLog) -> Self {
        Self { log: RefCell::new(log), ended: Cell::new(false), clients: RefCell::default() }
    }

    /// A new client's view of the output from now on; it ends at once when the output has ended.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<(Kind, Rc<[u8]>)> {
        let (client, output) = mpsc::channel(CLIENT_BACKLOG);
        if !self.ended.get() {
            self.clients.borrow_mut().push(client);
        }
        output
    }

    /// Ends all clients' views, now and later.
    pub(crate) fn close(&self) {
        self.ended.set(true);
        self.clients.borrow_mut().clear();
    }

    fn publish(&self, output: Output, text: &[u8]) {
        self.log.borrow_mut().write(output, text);
        let mut clients = self.clients.borrow_mut();
        if clients.is_empty() {
            return;
        }
        let kind = if output == Output::Stdout { Kind::Stdout } else { Kind::Stderr };
        let chunk: Rc<[u8]> = text.into();
        clients.retain(|client| client.try_send((kind, chunk.clone())).is_ok());
    }
}

/// Turns a pipe or terminal descriptor into an asynchronous reader.
pub(crate) fn reader(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Receiver::from_owned_fd_unchecked(fd)
}

/// Turns a pipe or terminal descriptor into an asynchronous writer.
pub(crate) fn writer(fd: OwnedFd) -> io::Result<pipe::Sender> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Sender::from_owned_fd_unchecked(fd)
}

/// Reads one chunk; `None` at the end. A terminal whose other side closed answers EIO.
pub(crate) async fn read_chunk<'a>(
    reader: &mut pipe::Receiver,
    buffer: &'a mut [u8],
) -> Option<&'a [u8]> {
    match reader.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(n) => Some(&buffer[..n]),
    }
}

/// Moves output until its end.
pub(crate) async fn pump(mut from: pipe::Receiver, output: Output, to: Rc<Outputs>) {
    let mut buffer = vec![0; CHUNK];
    while let Some(text) = read_chunk(&mut from, &mut buffer).await {
        to.publish(output, text);
    }
    to.log.borrow_mut().finish(output);
}

/// Writes to `to` what is sent; the descriptor closes when all senders are gone.
pub(crate) fn feed(mut to: pipe::Sender) -> mpsc::Sender<Vec<u8>> {
    let (input, mut chunks) = mpsc::channel::<Vec<u8>>(16);
    tokio::task::spawn_local(async move {
        while let Some(chunk) = chunks.recv().await {
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
    input
}
