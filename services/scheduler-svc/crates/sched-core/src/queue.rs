//! Pods that wait: ready ones, ones that pause after a failed attempt, and ones that no node fits.
//!
//! Time is an argument: milliseconds on any clock that does not run backwards.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::class::PodInfo;

/// Longest time a pod that fits nowhere waits for an event.
const STUCK_FOR: u64 = 5 * 60 * 1000;

/// Something that may make a pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A node is new.
    NodeAdded,
    /// A node has more resources.
    NodeAllocatable,
    /// Labels of a node changed.
    NodeLabels,
    /// Taints of a node changed, or it was uncordoned.
    NodeTaints,
    /// A pod came to a node, or its labels changed.
    PodPlaced,
    /// A pod left a node.
    PodGone,
    /// Labels of a namespace changed.
    NamespaceLabels,
}

impl Event {
    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeAdded => "NodeAdd",
            Self::NodeAllocatable => "NodeAllocatableChange",
            Self::NodeLabels => "NodeLabelChange",
            Self::NodeTaints => "NodeTaintChange",
            Self::PodPlaced => "AssignedPodAdd",
            Self::PodGone => "AssignedPodDelete",
            Self::NamespaceLabels => "NamespaceUpdate",
        }
    }

    /// Whether a rejection by the plugin may end with this event.
    fn helps(self, plugin: &str) -> bool {
        match self {
            Self::NodeAdded => true,
            Self::NodeAllocatable => plugin == "NodeResourcesFit",
            Self::NodeLabels => {
                matches!(plugin, "NodeAffinity" | "PodTopologySpread" | "InterPodAffinity")
            }
            Self::NodeTaints => {
                matches!(plugin, "TaintToleration" | "NodeUnschedulable" | "PodTopologySpread")
            }
            Self::PodPlaced => matches!(plugin, "PodTopologySpread" | "InterPodAffinity"),
            Self::PodGone => matches!(
                plugin,
                "NodeResourcesFit" | "NodePorts" | "PodTopologySpread" | "InterPodAffinity"
            ),
            Self::NamespaceLabels => plugin == "InterPodAffinity",
        }
    }
}

/// Order of ready pods: higher priority first, then the one that waits longer.
type Rank = (Reverse<i64>, u64, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Ready(Rank),
    Pausing((u64, u64)),
    Stuck {
        since: u64,
        plugins: BTreeSet<&'static str>,
    },
    /// Being scheduled or bound.
    Out,
}

#[derive(Debug, Clone)]
struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    added: u64,
    sequence: u64,
    /// When the pause after the last attempt ends.
    paused_until: u64,
    place: Place,
}

/// A pod that is taken out to be scheduled.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// When the pod was first added.
    pub added: u64,
}

/// Numbers of pods by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready.
    pub active: usize,
    /// Pausing.
    pub backoff: usize,
    /// Fit nowhere.
    pub unschedulable: usize,
}

/// The queue.
#[derive(Debug, Clone)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    ready: BTreeMap<Rank, String>,
    pausing: BTreeMap<(u64, u64), String>,
    stuck: BTreeMap<(u64, u64), String>,
    sequence: u64,
    first_pause: u64,
    longest_pause: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(1000, 10_000)
    }
}

impl Queue {
    /// A queue whose pauses grow from `first` to `longest` milliseconds.
    pub fn new(first: u64, longest: u64) -> Self {
        Self {
            entries: HashMap::new(),
            ready: BTreeMap::new(),
            pausing: BTreeMap::new(),
            stuck: BTreeMap::new(),
            sequence: 0,
            first_pause: first,
            longest_pause: longest,
        }
    }

    /// Adds a pod, or takes its new state; a change may make it fit.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: u64) {
        let uid = pod.uid.clone();
        match self.entries.get_mut(&uid) {
            None => {
                self.sequence += 1;
                let entry = Entry {
                    pod,
                    attempts: 0,
                    added: now,
                    sequence: self.sequence,
                    paused_until: 0,
                    place: Place::Out,
                };
                self.entries.insert(uid.clone(), entry);
                self.queue(&uid, now);
            }
            Some(entry) => {
                entry.pod = pod;
                if entry.place != Place::Out {
                    self.unlink(&uid);
                    self.queue(&uid, now);
                }
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.unlink(uid);
        self.entries.remove(uid);
    }

    /// Whether the pod is known and not out.
    pub fn waits(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|entry| entry.place != Place::Out)
    }

    /// A pod by uid.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// Every pod.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.entries.values().map(|entry| &entry.pod)
    }

    /// Takes the first ready pod out.
    pub fn pop(&mut self, now: u64) -> Option<Attempt> {
        self.ripen(now);
        let (_, uid) = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&uid).expect("queued pods have entries");
        entry.place = Place::Out;
        entry.attempts += 1;
        Some(Attempt { pod: entry.pod.clone(), attempts: entry.attempts, added: entry.added })
    }

    /// Puts a pod back that fits no node; it waits for an event that concerns `plugins`, any if empty.
    pub fn unschedulable(&mut self, uid: &str, plugins: BTreeSet<&'static str>, now: u64) {
        let pause = self.pause(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.paused_until = now + pause;
        entry.place = Place::Stuck { since: now, plugins };
        self.stuck.insert((now, entry.sequence), uid.to_owned());
    }

    /// Puts a pod back whose attempt failed for another reason; it is tried again after its pause.
    pub fn failed(&mut self, uid: &str, now: u64) {
        let pause = self.pause(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.paused_until = now + pause;
            self.queue(uid, now);
        }
    }

    /// Wakes the pods that the event may help; returns how many.
    pub fn wake(&mut self, event: Event, now: u64) -> usize {
        let helped = |uid: &&String| match &self.entries[*uid].place {
            Place::Stuck { plugins, .. } => {
                plugins.is_empty() || plugins.iter().any(|plugin| event.helps(plugin))
            }
            _ => false,
        };
        let uids: Vec<String> = self.stuck.values().filter(helped).cloned().collect();
        for uid in &uids {
            self.unlink(uid);
            self.queue(uid, now);
        }
        uids.len()
    }

    /// When the next pod becomes ready by itself.
    pub fn next_due(&self) -> Option<u64> {
        let pausing = self.pausing.keys().next().map(|(at, _)| *at);
        let stuck = self.stuck.keys().next().map(|(since, _)| since + STUCK_FOR);
        pausing.into_iter().chain(stuck).min()
    }

    /// Whether a pod is ready.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Numbers of pods by state.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.ready.len(),
            backoff: self.pausing.len(),
            unschedulable: self.stuck.len(),
        }
    }

    fn pause(&self, uid: &str) -> u64 {
        let attempts = self.entries.get(uid).map_or(1, |entry| entry.attempts.max(1));
        let factor = 1_u64.checked_shl(attempts - 1).unwrap_or(u64::MAX);
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }

    fn ripen(&mut self, now: u64) {
        while let Some((slot, uid)) = self.pausing.first_key_value() {
            if slot.0 > now {
                break;
            }
            let uid = uid.clone();
            self.unlink(&uid);
            self.queue(&uid, now);
        }
        while let Some(((since, _), uid)) = self.stuck.first_key_value() {
            if since + STUCK_FOR > now {
                break;
            }
            let uid = uid.clone();
            self.unlink(&uid);
            self.queue(&uid, now);
        }
    }

    /// To the ready pods, or to the pausing ones while its pause lasts.
    fn queue(&mut self, uid: &str, now: u64) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if entry.paused_until > now {
            let slot = (entry.paused_until, entry.sequence);
            entry.place = Place::Pausing(slot);
            self.pausing.insert(slot, uid.to_owned());
        } else {
            let rank = (Reverse(entry.pod.priority), entry.added, entry.sequence);
            entry.place = Place::Ready(rank);
            self.ready.insert(rank, uid.to_owned());
        }
    }

    fn unlink(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Out) {
            Place::Ready(rank) => drop(self.ready.remove(&rank)),
            Place::Pausing(slot) => drop(self.pausing.remove(&slot)),
            Place::Stuck { since, .. } => drop(self.stuck.remove(&(since, entry.sequence))),
            Place::Out => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Columns;
    use crate::spec::Pod;

    fn pod(uid: &str, priority: i64) -> Arc<PodInfo> {
        let mut pod = Pod::default();
        pod.metadata.uid = uid.to_owned();
        pod.spec.priority = Some(priority);
        Arc::new(PodInfo::new(&pod, &mut Columns::default()).unwrap())
    }

    fn pop(queue: &mut Queue, now: u64) -> Option<String> {
        queue.pop(now).map(|attempt| attempt.pod.uid.clone())
    }

    #[test]
    fn priority_then_age_decides() {
        let mut queue = Queue::default();
        for (uid, priority, now) in [("a", 0, 1), ("b", 5, 2), ("c", 5, 1)] {
            queue.add(pod(uid, priority), now);
        }
        let order: Vec<String> = std::iter::from_fn(|| pop(&mut queue, 3)).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn stuck_pod_wakes_only_by_what_helps_and_after_its_pause() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), 0);
        assert!(queue.pop(0).is_some());
        queue.unschedulable("a", BTreeSet::from(["NodeResourcesFit"]), 0);
        assert_eq!(queue.wake(Event::NodeTaints, 10), 0);
        assert_eq!(queue.wake(Event::PodGone, 10), 1);
        assert_eq!(pop(&mut queue, 999), None, "the pause of a second lasts");
        assert_eq!(queue.next_due(), Some(1000));
        assert_eq!(pop(&mut queue, 1000), Some("a".to_owned()));
        queue.unschedulable("a", BTreeSet::from(["NodeResourcesFit"]), 1000);
        assert_eq!(
            pop(&mut queue, 1000 + STUCK_FOR),
            Some("a".to_owned()),
            "no pod waits for ever"
        );
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), 0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(queue.pop(now).is_some());
            queue.failed("a", now);
            let due = queue.next_due().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn removed_pod_leaves_nothing() {
        let mut queue = Queue::default();
        for uid in ["a", "b", "c"] {
            queue.add(pod(uid, 0), 0);
        }
        queue.pop(0);
        queue.unschedulable("a", BTreeSet::new(), 0);
        for uid in ["a", "b", "c"] {
            queue.remove(uid);
        }
        assert_eq!(queue.counts(), Counts::default());
        assert_eq!(queue.next_due(), None);
    }
}
