//! openraft as the engine's `Consensus`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use flotilla_proto::etcd::etcdserverpb::InternalRaftRequest;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{BasicNode, Config, SnapshotPolicy};
use thiserror::Error;

use crate::cluster::log_store::LogStore;
use crate::cluster::machine::Machine;
use crate::cluster::network::Alone;
use crate::cluster::types::{Proposal, Raft, TypeConfig};
use crate::engine::apply::Reply;
use crate::engine::consensus::{Consensus, Standing};
use crate::engine::keyspace::Keyspace;
use crate::error::KvError;

/// Proposals in flight before more are refused.
const MAX_IN_FLIGHT: usize = 20_000;

/// Why a member cannot take part.
#[derive(Debug, Error)]
#[error("cannot {action}: {reason}")]
pub struct RaftStartError {
    action: &'static str,
    reason: String,
}

/// Times of elections.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Without a heartbeat before an election.
    pub election: Duration,
}

/// A member's part in the log.
#[derive(Debug)]
pub struct RaftConsensus {
    raft: Raft,
    timeout: Duration,
    in_flight: AtomicUsize,
}

fn start_error(action: &'static str, reason: impl std::fmt::Display) -> RaftStartError {
    RaftStartError { action, reason: reason.to_string() }
}

impl RaftConsensus {
    /// Starts a member and, when its log is empty, a cluster of `members`.
    ///
    /// # Errors
    /// When the log or the store cannot be used.
    pub async fn start(
        id: u64,
        members: BTreeMap<u64, BasicNode>,
        timing: Timing,
        log: LogStore,
        machine: Machine,
    ) -> Result<Self, RaftStartError> {
        let election = timing.election.as_millis() as u64;
        let config = Config {
            cluster_name: "kv-svc".to_owned(),
            heartbeat_interval: timing.heartbeat.as_millis() as u64,
            election_timeout_min: election,
            election_timeout_max: election * 2,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            ..Config::default()
        };
        let config =
            Arc::new(config.validate().map_err(|e| start_error("use the election times", e))?);
        let raft = Raft::new(id, config, Alone, log, machine)
            .await
            .map_err(|e| start_error("start the log", e))?;
        let fresh = !raft.is_initialized().await.map_err(|e| start_error("read the log", e))?;
        if fresh {
            raft.initialize(members).await.map_err(|e| start_error("start a cluster", e))?;
        }
        let timeout = Duration::from_secs(5) + 2 * timing.election;
        Ok(Self { raft, timeout, in_flight: AtomicUsize::new(0) })
    }

    /// The raft handle.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Waits until this member follows a leader and has applied what its log held at the start.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<(), RaftStartError> {
        let caught_up = |m: &openraft::RaftMetrics<TypeConfig>| {
            let committed = m.cluster_committed.map(|id| id.index());
            m.current_leader.is_some()
                && committed.is_some()
                && committed >= m.last_log_index
                && m.last_applied.map(|id| id.index()) >= committed
        };
        self.raft
            .wait(Some(limit))
            .metrics(caught_up, "a leader and an applied log")
            .await
            .map(drop)
            .map_err(|e| start_error("catch up with the log", e))
    }

    /// Tells the key space when this member starts or stops to lead, until the log closes.
    pub async fn follow_leadership(raft: Raft, keyspace: Arc<Keyspace>) {
        let mut metrics = raft.metrics();
        let mut leading = None;
        loop {
            let now = {
                let metrics = metrics.borrow_watched();
                (metrics.current_leader == Some(metrics.id)).then_some(metrics.current_term)
            };
            if now != leading {
                keyspace.with_leases(|leases| leases.lead(now.is_some(), Instant::now()));
                leading = now;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the log fails, which it does when disk or store fail, and says why.
    pub async fn failed(raft: Raft) -> String {
        let mut metrics = raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the log stopped".to_owned();
            }
        }
    }

    fn sole_voter(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.voter_ids();
        voters.next() == Some(metrics.id)
            && voters.next().is_none()
            && metrics.current_leader == Some(metrics.id)
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Consensus for RaftConsensus {
    async fn propose(&self, request: InternalRaftRequest) -> Result<Reply, KvError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _slot = InFlight(&self.in_flight);
        if before >= MAX_IN_FLIGHT {
            return Err(KvError::TooManyRequests);
        }
        let write = self.raft.client_write(Proposal(Arc::new(request)));
        match tokio::time::timeout(self.timeout, write).await {
            Err(_) => Err(KvError::Timeout),
            Ok(Ok(response)) => response.data,
            Ok(Err(RaftError::Fatal(_))) => Err(KvError::Stopped),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(KvError::NoLeader)
            }
            Ok(Err(RaftError::APIError(error))) => {
                tracing::warn!(%error, "a proposal was dropped");
                Err(KvError::LeaderChanged)
            }
        }
    }

    async fn read_barrier(&self) -> Result<(), KvError> {
        // Alone, this member applies before it acknowledges, so its state is never behind an acknowledgement.
        if self.sole_voter() {
            return Ok(());
        }
        let read = self.raft.ensure_linearizable(openraft::ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.timeout, read).await {
            Err(_) => Err(KvError::Timeout),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(_))) => Err(KvError::Stopped),
            Ok(Err(RaftError::APIError(_))) => Err(KvError::NoLeader),
        }
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let learner = !metrics.membership_config.voter_ids().any(|id| id == metrics.id);
        Standing {
            leader: metrics.current_leader.unwrap_or(0),
            term: metrics.current_term,
            committed: metrics.cluster_committed.map_or(0, |id| id.index()),
            applied: metrics.last_applied.map_or(0, |id| id.index()),
            learner,
        }
    }

    async fn transfer(&self, target: u64) -> Result<(), KvError> {
        if self.standing().leader == target { Ok(()) } else { Err(KvError::BadLeaderTransferee) }
    }
}
