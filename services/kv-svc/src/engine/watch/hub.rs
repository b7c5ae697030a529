//! Hands changes to the watchers they concern.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::mvccpb::{Event, KeyValue};
use parking_lot::Mutex;

use crate::engine::keyspace::decode_kv;
use crate::engine::store::{Space, Store};
use crate::engine::watch::filter::{Interest, event};
use crate::engine::watch::outbox::{Delivery, Outbox};
use crate::engine::write::{Change, Changes};

/// A watcher that is not level with the hub.
#[derive(Debug, Clone)]
pub struct Behind {
    /// The watcher.
    pub watcher: u64,
    /// First revision it has not been told.
    pub next: i64,
    /// What it wants.
    pub interest: Interest,
}

#[derive(Debug)]
struct Watcher {
    outbox: Arc<Outbox>,
    interest: Interest,
    next: i64,
    level: bool,
}

/// All watchers of a member.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    revision: i64,
    last_id: u64,
    watchers: HashMap<u64, Watcher>,
    by_key: HashMap<Bytes, Vec<u64>>,
    by_range: Vec<u64>,
}

impl Hub {
    /// No watchers; `revision` is the newest one.
    pub fn new(revision: i64) -> Self {
        Self { inner: Mutex::new(Inner { revision, ..Inner::default() }) }
    }

    /// Newest revision that was handed out.
    pub fn revision(&self) -> i64 {
        self.inner.lock().revision
    }

    /// Number of watchers, and how many of them are behind.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let behind = inner.watchers.values().filter(|w| !w.level).count();
        (inner.watchers.len(), behind)
    }

    /// The content was replaced by a snapshot: everybody reads the store up to its revision.
    pub fn jump(&self, revision: i64) {
        let mut inner = self.inner.lock();
        inner.revision = revision;
        for watcher in inner.watchers.values_mut() {
            watcher.level = false;
            watcher.outbox.wake();
        }
    }

    /// Adds a watcher that wants changes from `start` on (0: from now on). Returns its number and the newest revision.
    pub fn add(&self, outbox: Arc<Outbox>, interest: Interest, start: i64) -> (u64, i64) {
        let mut inner = self.inner.lock();
        inner.last_id += 1;
        let id = inner.last_id;
        let next = if start > 0 { start } else { inner.revision + 1 };
        let level = next > inner.revision;
        match interest.range.only_key() {
            Some(key) => inner.by_key.entry(key.clone()).or_default().push(id),
            None => inner.by_range.push(id),
        }
        inner.watchers.insert(id, Watcher { outbox, interest, next, level });
        (id, inner.revision)
    }

    /// Removes a watcher.
    pub fn remove(&self, id: u64) {
        let mut inner = self.inner.lock();
        let Some(watcher) = inner.watchers.remove(&id) else { return };
        match watcher.interest.range.only_key() {
            Some(key) => {
                if let Some(ids) = inner.by_key.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        inner.by_key.remove(key);
                    }
                }
            }
            None => inner.by_range.retain(|other| *other != id),
        }
    }

    /// Those of `ids` that are behind, and the revision they must reach.
    pub fn behind(&self, ids: &[u64]) -> (Vec<Behind>, i64) {
        let inner = self.inner.lock();
        let behind = ids.iter().filter_map(|id| {
            let watcher = inner.watchers.get(id).filter(|w| !w.level)?;
            Some(Behind { watcher: *id, next: watcher.next, interest: watcher.interest.clone() })
        });
        (behind.collect(), inner.revision)
    }

    /// Notes that a watcher was told everything before `next`; it is level when nothing happened since.
    pub fn caught_up(&self, id: u64, next: i64) {
        let mut inner = self.inner.lock();
        let revision = inner.revision;
        if let Some(watcher) = inner.watchers.get_mut(&id) {
            watcher.next = watcher.next.max(next);
            watcher.level = watcher.next > revision;
        }
    }

    /// The newest revision, if every one of `ids` was told everything up to it and none starts later.
    pub fn level_revision(&self, ids: &[u64], outbox: &Outbox) -> Option<i64> {
        let inner = self.inner.lock();
        let level = ids.iter().all(|id| {
            inner.watchers.get(id).is_none_or(|w| w.level && w.next <= inner.revision + 1)
        });
        (level && outbox.is_empty()).then_some(inner.revision)
    }

    /// Hands out the changes of finished transactions. Called in order of revision.
    pub fn publish(&self, store: &dyn Store, revision: i64, done: Vec<Changes>) {
        let mut inner = self.inner.lock();
        if !inner.watchers.is_empty() {
            for changes in &done {
                inner.publish_one(store, changes);
            }
        }
        inner.revision = inner.revision.max(revision);
    }
}

impl Inner {
    fn publish_one(&mut self, store: &dyn Store, changes: &Changes) {
        let mut told: HashMap<u64, Vec<Event>> = HashMap::new();
        for change in &changes.list {
            let mut previous: Option<Option<KeyValue>> = None;
            let exact = self.by_key.get(&change.kv.key).into_iter().flatten();
            for id in exact.chain(&self.by_range) {
                let Some(watcher) = self.watchers.get(id) else { continue };
                let due = watcher.level && changes.revision >= watcher.next;
                if !due || !watcher.interest.wants(change) {
                    continue;
                }
                let mut event = event(change);
                if watcher.interest.previous {
                    event.prev_kv = previous.get_or_insert_with(|| before(store, change)).clone();
                }
                told.entry(*id).or_default().push(event);
            }
        }
        for (id, events) in told {
            let Some(watcher) = self.watchers.get_mut(&id) else { continue };
            let delivery = Delivery { watcher: id, revision: changes.revision, events };
            if watcher.outbox.push(delivery) {
                watcher.next = changes.revision + 1;
            } else {
                watcher.level = false;
                watcher.next = changes.revision;
            }
        }
    }
}

fn before(store: &dyn Store, change: &Change) -> Option<KeyValue> {
    let key = change.previous?.to_key(false);
    match store.get(Space::Revisions, &key).and_then(|value| value.map(decode_kv).transpose()) {
        Ok(kv) => kv,
        Err(error) => {
            tracing::error!(%error, "a watcher misses the value before");
            None
        }
    }
}
