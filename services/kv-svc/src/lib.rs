//! kv-svc: a key-value store that speaks etcd's v3 API.
//!
//! Requests enter through `api`, are validated and proposed by `engine`, travel through the replicated log of
//! `cluster`, and land in the store of `store`. [`run`] is the only place that knows all of them.

pub mod api;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use flotilla_config::{ExitError, ListenAddr};
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::v3electionpb::election_server::ElectionServer;
use flotilla_proto::etcd::v3lockpb::lock_server::LockServer;
use flotilla_proto::kv_admin::flotilla::kv::v1::admin_server::AdminServer;
use flotilla_server::{Grpc, HealthHandle, Listener, ServeOptions, Shutdown, TlsServer, serve};
use openraft::BasicNode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::cluster::identity::{cluster_id, member_id};
use crate::cluster::keeper::{Keeping, keep};
use crate::cluster::log_store::LogStore;
use crate::cluster::machine::Machine;
use crate::cluster::raft::{RaftConsensus, Timing};
use crate::config::Config;
use crate::engine::apply::Garbage;
use crate::engine::compact::sweep;
use crate::engine::keyspace::{Keyspace, Times};
use crate::engine::retention;
use crate::engine::server::{Identity, Limits, Server};
use crate::store::rocks::RocksStore;
use crate::store::wal;

/// Time a member may take to repeat its log at the start.
const START_LIMIT: Duration = Duration::from_secs(300);

/// Serves until `shutdown` fires, or the log fails.
///
/// # Errors
/// When an address is taken, the data folder cannot be used, or disk or store fail while running.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    for flag in &config.moot {
        tracing::warn!(flag, "this flag has nothing to tune here");
    }
    let tls = client_tls(&config)?;
    let clients = bind(&config.listen_client, "client").await?;
    let metrics = bind(&config.listen_metrics, "metrics").await?;
    let member = Member::start(&config).await?;
    let registry = Arc::new(metrics::registry(&member.server));
    let pages = api::pages::router(member.server.clone(), registry);
    let (grpc, health) = services(&member, &config).await;
    let json = api::gateway::router(grpc.clone(), config.max_request_bytes);
    let router = grpc.merge(pages.clone()).merge(json);
    let options = ServeOptions {
        max_streams: config.max_streams,
        keepalive: config.keepalive,
        window: 1 << 20,
        ..ServeOptions::default()
    };
    let mut serving = tokio::task::JoinSet::new();
    for (listener, router, tls) in clients
        .into_iter()
        .map(|l| (l, router.clone(), tls.clone()))
        .chain(metrics.into_iter().map(|l| (l, pages.clone(), None)))
    {
        serving.spawn(serve(listener, router, tls, options.clone(), shutdown.clone()));
    }
    health.set_serving(true).await;
    tracing::info!("ready to serve client requests");
    let outcome = tokio::select! {
        () = shutdown.triggered() => Ok(()),
        reason = RaftConsensus::failed(member.consensus.raft().clone()) => {
            Err(ExitError::runtime(format!("the log failed and this process must end: {reason}")))
        }
    };
    health.set_serving(false).await;
    shutdown.trigger();
    while serving.join_next().await.is_some() {}
    member.stop().await;
    outcome
}

/// TLS for clients when a certificate is configured. Files that change are used from the next handshake on.
fn client_tls(config: &Config) -> Result<Option<Arc<TlsServer>>, ExitError> {
    let Some(files) = &config.client_tls else { return Ok(None) };
    TlsServer::load(files.clone()).map(|tls| Some(Arc::new(tls))).map_err(ExitError::config)
}

async fn bind(addresses: &[ListenAddr], what: &str) -> Result<Vec<Listener>, ExitError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = Listener::bind(address).await.map_err(ExitError::unavailable)?;
        let bound = listener.local_addr().map_err(ExitError::unavailable)?;
        tracing::info!(address = %bound, "serving {what} requests");
        listeners.push(listener);
    }
    Ok(listeners)
}

struct Member {
    server: Arc<Server>,
    consensus: Arc<RaftConsensus>,
    this: pb::Member,
    tasks: tokio::task::JoinSet<()>,
}

impl Member {
    async fn start(config: &Config) -> Result<Self, ExitError> {
        let id = member_id(&config.advertise_peer, &config.token, None);
        let root = config.data_dir.join("member");
        create_private(&config.data_dir)?;
        create_private(&root)?;
        let times = Times { min_lease: config.min_lease_ttl(), token_ttl: config.token_ttl };
        let store = RocksStore::open(&root.join("store")).map_err(ExitError::unavailable)?;
        let keyspace = Keyspace::open(Arc::new(store), times).map_err(ExitError::unavailable)?;
        let keyspace = Arc::new(keyspace);
        let log = open_log(config, &root)?;
        let (garbage, sweeping) = unbounded_channel();
        let machine = Machine::new(keyspace.clone(), garbage).map_err(ExitError::unavailable)?;
        let timing = Timing { heartbeat: config.heartbeat, election: config.election };
        let members = BTreeMap::from([(id, BasicNode::new(config.advertise_peer.join(",")))]);
        let consensus = RaftConsensus::start(id, members, timing, log.clone(), machine)
            .await
            .map_err(ExitError::unavailable)?;
        consensus.ready(START_LIMIT).await.map_err(ExitError::unavailable)?;
        let consensus = Arc::new(consensus);
        let limits = Limits {
            request_bytes: config.max_request_bytes,
            txn_ops: config.max_txn_ops,
            quota_bytes: config.quota_bytes,
            bcrypt_cost: config.bcrypt_cost,
        };
        let identity = Identity { cluster: cluster_id(&[id]), member: id };
        let server = Arc::new(Server::new(keyspace.clone(), consensus.clone(), identity, limits));
        let mut tasks = tokio::task::JoinSet::new();
        let keeping =
            Keeping { flush_entries: config.snapshot_count, keep_entries: config.catchup_entries };
        tasks.spawn(keep(consensus.raft().clone(), log, keeping));
        tasks.spawn(RaftConsensus::follow_leadership(consensus.raft().clone(), keyspace.clone()));
        tasks.spawn(server.clone().revoke_ended());
        tasks.spawn(retention::keep(server.clone(), config.retention));
        tasks.spawn(sweep_garbage(keyspace, sweeping));
        let this = pb::Member {
            id,
            name: config.name.clone(),
            peer_ur_ls: config.advertise_peer.clone(),
            client_ur_ls: config.advertise_client.clone(),
            is_learner: false,
        };
        Ok(Self { server, consensus, this, tasks })
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Err(error) = self.consensus.raft().shutdown().await {
            tracing::warn!(%error, "the log did not stop cleanly");
        }
        if let Err(error) = self.server.keyspace().store().flush() {
            tracing::warn!(%error, "the store could not be flushed; the log repeats what is missing");
        }
    }
}

fn create_private(dir: &Path) -> Result<(), ExitError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        ExitError::unavailable(format!(
            "cannot create {}: {error}; choose another --data-dir",
            dir.display()
        ))
    })
}

fn open_log(config: &Config, root: &Path) -> Result<LogStore, ExitError> {
    let dir = config.wal_dir.clone().unwrap_or_else(|| root.join("wal"));
    let recovered = wal::recover(&dir).map_err(ExitError::unavailable)?;
    if let Some(frame) = recovered.torn {
        tracing::warn!(frame, "cut off the end of the log that a crash left unfinished");
    }
    let fail = |error: std::io::Error| {
        ExitError::unavailable(format!("cannot open the log in {}: {error}", dir.display()))
    };
    let writer = wal::WalWriter::open(&dir, &recovered, config.fsync).map_err(fail)?;
    let log = writer.spawn().map_err(fail)?;
    LogStore::new(recovered, log).map_err(fail)
}

async fn sweep_garbage(keyspace: Arc<Keyspace>, mut garbage: UnboundedReceiver<Garbage>) {
    while let Some(keys) = garbage.recv().await {
        let keyspace = keyspace.clone();
        match tokio::task::spawn_blocking(move || sweep(&keyspace, keys)).await {
            Ok(Ok(removed)) => tracing::info!(removed, "finished scheduled compaction"),
            Ok(Err(error)) => tracing::error!(%error, "a compaction left revisions behind"),
            Err(_) => return,
        }
    }
}

/// A file without a name in the data folder; it is gone when it is closed.
fn scratch_file(folder: &Path) -> std::io::Result<std::fs::File> {
    let path = folder.join(format!("snapshot-{:016x}.tmp", rand::random::<u64>()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn services(member: &Member, config: &Config) -> (Router, HealthHandle) {
    let server = &member.server;
    let receive = usize::MAX;
    let watch =
        api::watch::WatchApi { server: server.clone(), progress_every: config.watch_progress };
    let cluster = api::cluster::ClusterApi { server: server.clone(), this: member.this.clone() };
    let (keyspace, folder) = (server.keyspace().clone(), config.data_dir.clone());
    let export = move || store::export::export(&keyspace, scratch_file(&folder)?);
    let maintenance =
        api::maintenance::MaintenanceApi { server: server.clone(), export: Arc::new(export) };
    let descriptors =
        [flotilla_proto::etcd::FILE_DESCRIPTOR_SET, flotilla_proto::kv_admin::FILE_DESCRIPTOR_SET];
    macro_rules! limits {
        ($service:expr) => {
            $service.max_decoding_message_size(receive).max_encoding_message_size(receive)
        };
    }
    Grpc::new(descriptors)
        .add(limits!(pb::kv_server::KvServer::new(api::kv::KvApi(server.clone()))))
        .add(limits!(pb::watch_server::WatchServer::new(watch)))
        .add(limits!(pb::lease_server::LeaseServer::new(api::lease::LeaseApi(server.clone()))))
        .add(pb::cluster_server::ClusterServer::new(cluster))
        .add(limits!(pb::maintenance_server::MaintenanceServer::new(maintenance)))
        .add(pb::auth_server::AuthServer::new(api::auth::AuthApi(server.clone())))
        .add(LockServer::new(api::lock::LockApi(server.clone())))
        .add(ElectionServer::new(api::election::ElectionApi(server.clone())))
        .add(AdminServer::new(api::admin::AdminApi(server.clone())))
        .into_router()
        .await
}
