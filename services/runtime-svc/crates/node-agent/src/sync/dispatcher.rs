//! Which pods have workers: those of the API server, those of manifests, and what runs without either.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flotilla_kube_client::{Change, ListParams, ObjectMeta, Reflector};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::agent::Agent;
use super::static_pods::{self, StaticPod};
use super::worker::{Desired, Worker};
use crate::engine::kube::Pod;
use crate::engine::status::OWN_CONDITIONS;
use crate::remote::cri::{PodSnapshot, Snapshot};

/// Seconds a pod has to end that was deleted by force.
const FORCED_GRACE: i64 = 1;
const TIDY: Duration = Duration::from_secs(5);

/// News for the dispatcher.
#[derive(Debug)]
pub enum Input {
    /// The API server's pods changed; with each pod why its spec cannot be read, if so.
    Api(Box<Change<(Pod, Option<String>)>>),
    /// The manifests' pods, all of them.
    Static(Vec<StaticPod>),
    /// The runtime's pods, all of them.
    Snapshot(Snapshot),
}

#[derive(Debug)]
struct Handle {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
}

/// Owns the workers.
#[derive(Debug)]
pub struct Dispatcher {
    agent: Arc<Agent>,
    handles: HashMap<String, Handle>,
    workers: JoinSet<String>,
    mirrors: HashMap<String, Pod>,
    statics: BTreeMap<String, StaticPod>,
    snapshot: Snapshot,
    api_known: bool,
    statics_known: bool,
}

/// Follows the API server's pods of this node.
pub async fn follow_api(agent: Arc<Agent>, inputs: mpsc::Sender<Input>) {
    let Some(client) = agent.api.client().cloned() else { return std::future::pending().await };
    let params = ListParams {
        field_selector: Some(format!("spec.nodeName={}", agent.node)),
        ..ListParams::default()
    };
    let mut reflector = Reflector::<Value>::new(client, "/api/v1/pods", params);
    loop {
        let change = match reflector.next().await {
            Change::Replaced(all) => Change::Replaced(all.into_iter().map(Pod::read).collect()),
            Change::Applied(object) => Change::Applied(Pod::read(object)),
            Change::Deleted(object) => Change::Deleted(Pod::read(object)),
        };
        if inputs.send(Input::Api(Box::new(change))).await.is_err() {
            return;
        }
    }
}

impl Dispatcher {
    /// A dispatcher without workers. `has_manifests` says that static pods will be announced.
    pub fn new(agent: Arc<Agent>, has_manifests: bool) -> Self {
        Self {
            api_known: agent.api.client().is_none(),
            agent,
            handles: HashMap::new(),
            workers: JoinSet::new(),
            mirrors: HashMap::new(),
            statics: BTreeMap::new(),
            snapshot: Snapshot::new(),
            statics_known: !has_manifests,
        }
    }

    /// Hands out news until the senders are gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut tidy = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(uid) => self.ended(&uid),
                    // A worker that panicked is a fault of ours; its pod gets a new one at the next news.
                    Err(error) => {
                        tracing::error!(%error, "a pod's worker failed");
                        self.handles.retain(|_, handle| handle.desired.receiver_count() > 0);
                    }
                },
                _ = tidy.tick() => self.tidy(),
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Api(change) => self.take_api(*change),
            Input::Static(pods) => self.take_static(pods),
            Input::Snapshot(snapshot) => {
                for (uid, handle) in &self.handles {
                    if snapshot.get(uid) != self.snapshot.get(uid) {
                        handle.wake.notify_one();
                    }
                }
                self.snapshot = snapshot;
            }
        }
        self.end_orphans();
    }

    fn take_api(&mut self, change: Change<(Pod, Option<String>)>) {
        match change {
            Change::Replaced(all) => {
                self.api_known = true;
                self.mirrors.clear();
                let listed: Vec<String> = all.iter().map(|(pod, _)| pod.uid().to_owned()).collect();
                for (uid, handle) in &self.handles {
                    if !listed.contains(uid) && !self.statics.contains_key(uid) {
                        handle.desired.send_modify(|desired| desired.gone = true);
                    }
                }
                for (pod, error) in all {
                    self.apply(pod, error);
                }
                self.mirror();
            }
            Change::Applied((pod, error)) => self.apply(pod, error),
            Change::Deleted((mut pod, _)) => {
                if pod.is_mirror() {
                    self.mirrors.remove(&pod.full_name());
                    self.mirror();
                } else if let Some(handle) = self.handles.get(pod.uid()) {
                    if pod.spec.containers.is_empty() {
                        pod.spec = handle.desired.borrow().pod.spec.clone();
                    }
                    // Somebody did not wait for this node: nobody waits for the grace period any more either.
                    if pod.metadata.deletion_timestamp.is_some()
                        || pod.metadata.deletion_grace_period_seconds == Some(0)
                    {
                        pod.metadata.deletion_grace_period_seconds =
                            Some(pod.grace_period().min(FORCED_GRACE));
                    }
                    let pod = Arc::new(pod);
                    handle.desired.send_modify(|desired| {
                        desired.gone = true;
                        desired.pod = pod;
                    });
                }
            }
        }
    }

    fn apply(&mut self, mut pod: Pod, error: Option<String>) {
        if pod.is_mirror() {
            let (name, uid) = (pod.full_name(), pod.uid().to_owned());
            self.mirrors.insert(name.clone(), pod);
            for (own, known) in &self.statics {
                if known.pod.full_name() == name
                    && let Some(handle) = self.handles.get(own)
                {
                    handle.desired.send_if_modified(|desired| {
                        std::mem::replace(&mut desired.api_uid, uid.clone()) != uid
                    });
                }
            }
            return;
        }
        let uid = pod.uid().to_owned();
        if let Some(handle) = self.handles.get(&uid) {
            if let Some(error) = error {
                tracing::error!(
                    pod = pod.full_name(),
                    error,
                    "the pod's new spec cannot be read; the former one stays"
                );
                pod.spec = handle.desired.borrow().pod.spec.clone();
            }
            let pod = Arc::new(pod);
            handle.desired.send_if_modified(|desired| {
                let news = is_news(&desired.pod, &pod) || desired.gone;
                (desired.pod, desired.gone) = (pod, false);
                news
            });
            return;
        }
        let unreadable = error
            .map(|error| ("InvalidPod".to_owned(), format!("The pod cannot be read: {error}")));
        let refused = unreadable.or_else(|| self.refuse(&pod));
        let desired = Desired { api_uid: uid.clone(), pod: Arc::new(pod), gone: false, refused };
        self.spawn(uid, desired);
    }

    /// Why a new pod cannot run here.
    fn refuse(&self, pod: &Pod) -> Option<(String, String)> {
        let fresh =
            pod.status.container_statuses.is_empty() && !self.snapshot.contains_key(pod.uid());
        if !fresh || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let used = self.agent.pods.read().values().filter(|p| !p.status.is_terminal()).count();
        let capacity = self.agent.settings.max_pods as usize;
        (used >= capacity).then(|| {
            let text = format!("Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {capacity}");
            self.agent.recorder.pod(pod, None, true, "OutOfpods", text.clone());
            ("OutOfpods".to_owned(), text)
        })
    }

    fn take_static(&mut self, pods: Vec<StaticPod>) {
        self.statics_known = true;
        let fresh: BTreeMap<String, StaticPod> =
            pods.into_iter().map(|pod| (pod.pod.uid().to_owned(), pod)).collect();
        for uid in self.statics.keys().filter(|uid| !fresh.contains_key(*uid)) {
            if let Some(handle) = self.handles.get(uid) {
                handle.desired.send_modify(|desired| desired.gone = true);
            }
        }
        self.statics = fresh;
        let missing: Vec<StaticPod> = self
            .statics
            .iter()
            .filter(|(uid, _)| !self.handles.contains_key(*uid))
            .map(|(_, pod)| pod.clone())
            .collect();
        for known in missing {
            let mirror = self.mirrors.get(&known.pod.full_name());
            let api_uid = mirror.map(|mirror| mirror.uid().to_owned()).unwrap_or_default();
            let desired =
                Desired { pod: Arc::new(known.pod.clone()), api_uid, ..Desired::default() };
            self.spawn(known.pod.uid().to_owned(), desired);
        }
        self.mirror();
    }

    /// Makes the API server show the static pods, and nothing that is none.
    fn mirror(&self) {
        if !self.api_known || !self.statics_known || self.agent.api.client().is_none() {
            return;
        }
        let wanted: HashMap<String, &StaticPod> =
            self.statics.values().map(|pod| (pod.pod.full_name(), pod)).collect();
        for (name, mirror) in &self.mirrors {
            let hash = mirror.metadata.annotations.get(static_pods::MIRROR);
            let fits =
                wanted.get(name).is_some_and(|pod| hash.map(String::as_str) == Some(pod.pod.uid()));
            if !fits || mirror.metadata.deletion_timestamp.is_some() {
                let (agent, mirror) = (self.agent.clone(), mirror.clone());
                tokio::spawn(async move {
                    if let Err(error) = agent.api.delete_pod(&mirror, mirror.uid()).await {
                        tracing::warn!(pod = mirror.full_name(), %error, "an old mirror pod stays");
                    }
                });
            }
        }
        for (name, pod) in wanted {
            if !self.mirrors.contains_key(&name) {
                let (agent, body) = (self.agent.clone(), pod.mirror());
                tokio::spawn(async move {
                    if let Err(error) = agent.api.create_pod(&body).await
                        && !error.is_conflict()
                    {
                        tracing::warn!(pod = name, %error, "the static pod has no mirror");
                    }
                });
            }
        }
    }

    fn spawn(&mut self, uid: String, desired: Desired) {
        let (sender, receiver) = watch::channel(desired);
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(self.agent.clone(), receiver, wake.clone());
        self.handles.insert(uid.clone(), Handle { desired: sender, wake });
        self.workers.spawn(async move {
            worker.run().await;
            uid
        });
    }

    fn ended(&mut self, uid: &str) {
        self.handles.remove(uid);
        self.agent.pods.write().remove(uid);
    }

    /// Ends what runs without a pod object: pods that were deleted while the agent was away.
    fn end_orphans(&mut self) {
        if !self.api_known || !self.statics_known {
            return;
        }
        let orphans: Vec<(String, PodSnapshot)> = self
            .snapshot
            .iter()
            .filter(|(uid, _)| !self.handles.contains_key(*uid))
            .map(|(uid, pod)| (uid.clone(), pod.clone()))
            .collect();
        for (uid, found) in orphans {
            tracing::info!(
                namespace = found.namespace,
                pod = found.name,
                uid,
                "ending a pod that no longer exists"
            );
            let metadata = ObjectMeta {
                name: found.name,
                namespace: found.namespace,
                uid: uid.clone(),
                deletion_grace_period_seconds: found.grace,
                ..ObjectMeta::default()
            };
            let pod = Pod { metadata, ..Pod::default() };
            self.spawn(uid, Desired { pod: Arc::new(pod), gone: true, ..Desired::default() });
        }
    }

    /// Removes folders of pods that neither exist nor run.
    fn tidy(&mut self) {
        self.mirror();
        if !self.api_known || !self.statics_known || !*self.agent.runtime_up.borrow() {
            return;
        }
        for uid in self.agent.paths.known_pods() {
            if self.handles.contains_key(&uid) || self.snapshot.contains_key(&uid) {
                continue;
            }
            match self.agent.paths.remove_pod(&uid) {
                Ok(()) => tracing::info!(uid, "removed the folder of a pod that no longer exists"),
                Err(error) => {
                    tracing::warn!(uid, %error, "the folder of a pod that no longer exists stays")
                }
            }
        }
    }
}

/// Whether a new version says anything but what this node reported itself.
fn is_news(old: &Pod, new: &Pod) -> bool {
    let foreign = |pod: &Pod| -> Vec<(String, String)> {
        let others =
            pod.status.conditions.iter().filter(|c| !OWN_CONDITIONS.contains(&c.kind.as_str()));
        others.map(|c| (c.kind.clone(), c.status.clone())).collect()
    };
    let (a, b) = (&old.metadata, &new.metadata);
    old.spec != new.spec
        || a.deletion_timestamp != b.deletion_timestamp
        || a.deletion_grace_period_seconds != b.deletion_grace_period_seconds
        || a.labels != b.labels
        || a.annotations != b.annotations
        || foreign(old) != foreign(new)
}
