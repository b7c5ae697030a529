//! Bodies on their way through: what goes upstream and what goes downstream.
//!
//! Frames pass one at a time; what waits is bounded by the flow-control windows of both sides.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::stream::Shared;

/// Errors of bodies, in the form hyper wants.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request on its way to an endpoint.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
enum Source {
    Empty,
    Client(Incoming),
    Replay { recording: Arc<Mutex<Recording>>, next: usize, attempt: u32 },
}

/// What was read of a request body so far, so that another attempt can send it again.
#[derive(Debug)]
pub struct Recording {
    source: Incoming,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: usize,
    limit: usize,
    ended: bool,
    overflowed: bool,
    attempt: u32,
}

impl Recording {
    /// Records up to `limit` bytes.
    pub fn new(source: Incoming, limit: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            source,
            chunks: Vec::new(),
            trailers: None,
            size: 0,
            limit,
            ended: false,
            overflowed: false,
            attempt: 0,
        }))
    }

    /// Whether everything read is still there.
    pub fn can_replay(&self) -> bool {
        !self.overflowed
    }
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Empty, shared: None }
    }

    /// The client's body, once.
    pub fn client(body: Incoming, shared: Arc<Shared>) -> Self {
        Self { source: Source::Client(body), shared: Some(shared) }
    }

    /// The recorded body from its start; earlier attempts stop getting anything.
    pub fn replay(recording: &Arc<Mutex<Recording>>, shared: Arc<Shared>) -> Self {
        let mut inner = recording.lock();
        inner.attempt += 1;
        let attempt = inner.attempt;
        drop(inner);
        Self {
            source: Source::Replay { recording: recording.clone(), next: 0, attempt },
            shared: Some(shared),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Empty => Poll::Ready(None),
            Source::Client(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                note(this.shared.as_deref(), &polled);
                if let Some(shared) = this.shared.as_deref()
                    && matches!(this.source, Source::Client(ref body) if body.is_end_stream())
                {
                    shared.finish_request();
                }
                polled.map(|frame| frame.map(|result| result.map_err(Into::into)))
            }
            Source::Replay { recording, next, attempt } => {
                let mut inner = recording.lock();
                if inner.attempt != *attempt {
                    return Poll::Ready(Some(Err(
                        "a newer attempt took the request body over".into()
                    )));
                }
                poll_recording(&mut inner, next, this.shared.as_deref(), cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Client(body) => body.is_end_stream(),
            Source::Replay { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Client(body) => body.size_hint(),
            Source::Replay { recording, next, .. } => {
                let inner = recording.lock();
                let mut hint = inner.source.size_hint();
                let kept: u64 =
                    inner.chunks.iter().skip(*next).map(|chunk| chunk.len() as u64).sum();
                match hint.exact() {
                    Some(exact) => hint.set_exact(exact + kept),
                    None => hint.set_lower(hint.lower() + kept),
                }
                hint
            }
        }
    }
}

fn poll_recording(
    inner: &mut Recording,
    next: &mut usize,
    shared: Option<&Shared>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    if let Some(chunk) = inner.chunks.get(*next) {
        *next += 1;
        return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
    }
    if inner.ended {
        // The trailers come once, after the last chunk.
        if *next == inner.chunks.len() {
            *next += 1;
            return Poll::Ready(
                inner.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))),
            );
        }
        return Poll::Ready(None);
    }
    let polled = Pin::new(&mut inner.source).poll_frame(cx);
    note(shared, &polled);
    match polled {
        Poll::Pending => Poll::Pending,
        Poll::Ready(None) => {
            inner.ended = true;
            *next = inner.chunks.len() + 1;
            Poll::Ready(None)
        }
        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
        Poll::Ready(Some(Ok(frame))) => {
            if let Some(data) = frame.data_ref() {
                inner.size += data.len();
                if inner.size > inner.limit {
                    inner.overflowed = true;
                    inner.chunks.clear();
                    *next = 0;
                } else {
                    inner.chunks.push(data.clone());
                    *next += 1;
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                inner.trailers = Some(trailers.clone());
                inner.ended = true;
                *next = inner.chunks.len() + 1;
            }
            Poll::Ready(Some(Ok(frame)))
        }
    }
}

fn note(shared: Option<&Shared>, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
    let Some(shared) = shared else { return };
    match polled {
        Poll::Pending => {}
        Poll::Ready(None) => shared.finish_request(),
        Poll::Ready(Some(Ok(frame))) => {
            shared.touch();
            match frame.data_ref() {
                Some(data) => shared.received(data.len()),
                None => shared.finish_request(),
            }
        }
        Poll::Ready(Some(Err(_))) => shared.client_gone(),
    }
}
