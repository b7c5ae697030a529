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

    /// What can be said without waiting; `None` when this backend has to ask somebody.
    fn serve_now(&self, query: &Query, client: &Client) -> Option<Outcome> {
        match self {
            Self::Hosts(hosts) => Some(hosts.serve(query)),
            Self::Kubernetes(kubernetes) => Some(kubernetes.serve(query)),
            Self::Whoami => Some(Outcome::Answer(whoami(query, client))),
            Self::Forward(forward) if !forward.is_for(query) => Some(Outcome::Pass),
            Self::Forward(_) => None,
        }
    }

    async fn serve(&self, query: &Query, client: &Client) -> Outcome {
        match self {
            Self::Forward(forward) => forward.serve(query, client).await,
            local => local.serve_now(query, client).unwrap_or(Outcome::Pass),
        }
    }
}

/// One zone of one server block on one port.
#[derive(Debug)]
pub struct Site {
    /// Zone, lower case.
    pub zone: Name,
    /// The zone as metrics show it.
    pub zone_text: String,
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
        match self.answer_now(query, client, limit) {
            Now::Answer(answer) => answer,
            Now::Ask(asking) => self.answer_later(asking, query, client, limit).await,
        }
    }

    /// The whole answer if nobody else has to be asked, else where to go on.
    pub fn answer_now(&self, query: &Query, client: &Client, limit: usize) -> Now {
        let started = Instant::now();
        if let Some(edns) = query.edns.filter(|edns| edns.version != 0) {
            return Now::Answer(bad_version(query, edns));
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
            return Now::Answer(refusal(query, REFUSED, limit));
        };
        if let Some(cache) = &site.cache {
            if let Some(message) = cache.get(query) {
                self.metrics.cache_hit(&site.server, &site.zone_text, message[3] & 0xF);
                return Now::Answer(
                    self.complete(site, query, client, limit, &message, "cache", started),
                );
            }
            self.metrics.cache_miss(&site.server, &site.zone_text);
        }
        for (index, backend) in site.backends.iter().enumerate() {
            match backend.serve_now(query, client) {
                None => return Now::Ask(Asking { site: site.clone(), next: index, started }),
                Some(Outcome::Pass) => {}
                Some(outcome) => {
                    let message = site.settle(query, outcome, backend.name());
                    return Now::Answer(self.keep_and_complete(
                        site,
                        query,
                        client,
                        limit,
                        &message,
                        backend.name(),
                        started,
                    ));
                }
            }
        }
        let message = site.settle(query, Outcome::Failed("no next plugin found".to_owned()), "");
        Now::Answer(self.keep_and_complete(site, query, client, limit, &message, "", started))
    }

    /// Goes on where [`Sites::answer_now`] had to stop.
    pub async fn answer_later(
        &self,
        asking: Asking,
        query: &Query,
        client: &Client,
        limit: usize,
    ) -> Vec<u8> {
        let Asking { site, next, started } = asking;
        for backend in &site.backends[next..] {
            match backend.serve(query, client).await {
                Outcome::Pass => {}
                outcome => {
                    let message = site.settle(query, outcome, backend.name());
                    return self.keep_and_complete(
                        &site,
                        query,
                        client,
                        limit,
                        &message,
                        backend.name(),
                        started,
                    );
                }
            }
        }
        let message = site.settle(query, Outcome::Failed("no next plugin found".to_owned()), "");
        self.keep_and_complete(&site, query, client, limit, &message, "", started)
    }

    #[allow(clippy::too_many_arguments, reason = "everything that is known about one answer")]
    fn keep_and_complete(
        &self,
        site: &Site,
        query: &Query,
        client: &Client,
        limit: usize,
        message: &[u8],
        plugin: &'static str,
        started: Instant,
    ) -> Vec<u8> {
        if let (Some(cache), Some(walked)) = (&site.cache, scan(message)) {
            cache.put(query, message, &walked);
        }
        self.complete(site, query, client, limit, message, plugin, started)
    }

    /// Fits an answer to the client and counts it.
    #[allow(clippy::too_many_arguments, reason = "everything that is known about one answer")]
    fn complete(
        &self,
        site: &Site,
        query: &Query,
        client: &Client,
        limit: usize,
        message: &[u8],
        plugin: &'static str,
        started: Instant,
    ) -> Vec<u8> {
        let answer =
            finish(message, query, limit).unwrap_or_else(|| refusal(query, SERVFAIL, limit));
        let rcode = answer[3] & 0xF;
        if site.metrics {
            self.metrics.response(
                &site.server,
                &site.zone_text,
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

/// What [`Sites::answer_now`] came to.
#[derive(Debug)]
pub enum Now {
    /// The bytes to send.
    Answer(Vec<u8>),
    /// Somebody has to be asked first.
    Ask(Asking),
}

/// Where an answer stands that waits for somebody.
#[derive(Debug)]
pub struct Asking {
    site: Arc<Site>,
    next: usize,
    started: Instant,
}

impl Site {
    /// The message of an outcome that is not `Pass`.
    fn settle(&self, query: &Query, outcome: Outcome, plugin: &'static str) -> Vec<u8> {
        match outcome {
            Outcome::Answer(message) => message,
            Outcome::Failed(reason) => {
                if self.errors {
                    tracing::error!(
                        "plugin/errors: 2 {} {}: {reason}",
                        query.name,
                        type_text(query.qtype)
                    );
                }
                MessageBuilder::answer(query, 0, SERVFAIL).build()
            }
            Outcome::Pass => {
                debug_assert!(false, "{plugin} passed and was settled");
                MessageBuilder::answer(query, 0, SERVFAIL).build()
            }
        }
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
