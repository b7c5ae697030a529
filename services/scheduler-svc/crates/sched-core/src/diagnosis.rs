//! Why no node fits, in upstream's words.

use std::collections::{BTreeMap, BTreeSet};

use crate::filter::Rejection;

/// The rejections of all nodes.
#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    nodes: usize,
    rejections: Vec<Rejection>,
    /// The pod uses something that is not supported.
    pub unsupported: Option<String>,
    /// What preemption says, if it was tried.
    pub preemption: Option<String>,
}

impl Diagnosis {
    pub(crate) fn new(
        nodes: usize,
        rejections: Vec<Rejection>,
        unsupported: Option<String>,
    ) -> Self {
        Self { nodes, rejections, unsupported, preemption: None }
    }

    /// Plugins that rejected nodes; events that concern none of them need not wake the pod.
    pub fn plugins(&self) -> BTreeSet<&'static str> {
        self.rejections.iter().map(|r| r.plugin).collect()
    }

    /// Text of the FailedScheduling event and the PodScheduled condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        match &self.unsupported {
            Some(reason) => text += &format!(" {reason}."),
            None => text += &histogram(self.rejections.iter().flat_map(|r| &r.reasons)),
        }
        if let Some(preemption) = &self.preemption {
            text += " ";
            text += preemption;
        }
        text
    }

    /// Says that preemption found nothing.
    pub fn preemption_failed(&mut self) {
        let reason = |r: &Rejection| {
            if r.resolvable {
                "No preemption victims found for incoming pod".to_owned()
            } else {
                "Preemption is not helpful for scheduling".to_owned()
            }
        };
        if self.nodes == 0 {
            return;
        }
        let reasons: Vec<String> = self.rejections.iter().map(reason).collect();
        let text = histogram(reasons.iter());
        self.preemption = Some(format!("preemption: 0/{} nodes are available:{text}", self.nodes));
    }
}

fn histogram<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(", ")) }
}
