//! The accept loop: HTTP/1.1 with upgrades and HTTP/2 on one port.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::Instrument;

use crate::listener::Accepted;
use crate::tls::handshake;
use crate::{Connection, Listener, PeerInfo, Shutdown, TlsServer};

/// Limits of a listener. The defaults suit a service port.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections served at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Concurrent HTTP/2 streams per connection.
    pub max_streams: u32,
    /// How long a client may take for the TLS handshake and for the head of an HTTP/1.1 request.
    pub header_timeout: Duration,
    /// How often an idle HTTP/2 peer is pinged; it has 20 s to answer.
    pub keepalive: Duration,
    /// How long streams may go on after shutdown was asked for.
    pub drain: Duration,
    /// HTTP/2 flow-control window in bytes, per connection and stream.
    pub window: u32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_streams: 1_000,
            header_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(2 * 3600),
            drain: Duration::from_secs(10),
            window: 1 << 20,
        }
    }
}

/// Serves `router` until `shutdown` fires and the connections have drained.
///
/// Handlers find a [`PeerInfo`] in the request extensions.
pub async fn serve(
    listener: Listener,
    router: Router,
    tls: Option<Arc<TlsServer>>,
    options: ServeOptions,
    shutdown: Shutdown,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let builder = Arc::new(builder(&options));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.triggered() => break,
            slot = slots.clone().acquire_owned() => match slot {
                Ok(slot) => tokio::select! {
                    () = shutdown.triggered() => break,
                    accepted = listener.accept() => accepted.map(|(stream, peer)| (stream, peer, slot)),
                },
                Err(_) => break,
            },
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer left between SYN and accept: pause so as not to spin.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = connection(
            stream,
            peer,
            builder.clone(),
            router.clone(),
            tls.clone(),
            options.header_timeout,
            graceful.clone(),
        );
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    let Ok(graceful) = Arc::try_unwrap(graceful).map_err(drop) else {
        // A handshake still holds a reference; it ends with its timeout.
        return;
    };
    if tokio::time::timeout(options.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            seconds = options.drain.as_secs(),
            "connections still open after the drain time were cut"
        );
    }
}

fn builder(options: &ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_streams)
        .initial_stream_window_size(options.window)
        .initial_connection_window_size(options.window)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(options.keepalive)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn connection(
    stream: Accepted,
    mut peer: PeerInfo,
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    tls: Option<Arc<TlsServer>>,
    handshake_timeout: Duration,
    graceful: Arc<GracefulShutdown>,
) {
    let mut stream: Box<dyn Connection> = stream.boxed();
    if let Some(tls) = tls {
        match tokio::time::timeout(handshake_timeout, handshake(tls.acceptor(), stream)).await {
            Ok(Ok((secured, certificates))) => {
                stream = secured;
                peer.certificates = certificates;
            }
            Ok(Err(error)) => {
                return tracing::debug!(%error, remote = ?peer.remote, "TLS handshake failed");
            }
            Err(_) => return tracing::debug!(remote = ?peer.remote, "TLS handshake timed out"),
        }
    }
    let service = router.map_request(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.map(axum::body::Body::new)
    });
    let service = tower::service_fn(move |request: http::Request<Incoming>| {
        let span = crate::grpc::request_span(&request);
        service.clone().oneshot(request).instrument(span)
    });
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let served = graceful.watch(served.into_owned());
    drop(graceful);
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection ended early");
    }
}
