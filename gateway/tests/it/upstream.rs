//! Upstreams that show what reached them and misbehave on demand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

type Boxed = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A running upstream; it stops when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Upstream {
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn seen(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Starts one that calls itself `name`.
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, requests) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (token, counter) = (stop.clone(), requests.clone());
        tokio::spawn(async move {
            let graceful = GracefulShutdown::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = token.cancelled() => break,
                };
                let counter = counter.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let attempt = counter.fetch_add(1, Ordering::SeqCst);
                    async move { answer(name, attempt, request).await }
                });
                let builder = Builder::new(TokioExecutor::new());
                let connection = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .into_owned();
                let connection = graceful.watch(connection);
                tokio::spawn(connection);
            }
            drop(listener);
            graceful.shutdown().await;
        });
        Self { address, requests, stop }
    }
}

fn full(text: impl Into<Bytes>) -> Boxed {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

async fn answer(
    name: &str,
    attempt: usize,
    mut request: Request<Incoming>,
) -> Result<Response<Boxed>, Box<dyn std::error::Error + Send + Sync>> {
    let path = request.uri().path().to_owned();
    let tail = path.rsplit('/').next().unwrap_or_default().to_owned();
    if path.contains("/status/") {
        return Ok(Response::builder()
            .status(tail.parse::<u16>().unwrap())
            .body(full("status"))
            .unwrap());
    }
    if path.contains("/flaky") {
        // Fails every odd time.
        let status = if attempt.is_multiple_of(2) { 503 } else { 200 };
        let body = request.into_body().collect().await?.to_bytes();
        return Ok(Response::builder().status(status).body(full(body)).unwrap());
    }
    if path.contains("/sleep/") {
        tokio::time::sleep(Duration::from_millis(tail.parse().unwrap())).await;
        return Ok(Response::new(full("slept")));
    }
    if path.contains("/abort") {
        return Err("aborted on demand".into());
    }
    if path.contains("/half") {
        let frames = tokio_stream::iter([
            Ok(Frame::data(Bytes::from_static(b"first half"))),
            Err("the rest is missing".into()),
        ]);
        let frames = frames.throttle(Duration::from_millis(400));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
    }
    if path.contains("/endless") {
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        let frames =
            tokio_stream::iter(std::iter::repeat_with(move || Ok(Frame::data(chunk.clone()))));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
    }
    if path.contains("/trailers") {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames: [Result<_, Box<dyn std::error::Error + Send + Sync>>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames)))));
    }
    if path.contains("/echo") {
        let kind = request.headers().get("content-type").cloned();
        let mut response = Response::new(request.into_body().map_err(Into::into).boxed());
        if let Some(kind) = kind {
            response.headers_mut().insert("content-type", kind);
        }
        return Ok(response);
    }
    if path.contains("/upgrade") {
        let kind = request.headers().get("upgrade").cloned().unwrap();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            // The test closes the connection when it is done.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        return Ok(Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", kind)
            .body(full(""))
            .unwrap());
    }
    let mut lines =
        vec![format!("{} {}", request.method(), request.uri().path_and_query().unwrap())];
    if let Some(authority) = request.uri().authority() {
        lines.push(format!("host: {authority}"));
    }
    for (key, value) in request.headers() {
        lines.push(format!("{key}: {}", value.to_str().unwrap_or("?")));
    }
    lines.sort();
    Ok(Response::builder()
        .header("x-upstream", name)
        .header("connection", "keep-alive")
        .body(full(lines.join("\n")))
        .unwrap())
}
