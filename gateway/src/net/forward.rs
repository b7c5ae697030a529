//! Sending a request to an endpoint: choose, connect, send, try again where the policy allows, pass the response on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, DATE, HeaderName, HeaderValue, SERVER, VIA};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::body::{Recording, RequestBody};
use super::cluster::Cluster;
use super::cluster_config::Protocol;
use super::codec::Codec;
use super::hcm::{ConnectionInfo, Hcm, set_path};
use super::host::Host;
use super::local_reply::{OVERLOADED, date, failure, reply};
use super::pool::{Lease, PoolError};
use super::request::{shape, strip_hop_by_hop, wanted_upgrade};
use super::response::ResponseBody;
use super::stream::{Limits, Shared, Stream};
use super::upgrade;
use crate::access_log::Flags;
use crate::engine::retry::{Failure, RetryPolicy};
use crate::engine::route::{Forward, HostRewrite, Route};

const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// Silent repeats when a reused connection turns out to be closed before anything was sent.
const STALE_REPEATS: u32 = 3;

/// A request to forward.
pub struct Job<'a> {
    /// The client's connection.
    pub connection: Arc<ConnectionInfo>,
    /// The route taken.
    pub route: Arc<Route>,
    /// Its action.
    pub action: &'a Forward,
    /// The request's head.
    pub parts: request::Parts,
    /// The request's body.
    pub body: Incoming,
    /// Host and port it is for.
    pub host: HeaderValue,
    /// Whether it is a gRPC call.
    pub grpc: bool,
    /// Tell the upstream which attempt it sees.
    pub attempt_count: bool,
}

/// A response's head, and the connection it is read from.
pub type Answer = (Response<Incoming>, Option<Box<Lease>>);

/// Forwards the request and returns the response, or the answer that says why there is none.
pub async fn forward(mut stream: Box<Stream>, mut job: Job<'_>) -> Response<ResponseBody> {
    let hcm = stream.hcm.clone();
    let name = job.action.cluster.choose(&job.parts.headers);
    let Some(cluster) = name.and_then(|name| hcm.state.clusters.get(&name)) else {
        hcm.stats.no_cluster.inc();
        return reply(stream, job.action.not_found, "", Flags::NO_CLUSTER, job.grpc);
    };
    stream.cluster = Some(cluster.clone());
    let upgrade = wanted_upgrade(job.parts.version, &job.parts.headers);
    if let Some(kind) = &upgrade
        && !upgrade::allowed(kind, &hcm.upgrades, &job.action.upgrades)
    {
        hcm.stats.downstream_rq_ws_on_non_ws_route.inc();
        let mut refused = reply(stream, StatusCode::FORBIDDEN, "", Flags::default(), job.grpc);
        // What follows on the connection would be the other protocol.
        refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return refused;
    }
    edit(&hcm, &mut job, &mut stream);
    let Some(admitted) = cluster.admit() else {
        return overflow(stream, job.grpc);
    };
    stream.admitted = Some(admitted);
    stream.upstream_begun = Some(Instant::now());
    if let Some(kind) = upgrade {
        return upgrade::forward(stream, job, cluster, &kind).await;
    }
    strip_hop_by_hop(&mut job.parts.headers);
    let limits = Limits {
        timeout: job.action.timeout,
        idle: job.action.idle_timeout.or(hcm.stream_idle).filter(|idle| !idle.is_zero()),
    };
    let grpc = job.grpc;
    let shared = stream.shared.clone();
    let result = {
        let attempts = attempts(&mut stream, job, &cluster);
        tokio::select! {
            biased;
            result = attempts => Ok(result),
            flags = expired(&shared, limits) => Err(flags),
        }
    };
    match result {
        Ok(Ok((response, lease))) => pass_on(stream, response, lease, limits),
        Ok(Err(Outcome::NoHost)) => reply(
            stream,
            StatusCode::SERVICE_UNAVAILABLE,
            "no healthy upstream",
            Flags::NO_HEALTHY_UPSTREAM,
            grpc,
        ),
        Ok(Err(Outcome::Failed(Failure::Overflow, _))) => overflow(stream, grpc),
        Ok(Err(Outcome::Failed(failed, retried))) => {
            let (status, body, flags) = failure(failed, retried);
            if shared.is_client_gone() {
                stream.flags.set(Flags::DOWNSTREAM_TERMINATION);
            }
            cluster.stats.completed(status.as_u16());
            reply(stream, status, body, flags, grpc)
        }
        Err(flags) => timed_out(stream, &cluster, flags, grpc),
    }
}

/// The limit's answer: 504 for the route's timeout, 408 for an idle stream.
fn timed_out(
    stream: Box<Stream>,
    cluster: &Arc<Cluster>,
    flags: Flags,
    grpc: bool,
) -> Response<ResponseBody> {
    if flags == Flags::STREAM_IDLE {
        stream.hcm.stats.downstream_rq_idle_timeout.inc();
        return reply(stream, StatusCode::REQUEST_TIMEOUT, "stream timeout", flags, grpc);
    }
    cluster.stats.base.upstream_rq_timeout.inc();
    cluster.stats.completed(504);
    if let Some(host) = &stream.host {
        host.stats.rq_timeout.inc();
        cluster.report(host, 504);
    }
    reply(stream, StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", flags, grpc)
}

fn overflow(stream: Box<Stream>, grpc: bool) -> Response<ResponseBody> {
    let (status, body, flags) = failure(Failure::Overflow, false);
    if let Some(cluster) = &stream.cluster {
        cluster.stats.completed(status.as_u16());
    }
    let mut response = reply(stream, status, body, flags, grpc);
    response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    response
}

/// Applies what the route says about path, host and headers.
fn edit(hcm: &Hcm, job: &mut Job<'_>, stream: &mut Stream) {
    let path = job.parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    if let Some(rewritten) = job.route.rewritten_path(&path)
        && rewritten != path
        && set_path(&mut job.parts, &rewritten)
        && let Ok(value) = path.parse()
    {
        job.parts.headers.insert(ORIGINAL_PATH, value);
        if let Some(logged) = &mut stream.logged {
            logged.path = rewritten;
            logged.original_path = Some(path);
        }
    }
    let rewritten = match &job.action.host_rewrite {
        HostRewrite::Keep | HostRewrite::Endpoint => None,
        HostRewrite::Literal(host) => Some(host.clone()),
        HostRewrite::Header(name) => job.parts.headers.get(name).cloned(),
    };
    if let Some(host) = rewritten {
        let original = std::mem::replace(&mut job.host, host);
        job.parts.headers.insert(ORIGINAL_HOST, original);
    }
    if !hcm.suppress_envoy_headers
        && let Some(timeout) = job.action.timeout
    {
        let timeout = job
            .action
            .retry
            .as_ref()
            .and_then(|r| r.per_try_timeout)
            .map_or(timeout, |t| t.min(timeout));
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        job.parts.headers.insert(EXPECTED, HeaderValue::from(millis));
    }
    if let Some(via) = &hcm.via {
        job.parts.headers.append(VIA, via.clone());
    }
    for edits in &job.route.request_edits {
        edits.apply(&mut job.parts.headers);
    }
}

enum Outcome {
    NoHost,
    Failed(Failure, bool),
}

/// Waits for the first limit that passes before the response begins.
async fn expired(shared: &Shared, limits: Limits) -> Flags {
    let total = async {
        match limits.timeout {
            None => std::future::pending().await,
            Some(timeout) => {
                tokio::time::sleep_until((shared.wait_request_done().await + timeout).into()).await
            }
        }
    };
    let idle = async {
        let Some(idle) = limits.idle else { return std::future::pending().await };
        loop {
            let at = shared.last_active() + idle;
            if at <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(at.into()).await;
        }
    };
    tokio::select! {
        () = total => Flags::UPSTREAM_TIMEOUT,
        () = idle => Flags::STREAM_IDLE,
    }
}

/// How the body is sent: once, or recorded so that it can be sent again.
enum Upload {
    Once(Option<Incoming>),
    Recorded(Arc<Mutex<Recording>>),
    Nothing,
}

async fn attempts(
    stream: &mut Stream,
    job: Job<'_>,
    cluster: &Arc<Cluster>,
) -> Result<Answer, Outcome> {
    let policy = job.action.retry.clone();
    let Job { connection, action, mut parts, body, host, attempt_count, .. } = job;
    parts.extensions.clear();
    let mut upload = match (&policy, body.is_end_stream()) {
        (_, true) => Upload::Nothing,
        (Some(_), false) => Upload::Recorded(Recording::new(body, action.buffer_limit)),
        (None, false) => Upload::Once(Some(body)),
    };
    let mut head = Some(parts);
    let mut tried: Vec<Arc<Host>> = Vec::new();
    let mut retrying: Option<RetryPermit> = None;
    for attempt in 0u32.. {
        let picked = cluster
            .pick(&|host| tried.iter().any(|t| Arc::ptr_eq(t, host)))
            .ok_or(Outcome::NoHost)?;
        let endpoint = picked.host;
        stream.host = Some(endpoint.clone());
        let last = policy.as_ref().is_none_or(|policy| attempt >= policy.num_retries);
        let mut parts = if last { head.take() } else { head.clone() }
            .expect("the head is taken by the last attempt");
        if attempt_count {
            parts.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempt + 1));
        }
        let authority = match &action.host_rewrite {
            HostRewrite::Endpoint if !endpoint.hostname.is_empty() => {
                endpoint.hostname.parse().unwrap_or_else(|_| host.clone())
            }
            _ => host.clone(),
        };
        let body = match &mut upload {
            Upload::Nothing => RequestBody::empty(),
            Upload::Once(body) => body
                .take()
                .map_or_else(RequestBody::empty, |b| RequestBody::client(b, stream.shared.clone())),
            Upload::Recorded(recording) => RequestBody::replay(recording, stream.shared.clone()),
        };
        stream.active = Some(endpoint.begin());
        let sending = send(cluster, &endpoint, &connection, parts, body, &authority);
        let per_try = policy.as_ref().and_then(|policy| policy.per_try_timeout);
        let result = limited(sending, per_try, cluster).await;
        let failed = match verdict(&result, policy.as_deref()) {
            None => {
                if let (Ok((response, _)), true) = (&result, retrying.is_some())
                    && response.status().as_u16() < 500
                {
                    cluster.stats.base.upstream_rq_retry_success.inc();
                }
                if let Ok((response, _)) = &result {
                    cluster.report(&endpoint, response.status().as_u16());
                }
                return result.map_err(|failed| Outcome::Failed(failed, attempt > 0));
            }
            Some(failed) => failed,
        };
        cluster.report(
            &endpoint,
            match failed {
                Failure::Status(code) => code,
                _ => 0,
            },
        );
        let Some(policy) = policy.as_ref().filter(|policy| policy.allows(failed)) else {
            return result.map_err(|failed| Outcome::Failed(failed, attempt > 0));
        };
        if last {
            cluster.stats.base.upstream_rq_retry_limit_exceeded.inc();
            stream.flags.set(if attempt > 0 { Flags::RETRY_LIMIT } else { Flags::default() });
            return result.map_err(|failed| Outcome::Failed(failed, attempt > 0));
        }
        let replayable =
            !matches!(&upload, Upload::Recorded(recording) if !recording.lock().can_replay());
        if retrying.is_none() {
            retrying = RetryPermit::take(cluster);
        }
        if !replayable || retrying.is_none() {
            if replayable {
                cluster.stats.base.upstream_rq_retry_overflow.inc();
                stream.flags.set(Flags::UPSTREAM_OVERFLOW);
            }
            return result.map_err(|failed| Outcome::Failed(failed, attempt > 0));
        }
        drop(result);
        stream.active = None;
        tried.push(endpoint);
        cluster.stats.base.upstream_rq_retry.inc();
        cluster.stats.base.upstream_rq_retry_backoff_exponential.inc();
        tokio::time::sleep(policy.backoff(attempt + 1)).await;
    }
    Err(Outcome::NoHost)
}

async fn limited(
    sending: impl Future<Output = Result<Answer, Failure>>,
    limit: Option<Duration>,
    cluster: &Cluster,
) -> Result<Answer, Failure> {
    let Some(limit) = limit else { return sending.await };
    tokio::time::timeout(limit, sending).await.unwrap_or_else(|_| {
        cluster.stats.base.upstream_rq_per_try_timeout.inc();
        Err(Failure::PerTryTimeout)
    })
}

/// What a policy has to judge; `None` when the result is final whatever the policy.
fn verdict(result: &Result<Answer, Failure>, policy: Option<&RetryPolicy>) -> Option<Failure> {
    match result {
        Err(failure) => Some(*failure),
        Ok((response, _)) => {
            let policy = policy?;
            let grpc =
                response.headers().get("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok());
            if let (true, Some(status)) = (policy.looks_at_grpc(), grpc) {
                return Some(Failure::Grpc(status)).filter(|failure| policy.allows(*failure));
            }
            Some(Failure::Status(response.status().as_u16()))
                .filter(|failure| policy.allows(*failure))
        }
    }
}

/// Sends one attempt to one endpoint.
async fn send(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    connection: &ConnectionInfo,
    mut parts: request::Parts,
    body: RequestBody,
    authority: &HeaderValue,
) -> Result<Answer, Failure> {
    let http2 = match cluster.config.protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Downstream => parts.version == Version::HTTP_2,
    };
    shape(&mut parts, http2, authority, connection.scheme).ok_or(Failure::Terminated)?;
    let mut request = Request::from_parts(parts, body);
    for repeat in 0.. {
        let stale_allowed = repeat < STALE_REPEATS;
        let error = if http2 {
            let mut sender = host
                .pool
                .http2(cluster, host, connection.turn)
                .await
                .map_err(|e| pool_failure(&e))?;
            match sender.send(request).await {
                Ok(response) => return Ok((response, None)),
                Err(error) => error,
            }
        } else {
            let mut lease = host
                .pool
                .http1(cluster, host, !stale_allowed)
                .await
                .map_err(|e| pool_failure(&e))?;
            match lease.sender.send(request).await {
                Ok(response) => return Ok((response, Some(Box::new(lease)))),
                Err(error) => error,
            }
        };
        match error.unsent {
            Some(unsent) if stale_allowed => request = unsent,
            _ => {
                cluster.stats.base.upstream_rq_rx_reset.inc();
                return Err(error.failure);
            }
        }
    }
    Err(Failure::Terminated)
}

/// What a pool's refusal means for the request.
pub fn pool_failure(error: &PoolError) -> Failure {
    match error {
        PoolError::Dial(_) => Failure::Connect,
        PoolError::Overflow => Failure::Overflow,
    }
}

/// A place among the cluster's concurrent retries.
struct RetryPermit(Arc<Cluster>);

impl RetryPermit {
    fn take(cluster: &Arc<Cluster>) -> Option<Self> {
        let limit = match cluster.config.retry_budget {
            None => u64::from(cluster.config.max_retries),
            Some((percent, minimum)) => {
                let active = cluster.stats.base.upstream_rq_active.get().max(0) as f64;
                u64::from(minimum).max((active * percent / 100.0) as u64)
            }
        };
        let taken = cluster
            .retries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        taken.ok().map(|_| Self(cluster.clone()))
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Turns the endpoint's response into the client's.
pub fn pass_on(
    mut stream: Box<Stream>,
    response: Response<Incoming>,
    lease: Option<Box<Lease>>,
    limits: Limits,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    head_on(&mut stream, &mut parts.headers, parts.status);
    let mut response = Response::new(ResponseBody::upstream(body, lease, stream, limits));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// The headers the gateway adds to responses, and the counts.
pub fn head_on(stream: &mut Stream, headers: &mut http::HeaderMap, status: StatusCode) {
    let hcm = stream.hcm.clone();
    stream.code = status.as_u16();
    stream.shared.touch();
    if let Some(cluster) = &stream.cluster {
        cluster.stats.completed(status.as_u16());
    }
    if !hcm.suppress_envoy_headers
        && let Some(done) = stream.shared.request_done()
        && stream.upstream_begun.is_some()
    {
        headers.insert(
            SERVICE_TIME,
            HeaderValue::from(u64::try_from(done.elapsed().as_millis()).unwrap_or(0)),
        );
    }
    match hcm.server_transformation {
        0 => {
            headers.insert(SERVER, hcm.server_name.clone());
        }
        1 if !headers.contains_key(SERVER) => {
            headers.insert(SERVER, hcm.server_name.clone());
        }
        _ => {}
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date());
    }
    if let Some(via) = &hcm.via {
        headers.append(VIA, via.clone());
    }
    if let Some(logged) = &mut stream.logged {
        for name in hcm.access_logs.iter().flat_map(|log| log.format.response_headers()) {
            if let Some(value) = headers.get(&name) {
                logged.response.insert(name, value.clone());
            }
        }
    }
}
