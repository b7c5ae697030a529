//! Active health checks: ask every endpoint now and then, and leave out those that fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::sync::CancellationToken;

use super::body::RequestBody;
use super::cluster::Cluster;
use super::cluster_config::{HealthCheck, Protocol};
use super::connect::dial;
use super::host::{Host, Ill};

/// Consecutive results of an endpoint.
#[derive(Default, Clone, Copy)]
struct Streak {
    good: u32,
    bad: u32,
    known: bool,
}

/// Runs `check` against the cluster's endpoints until `stop` fires.
pub async fn run(cluster: Arc<Cluster>, check: HealthCheck, stop: CancellationToken) {
    let mut streaks: HashMap<String, Streak> = HashMap::new();
    loop {
        let hosts = cluster.hosts().all.clone();
        streaks.retain(|name, _| hosts.iter().any(|host| host.name == *name));
        let checks = hosts.iter().map(|host| {
            let (cluster, check, host) = (cluster.clone(), check.clone(), host.clone());
            tokio::spawn(async move { probe(&cluster, &check, &host).await })
        });
        let running: Vec<_> = checks.collect();
        let mut changed = false;
        for (host, result) in hosts.iter().zip(running) {
            let good = result.await.unwrap_or(false);
            changed |=
                judge(&cluster, &check, host, streaks.entry(host.name.clone()).or_default(), good);
        }
        if changed {
            cluster.health_changed();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(check.interval.max(Duration::from_millis(1))) => {}
        }
    }
}

fn judge(
    cluster: &Cluster,
    check: &HealthCheck,
    host: &Arc<Host>,
    streak: &mut Streak,
    good: bool,
) -> bool {
    let stats = &cluster.stats.health;
    stats.attempt.inc();
    if good {
        stats.success.inc();
        (streak.good, streak.bad) = (streak.good + 1, 0);
    } else {
        stats.failure.inc();
        (streak.good, streak.bad) = (0, streak.bad + 1);
    }
    // The first result counts at once, whatever the thresholds.
    let first = !std::mem::replace(&mut streak.known, true);
    let changed = if good && (first || streak.good >= check.healthy) {
        host.mark(Ill::Checks, false)
    } else if !good && (first || streak.bad >= check.unhealthy) {
        host.mark(Ill::Checks, true)
    } else {
        false
    };
    if changed {
        tracing::info!(
            cluster = cluster.config.name,
            host = host.name,
            healthy = good,
            "health changed"
        );
    }
    changed
}

async fn probe(cluster: &Cluster, check: &HealthCheck, host: &Host) -> bool {
    tokio::time::timeout(check.timeout, ask(cluster, check, host))
        .await
        .is_ok_and(|answer| answer.is_some())
}

async fn ask(cluster: &Cluster, check: &HealthCheck, host: &Host) -> Option<()> {
    let io = dial(&host.address, cluster.config.tls.as_ref(), check.timeout).await.ok()?;
    let Some((name, path)) = &check.http else { return Some(()) };
    let authority = if name.is_empty() { cluster.config.name.as_str() } else { name };
    let request = Request::get(path.as_str()).header(header::USER_AGENT, "Envoy/HC");
    let status = if cluster.config.protocol == Protocol::Http2 {
        let request =
            request.uri(format!("http://{authority}{path}")).body(RequestBody::empty()).ok()?;
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
                .await
                .ok()?;
        let driver = tokio::spawn(driver);
        let status = sender.send_request(request).await.ok()?.status();
        driver.abort();
        status
    } else {
        let request = request.header(header::HOST, authority).body(RequestBody::empty()).ok()?;
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.ok()?;
        let driver = tokio::spawn(driver);
        let status = sender.send_request(request).await.ok()?.status();
        driver.abort();
        status
    };
    let code = i64::from(status.as_u16());
    check.expected.iter().any(|(start, end)| (*start..*end).contains(&code)).then_some(())
}
