//! One request and its response: what is counted and logged about it, until its last byte left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Version};
use tokio::sync::Notify;

use super::cluster::{Admitted, Cluster};
use super::hcm::Hcm;
use super::host::{ActiveRequest, Host};
use crate::access_log::{Entry, Flags};

/// What both directions of a stream and its timers share.
#[derive(Debug)]
pub struct Shared {
    begun: Instant,
    done: AtomicBool,
    finished: Notify,
    done_after: AtomicU64,
    active_after: AtomicU64,
    received: AtomicU64,
    client_gone: AtomicBool,
}

impl Shared {
    /// A stream that begins now; `complete` when the request has no body.
    pub fn new(complete: bool) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            done: AtomicBool::new(complete),
            finished: Notify::new(),
            done_after: AtomicU64::new(0),
            active_after: AtomicU64::new(0),
            received: AtomicU64::new(0),
            client_gone: AtomicBool::new(false),
        })
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something moved.
    pub fn touch(&self) {
        self.active_after.store(self.elapsed(), Ordering::Relaxed);
    }

    /// When something last moved.
    pub fn last_active(&self) -> Instant {
        self.begun + Duration::from_millis(self.active_after.load(Ordering::Relaxed))
    }

    /// Body bytes came from the client.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The request is complete.
    pub fn finish_request(&self) {
        if !self.done.swap(true, Ordering::AcqRel) {
            self.done_after.store(self.elapsed(), Ordering::Release);
            self.finished.notify_waiters();
        }
    }

    /// The client broke off in the middle of the request.
    pub fn client_gone(&self) {
        self.client_gone.store(true, Ordering::Release);
    }

    /// Whether the client broke off.
    pub fn is_client_gone(&self) -> bool {
        self.client_gone.load(Ordering::Acquire)
    }

    /// When the request was complete, if it is.
    pub fn request_done(&self) -> Option<Instant> {
        self.done
            .load(Ordering::Acquire)
            .then(|| self.begun + Duration::from_millis(self.done_after.load(Ordering::Acquire)))
    }

    /// Waits until the request is complete.
    pub async fn wait_request_done(&self) -> Instant {
        loop {
            let finished = self.finished.notified();
            if let Some(at) = self.request_done() {
                return at;
            }
            finished.await;
        }
    }
}

/// Limits of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// From the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    /// Without anything moving.
    pub idle: Option<Duration>,
}

/// What the log needs of the request, kept only when there is a log.
#[derive(Debug, Default)]
pub struct Logged {
    /// Method.
    pub method: String,
    /// Path as routed.
    pub path: String,
    /// Path as received, when it was changed.
    pub original_path: Option<String>,
    /// Host and port.
    pub authority: String,
    /// The request headers the formats name.
    pub request: HeaderMap,
    /// The response headers the formats name.
    pub response: HeaderMap,
    /// Name of the route.
    pub route: String,
    /// Peer address.
    pub remote: String,
    /// Own address.
    pub local: String,
}

/// The record of a stream. Dropping it ends the stream: counters, then the log.
#[derive(Debug)]
pub struct Stream {
    /// The connection manager it came through.
    pub hcm: Arc<Hcm>,
    /// State shared with the bodies.
    pub shared: Arc<Shared>,
    /// Why the response is what it is.
    pub flags: Flags,
    /// Status sent; 0 when none was.
    pub code: u16,
    /// Body bytes sent to the client.
    pub sent: u64,
    /// Whether the response was sent to its end.
    pub complete: bool,
    /// Protocol of the client.
    pub version: Version,
    /// For the log.
    pub logged: Option<Box<Logged>>,
    /// Cluster the request went to.
    pub cluster: Option<Arc<Cluster>>,
    /// Endpoint of the last attempt.
    pub host: Option<Arc<Host>>,
    /// When the request went upstream.
    pub upstream_begun: Option<Instant>,
    /// Its place in the cluster's limits.
    pub admitted: Option<Admitted>,
    /// Its place at the endpoint.
    pub active: Option<ActiveRequest>,
    begun: Instant,
    wall: SystemTime,
}

impl Stream {
    /// Begins a stream.
    pub fn new(hcm: Arc<Hcm>, version: Version, complete: bool) -> Self {
        hcm.stats.downstream_rq_total.inc();
        hcm.stats.downstream_rq_active.inc();
        if version == Version::HTTP_2 {
            hcm.stats.downstream_rq_http2_total.inc();
        } else {
            hcm.stats.downstream_rq_http1_total.inc();
        }
        Self {
            shared: Shared::new(complete),
            flags: Flags::default(),
            code: 0,
            sent: 0,
            complete: false,
            version,
            logged: None,
            cluster: None,
            host: None,
            upstream_begun: None,
            admitted: None,
            active: None,
            begun: Instant::now(),
            wall: SystemTime::now(),
            hcm,
        }
    }

    /// The upstream part is over: frees its places and counts it.
    pub fn end_upstream(&mut self) {
        self.active = None;
        self.admitted = None;
    }

    fn log(&self) {
        let Some(logged) = &self.logged else { return };
        let entry = Entry {
            start: self.wall,
            duration: self.begun.elapsed(),
            method: &logged.method,
            path: &logged.path,
            original_path: logged.original_path.as_deref(),
            authority: &logged.authority,
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            code: self.code,
            flags: self.flags,
            bytes_received: self.shared.received.load(Ordering::Relaxed),
            bytes_sent: self.sent,
            request: &logged.request,
            response: &logged.response,
            upstream_host: self.host.as_ref().map(|host| host.name.as_str()),
            upstream_cluster: self.cluster.as_ref().map(|cluster| cluster.config.name.as_str()),
            route_name: &logged.route,
            downstream_remote: &logged.remote,
            downstream_local: &logged.local,
        };
        for log in &self.hcm.access_logs {
            log.log(&entry);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let stats = &self.hcm.stats;
        stats.downstream_rq_active.dec();
        if !self.complete && self.flags.is_empty() {
            self.flags.set(Flags::DOWNSTREAM_TERMINATION);
            stats.downstream_rq_rx_reset.inc();
            if let Some(cluster) = self.cluster.as_ref().filter(|_| self.admitted.is_some()) {
                cluster.stats.base.upstream_rq_cancelled.inc();
                cluster.stats.base.upstream_rq_tx_reset.inc();
            }
        }
        if self.code > 0 {
            stats.downstream_rq_completed.inc();
            match self.code / 100 {
                1 => stats.downstream_rq_1xx.inc(),
                2 => stats.downstream_rq_2xx.inc(),
                3 => stats.downstream_rq_3xx.inc(),
                4 => stats.downstream_rq_4xx.inc(),
                _ => stats.downstream_rq_5xx.inc(),
            }
        }
        let elapsed = self.begun.elapsed();
        stats.downstream_rq_time.record_ms(elapsed);
        if let (Some(cluster), Some(begun)) = (&self.cluster, self.upstream_begun) {
            cluster.stats.base.upstream_rq_time.record_ms(begun.elapsed());
        }
        self.log();
    }
}
