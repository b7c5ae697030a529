//! DNS over TCP: two bytes of length, then a message (RFC 1035 section 4.2.2, RFC 7766).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::engine::{Client, Sites};
use crate::wire::{Query, QueryError};

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 4096;
/// Queries of one connection that are answered at once.
const MAX_PIPELINED: usize = 64;
const MAX_MESSAGE: usize = 65_535;

/// Answers connections until the task is dropped.
pub async fn serve_tcp(listener: TcpListener, sites: Arc<ArcSwap<Sites>>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            // Out of descriptors: connections that end free some.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let sites = sites.clone();
        tokio::spawn(async move {
            connection(stream, remote, sites).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, remote: SocketAddr, sites: Arc<ArcSwap<Sites>>) {
    // Without it the two-byte length and the message could wait for each other.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let writer = Arc::new(Mutex::new(writer));
    let pipelined = Arc::new(Semaphore::new(MAX_PIPELINED));
    let mut message = Vec::new();
    loop {
        let Ok(Ok(length)) = timeout(IDLE, reader.read_u16()).await else { return };
        message.resize(usize::from(length), 0);
        let Ok(Ok(_)) = timeout(IDLE, reader.read_exact(&mut message)).await else { return };
        let query = match Query::parse(&message) {
            Ok(query) => query,
            Err(QueryError::Drop) => return,
            Err(QueryError::Answer(answer)) => {
                if !send(&writer, &answer).await {
                    return;
                }
                continue;
            }
        };
        let Ok(slot) = pipelined.clone().acquire_owned().await else { return };
        let (writer, sites) = (writer.clone(), sites.clone());
        tokio::spawn(async move {
            let sites = sites.load_full();
            let answer =
                sites.answer(&query, &Client { remote, tcp: true, hops: 0 }, MAX_MESSAGE).await;
            if !answer.is_empty() {
                send(&writer, &answer).await;
            }
            drop(slot);
        });
    }
}

async fn send(writer: &Mutex<OwnedWriteHalf>, answer: &[u8]) -> bool {
    let mut framed = Vec::with_capacity(answer.len() + 2);
    framed.extend_from_slice(&(answer.len() as u16).to_be_bytes());
    framed.extend_from_slice(answer);
    let mut writer = writer.lock().await;
    matches!(timeout(WRITE, writer.write_all(&framed)).await, Ok(Ok(())))
}
