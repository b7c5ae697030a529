//! The state of the cluster and the decision where a pod goes.
//!
//! Every change is taken one at a time, and each costs as much as it changes: classes of pods remember how
//! every node looks to them, and a journal tells them which nodes to look at again. The result is the same as
//! if everything were computed anew (the tests check exactly that).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::class::{Class, Columns, PodInfo};
use crate::constraints::Constraints;
use crate::counters::Counters;
use crate::diagnosis::Diagnosis;
use crate::filter::{self, Rejection};
use crate::labels::Labels;
use crate::nodes::{Nodes, mix};
use crate::score::{self, Weights};
use crate::spec::{Node, Pod};

/// Classes that are remembered; beyond that the ones not used for longest go.
const CLASSES: usize = 1024;

/// A node for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: String,
    /// Its weighted score.
    pub score: i64,
    /// Nodes that fit.
    pub feasible: usize,
}

/// One node as [`Engine::explain`] describes it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The node.
    pub node: String,
    /// Why it is out, if it is.
    pub rejection: Option<Rejection>,
    /// Weighted scores by plugin.
    pub scores: BTreeMap<&'static str, i64>,
    /// Their sum.
    pub total: i64,
}

/// How all nodes look to a class.
#[derive(Debug, Clone)]
struct Outlook {
    allowed: Vec<bool>,
    /// Weighted scores that need no comparison with other nodes.
    own: Vec<i64>,
    intolerable: Vec<i64>,
    preference: Vec<i64>,
    position: u64,
    image_epoch: u64,
    used: u64,
}

/// The engine.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) nodes: Nodes,
    columns: Columns,
    weights: Weights,
    hard_affinity_weight: i64,
    seed: u64,
    pods: HashMap<String, (usize, Arc<PodInfo>)>,
    counters: Counters,
    outlooks: HashMap<Class, Outlook>,
    /// Slots that changed; the first one has position `first`.
    journal: Vec<u32>,
    first: u64,
    uses: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(Weights::default(), 1, 0)
    }
}

impl Engine {
    /// An empty cluster. `seed` decides between nodes of equal score.
    pub fn new(weights: Weights, hard_affinity_weight: i64, seed: u64) -> Self {
        Self {
            nodes: Nodes::default(),
            columns: Columns::default(),
            weights,
            hard_affinity_weight,
            seed,
            pods: HashMap::new(),
            counters: Counters::default(),
            outlooks: HashMap::new(),
            journal: Vec::new(),
            first: 0,
            uses: 0,
        }
    }

    /// Reads a pod.
    ///
    /// # Errors
    /// When a quantity, selector or term is wrong.
    pub fn read(&mut self, pod: &Pod) -> Result<PodInfo, String> {
        PodInfo::new(pod, &mut self.columns)
    }

    /// Takes the state of a node.
    ///
    /// # Errors
    /// When an amount is no quantity; the node keeps its old state then.
    pub fn set_node(&mut self, node: &Node) -> Result<(), String> {
        let (slot, _) = self.nodes.set(node, &mut self.columns)?;
        self.touch(slot);
        Ok(())
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(slot) = self.nodes.unset(name) {
            self.touch(slot);
        }
    }

    /// Takes the labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        self.counters.set_namespace(name, labels);
    }

    /// Puts a pod on a node, or takes its new state there.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.uid);
        let slot = self.nodes.slot(node);
        self.nodes.add(slot, &pod.uid, &pod.class, self.columns.len());
        self.counters.change(&pod, slot, 1, self.hard_affinity_weight);
        self.pods.insert(pod.uid.clone(), (slot, pod));
        self.touch(slot);
    }

    /// Takes a pod off its node.
    pub fn displace(&mut self, uid: &str) -> Option<(String, Arc<PodInfo>)> {
        let (slot, pod) = self.pods.remove(uid)?;
        let name = self.nodes.row(slot).name.clone();
        self.counters.change(&pod, slot, -1, self.hard_affinity_weight);
        self.nodes.remove(slot, uid, &pod.class);
        self.touch(slot);
        Some((name, pod))
    }

    /// Where a placed pod is.
    pub fn placed(&self, uid: &str) -> Option<(&str, &Arc<PodInfo>)> {
        self.pods.get(uid).map(|(slot, pod)| (self.nodes.row(*slot).name.as_str(), pod))
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.present()
    }

    /// Placed pods.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &Arc<PodInfo>)> {
        self.pods.values().map(|(slot, pod)| (self.nodes.row(*slot).name.as_str(), pod))
    }

    pub(crate) fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|(_, pod)| pod)
    }

    /// The best node for a pod. `turn` varies the choice among equals.
    ///
    /// # Errors
    /// Why no node fits.
    pub fn schedule(&mut self, pod: &PodInfo, turn: u64) -> Result<Placement, Diagnosis> {
        if pod.unsupported.is_some() || self.nodes.present() == 0 {
            return Err(self.diagnose(pod));
        }
        let constraints = self.constraints(pod);
        self.refresh(&pod.class);
        let outlook = &self.outlooks[&pod.class];
        let wanted = &pod.node_name;
        let mut feasible: Vec<usize> = Vec::new();
        for (slot, allowed) in outlook.allowed.iter().enumerate() {
            if *allowed
                && (wanted.is_empty() || self.nodes.row(slot).name == *wanted)
                && constraints.check(&self.nodes, slot).is_ok()
            {
                feasible.push(slot);
            }
        }
        let best = self.best(&feasible, outlook, &constraints, turn);
        match best {
            Some((slot, score)) => {
                let node = self.nodes.row(slot).name.clone();
                Ok(Placement { node, score, feasible: feasible.len() })
            }
            None => Err(self.diagnose(pod)),
        }
    }

    fn best(
        &self,
        feasible: &[usize],
        outlook: &Outlook,
        constraints: &Constraints,
        turn: u64,
    ) -> Option<(usize, i64)> {
        let highest = |raw: &[i64]| feasible.iter().map(|s| raw[*s]).max().unwrap_or(0);
        let (taints, preference) = (highest(&outlook.intolerable), highest(&outlook.preference));
        let soft = constraints.scores(&self.nodes, feasible);
        let salt = mix(self.seed ^ mix(turn));
        let mut best: Option<(i64, u64, usize)> = None;
        for (index, slot) in feasible.iter().copied().enumerate() {
            let mut total = outlook.own[slot]
                + self.weights.taints * score::relative(outlook.intolerable[slot], taints, true)
                + self.weights.node_affinity
                    * score::relative(outlook.preference[slot], preference, false);
            if let Some((spread, affinity)) = &soft {
                total += self.weights.spread * spread[index];
                total += self.weights.pod_affinity * affinity[index];
            }
            if best.is_some_and(|(score, _, _)| score > total) {
                continue;
            }
            // Equals are ordered by a hash of their name and the turn: any order of slots gives the same.
            let rank = mix(self.nodes.row(slot).salt ^ salt);
            if best.is_none_or(|(score, other, _)| (total, rank) > (score, other)) {
                best = Some((total, rank, slot));
            }
        }
        best.map(|(score, _, slot)| (slot, score))
    }

    /// Why each node is in or out, in order of name.
    pub fn explain(&mut self, pod: &PodInfo) -> Vec<NodeView> {
        let constraints = self.constraints(pod);
        let mut order: Vec<usize> =
            (0..self.nodes.slots()).filter(|slot| self.nodes.row(*slot).present).collect();
        order.sort_by(|a, b| self.nodes.row(*a).name.cmp(&self.nodes.row(*b).name));
        self.refresh(&pod.class);
        let outlook = &self.outlooks[&pod.class];
        let judge = |slot: usize| self.judge(pod, slot, &constraints).err();
        let verdicts: Vec<Option<Rejection>> = order.iter().map(|slot| judge(*slot)).collect();
        let feasible: Vec<usize> =
            order.iter().zip(&verdicts).filter(|(_, v)| v.is_none()).map(|(s, _)| *s).collect();
        let highest = |raw: &[i64]| feasible.iter().map(|s| raw[*s]).max().unwrap_or(0);
        let (taints, preference) = (highest(&outlook.intolerable), highest(&outlook.preference));
        let soft = constraints.scores(&self.nodes, &feasible);
        let (w, nodes, class) = (&self.weights, &self.nodes, &pod.class);
        let mut views = Vec::new();
        let mut index = 0;
        for (slot, rejection) in order.into_iter().zip(verdicts) {
            let node = self.nodes.row(slot).name.clone();
            let mut scores = BTreeMap::new();
            if rejection.is_none() {
                let relative = score::relative;
                let fit = w.fit * score::least_allocated(nodes, slot, class);
                scores.insert("NodeResourcesFit", fit);
                let balanced = w.balanced * score::balanced(nodes, slot, class);
                scores.insert("NodeResourcesBalancedAllocation", balanced);
                scores.insert("ImageLocality", w.images * score::images(nodes, slot, class));
                let taint = relative(outlook.intolerable[slot], taints, true);
                scores.insert("TaintToleration", w.taints * taint);
                let affinity = relative(outlook.preference[slot], preference, false);
                scores.insert("NodeAffinity", w.node_affinity * affinity);
                if let Some((spread, affinity)) = &soft {
                    scores.insert("PodTopologySpread", w.spread * spread[index]);
                    scores.insert("InterPodAffinity", w.pod_affinity * affinity[index]);
                }
                index += 1;
            }
            let total = scores.values().sum();
            views.push(NodeView { node, rejection, scores, total });
        }
        views
    }

    /// Why no node fits, in the words of the FailedScheduling event.
    pub fn diagnose(&mut self, pod: &PodInfo) -> Diagnosis {
        let constraints = self.constraints(pod);
        let present = (0..self.nodes.slots()).filter(|slot| self.nodes.row(*slot).present);
        let rejections = present.filter_map(|slot| self.judge(pod, slot, &constraints).err());
        Diagnosis::new(self.nodes.present(), rejections.collect(), pod.unsupported.clone())
    }

    pub(crate) fn judge(
        &self,
        pod: &PodInfo,
        slot: usize,
        constraints: &Constraints,
    ) -> Result<(), Rejection> {
        if let Some(reason) = &pod.unsupported {
            return Err(Rejection::fixed("NotSupported", reason.clone()));
        }
        filter::check(&self.nodes, slot, &pod.class, &pod.node_name, &self.columns)?;
        constraints.check(&self.nodes, slot)
    }

    pub(crate) fn constraints(&mut self, pod: &PodInfo) -> Constraints {
        let pods = &self.pods;
        let placed = || pods.values().map(|(slot, pod)| (*slot, pod));
        Constraints::of(pod, &mut self.nodes, &mut self.counters, placed)
    }

    fn touch(&mut self, slot: usize) {
        self.journal.push(slot as u32);
        let most = 4 * self.nodes.slots().max(256);
        if self.journal.len() > 2 * most {
            let cut = self.journal.len() - most;
            self.journal.drain(..cut);
            self.first += cut as u64;
        }
    }

    /// Brings up to date how the nodes look to a class.
    fn refresh(&mut self, class: &Class) {
        self.uses += 1;
        let end = self.first + self.journal.len() as u64;
        if self.outlooks.len() >= CLASSES && !self.outlooks.contains_key(class) {
            let mut ages: Vec<u64> = self.outlooks.values().map(|o| o.used).collect();
            ages.sort_unstable();
            let old = ages[ages.len() / 2];
            self.outlooks.retain(|_, o| o.used > old);
        }
        if !self.outlooks.contains_key(class) {
            self.outlooks.insert(class.clone(), Outlook::blank());
        }
        let outlook = self.outlooks.get_mut(class).expect("it was just added");
        let (nodes, weights) = (&self.nodes, &self.weights);
        let slots = nodes.slots();
        let images = nodes.image_epoch() != outlook.image_epoch;
        let behind = outlook.position < self.first || end - outlook.position > slots as u64;
        if images || behind {
            outlook.resize(slots);
            (0..slots).for_each(|slot| outlook.look(nodes, slot, class, weights));
        } else {
            outlook.resize(slots);
            for slot in &self.journal[(outlook.position - self.first) as usize..] {
                outlook.look(nodes, *slot as usize, class, weights);
            }
        }
        outlook.position = end;
        outlook.image_epoch = nodes.image_epoch();
        outlook.used = self.uses;
    }
}

impl Outlook {
    fn blank() -> Self {
        Self {
            allowed: Vec::new(),
            own: Vec::new(),
            intolerable: Vec::new(),
            preference: Vec::new(),
            position: 0,
            // No epoch is this one, so that the first use looks at all nodes.
            image_epoch: u64::MAX,
            used: 0,
        }
    }

    fn resize(&mut self, slots: usize) {
        self.allowed.resize(slots, false);
        for column in [&mut self.own, &mut self.intolerable, &mut self.preference] {
            column.resize(slots, 0);
        }
    }

    fn look(&mut self, nodes: &Nodes, slot: usize, class: &Class, weights: &Weights) {
        self.allowed[slot] = filter::allows(nodes, slot, class);
        if !self.allowed[slot] {
            return;
        }
        self.own[slot] = weights.fit * score::least_allocated(nodes, slot, class)
            + weights.balanced * score::balanced(nodes, slot, class)
            + weights.images * score::images(nodes, slot, class);
        self.intolerable[slot] = score::intolerable(nodes, slot, class);
        self.preference[slot] = score::preference(nodes, slot, class);
    }
}
