//! One HTTP connection of a client, from its first byte to its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_server::Connection;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;

use super::hcm::{Accepts, ConnectionInfo, Hcm, handle};

/// Bytes an HTTP/1.1 head may have at least, whatever is configured; hyper's own minimum.
const SMALLEST_HEAD: usize = 8192;

/// The codec settings of a connection manager.
pub fn builder(hcm: &Hcm) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(hcm.request_headers_timeout.unwrap_or(hcm.connection_idle))
        .max_buf_size(hcm.max_headers_bytes.max(SMALLEST_HEAD))
        .max_headers(hcm.max_headers)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(hcm.max_streams)
        .initial_stream_window_size(hcm.http2.stream_window)
        .initial_connection_window_size(hcm.http2.connection_window)
        .max_header_list_size(u32::try_from(hcm.max_headers_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(Some(100));
    if let Some((interval, timeout)) = hcm.http2.keepalive {
        builder.http2().keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    match hcm.accepts {
        Accepts::Auto => builder,
        Accepts::Http1 => builder.http1_only(),
        Accepts::Http2 => builder.http2_only(),
    }
}

/// Serves requests until the client leaves, the connection idles too long, or `drain` fires: then the requests in
/// flight end, HTTP/2 clients get GOAWAY and HTTP/1.1 ones `connection: close`.
pub async fn serve(
    hcm: Arc<Hcm>,
    builder: Arc<Builder<TokioExecutor>>,
    io: Box<dyn Connection>,
    info: ConnectionInfo,
    drain: CancellationToken,
) {
    let begun = Instant::now();
    let secure = info.scheme == "https";
    hcm.stats.downstream_cx_total.inc();
    hcm.stats.downstream_cx_active.inc();
    if secure {
        hcm.stats.downstream_cx_ssl_total.inc();
        hcm.stats.downstream_cx_ssl_active.inc();
    }
    let info = Arc::new(info);
    let moved = Arc::new(AtomicU64::new(0));
    let service = {
        let (hcm, moved) = (hcm.clone(), moved.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            if moved.swap(elapsed(begun).max(1), Ordering::Relaxed) == 0 {
                match request.version() {
                    http::Version::HTTP_2 => hcm.stats.downstream_cx_http2_total.inc(),
                    _ => hcm.stats.downstream_cx_http1_total.inc(),
                }
            }
            let answer = handle(hcm.clone(), info.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = drain.cancelled(), if !draining => {
                draining = true;
                hcm.stats.downstream_cx_drain_close.inc();
                connection.as_mut().graceful_shutdown();
            }
            () = idle(&hcm, &moved, begun), if !draining => {
                draining = true;
                hcm.stats.downstream_cx_idle_timeout.inc();
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            hcm.stats.downstream_cx_protocol_error.inc();
        }
    }
    hcm.stats.downstream_cx_active.dec();
    hcm.stats.downstream_cx_destroy.inc();
    hcm.stats.downstream_cx_length_ms.record_ms(begun.elapsed());
    if secure {
        hcm.stats.downstream_cx_ssl_active.dec();
    }
}

fn elapsed(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Waits until no request began for the idle time. A request in flight then still ends, since the shutdown is graceful.
async fn idle(hcm: &Hcm, moved: &AtomicU64, begun: Instant) {
    loop {
        let last = begun + Duration::from_millis(moved.load(Ordering::Relaxed));
        if last.elapsed() >= hcm.connection_idle {
            return;
        }
        tokio::time::sleep_until((last + hcm.connection_idle).into()).await;
    }
}
