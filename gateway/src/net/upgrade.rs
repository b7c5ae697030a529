//! HTTP/1.1 upgrades (WebSocket, SPDY/3.1): the handshake is forwarded, then bytes flow both ways.

use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use super::cluster::Cluster;
use super::codec::Codec;
use super::forward::{Job, head_on, pass_on, pool_failure};
use super::local_reply::{failure, reply};
use super::request::{shape, strip_hop_by_hop};
use super::response::ResponseBody;
use super::stream::{Limits, Stream};
use crate::access_log::Flags;

/// Whether an upgrade is turned on: the route says, else the connection manager.
pub fn allowed(kind: &str, manager: &[(String, bool)], route: &[(String, bool)]) -> bool {
    let find = |list: &[(String, bool)]| {
        list.iter().find(|(name, _)| name == kind).map(|(_, enabled)| *enabled)
    };
    find(route).or_else(|| find(manager)).unwrap_or(false)
}

/// Forwards the handshake on an own HTTP/1.1 connection.
pub async fn forward(
    mut stream: Box<Stream>,
    mut job: Job<'_>,
    cluster: Arc<Cluster>,
    kind: &str,
) -> Response<ResponseBody> {
    let Some(picked) = cluster.pick(&|_| false) else {
        return reply(
            stream,
            StatusCode::SERVICE_UNAVAILABLE,
            "no healthy upstream",
            Flags::NO_HEALTHY_UPSTREAM,
            false,
        );
    };
    let host = picked.host;
    stream.host = Some(host.clone());
    stream.active = Some(host.begin());
    let client = job.parts.extensions.remove::<OnUpgrade>();
    let wanted = job.parts.headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut job.parts.headers);
    job.parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(wanted) = wanted {
        job.parts.headers.insert(UPGRADE, wanted);
    }
    let shaped = shape(&mut job.parts, false, &job.host, job.connection.scheme);
    job.parts.extensions.clear();
    let body = RequestBody::client(job.body, stream.shared.clone());
    let request = Request::from_parts(job.parts, body);
    let answer = match (shaped, host.pool.http1(&cluster, &host, true).await) {
        (None, _) => Err(crate::engine::retry::Failure::Terminated),
        (_, Err(error)) => Err(pool_failure(&error)),
        (_, Ok(mut lease)) => match lease.sender.send(request).await {
            Ok(response) => Ok((response, lease)),
            Err(error) => Err(error.failure),
        },
    };
    let (response, lease) = match answer {
        Ok(answer) => answer,
        Err(failed) => {
            cluster.report(&host, 0);
            let (status, body, flags) = failure(failed, false);
            cluster.stats.completed(status.as_u16());
            return reply(stream, status, body, flags, false);
        }
    };
    cluster.report(&host, response.status().as_u16());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let limits = Limits { timeout: None, idle: stream.hcm.stream_idle };
        return pass_on(stream, response, Some(Box::new(lease)), limits);
    }
    switch(stream, response, client, kind)
}

fn switch(
    mut stream: Box<Stream>,
    mut response: Response<hyper::body::Incoming>,
    client: Option<OnUpgrade>,
    kind: &str,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let mut headers = std::mem::take(response.headers_mut());
    let agreed = headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(
        UPGRADE,
        agreed
            .or_else(|| kind.parse().ok())
            .unwrap_or_else(|| HeaderValue::from_static("websocket")),
    );
    head_on(&mut stream, &mut headers, StatusCode::SWITCHING_PROTOCOLS);
    let hcm = stream.hcm.clone();
    let Some(client) = client else {
        return reply(stream, StatusCode::BAD_REQUEST, "", Flags::DOWNSTREAM_PROTOCOL_ERROR, false);
    };
    tokio::spawn(async move {
        let mut record = stream;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        hcm.stats.downstream_cx_upgrades_total.inc();
        hcm.stats.downstream_cx_upgrades_active.inc();
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // Either end may leave at any time; that is how these streams end.
        if let Ok((received, sent)) =
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await
        {
            record.shared.received(usize::try_from(received).unwrap_or(usize::MAX));
            record.sent += sent;
        }
        hcm.stats.downstream_cx_upgrades_active.dec();
        record.complete = true;
    });
    let mut response = Response::new(ResponseBody::none());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    response
}
