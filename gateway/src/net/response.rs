//! The body of a response on its way to the client; it carries the stream's record to the end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::body::BodyError;
use super::pool::Lease;
use super::stream::{Limits, Stream};
use crate::access_log::Flags;

/// A response body and what ends with it.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    stream: Option<Box<Stream>>,
    limits: Limits,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    Upstream(Incoming, Option<Box<Lease>>),
}

impl ResponseBody {
    /// A body of our own.
    pub fn own(bytes: Bytes, stream: Box<Stream>) -> Self {
        let mut this = Self {
            source: Source::Own((!bytes.is_empty()).then_some(bytes)),
            stream: Some(stream),
            limits: Limits::default(),
            timer: None,
        };
        if matches!(this.source, Source::Own(None)) {
            this.finish();
        }
        this
    }

    /// The endpoint's body; `lease` is its connection, given back at the end.
    pub fn upstream(
        body: Incoming,
        lease: Option<Box<Lease>>,
        stream: Box<Stream>,
        limits: Limits,
    ) -> Self {
        let ended = body.is_end_stream();
        let mut this = Self {
            source: Source::Upstream(body, lease),
            stream: Some(stream),
            limits,
            timer: None,
        };
        if ended {
            this.finish();
        }
        this
    }

    /// Nothing, for a response whose record is kept elsewhere.
    pub fn none() -> Self {
        Self { source: Source::Own(None), stream: None, limits: Limits::default(), timer: None }
    }

    fn finish(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.complete = true;
            stream.end_upstream();
        }
        if let Source::Upstream(_, lease) = &mut self.source
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }

    fn fail(&mut self, flags: Flags) {
        if let Some(mut stream) = self.stream.take() {
            stream.flags.set(flags);
            stream.hcm.stats.rq_reset_after_downstream_response_started.inc();
            stream.hcm.stats.downstream_rq_tx_reset.inc();
            if let Some(cluster) = &stream.cluster {
                cluster.stats.base.upstream_rq_rx_reset.inc();
            }
        }
        // The connection is in the middle of a response: dropping the lease closes it.
        self.source = Source::Own(None);
    }

    /// When the stream ends unless something moves; the flag says why.
    fn deadline(&self) -> Option<(Instant, Flags)> {
        let shared = &self.stream.as_ref()?.shared;
        let total = self.limits.timeout.map(|timeout| match shared.request_done() {
            Some(at) => (at + timeout, Flags::UPSTREAM_TIMEOUT),
            // The limit starts with the end of the request: look again soon.
            None => (Instant::now() + Duration::from_millis(500), Flags::default()),
        });
        let idle = self.limits.idle.map(|idle| (shared.last_active() + idle, Flags::STREAM_IDLE));
        [total, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether a limit passed; otherwise arms the timer for the next.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Option<Flags> {
        loop {
            let (at, flags) = self.deadline()?;
            if at <= Instant::now() && !flags.is_empty() {
                return Some(flags);
            }
            let at = tokio::time::Instant::from_std(at);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Own(bytes) => {
                let bytes = bytes.take();
                if let (Some(bytes), Some(stream)) = (&bytes, &mut this.stream) {
                    stream.sent += bytes.len() as u64;
                }
                this.finish();
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Upstream(body, _) => Pin::new(body).poll_frame(cx),
        };
        match polled {
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(stream) = &mut this.stream {
                    stream.shared.touch();
                    stream.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                let ended = frame.is_trailers() || this.is_end_stream();
                if ended {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(Flags::UPSTREAM_TERMINATION);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => match this.poll_limits(cx) {
                None => Poll::Pending,
                Some(flags) => {
                    if let Some(cluster) =
                        this.stream.as_ref().and_then(|stream| stream.cluster.as_ref())
                        && flags == Flags::UPSTREAM_TIMEOUT
                    {
                        cluster.stats.base.upstream_rq_timeout.inc();
                    }
                    this.fail(flags);
                    Poll::Ready(Some(Err("the stream exceeded its time limit".into())))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Upstream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(body, _) => body.size_hint(),
        }
    }
}
