//! How many pods on each node are of a kind that some term or constraint asks about.
//!
//! A counter is made by a full count when it is first asked for, and kept in step from then on. The terms
//! that placed pods carry are kept by owner, so that an incoming pod is compared with each distinct term once,
//! however many pods carry it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::class::{PodInfo, Term};
use crate::labels::{Labels, Selector};

/// Counters that may exist at a time; beyond that all are forgotten and made again as needed.
const MOST: usize = 2048;

/// Which pods are counted: those that match all of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Pods that match every term.
    Terms(Vec<Term>),
    /// Pods of a namespace that are not being deleted and match.
    Spread(String, Selector),
}

/// What a placed pod's term does to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// Keeps matching pods out of the domain.
    Repel,
    /// Adds to the score of the domain for matching pods.
    Attract(i64),
}

type PerNode = HashMap<usize, i64>;

/// All counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    namespaces: HashMap<String, Labels>,
    counts: HashMap<Question, PerNode>,
    carried: BTreeMap<(Effect, Term), PerNode>,
}

/// Whether the term means the pod.
pub(crate) fn means(term: &Term, pod: &PodInfo, namespaces: &HashMap<String, Labels>) -> bool {
    let by_name = term.namespaces.contains(&pod.namespace);
    let by_label = || {
        let none = Labels::new();
        let labels = namespaces.get(&pod.namespace).unwrap_or(&none);
        term.namespace_selector.as_ref().is_some_and(|s| s.matches(labels))
    };
    (by_name || by_label()) && term.selector.matches(&pod.labels)
}

impl Question {
    fn counts(&self, pod: &PodInfo, namespaces: &HashMap<String, Labels>) -> bool {
        match self {
            Self::Terms(terms) => terms.iter().all(|term| means(term, pod, namespaces)),
            Self::Spread(namespace, selector) => {
                !pod.terminating && pod.namespace == *namespace && selector.matches(&pod.labels)
            }
        }
    }
}

/// The terms a pod carries and their effects; `hard` is the weight of required affinity in scores.
pub(crate) fn carried(pod: &PodInfo, hard: i64) -> impl Iterator<Item = (Effect, Term)> {
    let repel = pod.anti_affinity.iter().map(|t| (Effect::Repel, t.clone()));
    let attract = pod.affinity.iter().map(move |t| (Effect::Attract(hard), t.clone()));
    let preferred = pod.preferred.iter().map(|(w, t)| (Effect::Attract(*w), t.clone()));
    repel.chain(attract).chain(preferred)
}

impl Counters {
    pub(crate) fn namespaces(&self) -> &HashMap<String, Labels> {
        &self.namespaces
    }

    /// Takes the labels of a namespace; counters that select by them are made anew.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        self.counts.retain(|question, _| match question {
            Question::Terms(terms) => terms.iter().all(|t| t.namespace_selector.is_none()),
            Question::Spread(..) => true,
        });
    }

    /// Counts a pod in (`sign` 1) or out (-1).
    pub(crate) fn change(&mut self, pod: &PodInfo, slot: usize, sign: i64, hard: i64) {
        for (question, counts) in &mut self.counts {
            if question.counts(pod, &self.namespaces) {
                shift(counts, slot, sign);
            }
        }
        for entry in carried(pod, hard) {
            let counts = self.carried.entry(entry.clone()).or_default();
            shift(counts, slot, sign);
            if counts.is_empty() {
                self.carried.remove(&entry);
            }
        }
    }

    /// The counts of a question, made from all placed pods when it is new.
    pub(crate) fn count<'a>(
        &mut self,
        question: Question,
        placed: impl Iterator<Item = (usize, &'a Arc<PodInfo>)>,
    ) -> &PerNode {
        if self.counts.len() >= MOST && !self.counts.contains_key(&question) {
            self.counts.clear();
        }
        let namespaces = &self.namespaces;
        self.counts.entry(question.clone()).or_insert_with(|| {
            let mut counts = PerNode::new();
            for (slot, pod) in placed {
                if question.counts(pod, namespaces) {
                    shift(&mut counts, slot, 1);
                }
            }
            counts
        })
    }

    /// Terms of placed pods that mean this pod.
    pub(crate) fn concerning(
        &self,
        pod: &PodInfo,
    ) -> impl Iterator<Item = (&Effect, &Term, &PerNode)> {
        let namespaces = &self.namespaces;
        let all = self.carried.iter().filter(move |((_, term), _)| means(term, pod, namespaces));
        all.map(|((effect, term), counts)| (effect, term, counts))
    }
}

fn shift(counts: &mut PerNode, slot: usize, sign: i64) {
    let count = counts.entry(slot).or_default();
    *count += sign;
    if *count == 0 {
        counts.remove(&slot);
    }
}
