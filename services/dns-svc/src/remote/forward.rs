//! The `forward` plugin: asks other DNS servers.
//!
//! Every UDP query leaves from a fresh random port with a random id, and only an answer from the asked address
//! with that id and question counts; everything else is ignored while the wait goes on (RFC 5452).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::engine::{Client, Outcome};
use crate::wire::types::{CD, NOERROR, NS, RD, REFUSED};
use crate::wire::{MessageBuilder, Name, Query, scan};

const READ_TIMEOUT: Duration = Duration::from_secs(2);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 4096;

/// Which upstream is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// One after the other.
    RoundRobin,
    /// The first that is up.
    Sequential,
}

/// Settings of the plugin.
#[derive(Debug, Clone)]
pub struct ForwardOptions {
    /// Names below this are forwarded.
    pub from: Name,
    /// The upstreams.
    pub to: Vec<SocketAddr>,
    /// Names below these are not.
    pub except: Vec<Name>,
    /// Order of the upstreams.
    pub policy: Policy,
    /// Failures in a row after which an upstream counts as down; 0 never.
    pub max_fails: u32,
    /// Pause between checks of an upstream that failed.
    pub health_check: Duration,
    /// Always TCP.
    pub force_tcp: bool,
    /// Ask by UDP even if the client came by TCP.
    pub prefer_udp: bool,
    /// Queries in flight; more are refused. 0 is no limit.
    pub max_concurrent: usize,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    fails: AtomicU32,
}

/// The plugin.
#[derive(Debug)]
pub struct Forward {
    options: ForwardOptions,
    upstreams: std::sync::Arc<Vec<Upstream>>,
    next: AtomicUsize,
    slots: Option<Semaphore>,
}

impl Forward {
    /// Starts the health checks; they ask only upstreams that failed.
    pub fn new(options: ForwardOptions) -> Self {
        let upstreams: Vec<Upstream> = options
            .to
            .iter()
            .map(|address| Upstream { address: *address, fails: AtomicU32::new(0) })
            .collect();
        let upstreams = std::sync::Arc::new(upstreams);
        let slots = (options.max_concurrent > 0).then(|| Semaphore::new(options.max_concurrent));
        tokio::spawn(check_health(std::sync::Arc::downgrade(&upstreams), options.health_check));
        Self { options, upstreams, next: AtomicUsize::new(0), slots }
    }

    /// Whether the name is one to forward.
    pub fn is_for(&self, query: &Query) -> bool {
        let excepted = self.options.except.iter().any(|zone| query.name.is_within(zone));
        !excepted && query.name.is_within(&self.options.from)
    }

    /// Asks upstreams in turn until one answers or the time is over.
    pub async fn serve(&self, query: &Query, client: &Client) -> Outcome {
        if !self.is_for(query) {
            return Outcome::Pass;
        }
        let _slot = match self.slots.as_ref().map(Semaphore::try_acquire) {
            Some(Err(_)) => {
                return Outcome::Answer(MessageBuilder::answer(query, 0, REFUSED).build());
            }
            other => other,
        };
        let deadline = Instant::now() + TOTAL_TIMEOUT;
        let mut last = "no healthy upstream".to_owned();
        for upstream in self.order() {
            let by = (Instant::now() + READ_TIMEOUT).min(deadline);
            let tcp = self.options.force_tcp || (client.tcp && !self.options.prefer_udp);
            match timeout_at(by, exchange(upstream.address, query, tcp)).await {
                Ok(Ok(message)) => {
                    upstream.fails.store(0, Ordering::Relaxed);
                    return Outcome::Answer(message);
                }
                Ok(Err(error)) => last = format!("{}: {error}", upstream.address),
                Err(_) => last = format!("read udp {}: i/o timeout", upstream.address),
            }
            upstream.fails.fetch_add(1, Ordering::Relaxed);
            if Instant::now() >= deadline {
                break;
            }
        }
        Outcome::Failed(last)
    }

    /// The upstreams in the order to ask them; those that are down come last, so that all-down still tries.
    fn order(&self) -> Vec<&Upstream> {
        let count = self.upstreams.len();
        let start = match self.options.policy {
            Policy::Random => rand::random_range(0..count.max(1)),
            Policy::RoundRobin => self.next.fetch_add(1, Ordering::Relaxed) % count.max(1),
            Policy::Sequential => 0,
        };
        let mut list: Vec<&Upstream> =
            (0..count).map(|index| &self.upstreams[(start + index) % count]).collect();
        let limit = self.options.max_fails;
        list.sort_by_key(|upstream| limit > 0 && upstream.fails.load(Ordering::Relaxed) >= limit);
        list
    }
}

async fn check_health(upstreams: std::sync::Weak<Vec<Upstream>>, pause: Duration) {
    let probe = Query {
        id: 0,
        flags: RD,
        original: Name::root(),
        name: Name::root(),
        qtype: NS,
        class: 1,
        edns: None,
        size: 0,
    };
    loop {
        tokio::time::sleep(pause).await;
        let Some(list) = upstreams.upgrade() else { return };
        for upstream in list.iter().filter(|upstream| upstream.fails.load(Ordering::Relaxed) > 0) {
            let by = Instant::now() + READ_TIMEOUT;
            if matches!(timeout_at(by, exchange(upstream.address, &probe, false)).await, Ok(Ok(_)))
            {
                upstream.fails.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// One question to one server.
pub(super) async fn exchange(
    server: SocketAddr,
    query: &Query,
    tcp: bool,
) -> std::io::Result<Vec<u8>> {
    let id: u16 = rand::random();
    let request = request(query, id);
    if tcp {
        ask_tcp(server, &request, id, query).await
    } else {
        ask_udp(server, &request, id, query).await
    }
}

async fn ask_udp(
    server: SocketAddr,
    request: &[u8],
    id: u16,
    query: &Query,
) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], id, query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(
    server: SocketAddr,
    request: &[u8],
    id: u16,
    query: &Query,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (request.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(request);
    stream.write_all(&framed).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    if answers(&message, id, query) {
        Ok(message)
    } else {
        Err(std::io::Error::other("the answer fits no question"))
    }
}

/// Whether a message is the readable answer to this very question.
fn answers(message: &[u8], id: u16, query: &Query) -> bool {
    let Some(walked) = scan(message) else { return false };
    let question = message[12..].get(..query.name.wire().len());
    let kind = message.get(walked.question_end - 4..walked.question_end);
    let wanted = [query.qtype.to_be_bytes(), query.class.to_be_bytes()].concat();
    message[..2] == id.to_be_bytes()
        && walked.flags & 0x8000 != 0
        && question.is_some_and(|name| name.eq_ignore_ascii_case(query.name.wire()))
        && kind == Some(&wanted)
}

fn request(query: &Query, id: u16) -> Vec<u8> {
    let plain = Query { id, edns: None, size: 0, ..query.clone() };
    let mut bytes = MessageBuilder::answer(&plain, 0, NOERROR).build();
    bytes[2..4].copy_from_slice(&(query.flags & (RD | CD)).to_be_bytes());
    // OPT with our size, and the client's wish for DNSSEC records.
    let dnssec = if query.wants_dnssec() { 0x80 } else { 0 };
    bytes.extend_from_slice(&[0, 0, 41, (MAX_ANSWER >> 8) as u8, 0, 0, 0, dnssec, 0, 0, 0]);
    bytes[11] = 1;
    bytes
}
