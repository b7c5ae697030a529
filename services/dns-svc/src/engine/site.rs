//! Server blocks compiled: which one serves a name, and what happens there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::file::join;
use super::query_log::log_query;
use super::rewrite::Rewritten;
use super::wrappers::{AclAction, Wrappers, add_extended_error, stopped};
use super::{Cache, Errors, Hosts, Kubernetes, LogRule, LoopGuard, Said, ZoneFiles, whoami};
use crate::metrics::{Metrics, SiteMetrics};
use crate::remote::Forward;
use crate::wire::types::{IN, NXDOMAIN, REFUSED, SERVFAIL, type_text};
use crate::wire::{MessageBuilder, Name, Query, bad_version, finish, scan};

/// How often an alias may lead from one zone to another.
const MAX_HOPS: u8 = 8;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The client's address.
    pub remote: SocketAddr,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// How often an alias led from one zone to another so far.
    pub hops: u8,
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
    /// Zones from files.
    Zones(ZoneFiles),
    /// The test for forwarding loops; it only watches.
    Loop(Arc<LoopGuard>),
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
            Self::Zones(zones) => zones.name(),
            Self::Loop(_) => "loop",
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
            Self::Zones(zones) => match zones.serve(query) {
                Said::Done(outcome) => Some(outcome),
                Said::Continue(..) => None,
            },
            Self::Loop(guard) => {
                guard.watch(query, client);
                Some(Outcome::Pass)
            }
            Self::Forward(forward) if !forward.is_for(query) => Some(Outcome::Pass),
            Self::Forward(_) => None,
        }
    }

    async fn serve(&self, query: &Query, client: &Client, sites: &Sites) -> Outcome {
        match self {
            Self::Zones(zones) => match zones.serve(query) {
                Said::Done(outcome) => outcome,
                Said::Continue(found, target) => {
                    let original = target.clone();
                    let next = Query { name: target, original, edns: query.edns, ..query.clone() };
                    let client = Client { hops: client.hops + 1, ..*client };
                    join(query, found, &Box::pin(sites.lookup(&next, &client)).await)
                }
            },
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
    /// Backends in plugin order.
    pub backends: Vec<Backend>,
    /// Answers kept, if the block has `cache`.
    pub cache: Option<Cache>,
    /// How failures are logged.
    pub errors: Option<Arc<Errors>>,
    /// Which queries are logged.
    pub log: Vec<LogRule>,
    /// The small plugins around the backends.
    pub wrappers: Wrappers,
    /// Whether classes besides IN are answered.
    pub any_class: bool,
    /// Counters of this zone and server.
    pub metrics: SiteMetrics,
}

/// All sites of one port; the longest zone wins.
#[derive(Debug)]
pub struct Sites {
    sites: Vec<Arc<Site>>,
    dropped: SiteMetrics,
}

impl Sites {
    /// The sites of a port.
    pub fn new(mut sites: Vec<Arc<Site>>, port: u16, metrics: &Metrics) -> Self {
        sites.sort_by_key(|site| std::cmp::Reverse(site.zone.wire().len()));
        let dropped = SiteMetrics::new(metrics, &format!("dns://:{port}"), "dropped", true);
        Self { sites, dropped }
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
            Now::Ask(asking) => self.answer_later(asking, query, client).await,
        }
    }

    /// The whole answer if nobody else has to be asked, else where to go on.
    pub fn answer_now(&self, query: &Query, client: &Client, limit: usize) -> Now {
        let started = Instant::now();
        if let Some(edns) = query.edns.filter(|edns| edns.version != 0) {
            return Now::Answer(bad_version(query, edns));
        }
        let Some(site) = self.find(&query.name) else {
            self.dropped.response(client, query, REFUSED, "", started.elapsed());
            return Now::Answer(refusal(query, REFUSED, limit));
        };
        let limit = site
            .wrappers
            .bufsize
            .filter(|_| !client.tcp)
            .map_or(limit, |size| limit.min(size.into()));
        if query.class != IN && !site.any_class {
            let message = MessageBuilder::answer(query, 0, REFUSED).build();
            return Now::Answer(
                self.complete(site, query, None, client, limit, &message, "", started),
            );
        }
        if let Some((message, plugin)) = site.wrappers.early(query) {
            return Now::Answer(
                self.complete(site, query, None, client, limit, &message, plugin, started),
            );
        }
        let rewritten = site.wrappers.rewrite(query);
        let back = rewritten.as_ref();
        let query = back.map_or(query, |rewritten| &rewritten.asked);
        match site.wrappers.check(query, client) {
            AclAction::Allow => {}
            AclAction::Drop => return Now::Answer(Vec::new()),
            action => {
                let (message, code) = stopped(query, action);
                let mut answer =
                    self.complete(site, query, back, client, limit, &message, "acl", started);
                add_extended_error(&mut answer, code);
                return Now::Answer(answer);
            }
        }
        if let Some(cache) = &site.cache {
            if let Some(message) = cache.get(query) {
                site.metrics.cache_hit(message[3] & 0xF);
                return Now::Answer(
                    self.complete(site, query, back, client, limit, &message, "cache", started),
                );
            }
            site.metrics.cache_miss();
        }
        for (index, backend) in site.backends.iter().enumerate() {
            match backend.serve_now(query, client) {
                None => {
                    return Now::Ask(Asking {
                        site: site.clone(),
                        next: index,
                        started,
                        rewritten,
                        limit,
                    });
                }
                Some(Outcome::Pass) => {}
                Some(outcome) => {
                    let message = site.settle(query, outcome, backend.name());
                    return Now::Answer(self.keep_and_complete(
                        site,
                        query,
                        back,
                        client,
                        limit,
                        message,
                        backend.name(),
                        started,
                    ));
                }
            }
        }
        let message = site.settle(query, site.exhausted(query), "");
        Now::Answer(self.keep_and_complete(site, query, back, client, limit, message, "", started))
    }

    /// Goes on where [`Sites::answer_now`] had to stop.
    pub async fn answer_later(&self, asking: Asking, query: &Query, client: &Client) -> Vec<u8> {
        let Asking { site, next, started, rewritten, limit } = asking;
        let back = rewritten.as_ref();
        let query = back.map_or(query, |rewritten| &rewritten.asked);
        for backend in &site.backends[next..] {
            match backend.serve(query, client, self).await {
                Outcome::Pass => {}
                outcome => {
                    let message = site.settle(query, outcome, backend.name());
                    return self.keep_and_complete(
                        &site,
                        query,
                        back,
                        client,
                        limit,
                        message,
                        backend.name(),
                        started,
                    );
                }
            }
        }
        let message = site.settle(query, site.exhausted(query), "");
        self.keep_and_complete(&site, query, back, client, limit, message, "", started)
    }

    /// Looks up what an alias of another zone leads to: a message that is neither counted nor fitted to a client.
    async fn lookup(&self, query: &Query, client: &Client) -> Vec<u8> {
        let Some(site) = self.find(&query.name) else {
            return MessageBuilder::answer(query, 0, REFUSED).build();
        };
        if client.hops > MAX_HOPS {
            return MessageBuilder::answer(query, 0, SERVFAIL).build();
        }
        if let Some(message) = site.cache.as_ref().and_then(|cache| cache.get(query)) {
            return message;
        }
        let mut message = MessageBuilder::answer(query, 0, SERVFAIL).build();
        for backend in &site.backends {
            match backend.serve(query, client, self).await {
                Outcome::Pass => {}
                outcome => {
                    message = site.settle(query, outcome, backend.name());
                    break;
                }
            }
        }
        if let (Some(cache), Some(walked)) = (&site.cache, scan(&message)) {
            cache.put(query, &mut message, &walked);
        }
        message
    }

    #[allow(clippy::too_many_arguments, reason = "everything that is known about one answer")]
    fn keep_and_complete(
        &self,
        site: &Site,
        query: &Query,
        back: Option<&Rewritten>,
        client: &Client,
        limit: usize,
        mut message: Vec<u8>,
        plugin: &'static str,
        started: Instant,
    ) -> Vec<u8> {
        if let (Some(cache), Some(walked)) = (&site.cache, scan(&message)) {
            cache.put(query, &mut message, &walked);
        }
        self.complete(site, query, back, client, limit, &message, plugin, started)
    }

    /// Fits an answer to the client and counts it.
    #[allow(clippy::too_many_arguments, reason = "everything that is known about one answer")]
    fn complete(
        &self,
        site: &Site,
        query: &Query,
        back: Option<&Rewritten>,
        client: &Client,
        limit: usize,
        message: &[u8],
        plugin: &'static str,
        started: Instant,
    ) -> Vec<u8> {
        let reverted = back.and_then(|rewritten| rewritten.revert(message));
        let (message, query) = match (&reverted, back) {
            (Some(reverted), Some(rewritten)) => (reverted.as_slice(), rewritten.original()),
            (None, Some(rewritten)) => (&[][..], rewritten.original()),
            _ => (message, query),
        };
        let mut answer =
            finish(message, query, limit).unwrap_or_else(|| refusal(query, SERVFAIL, limit));
        site.wrappers.mix(&mut answer);
        let rcode = answer[3] & 0xF;
        site.metrics.response(client, query, rcode, plugin, started.elapsed());
        if !site.log.is_empty() {
            log_query(&site.log, query, client, &answer, started.elapsed());
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
    rewritten: Option<Rewritten>,
    limit: usize,
}

impl Site {
    /// What is said when every backend passed.
    fn exhausted(&self, query: &Query) -> Outcome {
        match self.backends.last() {
            // An authoritative server refuses what is not its own.
            Some(Backend::Zones(_)) => {
                Outcome::Answer(MessageBuilder::answer(query, 0, REFUSED).build())
            }
            _ => Outcome::Failed("no next plugin found".to_owned()),
        }
    }

    /// The message of an outcome that is not `Pass`.
    fn settle(&self, query: &Query, outcome: Outcome, plugin: &'static str) -> Vec<u8> {
        match outcome {
            Outcome::Answer(message) => self.wrappers.shape(message),
            Outcome::Failed(reason) => {
                if let Some(errors) = &self.errors {
                    let line = format!("2 {} {}: {reason}", query.name, type_text(query.qtype));
                    errors.report(&reason, &line);
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

/// Whether a response code says that the name or the type is not there.
pub fn is_negative(rcode: u8, answers: usize) -> bool {
    rcode == NXDOMAIN || (rcode == 0 && answers == 0)
}
