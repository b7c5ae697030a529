//! DNS over UDP: one worker a core, each with an own socket on the same port.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::engine::{Client, Now, Sites};
use crate::wire::{Query, QueryError};

/// Queries that may wait for an upstream at once on one socket; more are dropped, and the client asks again.
const MAX_WAITING: usize = 4096;
const MAX_QUERY: usize = 4096;

/// Binds one socket that shares its port with others (SO_REUSEPORT).
///
/// Sockets are bound to concrete addresses, so answers leave from the address that was asked.
///
/// # Errors
/// When the address is taken or not of this machine.
pub fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // A burst must not be lost while this worker is busy; the kernel may grant less.
    let _ = socket.set_recv_buffer_size(1 << 20);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers queries until the task is dropped.
///
/// What is known here is answered at once, without a task of its own; only questions to others become tasks.
pub async fn serve_udp(socket: Arc<UdpSocket>, sites: Arc<ArcSwap<Sites>>) {
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        let (length, remote) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer; the socket is fine.
            Err(_) => continue,
        };
        if remote.port() == 0 {
            continue;
        }
        let query = match Query::parse(&buffer[..length]) {
            Ok(query) => query,
            Err(QueryError::Drop) => continue,
            Err(QueryError::Answer(answer)) => {
                // Losing an answer is UDP's nature.
                let _ = socket.try_send_to(&answer, remote);
                continue;
            }
        };
        let client = Client { remote, tcp: false, hops: 0 };
        let now = sites.load().answer_now(&query, &client, query.udp_limit());
        let asking = match now {
            Now::Answer(answer) if answer.is_empty() => continue,
            Now::Answer(answer) => {
                if socket
                    .try_send_to(&answer, remote)
                    .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
                {
                    let _ = socket.send_to(&answer, remote).await;
                }
                continue;
            }
            Now::Ask(asking) => asking,
        };
        let Ok(slot) = waiting.clone().try_acquire_owned() else { continue };
        let (socket, sites) = (socket.clone(), sites.load_full());
        tokio::spawn(async move {
            let answer = sites.answer_later(asking, &query, &client).await;
            let _ = socket.send_to(&answer, remote).await;
            drop(slot);
        });
    }
}
