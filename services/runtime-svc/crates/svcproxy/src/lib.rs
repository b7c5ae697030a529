//! Service addresses on a node, by nftables.
//!
//! Follows Services and EndpointSlices and keeps one table per address family in step with them: verdict maps
//! lead from a Service's address and port to a chain that picks an endpoint. The kernel does the rest; this
//! process is needed for changes only, and its rules outlive it unless it is told to clean up.
//!
//! - `engine` turns objects into a ruleset and two rulesets into one transaction; it is pure.
//! - `host` runs `nft` and `conntrack`.
//!
//! It does not do: NodePorts on loopback, topology hints, health check node ports.

mod config;
mod engine;
mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_kube_client::{Change, Client, ListParams, ObjectMeta, Reflector};
use flotilla_server::Shutdown;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use config::{Config, ProxyError};

use crate::engine::objects::{EndpointSlice, Service};
use crate::engine::{Family, Ruleset, Settings, rules};

/// Changes that come in this close together become one transaction.
const GATHER: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
/// How often the tables are checked for being there at all.
const VERIFY: Duration = Duration::from_secs(30);

/// Keeps the tables in step until `shutdown` fires.
///
/// # Errors
/// When `nft` cannot be run at all.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) -> Result<(), ProxyError> {
    config.check()?;
    host::check().await?;
    host::allow_bridged();
    tracing::info!(table = config.proxy_nft_table, "service proxy starts");
    let (sender, receiver) = mpsc::channel(64);
    let services =
        follow::<Service>(client.clone(), "/api/v1/services", sender.clone(), News::Services);
    let slices = follow::<EndpointSlice>(
        client,
        "/apis/discovery.k8s.io/v1/endpointslices",
        sender,
        News::Slices,
    );
    let mut proxy = Proxy::new(config);
    tokio::select! {
        () = shutdown.triggered() => {}
        () = services => {}
        () = slices => {}
        () = proxy.run(receiver) => {}
    }
    if proxy.config.proxy_cleanup_on_exit {
        for family in Family::ALL {
            host::apply(&engine::removal(family, &proxy.config.proxy_nft_table)).await?;
        }
        tracing::info!(table = proxy.config.proxy_nft_table, "removed the tables");
    }
    Ok(())
}

#[derive(Debug)]
enum News {
    Services(Change<Service>),
    Slices(Change<EndpointSlice>),
}

async fn follow<T: DeserializeOwned>(
    client: Client,
    path: &str,
    sender: mpsc::Sender<News>,
    wrap: fn(Change<T>) -> News,
) {
    let mut reflector = Reflector::<T>::new(client, path, ListParams::default());
    while sender.send(wrap(reflector.next().await)).await.is_ok() {}
}

type Key = (String, String);

/// The objects and what the kernel was told of them.
#[derive(Debug)]
struct Proxy {
    config: Config,
    services: Option<BTreeMap<Key, Service>>,
    slices: Option<BTreeMap<Key, EndpointSlice>>,
    applied: BTreeMap<Family, Ruleset>,
}

fn key(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone(), meta.name.clone())
}

fn note<T>(
    all: &mut Option<BTreeMap<Key, T>>,
    change: Change<T>,
    meta: impl Fn(&T) -> &ObjectMeta,
) {
    let known = all.get_or_insert_default();
    match change {
        Change::Replaced(list) => {
            *known = list.into_iter().map(|object| (key(meta(&object)), object)).collect()
        }
        Change::Applied(object) => drop(known.insert(key(meta(&object)), object)),
        Change::Deleted(object) => drop(known.remove(&key(meta(&object)))),
    }
}

impl Proxy {
    fn new(config: Config) -> Self {
        Self { config, services: None, slices: None, applied: BTreeMap::new() }
    }

    async fn run(&mut self, mut news: mpsc::Receiver<News>) {
        let mut due: Option<Instant> = None;
        let mut verify = tokio::time::interval(VERIFY);
        loop {
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = news.recv() => {
                    match change {
                        Some(News::Services(change)) => note(&mut self.services, change, |s| &s.metadata),
                        Some(News::Slices(change)) => note(&mut self.slices, change, |s| &s.metadata),
                        None => return,
                    }
                    due = due.or(Some(Instant::now() + GATHER));
                }
                () = wait => due = self.sync().await.err().map(|error| {
                    tracing::error!(%error, "the ruleset was not taken; all of it will be written anew");
                    self.applied.clear();
                    Instant::now() + RETRY
                }),
                _ = verify.tick() => if self.is_damaged().await {
                    tracing::warn!("somebody removed the tables; writing them anew");
                    self.applied.clear();
                    due = Some(Instant::now());
                },
            }
        }
    }

    async fn is_damaged(&self) -> bool {
        for family in self.applied.keys() {
            if !host::has_table(*family, &self.config.proxy_nft_table).await {
                return true;
            }
        }
        false
    }

    async fn sync(&mut self) -> Result<(), ProxyError> {
        let (Some(services), Some(slices)) = (&self.services, &self.slices) else { return Ok(()) };
        let settings = Settings {
            table: self.config.proxy_nft_table.clone(),
            node: self.config.node_name.clone(),
            cluster_cidrs: self.config.cluster_cidr.clone(),
            masquerade_all: self.config.masquerade_all,
            mark: self.config.mark(),
        };
        let ports = engine::ports::resolve(services.values(), slices.values(), &settings.node);
        for family in Family::ALL {
            let wanted = rules(family, &settings, &ports);
            let old = self.applied.get(&family);
            let text = match old {
                Some(old) => wanted.difference(old, family, &settings.table),
                None => wanted.whole(family, &settings.table),
            };
            if text.is_empty() {
                continue;
            }
            host::apply(&text).await?;
            let stale = old.map(|old| wanted.stale_flows(old)).unwrap_or_default();
            self.applied.insert(family, wanted);
            host::forget_flows(&stale).await;
        }
        Ok(())
    }
}
