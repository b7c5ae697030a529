//! Room for a pod at the cost of pods of lower priority.
//!
//! Pod disruption budgets are not looked at yet.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::class::PodInfo;
use crate::diagnosis::Diagnosis;
use crate::engine::Engine;

/// Candidate nodes that are compared.
const CANDIDATES: usize = 100;

/// A node and who must leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// Uids of the pods that must go, the most important first.
    pub victims: Vec<String>,
}

#[derive(Debug)]
struct Candidate {
    slot: usize,
    victims: Vec<Arc<PodInfo>>,
}

impl Engine {
    /// The node on which the least important pods would have to go; notes in `diagnosis` why there is none.
    pub fn preempt(&mut self, pod: &PodInfo, diagnosis: &mut Diagnosis) -> Option<Preemption> {
        if pod.unsupported.is_some() {
            return None;
        }
        if !pod.preempts {
            let reason = "preemption: not eligible due to preemptionPolicy=Never.";
            diagnosis.preemption = Some(reason.to_owned());
            return None;
        }
        let constraints = self.constraints(pod);
        let resolvable = |slot: &usize| {
            self.nodes.row(*slot).present
                && self.judge(pod, *slot, &constraints).is_err_and(|r| r.resolvable)
        };
        let mut slots: Vec<usize> = (0..self.nodes.slots()).filter(resolvable).collect();
        slots.sort_by(|a, b| self.nodes.row(*a).name.cmp(&self.nodes.row(*b).name));
        let mut candidates = Vec::new();
        for slot in slots {
            candidates.extend(self.victims(pod, slot));
            if candidates.len() >= CANDIDATES {
                break;
            }
        }
        let Some(best) = candidates.into_iter().min_by_key(cost) else {
            diagnosis.preemption_failed();
            return None;
        };
        let node = self.nodes.row(best.slot).name.clone();
        let victims = best.victims.iter().map(|v| v.uid.clone()).collect();
        Some(Preemption { node, victims })
    }

    /// Takes all less important pods off the node, then puts back as many as may stay, the most important
    /// first. The engine is as before afterwards.
    fn victims(&mut self, pod: &PodInfo, slot: usize) -> Option<Candidate> {
        let row = self.nodes.row(slot);
        let node = row.name.clone();
        let on_node: Vec<Arc<PodInfo>> =
            row.pods.iter().filter_map(|uid| self.pod(uid).cloned()).collect();
        let mut lower: Vec<Arc<PodInfo>> =
            on_node.into_iter().filter(|p| p.priority < pod.priority).collect();
        if lower.is_empty() {
            return None;
        }
        lower.sort_by_key(|a| importance(a));
        for other in &lower {
            self.displace(&other.uid);
        }
        let fits = |engine: &mut Self| {
            let constraints = engine.constraints(pod);
            engine.judge(pod, slot, &constraints).is_ok()
        };
        let mut victims = Vec::new();
        let possible = fits(self);
        for other in &lower {
            self.place(other.clone(), &node);
            if possible && !fits(self) {
                self.displace(&other.uid);
                victims.push(other.clone());
            }
        }
        for victim in &victims {
            self.place(victim.clone(), &node);
        }
        (possible && !victims.is_empty()).then_some(Candidate { slot, victims })
    }
}

/// The most important pod first: higher priority, then older.
fn importance(pod: &PodInfo) -> (Reverse<i64>, String, String) {
    (Reverse(pod.priority), pod.created.clone(), pod.uid.clone())
}

/// Lower is better: highest priority of a victim, sum of priorities, number, age of the most important.
fn cost(candidate: &Candidate) -> (i64, i64, usize, Reverse<String>) {
    let highest = candidate.victims.first().map_or(i64::MIN, |v| v.priority);
    // Shifted, so that many victims of negative priority do not look cheap.
    let sum = candidate.victims.iter().map(|v| v.priority + (1 << 31)).sum();
    let top = candidate.victims.iter().filter(|v| v.priority == highest);
    let oldest = top.map(|v| v.created.clone()).min().unwrap_or_default();
    (highest, sum, candidate.victims.len(), Reverse(oldest))
}
