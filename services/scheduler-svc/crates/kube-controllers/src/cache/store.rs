//! The objects of one kind.
//!
//! Besides the watch, the controllers' own writes feed the store as soon as the API answers, so that a
//! controller always sees what it just did. Resource versions order the two: an answer that the watch has
//! passed already is not taken, and an older state never replaces a newer one. An object whose deletion was
//! accepted counts as being deleted at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_kube_client::now_rfc3339;
use parking_lot::RwLock;

use super::{Key, Object};

const TOMBSTONE: Duration = Duration::from_secs(60);

/// One kind's objects, by key and by owner.
#[derive(Debug, Default)]
pub struct Store {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<Key, Arc<Object>>,
    owned: HashMap<String, BTreeSet<Key>>,
    /// Version up to which the watch has been read.
    seen: u64,
    /// Uids whose deletion was accepted, and since when.
    deleted: HashMap<String, Instant>,
    synced: bool,
}

/// An object before and after.
pub type Step = (Option<Arc<Object>>, Option<Arc<Object>>);

impl Store {
    /// Whether the first list has been read.
    pub fn synced(&self) -> bool {
        self.inner.read().synced
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// Every object, in order of key.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of a namespace, in order of name.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        let from = Key::new(namespace, "");
        let inner = self.inner.read();
        let range = inner.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
        range.map(|(_, object)| object.clone()).collect()
    }

    /// The objects that name `uid` among their owners.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        let inner = self.inner.read();
        let keys = inner.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
    }

    /// Takes everything the watch's list has; what is missing in it is gone.
    pub fn replace(&self, objects: Vec<Object>, version: u64) -> Vec<Step> {
        let mut inner = self.inner.write();
        inner.seen = inner.seen.max(version);
        inner.synced = true;
        inner.deleted.retain(|_, at| at.elapsed() < TOMBSTONE);
        let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let stale = |o: &Arc<Object>| version == 0 || o.version() <= version;
        let gone: Vec<Key> = inner
            .objects
            .iter()
            .filter(|(key, object)| !listed.contains(key) && stale(object))
            .map(|(key, _)| key.clone())
            .collect();
        let mut steps: Vec<Step> = gone.iter().map(|key| (inner.remove(key), None)).collect();
        for object in objects {
            steps.extend(inner.put(object));
        }
        steps
    }

    /// Takes a change that the watch delivered.
    pub fn applied(&self, object: Object) -> Option<Step> {
        let mut inner = self.inner.write();
        inner.seen = inner.seen.max(object.version());
        inner.put(object)
    }

    /// Takes a removal that the watch delivered.
    pub fn removed(&self, object: &Object) -> Option<Step> {
        let mut inner = self.inner.write();
        inner.seen = inner.seen.max(object.version());
        inner.deleted.remove(&object.metadata.uid);
        let key = object.key();
        let same = |o: &Arc<Object>| o.metadata.uid == object.metadata.uid;
        if inner.objects.get(&key).is_some_and(same) {
            return inner.remove(&key).map(|old| (Some(old), None));
        }
        None
    }

    /// Takes the answer to a write of this process.
    pub fn wrote(&self, object: Object) -> Option<Step> {
        let mut inner = self.inner.write();
        if object.version() == 0 || object.version() <= inner.seen {
            return None;
        }
        inner.put(object)
    }

    /// Notes that the API accepted the deletion of an object.
    pub fn accepted_deletion(&self, object: &Object) -> Option<Step> {
        let mut inner = self.inner.write();
        inner.deleted.insert(object.metadata.uid.clone(), Instant::now());
        let current = inner.objects.get(&object.key())?.clone();
        if current.metadata.uid != object.metadata.uid || current.deleting() {
            return None;
        }
        inner.put((*current).clone())
    }
}

impl Inner {
    fn put(&mut self, mut object: Object) -> Option<Step> {
        object.metadata.rest.remove("managedFields");
        if self.deleted.contains_key(&object.metadata.uid) && !object.deleting() {
            object.metadata.deletion_timestamp = Some(now_rfc3339());
        }
        let key = object.key();
        if let Some(old) = self.objects.get(&key) {
            let newer =
                old.metadata.uid != object.metadata.uid || object.version() >= old.version();
            if !newer || **old == object {
                return None;
            }
        }
        let old = self.remove(&key);
        for owner in &object.metadata.owner_references {
            self.owned.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        let object = Arc::new(object);
        self.objects.insert(key, object.clone());
        Some((old, Some(object)))
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        for owner in &old.metadata.owner_references {
            if let Some(keys) = self.owned.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, version: u64) -> Object {
        let mut object = Object::default();
        object.metadata.name = "p".to_owned();
        object.metadata.uid = uid.to_owned();
        object.metadata.resource_version = version.to_string();
        object
    }

    #[test]
    fn own_write_is_seen_at_once_and_never_resurrects() {
        let store = Store::default();
        store.replace(vec![], 5);
        assert!(store.wrote(pod("a", 6)).is_some());
        assert_eq!(store.len(), 1);
        assert!(store.removed(&pod("a", 7)).is_some());
        assert!(store.wrote(pod("a", 6)).is_none(), "the watch has passed this version");
        assert!(store.is_empty());
    }

    #[test]
    fn older_state_does_not_replace_newer() {
        let store = Store::default();
        store.wrote(pod("a", 9));
        assert!(store.applied(pod("a", 8)).is_none());
        assert_eq!(store.all()[0].version(), 9);
        assert!(store.replace(vec![], 8).is_empty(), "the list is older than the object");
        assert_eq!(store.replace(vec![], 10).len(), 1);
    }

    #[test]
    fn accepted_deletion_holds_against_late_status() {
        let store = Store::default();
        store.applied(pod("a", 2));
        assert!(store.accepted_deletion(&pod("a", 2)).is_some());
        store.applied(pod("a", 3));
        assert!(store.all()[0].deleting());
        store.applied(pod("b", 4));
        assert!(!store.all()[0].deleting(), "another object of that name lives");
    }
}
