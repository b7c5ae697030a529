//! What the store holds, decoded once, with a short history for watches.
//!
//! One ordered map per resource, and a ring of its last changes. Every change is one [`CacheEvent`] whose JSON is
//! made at most once, however many watch. A watcher that fell behind the ring is told to list anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kube_spec::{Resource, resources};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

/// Changes a resource remembers.
const RING: usize = 4096;

/// One object at one revision.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name` or `name`.
    pub key: String,
    /// Canonical tree, with apiVersion, kind and resourceVersion.
    pub object: Value,
    /// The bytes in the store.
    pub stored: Bytes,
    /// Revision of the last change.
    pub revision: i64,
    json: OnceLock<Bytes>,
}

impl Entry {
    /// An entry out of a decoded object.
    pub fn new(key: String, object: Value, stored: Bytes, revision: i64) -> Self {
        Self { key, object, stored, revision, json: OnceLock::new() }
    }

    /// The object as JSON; made once.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(self.object.to_string())).clone()
    }
}

/// One change of a resource.
#[derive(Debug, Clone)]
pub struct CacheEvent {
    /// Revision of the change.
    pub revision: i64,
    /// The object now; after a deletion its last state with the deletion's revision.
    pub current: Arc<Entry>,
    /// The object before.
    pub previous: Option<Arc<Entry>>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// The objects of one resource.
#[derive(Debug)]
pub struct ResourceCache {
    /// Which resource.
    pub resource: &'static Resource,
    state: RwLock<State>,
    changed: watch::Sender<i64>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Arc<Entry>>,
    ring: VecDeque<CacheEvent>,
    /// Every change after this revision is in the ring.
    complete_after: i64,
}

impl ResourceCache {
    fn new(resource: &'static Resource) -> Self {
        Self { resource, state: RwLock::default(), changed: watch::channel(0).0 }
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Objects whose key starts with `prefix`, in order.
    pub fn list(&self, prefix: &str) -> Vec<Arc<Entry>> {
        let state = self.state.read();
        let range = state.objects.range(prefix.to_owned()..);
        range
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Objects below `prefix` and, as of the same moment, the last revision that changed this resource.
    pub fn snapshot(&self, prefix: &str, progress: impl FnOnce() -> i64) -> (Vec<Arc<Entry>>, i64) {
        let state = self.state.read();
        let range = state.objects.range(prefix.to_owned()..);
        let list =
            range.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, e)| e.clone()).collect();
        (list, progress())
    }

    /// Number of objects.
    pub fn count(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Changes after `revision`; `Err` with the oldest possible revision when some are forgotten.
    pub fn since(&self, revision: i64) -> Result<Vec<CacheEvent>, i64> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(state.complete_after);
        }
        let start = state.ring.partition_point(|event| event.revision <= revision);
        Ok(state.ring.range(start..).cloned().collect())
    }

    /// Wakes at every change.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.changed.subscribe()
    }

    pub(super) fn replace(&self, objects: BTreeMap<String, Arc<Entry>>, revision: i64) {
        let mut state = self.state.write();
        state.objects = objects;
        state.ring.clear();
        state.complete_after = revision;
        drop(state);
        self.changed.send_replace(revision);
    }

    pub(super) fn put(&self, entry: Entry) {
        let revision = entry.revision;
        let entry = Arc::new(entry);
        let mut state = self.state.write();
        let previous = state.objects.insert(entry.key.clone(), entry.clone());
        push(&mut state, CacheEvent { revision, current: entry, previous, deleted: false });
        drop(state);
        self.changed.send_replace(revision);
    }

    pub(super) fn remove(&self, key: &str, revision: i64) {
        let mut state = self.state.write();
        let Some(previous) = state.objects.remove(key) else { return };
        let mut object = previous.object.clone();
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let last = Arc::new(Entry::new(key.to_owned(), object, previous.stored.clone(), revision));
        push(
            &mut state,
            CacheEvent { revision, current: last, previous: Some(previous), deleted: true },
        );
        drop(state);
        self.changed.send_replace(revision);
    }
}

fn push(state: &mut State, event: CacheEvent) {
    state.ring.push_back(event);
    if state.ring.len() > RING
        && let Some(dropped) = state.ring.pop_front()
    {
        state.complete_after = dropped.revision;
    }
}

/// The caches of all resources.
#[derive(Debug)]
pub struct Cache {
    by_storage: HashMap<&'static str, ResourceCache>,
    progress: watch::Sender<i64>,
    nudge: tokio::sync::Notify,
}

impl Default for Cache {
    fn default() -> Self {
        let mut by_storage = HashMap::new();
        for resource in resources().iter().filter(|r| !r.storage.is_empty()) {
            by_storage.entry(resource.storage).or_insert_with(|| ResourceCache::new(resource));
        }
        Self { by_storage, progress: watch::channel(0).0, nudge: tokio::sync::Notify::new() }
    }
}

impl Cache {
    /// The cache of a stored resource.
    pub fn of(&self, resource: &Resource) -> Option<&ResourceCache> {
        self.by_storage.get(resource.storage)
    }

    /// The cache a key (without the store's prefix) belongs to, and the rest of the key.
    pub fn locate<'k>(&self, key: &'k str) -> Option<(&ResourceCache, &'k str)> {
        let (first, rest) = key.split_once('/')?;
        if let Some(cache) = self.by_storage.get(first) {
            return Some((cache, rest));
        }
        let (second, tail) = rest.split_once('/')?;
        let storage = &key[..first.len() + 1 + second.len()];
        self.by_storage.get(storage).map(|cache| (cache, tail))
    }

    /// Every cache.
    pub fn all(&self) -> impl Iterator<Item = &ResourceCache> {
        self.by_storage.values()
    }

    /// Revision up to which everything is in the caches; 0 before the first load.
    pub fn revision(&self) -> i64 {
        *self.progress.borrow()
    }

    /// Waits until the caches hold everything up to `revision`; false when that takes longer than `limit`.
    pub async fn wait(&self, revision: i64, limit: std::time::Duration) -> bool {
        let mut progress = self.progress.subscribe();
        if *progress.borrow_and_update() >= revision {
            return true;
        }
        let first = std::time::Duration::from_millis(20).min(limit);
        if let Ok(waited) =
            tokio::time::timeout(first, progress.wait_for(|at| *at >= revision)).await
        {
            return waited.is_ok();
        }
        // The revision may belong to a key nobody watches: ask the store where the watch stands.
        self.nudge.notify_one();
        matches!(
            tokio::time::timeout(limit, progress.wait_for(|at| *at >= revision)).await,
            Ok(Ok(_))
        )
    }

    pub(super) fn advance(&self, revision: i64) {
        self.progress.send_if_modified(|at| {
            let grew = revision > *at;
            if grew {
                *at = revision;
            }
            grew
        });
    }

    pub(super) async fn nudged(&self) {
        self.nudge.notified().await;
    }
}
