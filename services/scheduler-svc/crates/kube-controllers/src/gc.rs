//! Garbage collection along owner references.
//!
//! An object goes when all its owners are gone. Deleted in the foreground it waits for the dependents that
//! block it; orphaned, its dependents lose the reference and stay. Every kind that can be listed, watched and
//! deleted takes part, custom ones too.

mod discovery;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_kube_client::OwnerReference;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Error;
use crate::cache::{Event, Key, Kind, Object, known};
use crate::cluster::{Cluster, Propagation};
use crate::metrics;
use crate::queue::Queue;

pub use discovery::{Resource, discover};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const REFRESH: Duration = Duration::from_secs(30);
/// Owners known to be gone are remembered up to this many.
const REMEMBERED: usize = 4096;

/// The name in `--controllers`.
pub const NAME: &str = "garbage-collector-controller";

type Item = (Kind, Key);

/// The collector.
#[derive(Debug)]
struct Collector {
    cluster: Cluster,
    queue: Queue<Item>,
    /// By group, version and kind.
    kinds: Mutex<HashMap<(String, String), Kind>>,
    absent: Mutex<HashMap<String, ()>>,
}

#[derive(Debug, Default)]
struct Owners {
    solid: bool,
    waiting: Vec<String>,
    gone: Vec<String>,
}

/// Adds the collector to `tasks`.
pub fn start(tasks: &mut JoinSet<()>, cluster: &Cluster) {
    let kinds = known().iter().map(|k| ((k.api_version.to_owned(), k.kind.to_owned()), *k));
    let collector = Arc::new(Collector {
        cluster: cluster.clone(),
        queue: Queue::default(),
        kinds: Mutex::new(kinds.collect()),
        absent: Mutex::default(),
    });
    let weak = Arc::downgrade(&collector);
    cluster.informers.subscribe(move |event| {
        if let Some(collector) = weak.upgrade() {
            collector.notice(event);
        }
    });
    let discoverer = collector.clone();
    tasks.spawn(async move {
        loop {
            if let Err(error) = discoverer.refresh().await {
                tracing::warn!(%error, "cannot read the API's kinds");
            }
            tokio::time::sleep(REFRESH).await;
        }
    });
    for _ in 0..cluster.config.concurrent_gc_syncs.max(1) {
        let collector = collector.clone();
        tasks.spawn(async move {
            collector.cluster.informers.synced().await;
            loop {
                let item = collector.queue.next().await;
                let start = tokio::time::Instant::now();
                match collector.sync(&item).await {
                    Ok(()) => collector.queue.forget(&item),
                    Err(error) => {
                        if !error.is_race() {
                            tracing::warn!(kind = item.0.kind, key = %item.1, %error, "will try again");
                        }
                        collector.queue.retry(item.clone());
                    }
                }
                metrics::worked(NAME, start.elapsed());
                collector.queue.done(&item);
            }
        });
    }
}

impl Collector {
    /// Watches the metadata of kinds that are new, so that their owner references count.
    async fn refresh(&self) -> Result<(), Error> {
        for resource in discover(&self.cluster.client).await? {
            let can = |verb: &str| resource.verbs.iter().any(|v| v == verb);
            if !(can("list") && can("watch") && can("delete")) || resource.kind() == "Event" {
                continue;
            }
            let kind = self.intern(&resource);
            self.cluster.informers.watch(kind, true);
        }
        Ok(())
    }

    /// The one reference for a kind. Kinds are few and live as long as the process.
    fn intern(&self, resource: &Resource) -> Kind {
        let mut kinds = self.kinds.lock();
        let name = (resource.api_version.clone(), resource.kind().to_owned());
        kinds.entry(name).or_insert_with(|| resource.leak())
    }

    fn notice(&self, event: &Event) {
        let object = event.object();
        let item = (event.kind, object.key());
        let Some(new) = &event.new else {
            self.absent.lock().insert(object.metadata.uid.clone(), ());
            for dependent in self.dependents(&object.metadata.uid) {
                self.queue.add(dependent);
            }
            self.wake_owners(object);
            return;
        };
        let holds =
            |o: &Object| o.metadata.finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN);
        if new.deleting() && holds(new) {
            self.queue.add(item.clone());
        }
        let before = event.old.as_ref().map(|o| &o.metadata.owner_references);
        if !new.metadata.owner_references.is_empty()
            && before != Some(&new.metadata.owner_references)
        {
            self.queue.add(item);
        }
        if new.deleting() || before.is_some_and(|b| *b != new.metadata.owner_references) {
            event.old.iter().for_each(|old| self.wake_owners(old));
        }
    }

    /// Owners that wait for this dependent may go now.
    fn wake_owners(&self, dependent: &Object) {
        for owner in &dependent.metadata.owner_references {
            if let Some((kind, object)) = self.find(&dependent.metadata.namespace, owner)
                && object.deleting()
            {
                self.queue.add((kind, object.key()));
            }
        }
    }

    fn dependents(&self, uid: &str) -> Vec<Item> {
        let stores = self.cluster.informers.stores();
        let owned = stores.iter().flat_map(|(kind, store)| {
            store.owned_by(uid).into_iter().map(move |object| (*kind, object.key()))
        });
        owned.collect()
    }

    fn kind(&self, owner: &OwnerReference) -> Option<Kind> {
        let name = (owner.api_version.clone(), owner.kind.clone());
        self.kinds.lock().get(&name).copied()
    }

    fn owner_key(kind: Kind, namespace: &str, owner: &OwnerReference) -> Key {
        Key::new(if kind.namespaced { namespace } else { "" }, &owner.name)
    }

    /// The owner as the store has it.
    fn find(&self, namespace: &str, owner: &OwnerReference) -> Option<(Kind, Arc<Object>)> {
        let kind = self.kind(owner)?;
        let object =
            self.cluster.informers.find(kind)?.get(&Self::owner_key(kind, namespace, owner))?;
        (object.metadata.uid == owner.uid).then_some((kind, object))
    }

    async fn sync(&self, (kind, key): &Item) -> Result<(), Error> {
        let Some(object) = self.cluster.informers.find(kind).and_then(|s| s.get(key)) else {
            return Ok(());
        };
        let has = |name: &str| object.metadata.finalizers.iter().any(|f| f == name);
        if object.deleting() {
            if has(ORPHAN) {
                return self.orphan(kind, &object).await;
            }
            if has(FOREGROUND) {
                return self.clear_dependents(kind, &object).await;
            }
            return Ok(());
        }
        if object.metadata.owner_references.is_empty() {
            return Ok(());
        }
        let owners = self.owners(&object).await?;
        let useless: Vec<&String> = owners.gone.iter().chain(&owners.waiting).collect();
        if owners.solid {
            return if useless.is_empty() {
                Ok(())
            } else {
                self.unlink(kind, &object, &useless).await
            };
        }
        let waited_for = !owners.waiting.is_empty();
        let has_dependents = !self.dependents(&object.metadata.uid).is_empty();
        let propagation = if has(ORPHAN) {
            Propagation::Orphan
        } else if has(FOREGROUND) || (waited_for && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        self.cluster.delete(kind, &object, propagation, None).await?;
        Ok(())
    }

    async fn owners(&self, object: &Object) -> Result<Owners, Error> {
        let mut owners = Owners::default();
        for owner in &object.metadata.owner_references {
            let namespace = &object.metadata.namespace;
            let found = match self.find(namespace, owner) {
                Some((_, found)) => Some((*found).clone()),
                None if self.absent.lock().contains_key(&owner.uid) => None,
                None => match self.kind(owner) {
                    // A kind nobody serves: whether the owner lives cannot be told.
                    None => {
                        owners.solid = true;
                        continue;
                    }
                    Some(kind) => {
                        let key = Self::owner_key(kind, namespace, owner);
                        let live = self.cluster.live(kind, &key).await?;
                        live.filter(|o| o.metadata.uid == owner.uid)
                    }
                },
            };
            let foreground = |o: &Object| o.metadata.finalizers.iter().any(|f| f == FOREGROUND);
            match found {
                None => {
                    let mut absent = self.absent.lock();
                    if absent.len() >= REMEMBERED {
                        absent.clear();
                    }
                    absent.insert(owner.uid.clone(), ());
                    owners.gone.push(owner.uid.clone());
                }
                Some(found) if found.deleting() && foreground(&found) => {
                    owners.waiting.push(owner.uid.clone());
                }
                Some(_) => owners.solid = true,
            }
        }
        Ok(owners)
    }

    /// Removes references to these owners.
    async fn unlink(&self, kind: Kind, object: &Object, uids: &[&String]) -> Result<(), Error> {
        let meta = &object.metadata;
        let left: Vec<&OwnerReference> =
            meta.owner_references.iter().filter(|o| !uids.contains(&&o.uid)).collect();
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
            "ownerReferences": left}});
        self.cluster.patch(kind, &object.key(), &patch).await?;
        Ok(())
    }

    async fn orphan(&self, kind: Kind, object: &Object) -> Result<(), Error> {
        for (dependent_kind, key) in self.dependents(&object.metadata.uid) {
            let store = self.cluster.informers.find(dependent_kind);
            if let Some(dependent) = store.and_then(|s| s.get(&key)) {
                match self.unlink(dependent_kind, &dependent, &[&object.metadata.uid]).await {
                    Err(Error::Api(error)) if error.is_not_found() => {}
                    result => result?,
                }
            }
        }
        self.drop_finalizer(kind, object, ORPHAN).await
    }

    async fn clear_dependents(&self, kind: Kind, object: &Object) -> Result<(), Error> {
        let uid = &object.metadata.uid;
        let mut blocked = false;
        for (dependent_kind, key) in self.dependents(uid) {
            let store = self.cluster.informers.find(dependent_kind);
            let Some(dependent) = store.and_then(|s| s.get(&key)) else { continue };
            let owners = &dependent.metadata.owner_references;
            blocked |= owners.iter().any(|o| o.uid == *uid && o.block_owner_deletion == Some(true));
            if !dependent.deleting() {
                self.queue.add((dependent_kind, key));
            }
        }
        if blocked { Ok(()) } else { self.drop_finalizer(kind, object, FOREGROUND).await }
    }

    async fn drop_finalizer(&self, kind: Kind, object: &Object, name: &str) -> Result<(), Error> {
        let meta = &object.metadata;
        let left: Vec<&String> = meta.finalizers.iter().filter(|f| *f != name).collect();
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
            "finalizers": left}});
        match self.cluster.patch(kind, &object.key(), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }
}
