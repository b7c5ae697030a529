//! The replicated state: what the store holds, and what is kept in memory to find it.
//!
//! One writer applies log entries ([`Keyspace::apply`] in `apply.rs`); readers take a [`Snapshot`], which pairs
//! the index with a view of the store so that both show the same revision.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::mvccpb::KeyValue;
use parking_lot::{RwLock, RwLockReadGuard};
use prost::Message;
use thiserror::Error;

use crate::engine::alarm::Alarms;
use crate::engine::auth::rules::Rules;
use crate::engine::history::Live;
use crate::engine::index::Index;
use crate::engine::lease::Lessor;
use crate::engine::revision::Revision;
use crate::engine::store::{Scan, Space, Store, StoreError, View, Write, system_key};
use crate::engine::watch::hub::Hub;

/// Bucket of revisions and log positions.
pub const META: &str = "meta";
/// Key of the newest compaction, as etcd names it.
pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
/// Key of the newest compaction whose removals are on their way to disk.
pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
/// Key of the position in the log up to which entries were applied.
pub const APPLIED: &[u8] = b"appliedPosition";
/// Key of the newest membership of the log.
pub const MEMBERSHIP: &[u8] = b"raftMembership";

/// Why the stored state cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content makes no sense.
    #[error("the store is damaged: {0}; restore the data folder from a snapshot or another member")]
    Damaged(String),
}

/// Place of an entry in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Its number.
    pub index: u64,
}

/// Times the state keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Shortest time to live of a lease in seconds.
    pub min_lease: i64,
    /// Time an unused token lives.
    pub token_ttl: std::time::Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { min_lease: 2, token_ttl: std::time::Duration::from_secs(300) }
    }
}

/// What is kept in memory.
#[derive(Debug)]
pub struct State {
    /// Keys and revisions.
    pub index: Index,
    /// Newest revision; 1 when nothing was ever written.
    pub revision: i64,
    /// Newest compaction, or -1.
    pub compacted: i64,
    /// Leases and what is attached to them.
    pub leases: Lessor,
    /// Alarms that are on.
    pub alarms: Alarms,
    /// Who may do what.
    pub auth: Rules,
    /// Last applied entry.
    pub applied: Option<Position>,
}

/// The replicated state and its store.
pub struct Keyspace {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: RwLock<State>,
    hub: Arc<Hub>,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").finish_non_exhaustive()
    }
}

/// The state at one moment, for readers.
pub struct Snapshot<'a> {
    /// Memory.
    pub state: RwLockReadGuard<'a, State>,
    /// Store.
    pub view: Box<dyn View + 'a>,
}

impl Keyspace {
    /// Reads the store and builds the index.
    ///
    /// # Errors
    /// When the store cannot be read or its content makes no sense.
    pub fn open(store: Arc<dyn Store>, times: Times) -> Result<Self, OpenError> {
        let state = restore(store.as_ref(), times)?;
        let hub = Arc::new(Hub::new(state.revision));
        Ok(Self { store, state: RwLock::new(state), hub })
    }

    /// Builds the index anew after the store's content was replaced.
    ///
    /// # Errors
    /// As [`Keyspace::open`].
    pub fn reload(&self) -> Result<(), OpenError> {
        let mut state = self.state.write();
        let times = Times { min_lease: state.leases.min_ttl(), token_ttl: state.auth.tokens.ttl() };
        let fresh = restore(self.store.as_ref(), times)?;
        *state = fresh;
        self.hub.jump(state.revision);
        Ok(())
    }

    /// Where watchers register.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The newest state. Appliers wait while it is held.
    pub fn snapshot(&self) -> Snapshot<'_> {
        let state = self.state.read();
        let view = self.store.view();
        Snapshot { state, view }
    }

    /// Memory only.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Newest membership of the log, in the log's own encoding.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn membership(&self) -> Result<Option<Bytes>, StoreError> {
        self.store.get(Space::System, &system_key(META, MEMBERSHIP))
    }

    /// Newest revision.
    pub fn revision(&self) -> i64 {
        self.state.read().revision
    }

    /// Changes what this member alone knows of tokens.
    pub fn with_auth<T>(&self, change: impl FnOnce(&mut Rules) -> T) -> T {
        change(&mut self.state.write().auth)
    }

    /// Changes leases that only the leader keeps time for.
    pub fn with_leases<T>(&self, change: impl FnOnce(&mut Lessor) -> T) -> T {
        change(&mut self.state.write().leases)
    }
}

/// Reads a stored key-value.
///
/// # Errors
/// When the bytes are none.
pub fn decode_kv(value: Bytes) -> Result<KeyValue, StoreError> {
    KeyValue::decode(value)
        .map_err(|error| StoreError { action: "read a key-value", reason: error.to_string() })
}

fn restore(store: &dyn Store, times: Times) -> Result<State, OpenError> {
    let view = store.view();
    let meta = |key: &[u8]| view.get(Space::System, &system_key(META, key));
    let compacted = read_main(meta(SCHEDULED_COMPACTION)?)?.unwrap_or(-1);
    let applied = meta(APPLIED)?.map(|bytes| decode_position(&bytes)).transpose()?;
    let mut state = State {
        index: Index::default(),
        revision: 1.max(compacted),
        compacted,
        leases: Lessor::restore(view.as_ref(), times.min_lease)?,
        alarms: Alarms::restore(view.as_ref())?,
        auth: Rules::restore(view.as_ref(), times.token_ttl)?,
        applied,
    };
    let mut damaged = None;
    view.scan(Space::Revisions, b"", None, &mut |key, value| match restore_revision(
        &mut state, key, value,
    ) {
        Ok(()) => Scan::More,
        Err(reason) => {
            damaged = Some(reason);
            Scan::Stop
        }
    })?;
    if let Some(reason) = damaged {
        return Err(OpenError::Damaged(reason));
    }
    let whole = crate::engine::index::KeyRange { from: Bytes::new(), to: None };
    for (key, live) in state.index.live_range(&whole).filter(|(_, live)| live.lease != 0) {
        state.leases.attach(live.lease, key);
    }
    drop(view);
    if compacted > 0 {
        let leftovers = state.index.compact(compacted);
        store.write(
            leftovers.into_iter().map(|key| Write::Delete(Space::Revisions, key)).collect(),
        )?;
    }
    Ok(state)
}

fn restore_revision(state: &mut State, key: &[u8], value: &[u8]) -> Result<(), String> {
    let (rev, tombstone) =
        Revision::from_key(key).ok_or_else(|| format!("{key:02x?} is no revision"))?;
    let kv =
        KeyValue::decode(value).map_err(|error| format!("value of revision {rev:?}: {error}"))?;
    state.revision = state.revision.max(rev.main);
    if tombstone {
        state.index.delete(&kv.key, rev);
    } else {
        let live = Live {
            modified: rev,
            created: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        };
        // A fresh copy, so that the key does not keep the whole value in memory.
        state.index.put(&Bytes::copy_from_slice(&kv.key), live);
    }
    Ok(())
}

fn read_main(bytes: Option<Bytes>) -> Result<Option<i64>, OpenError> {
    bytes
        .map(|bytes| {
            Revision::from_key(&bytes)
                .map(|(rev, _)| rev.main)
                .ok_or_else(|| OpenError::Damaged("the compaction mark is no revision".to_owned()))
        })
        .transpose()
}

/// Writes a position.
pub fn encode_position(position: Position) -> Bytes {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&position.term.to_be_bytes());
    bytes.extend_from_slice(&position.index.to_be_bytes());
    bytes.into()
}

fn decode_position(bytes: &[u8]) -> Result<Position, OpenError> {
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().map(u64::from_be_bytes).ok();
    match (number(0), number(8)) {
        (Some(term), Some(index)) if bytes.len() == 16 => Ok(Position { term, index }),
        _ => Err(OpenError::Damaged("the log position has a wrong length".to_owned())),
    }
}
