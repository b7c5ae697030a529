//! The state between the cluster and the core: what is known, what is assumed, what is on its way.
//!
//! A pod that got a node is assumed to be there from the moment of the decision until the watch shows it, the
//! binding fails, or the watch has not shown it for too long after the binding.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flotilla_kube_client::{Change, Error};
use sched_core::spec::{Node, Pod};
use sched_core::{Attempt, Diagnosis, Engine, Event, PodInfo, Queue};

use crate::config::Settings;
use crate::feed::{Namespace, News};
use crate::metrics::METRICS;

/// How long after a binding the watch may take to show it, in milliseconds.
const ASSUMED_FOR: u64 = 30_000;

/// A decision to be carried out.
#[derive(Debug)]
pub(crate) enum Order {
    /// Bind the pod to the node.
    Bind(Attempt, String),
    /// Say why the pod has no node.
    Report(Arc<PodInfo>, &'static str, String),
    /// Clear the node for the pod.
    Preempt(Arc<PodInfo>, String, Vec<Arc<PodInfo>>),
}

/// The state.
#[derive(Debug)]
pub(crate) struct Scheduler {
    settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) queue: Queue,
    /// Unfinished pods by uid.
    pods: HashMap<String, Pod>,
    nodes: HashMap<String, Node>,
    /// By uid: until when; `None` while the binding is under way.
    assumed: HashMap<String, Option<u64>>,
    /// The last reason reported of a pod.
    reported: HashMap<String, String>,
    listed: [bool; 3],
    turn: u64,
}

impl Scheduler {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            engine: Engine::new(settings.weights, settings.hard_affinity_weight, seed),
            queue: Queue::new(millis(settings.first_backoff), millis(settings.longest_backoff)),
            settings,
            pods: HashMap::new(),
            nodes: HashMap::new(),
            assumed: HashMap::new(),
            reported: HashMap::new(),
            listed: [false; 3],
            turn: 0,
        }
    }

    /// Whether nodes, pods and namespaces have been listed once; before that no decision is made.
    pub(crate) fn complete(&self) -> bool {
        self.listed.iter().all(|l| *l)
    }

    /// A pod by `NAMESPACE/NAME`.
    pub(crate) fn find(&self, name: &str) -> Option<&Pod> {
        let (namespace, name) = name.split_once('/')?;
        self.pods.values().find(|p| p.metadata.namespace == namespace && p.metadata.name == name)
    }

    /// Takes a change; returns what is to be said of pods that are held back.
    pub(crate) fn take(&mut self, news: News, now: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        match news {
            News::Nodes(Change::Applied(node)) => self.node(node, now),
            News::Nodes(Change::Deleted(node)) => self.node_gone(&node.metadata.name),
            News::Nodes(Change::Replaced(all)) => {
                self.listed[0] = true;
                let names: HashSet<&String> = all.iter().map(|n| &n.metadata.name).collect();
                let gone: Vec<String> =
                    self.nodes.keys().filter(|n| !names.contains(n)).cloned().collect();
                gone.iter().for_each(|name| self.node_gone(name));
                all.into_iter().for_each(|node| self.node(node, now));
            }
            News::Pods(Change::Applied(pod)) => orders.extend(self.pod(pod, now)),
            News::Pods(Change::Deleted(pod)) => self.pod_gone(&pod.metadata.uid, now),
            News::Pods(Change::Replaced(all)) => {
                self.listed[1] = true;
                let uids: HashSet<&String> = all.iter().map(|p| &p.metadata.uid).collect();
                let gone: Vec<String> =
                    self.pods.keys().filter(|uid| !uids.contains(uid)).cloned().collect();
                gone.iter().for_each(|uid| self.pod_gone(uid, now));
                all.into_iter().for_each(|pod| orders.extend(self.pod(pod, now)));
            }
            News::Namespaces(Change::Applied(namespace)) => self.namespace(namespace, now),
            News::Namespaces(Change::Deleted(gone)) => {
                self.engine.set_namespace(&gone.metadata.name, None);
            }
            News::Namespaces(Change::Replaced(all)) => {
                self.listed[2] = true;
                all.into_iter().for_each(|namespace| self.namespace(namespace, now));
            }
        }
        orders
    }

    fn namespace(&mut self, namespace: Namespace, now: u64) {
        let meta = namespace.metadata;
        self.engine.set_namespace(&meta.name, Some(meta.labels));
        self.wake(Event::NamespaceLabels, now);
    }

    fn node(&mut self, node: Node, now: u64) {
        let name = node.metadata.name.clone();
        if let Err(reason) = self.engine.set_node(&node) {
            tracing::warn!(node = name, reason, "node is left out");
            self.node_gone(&name);
            return;
        }
        let old = self.nodes.insert(name, node.clone());
        let Some(old) = old else {
            self.wake(Event::NodeAdded, now);
            return;
        };
        if old.status.allocatable != node.status.allocatable
            || old.status.capacity != node.status.capacity
        {
            self.wake(Event::NodeAllocatable, now);
        }
        if old.metadata.labels != node.metadata.labels {
            self.wake(Event::NodeLabels, now);
        }
        if old.spec != node.spec {
            self.wake(Event::NodeTaints, now);
        }
    }

    fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
        self.engine.remove_node(name);
    }

    fn pod(&mut self, pod: Pod, now: u64) -> Option<Order> {
        let uid = pod.metadata.uid.clone();
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            self.pod_gone(&uid, now);
            return None;
        }
        let info = match self.engine.read(&pod) {
            Ok(info) => Arc::new(info),
            Err(reason) => {
                tracing::warn!(pod = pod.metadata.name, reason, "pod cannot be read");
                return None;
            }
        };
        let node = pod.spec.node_name.clone();
        let old = self.pods.insert(uid.clone(), pod.clone());
        if !node.is_empty() {
            let moved = self.engine.placed(&uid).is_none_or(|(at, _)| at != node);
            let relabeled = old.is_some_and(|old| old.metadata.labels != pod.metadata.labels);
            self.engine.place(info, &node);
            self.queue.remove(&uid);
            self.assumed.remove(&uid);
            self.reported.remove(&uid);
            if moved || relabeled {
                self.wake(Event::PodPlaced, now);
            }
            return None;
        }
        if self.assumed.contains_key(&uid) {
            return None;
        }
        let own = pod.spec.scheduler_name == self.settings.scheduler_name
            || (pod.spec.scheduler_name.is_empty()
                && self.settings.scheduler_name == "default-scheduler");
        if !own || info.terminating {
            self.queue.remove(&uid);
            return None;
        }
        if !pod.spec.scheduling_gates.is_empty() {
            let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
            let news = self.reported.insert(uid, message.clone()).as_ref() != Some(&message);
            return news.then_some(Order::Report(info, "SchedulingGated", message));
        }
        // Our own report changes the status only; the pod keeps its place then.
        let same = old
            .is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels);
        if !same || self.queue.get(&uid).is_none() {
            METRICS.incoming("PodAdd", "active", 1);
            self.queue.add(info, now);
        }
        None
    }

    fn pod_gone(&mut self, uid: &str, now: u64) {
        self.pods.remove(uid);
        self.queue.remove(uid);
        self.assumed.remove(uid);
        self.reported.remove(uid);
        if self.engine.displace(uid).is_some() {
            self.wake(Event::PodGone, now);
        }
    }

    fn wake(&mut self, event: Event, now: u64) {
        let woken = self.queue.wake(event, now);
        if woken > 0 {
            METRICS.incoming(event.name(), "active", woken);
        }
    }

    /// The next decision, if a pod is ready.
    pub(crate) fn decide(&mut self, now: u64) -> Option<Vec<Order>> {
        let attempt = self.queue.pop(now)?;
        self.turn += 1;
        let pod = attempt.pod.clone();
        match self.engine.schedule(&pod, self.turn) {
            Ok(placement) => {
                self.engine.place(pod.clone(), &placement.node);
                self.assumed.insert(pod.uid.clone(), None);
                Some(vec![Order::Bind(attempt, placement.node)])
            }
            Err(why) => Some(self.refuse(&pod, why, now)),
        }
    }

    fn refuse(&mut self, pod: &Arc<PodInfo>, mut why: Diagnosis, now: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        if let Some(found) = self.engine.preempt(pod, &mut why) {
            let victim = |uid: &String| self.engine.placed(uid).map(|(_, pod)| pod.clone());
            let victims: Vec<Arc<PodInfo>> = found.victims.iter().filter_map(victim).collect();
            // Victims that are leaving already make the room; nobody else has to go for it.
            let leaving = victims.iter().any(|v| v.terminating);
            if !leaving {
                METRICS.preempted(victims.len());
                orders.push(Order::Preempt(pod.clone(), found.node, victims));
            }
        }
        self.queue.unschedulable(&pod.uid, why.plugins(), now);
        let message = why.message();
        if self.reported.insert(pod.uid.clone(), message.clone()).as_ref() != Some(&message) {
            orders.push(Order::Report(pod.clone(), "Unschedulable", message));
        }
        orders
    }

    /// Takes the outcome of a binding; whether it worked.
    pub(crate) fn bound(&mut self, pod: &PodInfo, result: &Result<(), Error>, now: u64) -> bool {
        // The watch may have been faster: the pod is there, or gone.
        if !self.assumed.contains_key(&pod.uid) {
            return result.is_ok();
        }
        match result {
            Ok(()) => {
                self.assumed.insert(pod.uid.clone(), Some(now + ASSUMED_FOR));
                true
            }
            Err(error) => {
                tracing::warn!(pod = pod.name, namespace = pod.namespace, %error, "cannot bind");
                self.give_up(&pod.uid, now);
                false
            }
        }
    }

    fn give_up(&mut self, uid: &str, now: u64) {
        self.assumed.remove(uid);
        self.engine.displace(uid);
        if self.pods.contains_key(uid) {
            self.queue.failed(uid, now);
        } else {
            self.queue.remove(uid);
        }
        self.wake(Event::PodGone, now);
    }

    /// Gives up what has been assumed for too long.
    pub(crate) fn expire(&mut self, now: u64) {
        let due = |until: &Option<u64>| until.is_some_and(|until| until <= now);
        let late: Vec<String> =
            self.assumed.iter().filter(|(_, u)| due(u)).map(|(uid, _)| uid.clone()).collect();
        for uid in late {
            tracing::warn!(uid, "the watch does not show a binding");
            self.give_up(&uid, now);
        }
    }
}
