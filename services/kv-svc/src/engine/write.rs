//! Changes on their way into the store: one batch for several log entries.

use std::collections::HashMap;

use bytes::Bytes;
use flotilla_proto::etcd::mvccpb::KeyValue;
use prost::Message;

use crate::engine::history::Live;
use crate::engine::index::KeyRange;
use crate::engine::keyspace::{State, decode_kv};
use crate::engine::range::Source;
use crate::engine::revision::Revision;
use crate::engine::store::{Batch, Scan, Space, Store, StoreError, Write};

/// One change of a transaction, as watchers need it.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key-value after a put; only key and mod_revision after a deletion.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// Where the value before was written.
    pub previous: Option<Revision>,
}

/// The changes of one transaction.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The transaction.
    pub revision: i64,
    /// In order of their sub-revision.
    pub list: Vec<Change>,
}

/// Applies requests to the state in memory and collects what goes to the store.
pub struct Writer<'a> {
    /// The state, already changed.
    pub state: &'a mut State,
    store: &'a dyn Store,
    /// What the store does not hold yet.
    pub batch: Batch,
    /// Revision keys a compaction made superfluous; removed in the background.
    pub garbage: Vec<Bytes>,
    pending: HashMap<Revision, Bytes>,
    open: Vec<Change>,
    /// Finished transactions.
    pub done: Vec<Changes>,
}

impl<'a> Writer<'a> {
    /// A writer without changes.
    pub fn new(state: &'a mut State, store: &'a dyn Store) -> Self {
        Self {
            state,
            store,
            batch: Vec::new(),
            garbage: Vec::new(),
            pending: HashMap::new(),
            open: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Sets a key in the open transaction.
    pub fn put(&mut self, key: &Bytes, value: Bytes, lease: i64) {
        let revision = Revision::new(self.state.revision + 1, self.open.len() as i64);
        let old = self.state.index.live(key).copied();
        let live = Live {
            modified: revision,
            created: old.map_or(revision.main, |old| old.created),
            version: old.map_or(1, |old| old.version + 1),
            lease,
        };
        let kv = KeyValue {
            key: key.clone(),
            create_revision: live.created,
            mod_revision: revision.main,
            version: live.version,
            value,
            lease,
        };
        let bytes: Bytes = kv.encode_to_vec().into();
        self.batch.push(Write::Put(Space::Revisions, revision.to_key(false).into(), bytes.clone()));
        self.batch.push(Write::Put(Space::Heads, key.clone(), bytes.clone()));
        self.pending.insert(revision, bytes);
        // The index owns a copy: a slice of the request would keep the request in memory.
        let owned =
            if old.is_some() && lease == 0 { key.clone() } else { Bytes::copy_from_slice(key) };
        self.state.index.put(&owned, live);
        let old_lease = old.map_or(0, |old| old.lease);
        if old_lease != lease {
            self.state.leases.detach(old_lease, key);
            self.state.leases.attach(lease, &owned);
        }
        self.open.push(Change { kv, deleted: false, previous: old.map(|old| old.modified) });
    }

    /// Deletes the live keys of a range in the open transaction and says how many there were.
    pub fn delete(&mut self, range: &KeyRange) -> i64 {
        let keys: Vec<(Bytes, Live)> =
            self.state.index.live_range(range).map(|(key, live)| (key.clone(), *live)).collect();
        for (key, live) in &keys {
            let revision = Revision::new(self.state.revision + 1, self.open.len() as i64);
            let marker = KeyValue { key: key.clone(), ..KeyValue::default() };
            let bytes: Bytes = marker.encode_to_vec().into();
            self.batch.push(Write::Put(Space::Revisions, revision.to_key(true).into(), bytes));
            self.batch.push(Write::Delete(Space::Heads, key.clone()));
            self.state.index.delete(key, revision);
            self.state.leases.detach(live.lease, key);
            let kv = KeyValue { mod_revision: revision.main, ..marker };
            self.open.push(Change { kv, deleted: true, previous: Some(live.modified) });
        }
        keys.len() as i64
    }

    /// Ends the open transaction; the revision grows when it changed anything.
    pub fn commit(&mut self) {
        if !self.open.is_empty() {
            self.state.revision += 1;
            let list = std::mem::take(&mut self.open);
            self.done.push(Changes { revision: self.state.revision, list });
        }
    }

    /// Sets a key of the system space.
    pub fn put_system(&mut self, key: Bytes, value: Bytes) {
        self.batch.push(Write::Put(Space::System, key, value));
    }

    /// Removes a key of the system space.
    pub fn delete_system(&mut self, key: Bytes) {
        self.batch.push(Write::Delete(Space::System, key));
    }

    fn value_at(&self, revision: Revision) -> Result<KeyValue, StoreError> {
        if let Some(bytes) = self.pending.get(&revision) {
            return decode_kv(bytes.clone());
        }
        match self.store.get(Space::Revisions, &revision.to_key(false))? {
            Some(bytes) => decode_kv(bytes),
            None => Err(StoreError {
                action: "find a revision",
                reason: format!("{revision:?} is in the index but not in the store"),
            }),
        }
    }
}

impl Source for Writer<'_> {
    fn state(&self) -> &State {
        self.state
    }

    fn revision(&self) -> i64 {
        self.state.revision + i64::from(!self.open.is_empty())
    }

    fn visit(
        &self,
        range: &KeyRange,
        at: Option<i64>,
        visit: &mut dyn FnMut(KeyValue) -> Scan,
    ) -> Result<(), StoreError> {
        let revisions: Box<dyn Iterator<Item = Revision> + '_> = match at {
            None => Box::new(self.state.index.live_range(range).map(|(_, live)| live.modified)),
            Some(at) => {
                Box::new(self.state.index.range_at(range, at).map(|(_, revision)| revision))
            }
        };
        for revision in revisions {
            if visit(self.value_at(revision)?) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }
}
