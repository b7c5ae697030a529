//! Server blocks compiled: which one serves a name, and what happens there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Cache, Hosts, Kubernetes, whoami};
use crate::metrics::Metrics;
use crate::remote::Forward;
use crate::wire::types::{NXDOMAIN, REFUSED, SERVFAIL, rcode_text, type_text};
use crate::wire::{MessageBuilder, Name, Query, bad_version, finish, scan};

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The client's address.
    pub remote: SocketAddr,
    /// Whether it came over TCP.
    pub tcp: bool,
}

/// What a backend says to a query.
#[derive(Debug)]
pub enum Outcome {
    /// The whole answer, without OPT.
    Answer(Vec<u8>),
    /// Not mine: ask the next one.
    Pass,
    /// It failed; the text goes to the `errors` plugin.
    Failed(String),
}

/// Something that can answer.
#[derive(Debug)]
pub enum Backend {
    /// Static names.
    Hosts(Hosts),
    /// Names of a cluster.
    Kubernetes(Arc<Kubernetes>),
    /// Other servers.
    Forward(Forward),
    /// The client's own address.
    Whoami,
}

impl Backend {
    /// Name of the plugin.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hosts(_) => "hosts",
            Self::Kubernetes(_) => "kubernetes",
            Self::Forward(_) => "forward",
            Self::Whoami => "whoami",
        }
    }

    async fn serve(&self, query: &Query, client: &Client) -> Outcome {
        match self {
            Self::Hosts(hosts) => hosts.serve(query),
            Self::Kubernetes(kubernetes) => kubernetes.serve(query),
            Self::Forward(forward) => forward.serve(query, client).await,
            Self::Whoami => Outcome::Answer(whoami(query, client)),
        }
    }
}

/// One zone of one server block on one port.
#[derive(Debug)]
pub struct Site {
    /// Zone, lower case.
    pub zone: Name,
    /// `dns://:PORT`, as metrics show it.
    pub server: String,
    /// Backends in plugin order.
    pub backends: Vec<Backend>,
    /// Answers kept, if the block has `cache`.
    pub cache: Option<Cache>,
    /// Whether failures are logged.
    pub errors: bool,
    /// Whether queries are logged.
    pub log: bool,
    /// Whether answers count in the metrics.
    pub metrics: bool,
}

/// All sites of one port; the longest zone wins.
#[derive(Debug)]
pub struct Sites {
    sites: Vec<Arc<Site>>,
    server: String,
    metrics: Arc<Metrics>,
}

impl Sites {
    /// The sites of a port.
    pub fn new(mut sites: Vec<Arc<Site>>, port: u16, metrics: Arc<Metrics>) -> Self {
        sites.sort_by_key(|site| std::cmp::Reverse(site.zone.wire().len()));
        Self { sites, server: format!("dns://:{port}"), metrics }
    }

    /// The sites, longest zone first.
    pub fn list(&self) -> &[Arc<Site>] {
        &self.sites
    }

    /// The site that serves `name`.
    pub fn find(&self, name: &Name) -> Option<&Arc<Site>> {
        self.sites.iter().find(|site| name.is_within(&site.zone))
    }

    /// Answers one query completely: bytes to send, at most `limit` long.
    pub async fn answer(&self, query: &Query, client: &Client, limit: usize) -> Vec<u8> {
        let started = Instant::now();
        if let Some(edns) = query.edns.filter(|edns| edns.version != 0) {
            return bad_version(query, edns);
        }
        let Some(site) = self.find(&query.name) else {
            self.metrics.response(
                &self.server,
                "dropped",
                client,
                query,
                REFUSED,
                "",
                started.elapsed(),
            );
            return refusal(query, REFUSED, limit);
        };
        let (message, plugin) = site.resolve(query, client, &self.metrics).await;
        let answer =
            finish(&message, query, limit).unwrap_or_else(|| refusal(query, SERVFAIL, limit));
        let rcode = answer[3] & 0xF;
        if site.metrics {
            let zone = site.zone.to_string();
            self.metrics.response(
                &site.server,
                &zone,
                client,
                query,
                rcode,
                plugin,
                started.elapsed(),
            );
        }
        if site.log {
            log_query(query, client, rcode, answer.len(), started.elapsed());
        }
        answer
    }
}

impl Site {
    /// The answer before it is fitted to the client, and which plugin gave it.
    async fn resolve(
        &self,
        query: &Query,
        client: &Client,
        metrics: &Metrics,
    ) -> (Vec<u8>, &'static str) {
        if let Some(cache) = &self.cache {
            if let Some(message) = cache.get(query) {
                metrics.cache_hit(&self.server, &self.zone, message[3] & 0xF);
                return (message, "cache");
            }
            metrics.cache_miss(&self.server, &self.zone);
        }
        let (message, plugin) = self.ask_backends(query, client).await;
        if let (Some(cache), Some(walked)) = (&self.cache, scan(&message)) {
            cache.put(query, &message, &walked);
        }
        (message, plugin)
    }

    async fn ask_backends(&self, query: &Query, client: &Client) -> (Vec<u8>, &'static str) {
        for backend in &self.backends {
            match backend.serve(query, client).await {
                Outcome::Answer(message) => return (message, backend.name()),
                Outcome::Pass => {}
                Outcome::Failed(reason) => {
                    if self.errors {
                        tracing::error!(
                            "plugin/errors: 2 {} {}: {reason}",
                            query.name,
                            type_text(query.qtype)
                        );
                    }
                    return (MessageBuilder::answer(query, 0, SERVFAIL).build(), backend.name());
                }
            }
        }
        if self.errors {
            tracing::error!(
                "plugin/errors: 2 {} {}: no next plugin found",
                query.name,
                type_text(query.qtype)
            );
        }
        (MessageBuilder::answer(query, 0, SERVFAIL).build(), "")
    }
}

fn refusal(query: &Query, rcode: u8, limit: usize) -> Vec<u8> {
    let message = MessageBuilder::answer(query, 0, rcode).build();
    finish(&message, query, limit).unwrap_or(message)
}

/// CoreDNS's `{common}` log format: client - id "type class name proto size do bufsize" rcode rflags rsize duration.
fn log_query(query: &Query, client: &Client, rcode: u8, size: usize, took: std::time::Duration) {
    let proto = if client.tcp { "tcp" } else { "udp" };
    let buffer = query.udp_limit();
    tracing::info!(
        "{} - {} \"{} {} {} {proto} {} {} {buffer}\" {} {size} {:.9}s",
        client.remote,
        query.id,
        type_text(query.qtype),
        if query.class == 1 { "IN" } else { "CLASS" },
        query.original,
        query.original.wire().len() + 16,
        query.wants_dnssec(),
        rcode_text(rcode),
        took.as_secs_f64()
    );
}

/// Whether a response code says that the name or the type is not there.
pub fn is_negative(rcode: u8, answers: usize) -> bool {
    rcode == NXDOMAIN || (rcode == 0 && answers == 0)
}
