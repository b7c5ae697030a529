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

/// Sums by value of a topology label.
type Domains = HashMap<String, i64>;

/// What the pods on other nodes demand for one incoming pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Constraints {
    hard: Vec<Hard>,
    soft: Vec<Soft>,
    affinity: Vec<(String, Domains)>,
    /// No pod matches the affinity anywhere, but the pod itself does: it may be the first.
    first: bool,
    anti: Vec<(String, Domains)>,
    repelled: Vec<(String, Domains)>,
    attraction: Vec<(String, Domains)>,
}

#[derive(Debug, Clone)]
struct Hard {
    key: String,
    counts: Domains,
    least: i64,
    own: i64,
    max_skew: i64,
}

#[derive(Debug, Clone)]
struct Soft {
    key: String,
    counts: Domains,
    /// By slot, for the host name.
    nodes: HashMap<usize, i64>,
    max_skew: i64,
}

fn by_domain(nodes: &Nodes, key: &str, counts: &HashMap<usize, i64>) -> Domains {
    let mut domains = Domains::new();
    for (slot, count) in counts {
        let row = nodes.row(*slot);
        if let Some(domain) = row.labels.get(key).filter(|_| row.present) {
            *domains.entry(domain.clone()).or_default() += count;
        }
    }
    domains.retain(|_, sum| *sum != 0);
    domains
}

impl Constraints {
    pub(crate) fn of<'a, I, F>(
        pod: &PodInfo,
        nodes: &Nodes,
        counters: &mut Counters,
        placed: F,
    ) -> Self
    where
        I: Iterator<Item = (usize, &'a Arc<PodInfo>)>,
        F: Fn() -> I,
    {
        let mut all = Self::default();
        let mut repelled: HashMap<String, Domains> = HashMap::new();
        let mut attraction: HashMap<String, Domains> = HashMap::new();
        for (effect, term, counts) in counters.concerning(pod) {
            let (sums, weight) = match effect {
                Effect::Repel => (&mut repelled, 1),
                Effect::Attract(weight) => (&mut attraction, *weight),
            };
            let sums = sums.entry(term.key.clone()).or_default();
            for (domain, count) in by_domain(nodes, &term.key, counts) {
                *sums.entry(domain).or_default() += weight * count;
            }
        }
        let mut count = |terms: Vec<Term>, key: &str| {
            by_domain(nodes, key, counters.count(Question::Terms(terms), placed()))
        };
        for (weight, term) in &pod.preferred {
            let sums = attraction.entry(term.key.clone()).or_default();
            for (domain, pods) in count(vec![term.clone()], &term.key) {
                *sums.entry(domain).or_default() += weight * pods;
            }
        }
        for term in &pod.affinity {
            all.affinity.push((term.key.clone(), count(pod.affinity.clone(), &term.key)));
        }
        for term in &pod.anti_affinity {
            all.anti.push((term.key.clone(), count(vec![term.clone()], &term.key)));
        }
        let nobody = all.affinity.iter().all(|(_, domains)| domains.is_empty());
        let namespaces = counters.namespaces();
        all.first = nobody && pod.affinity.iter().all(|term| means(term, pod, namespaces));
        all.repelled = repelled.into_iter().collect();
        all.attraction = attraction.into_iter().collect();
        let keys = |hard: bool| -> Vec<String> {
            pod.spread.iter().filter(|s| s.hard == hard).map(|s| s.key.clone()).collect()
        };
        let (hard_keys, soft_keys) = (keys(true), keys(false));
        for spread in &pod.spread {
            let question = Question::Spread(pod.namespace.clone(), spread.selector.clone());
            let counts = counters.count(question, placed());
            if spread.hard {
                all.hard.push(hard(spread, pod, nodes, counts, &hard_keys));
            } else {
                all.soft.push(soft(spread, pod, nodes, counts, &soft_keys));
            }
        }
        all
    }

    pub(crate) fn check(&self, nodes: &Nodes, slot: usize) -> Result<(), Rejection> {
        let labels = &nodes.row(slot).labels;
        for spread in &self.hard {
            let Some(domain) = labels.get(&spread.key) else {
                let reason =
                    "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::fixed(SPREAD, reason));
            };
            let here = spread.counts.get(domain).copied().unwrap_or(0);
            if here + spread.own - spread.least > spread.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::resolvable(SPREAD, reason));
            }
        }
        let here = |(key, domains): &(String, Domains)| {
            labels.get(key).map(|domain| domains.get(domain).copied().unwrap_or(0))
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
            let labels = &nodes.row(*slot).labels;
            let part = |(key, domains): &(String, Domains)| {
                labels.get(key).and_then(|d| domains.get(d)).copied().unwrap_or(0)
            };
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
        let labeled = |slot: &usize| {
            let labels = &nodes.row(*slot).labels;
            self.soft.iter().all(|s| labels.contains_key(&s.key))
        };
        let counted: Vec<usize> = feasible.iter().copied().filter(labeled).collect();
        let weights: Vec<f64> = self
            .soft
            .iter()
            .map(|soft| {
                let domains = if soft.key == HOSTNAME {
                    counted.len()
                } else {
                    let of = |slot: &usize| nodes.row(*slot).labels.get(&soft.key);
                    counted.iter().filter_map(of).collect::<std::collections::HashSet<_>>().len()
                };
                ((domains + 2) as f64).ln()
            })
            .collect();
        let raw = |slot: usize| {
            let labels = &nodes.row(slot).labels;
            let part = |(soft, weight): (&Soft, &f64)| {
                let count = if soft.key == HOSTNAME {
                    soft.nodes.get(&slot).copied().unwrap_or(0)
                } else {
                    labels.get(&soft.key).and_then(|d| soft.counts.get(d)).copied().unwrap_or(0)
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

/// Whether the nodes of a slot count for a spread constraint of the pod.
fn counts(spread: &Spread, pod: &PodInfo, nodes: &Nodes, slot: usize, keys: &[String]) -> bool {
    let row = nodes.row(slot);
    row.present
        && keys.iter().all(|key| row.labels.contains_key(key))
        && (!spread.honor_affinity || pod.class.selects(&row.name, &row.labels))
        && (!spread.honor_taints || untolerated(&row.taints, &pod.class.tolerations).is_none())
}

fn hard(
    spread: &Spread,
    pod: &PodInfo,
    nodes: &Nodes,
    pods: &HashMap<usize, i64>,
    keys: &[String],
) -> Hard {
    let mut domains = Domains::new();
    for slot in (0..nodes.slots()).filter(|slot| counts(spread, pod, nodes, *slot, keys)) {
        let domain = nodes.row(slot).labels[&spread.key].clone();
        *domains.entry(domain).or_default() += pods.get(&slot).copied().unwrap_or(0);
    }
    let few = (domains.len() as i64) < spread.min_domains;
    let least = domains.values().min().copied().unwrap_or(i64::from(i32::MAX));
    Hard {
        key: spread.key.clone(),
        counts: domains,
        least: if few { 0 } else { least },
        own: i64::from(spread.selector.matches(&pod.labels)),
        max_skew: spread.max_skew,
    }
}

fn soft(
    spread: &Spread,
    pod: &PodInfo,
    nodes: &Nodes,
    pods: &HashMap<usize, i64>,
    keys: &[String],
) -> Soft {
    let counted = |slot: &&usize| counts(spread, pod, nodes, **slot, keys);
    let kept: HashMap<usize, i64> =
        pods.keys().filter(counted).map(|slot| (*slot, pods[slot])).collect();
    Soft {
        key: spread.key.clone(),
        counts: by_domain(nodes, &spread.key, &kept),
        nodes: pods.clone(),
        max_skew: spread.max_skew,
    }
}
