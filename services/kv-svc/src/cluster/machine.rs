//! The key space as openraft's state machine.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use crate::cluster::membership;
use crate::cluster::types::{LogId, Proposal, StoredMembership, TypeConfig};
use crate::engine::apply::{Command, Entry, Garbage, Reply};
use crate::engine::keyspace::{Keyspace, Position};
use crate::engine::store::StoreError;

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Entries applied in one batch at most.
const BATCH: usize = 1_024;

/// The content of a snapshot. Ours is the store itself: building one makes the store durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotData;

/// Applies committed entries.
#[derive(Debug, Clone)]
pub struct Machine {
    keyspace: Arc<Keyspace>,
    /// What the store holds for certain.
    durable: Arc<Mutex<SnapshotMeta>>,
    garbage: UnboundedSender<Garbage>,
}

fn failed(error: StoreError) -> io::Error {
    tracing::error!(%error, "applying stops here");
    io::Error::other(error)
}

impl Machine {
    /// A machine over a key space. What compactions leave behind goes to `garbage`.
    ///
    /// # Errors
    /// When the stored membership does not read.
    pub fn new(keyspace: Arc<Keyspace>, garbage: UnboundedSender<Garbage>) -> io::Result<Self> {
        let durable = Arc::new(Mutex::new(SnapshotMeta::default()));
        let machine = Self { keyspace, durable, garbage };
        *machine.durable.lock() = machine.meta()?;
        Ok(machine)
    }

    fn meta(&self) -> io::Result<SnapshotMeta> {
        let applied = self.keyspace.state().applied;
        let last_membership = match self.keyspace.membership().map_err(failed)? {
            Some(bytes) => membership::decode(&bytes)
                .ok_or_else(|| io::Error::other("the stored membership does not read"))?,
            None => StoredMembership::default(),
        };
        Ok(SnapshotMeta {
            last_log_id: applied.map(|at| membership::log_id(at.term, at.index)),
            last_membership,
        })
    }
}

fn to_engine(id: &LogId, payload: &EntryPayload<Proposal, u64, openraft::BasicNode>) -> Entry {
    let position = Position { term: **id.committed_leader_id(), index: id.index() };
    let command = match payload {
        EntryPayload::Blank => Command::Nothing,
        EntryPayload::Normal(Proposal(request)) => Command::Request(request.clone()),
        EntryPayload::Membership(members) => {
            Command::Membership(membership::encode(members, Some(id)))
        }
    };
    Entry { position, command }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let meta = self.meta()?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = (&mut entries).ready_chunks(BATCH);
        while let Some(chunk) = chunks.next().await {
            let mut batch = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                batch.push(to_engine(&entry.log_id, &entry.payload));
                responders.push(responder);
            }
            let (replies, garbage) = self.keyspace.apply(&batch).map_err(failed)?;
            for (responder, reply) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            if !garbage.is_empty() {
                // The sweeper is gone only when the process ends.
                let _ = self.garbage.send(garbage);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        _snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        Err(io::Error::other("this member has no peers to take a snapshot from"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let meta = self.durable.lock().clone();
        Ok(meta.last_log_id.is_some().then_some(Snapshot { meta, snapshot: SnapshotData }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        // Taken before the flush: the store holds at least this afterwards.
        let meta = self.meta()?;
        let keyspace = self.keyspace.clone();
        tokio::task::spawn_blocking(move || keyspace.store().flush())
            .await
            .map_err(io::Error::other)?
            .map_err(failed)?;
        *self.durable.lock() = meta.clone();
        Ok(Snapshot { meta, snapshot: SnapshotData })
    }
}

/// Whether a reply tells that nothing was done.
pub fn is_nothing(reply: &Reply) -> bool {
    matches!(reply, Reply::Nothing)
}
