//! Constraints that look at pods on other nodes: PodTopologySpread and InterPodAffinity.
//!
//! They are worked out once per decision from the counters, by topology domain.

use std::collections::HashMap;
use std::sync::Arc;

use crate::class::{PodInfo, Spread, Term};
use crate::counters::{Counters, Effect, Question, means};
use crate::filter::Rejection;
use crate::nodes::Nodes;
use crate::score::MAX;
use crate::taints::untolerated;

const HOSTNAME: &str = "kubernetes.io/hostname";
const SPREAD: &str = "PodTopologySpread";
const AFFINITY: &str = "InterPodAffinity";

/// Sums by number of the domain; the first belongs to nodes without the label and stays 0.
type Domains = Vec<i64>;

/// What the pods on other nodes demand for one incoming pod. Topologies are named by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Constraints {
    hard: Vec<Hard>,
    soft: Vec<Soft>,
    affinity: Vec<(usize, Domains)>,
    /// No pod matches the affinity anywhere, but the pod itself does: it may be the first.
    first: bool,
    anti: Vec<(usize, Domains)>,
    repelled: Vec<(usize, Domains)>,
    attraction: Vec<(usize, Domains)>,
}

#[derive(Debug, Clone)]
struct Hard {
    topology: usize,
    counts: Domains,
    least: i64,
    own: i64,
    max_skew: i64,
}

#[derive(Debug, Clone)]
struct Soft {
    topology: usize,
    counts: Domains,
    /// By slot, for the host name.
    nodes: Option<HashMap<usize, i64>>,
    max_skew: i64,
}

/// Adds the counts to the sums of the domains, `weight` times.
fn add(
    nodes: &Nodes,
    topology: usize,
    counts: &HashMap<usize, i64>,
    weight: i64,
    sums: &mut Domains,
) {
    sums.resize(nodes.domains(topology) + 1, 0);
    for (slot, count) in counts {
        let domain = nodes.domain(topology, *slot);
        if domain != 0 {
            sums[domain] += weight * count;
        }
    }
}

impl Constraints {
    pub(crate) fn of<'a, I, F>(
        pod: &PodInfo,
        nodes: &mut Nodes,
        counters: &mut Counters,
        placed: F,
    ) -> Self
    where
        I: Iterator<Item = (usize, &'a Arc<PodInfo>)>,
        F: Fn() -> I,
    {
        let mut all = Self::default();
        let mut repelled: HashMap<usize, Domains> = HashMap::new();
        let mut attraction: HashMap<usize, Domains> = HashMap::new();
        for (effect, term, counts) in counters.concerning(pod) {
            let topology = nodes.topology(&term.key);
            let (sums, weight) = match effect {
                Effect::Repel => (&mut repelled, 1),
                Effect::Attract(weight) => (&mut attraction, *weight),
            };
            add(nodes, topology, counts, weight, sums.entry(topology).or_default());
        }
        for (weight, term) in &pod.preferred {
            let topology = nodes.topology(&term.key);
            let counts = counters.count(Question::Terms(vec![term.clone()]), placed());
            add(nodes, topology, counts, *weight, attraction.entry(topology).or_default());
        }
        let mut count = |terms: Vec<Term>, key: &str| {
            let topology = nodes.topology(key);
            let mut sums = Domains::new();
            add(nodes, topology, counters.count(Question::Terms(terms), placed()), 1, &mut sums);
            (topology, sums)
        };
        for term in &pod.affinity {
            all.affinity.push(count(pod.affinity.clone(), &term.key));
        }
        for term in &pod.anti_affinity {
            all.anti.push(count(vec![term.clone()], &term.key));
        }
        let nobody = all.affinity.iter().all(|(_, sums)| sums.iter().all(|sum| *sum == 0));
        let namespaces = counters.namespaces();
        all.first = nobody && pod.affinity.iter().all(|term| means(term, pod, namespaces));
        all.repelled = repelled.into_iter().collect();
        // Sums that cancel out have no say, as if nobody had asked.
        all.attraction =
            attraction.into_iter().filter(|(_, s)| s.iter().any(|n| *n != 0)).collect();
        let mut topologies = |hard: bool| -> Vec<usize> {
            let own = pod.spread.iter().filter(|s| s.hard == hard);
            own.map(|s| nodes.topology(&s.key)).collect()
        };
        let (hard_topologies, soft_topologies) = (topologies(true), topologies(false));
        for spread in &pod.spread {
            let topology = nodes.topology(&spread.key);
            let question = Question::Spread(pod.namespace.clone(), spread.selector.clone());
            let counts = counters.count(question, placed());
            if spread.hard {
                all.hard.push(hard(spread, pod, nodes, counts, (topology, &hard_topologies)));
            } else {
                all.soft.push(soft(spread, pod, nodes, counts, (topology, &soft_topologies)));
            }
        }
        all
    }

    pub(crate) fn check(&self, nodes: &Nodes, slot: usize) -> Result<(), Rejection> {
        for spread in &self.hard {
            let domain = nodes.domain(spread.topology, slot);
            if domain == 0 {
                let reason =
                    "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::fixed(SPREAD, reason));
            }
            if spread.counts[domain] + spread.own - spread.least > spread.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::resolvable(SPREAD, reason));
            }
        }
        let here = |(topology, sums): &(usize, Domains)| match nodes.domain(*topology, slot) {
            0 => None,
            domain => Some(sums[domain]),
        };
        let lonely = |entry| here(entry).is_none_or(|count| count == 0);
        let unlabeled = self.affinity.iter().any(|entry| here(entry).is_none());
        if unlabeled || (!self.first && self.affinity.iter().any(lonely)) {
            return Err(Rejection::fixed(AFFINITY, "node(s) didn't match pod affinity rules"));
        }
        let near = |entry| here(entry).is_some_and(|count| count > 0);
        if self.anti.iter().any(near) {
            let reason = "node(s) didn't match pod anti-affinity rules";
            return Err(Rejection::resolvable(AFFINITY, reason));
        }
        if self.repelled.iter().any(near) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::resolvable(AFFINITY, reason));
        }
        Ok(())
    }

    /// Normalised scores of spread and affinity for the nodes that fit; `None` when neither has a say.
    pub(crate) fn scores(&self, nodes: &Nodes, feasible: &[usize]) -> Option<(Vec<i64>, Vec<i64>)> {
        if self.soft.is_empty() && self.attraction.is_empty() {
            return None;
        }
        Some((self.spread_scores(nodes, feasible), self.affinity_scores(nodes, feasible)))
    }

    fn affinity_scores(&self, nodes: &Nodes, feasible: &[usize]) -> Vec<i64> {
        let raw = |slot: &usize| {
            let part = |(topology, sums): &(usize, Domains)| sums[nodes.domain(*topology, *slot)];
            self.attraction.iter().map(part).sum::<i64>()
        };
        let raw: Vec<i64> = feasible.iter().map(raw).collect();
        let (least, most) = bounds(raw.iter().copied());
        let scale = |score: i64| {
            if most == least {
                return 0;
            }
            (MAX as f64 * ((score - least) as f64 / (most - least) as f64)) as i64
        };
        raw.into_iter().map(scale).collect()
    }

    fn spread_scores(&self, nodes: &Nodes, feasible: &[usize]) -> Vec<i64> {
        if self.soft.is_empty() {
            return vec![0; feasible.len()];
        }
        let labeled = |slot: &usize| self.soft.iter().all(|s| nodes.domain(s.topology, *slot) != 0);
        let counted: Vec<usize> = feasible.iter().copied().filter(labeled).collect();
        let weight = |soft: &Soft| {
            let domains = if soft.nodes.is_some() {
                counted.len()
            } else {
                let of = |slot: &usize| nodes.domain(soft.topology, *slot);
                counted.iter().map(of).collect::<std::collections::HashSet<_>>().len()
            };
            ((domains + 2) as f64).ln()
        };
        let weights: Vec<f64> = self.soft.iter().map(weight).collect();
        let raw = |slot: usize| {
            let part = |(soft, weight): (&Soft, &f64)| {
                let count = match &soft.nodes {
                    Some(nodes) => nodes.get(&slot).copied().unwrap_or(0),
                    None => soft.counts[nodes.domain(soft.topology, slot)],
                };
                count as f64 * weight + (soft.max_skew - 1) as f64
            };
            self.soft.iter().zip(&weights).map(part).sum::<f64>().round() as i64
        };
        let raw: Vec<Option<i64>> =
            feasible.iter().map(|slot| labeled(slot).then(|| raw(*slot))).collect();
        let (least, most) = bounds(raw.iter().filter_map(|r| *r));
        let scale = |score: Option<i64>| match score {
            None => 0,
            Some(_) if most == 0 => MAX,
            Some(score) => MAX * (most + least - score) / most,
        };
        raw.into_iter().map(scale).collect()
    }
}

fn bounds(values: impl Iterator<Item = i64> + Clone) -> (i64, i64) {
    (values.clone().min().unwrap_or(0), values.max().unwrap_or(0))
}

/// Whether the node of a slot counts for a spread constraint of the pod.
fn counts(spread: &Spread, pod: &PodInfo, nodes: &Nodes, slot: usize, all: &[usize]) -> bool {
    let row = nodes.row(slot);
    row.present
        && all.iter().all(|topology| nodes.domain(*topology, slot) != 0)
        && (!spread.honor_affinity || pod.class.selects(&row.name, &row.labels))
        && (!spread.honor_taints || untolerated(&row.taints, &pod.class.tolerations).is_none())
}

fn hard(
    spread: &Spread,
    pod: &PodInfo,
    nodes: &Nodes,
    pods: &HashMap<usize, i64>,
    (topology, all): (usize, &[usize]),
) -> Hard {
    let mut sums = vec![0; nodes.domains(topology) + 1];
    let mut seen = vec![false; sums.len()];
    for slot in (0..nodes.slots()).filter(|slot| counts(spread, pod, nodes, *slot, all)) {
        let domain = nodes.domain(topology, slot);
        seen[domain] = true;
        sums[domain] += pods.get(&slot).copied().unwrap_or(0);
    }
    let present = || sums.iter().zip(&seen).filter(|(_, seen)| **seen).map(|(sum, _)| *sum);
    let few = (present().count() as i64) < spread.min_domains;
    let least = present().min().unwrap_or(i64::from(i32::MAX));
    Hard {
        topology,
        least: if few { 0 } else { least },
        counts: sums,
        own: i64::from(spread.selector.matches(&pod.labels)),
        max_skew: spread.max_skew,
    }
}

fn soft(
    spread: &Spread,
    pod: &PodInfo,
    nodes: &Nodes,
    pods: &HashMap<usize, i64>,
    (topology, all): (usize, &[usize]),
) -> Soft {
    let counted = |slot: &&usize| counts(spread, pod, nodes, **slot, all);
    let kept: HashMap<usize, i64> =
        pods.keys().filter(counted).map(|slot| (*slot, pods[slot])).collect();
    let mut sums = Domains::new();
    add(nodes, topology, &kept, 1, &mut sums);
    let by_node = (spread.key == HOSTNAME).then(|| pods.clone());
    Soft { topology, counts: sums, nodes: by_node, max_skew: spread.max_skew }
}
