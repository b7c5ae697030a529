//! One watch per kind, and who wants to hear of changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_kube_client::{Change, Client, ListParams, Reflector};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;

use super::store::Step;
use super::{Kind, Object, Store};

/// A change of one object.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its kind.
    pub kind: Kind,
    /// The object before; `None` when it is new.
    pub old: Option<Arc<Object>>,
    /// The object now; `None` when it is gone.
    pub new: Option<Arc<Object>>,
}

impl Event {
    /// The object now, or its last state.
    pub fn object(&self) -> &Arc<Object> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has at least one side")
    }

    /// Both states, the newer first.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.new.iter().chain(self.old.iter())
    }
}

type Handler = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Clone)]
struct Informer {
    store: Arc<Store>,
    /// Only metadata is kept.
    slim: bool,
}

/// Every kind that is watched.
pub struct Informers {
    client: Client,
    informers: RwLock<HashMap<Kind, Informer>>,
    handlers: RwLock<Vec<Handler>>,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informers").finish_non_exhaustive()
    }
}

impl Informers {
    /// Nothing is watched yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            informers: RwLock::default(),
            handlers: RwLock::default(),
            tasks: Mutex::default(),
        }
    }

    /// Calls `handler` at every change of any kind. Handlers run in turn and must be quick.
    pub fn subscribe(&self, handler: impl Fn(&Event) + Send + Sync + 'static) {
        self.handlers.write().push(Arc::new(handler));
    }

    /// The store of a kind, if it is watched.
    pub fn find(&self, kind: Kind) -> Option<Arc<Store>> {
        self.informers.read().get(kind).map(|informer| informer.store.clone())
    }

    /// Every watched kind and its store.
    pub fn stores(&self) -> Vec<(Kind, Arc<Store>)> {
        self.informers.read().iter().map(|(kind, i)| (*kind, i.store.clone())).collect()
    }

    /// The store of a kind; watches it from now on. A `slim` store keeps metadata only.
    pub fn watch(self: &Arc<Self>, kind: Kind, slim: bool) -> Arc<Store> {
        if let Some(store) = self.find(kind) {
            return store;
        }
        let informer = Informer { store: Arc::default(), slim };
        let mut informers = self.informers.write();
        let informer = informers.entry(kind).or_insert(informer).clone();
        drop(informers);
        let weak = Arc::downgrade(self);
        let mut reflector = Reflector::<Object>::new(
            self.client.clone(),
            kind.collection(""),
            ListParams::default(),
        );
        let store = informer.store.clone();
        self.tasks.lock().spawn(async move {
            loop {
                let change = reflector.next().await;
                let version = reflector.version().parse().unwrap_or(0);
                let Some(informers) = weak.upgrade() else { return };
                for step in take(&informer, change, version) {
                    informers.tell(kind, step);
                }
            }
        });
        store
    }

    /// Waits until every kind that is watched in full has been listed once. Kinds of which only metadata is
    /// kept may be served by somebody who does not answer; nobody waits for them.
    pub async fn synced(&self) {
        while !self.informers.read().values().all(|i| i.slim || i.store.synced()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends all watches and forgets who wants to hear of changes.
    pub fn stop(&self) {
        self.tasks.lock().abort_all();
        self.handlers.write().clear();
    }

    /// Takes the answer to a write of this process.
    pub fn wrote(&self, kind: Kind, object: Object) {
        let Some(informer) = self.informers.read().get(kind).cloned() else { return };
        if let Some(step) = informer.store.wrote(slimmed(&informer, object)) {
            self.tell(kind, step);
        }
    }

    /// Notes that the API accepted the deletion of an object.
    pub fn accepted_deletion(&self, kind: Kind, object: &Object) {
        let Some(store) = self.find(kind) else { return };
        if let Some(step) = store.accepted_deletion(object) {
            self.tell(kind, step);
        }
    }

    fn tell(&self, kind: Kind, (old, new): Step) {
        let event = Event { kind, old, new };
        let handlers = self.handlers.read().clone();
        for handler in handlers {
            handler(&event);
        }
    }
}

fn take(informer: &Informer, change: Change<Object>, version: u64) -> Vec<Step> {
    let slim = |object| slimmed(informer, object);
    match change {
        Change::Replaced(all) => {
            informer.store.replace(all.into_iter().map(slim).collect(), version)
        }
        Change::Applied(object) => informer.store.applied(slim(object)).into_iter().collect(),
        Change::Deleted(object) => informer.store.removed(&object).into_iter().collect(),
    }
}

fn slimmed(informer: &Informer, mut object: Object) -> Object {
    if informer.slim {
        object.body.clear();
        object.metadata.rest.clear();
        object.metadata.annotations.clear();
    }
    object
}
