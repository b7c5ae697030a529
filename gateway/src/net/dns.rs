//! Clusters whose endpoints are names: resolved again and again, the last good answer kept.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::cluster::{Cluster, Endpoint};
use super::cluster_config::Discovery;

/// Follows the names of `cluster` until `stop` fires; `first` is told after the first round.
pub async fn follow(cluster: Arc<Cluster>, stop: CancellationToken, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    let mut known: Vec<Option<Vec<SocketAddr>>> = Vec::new();
    loop {
        let (templates, all) = match &cluster.config.discovery {
            Discovery::StrictDns(list) => (list, true),
            Discovery::LogicalDns(list) => (list, false),
            Discovery::Static(_) | Discovery::Eds(_) => return,
        };
        known.resize(templates.len(), None);
        let mut endpoints = Vec::new();
        for (template, last) in templates.iter().zip(&mut known) {
            if let Some(addresses) = resolve(&cluster, template).await {
                *last = Some(addresses);
            }
            let take = if all { usize::MAX } else { 1 };
            for address in last.iter().flatten().take(take) {
                endpoints.push(Endpoint { address: Address::Tcp(*address), ..template.clone() });
            }
        }
        cluster.update(&endpoints);
        if let Some(first) = first.take() {
            // Nobody waits when the cluster was removed meanwhile.
            let _ = first.send(());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(cluster.config.dns_refresh) => {}
        }
    }
}

/// The addresses of one endpoint, sorted; `None` when the resolver failed, so that the last answer stays.
async fn resolve(cluster: &Cluster, template: &Endpoint) -> Option<Vec<SocketAddr>> {
    let (name, port) = match &template.address {
        Address::Name(name, port) => (name, *port),
        Address::Tcp(address) => return Some(vec![*address]),
        Address::Unix(_) => return None,
    };
    let stats = &cluster.stats.base;
    stats.update_attempt.inc();
    match tokio::net::lookup_host((name.as_str(), port)).await {
        Ok(found) => {
            stats.update_success.inc();
            Some(select(found.collect(), cluster.config.dns_family))
        }
        Err(error) => {
            stats.update_failure.inc();
            tracing::debug!(cluster = cluster.config.name, name, %error, "cannot resolve");
            None
        }
    }
}

/// Applies `dns_lookup_family`: AUTO prefers IPv6, V4_ONLY, V6_ONLY, V4_PREFERRED, ALL.
fn select(found: BTreeSet<SocketAddr>, family: i32) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) =
        found.into_iter().partition(SocketAddr::is_ipv4);
    match family {
        1 => v4,
        2 => v6,
        3 if !v4.is_empty() => v4,
        4 => v4.into_iter().chain(v6).collect(),
        _ if !v6.is_empty() && family == 0 => v6,
        _ if v4.is_empty() => v6,
        _ => v4,
    }
}
