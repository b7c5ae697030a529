//! Filters that judge a node by itself, in upstream's order: the first that rejects names the reason.

use crate::class::{Class, Columns};
use crate::nodes::Nodes;
use crate::taints::{Effect, Taint, Toleration, untolerated};

/// Why a node is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Plugin that says so.
    pub plugin: &'static str,
    /// Reasons, as upstream words them.
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could help.
    pub resolvable: bool,
}

impl Rejection {
    /// One reason that no removal of pods changes.
    pub fn fixed(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: false }
    }

    /// One reason that goes away with other pods.
    pub fn resolvable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: true }
    }
}

fn tolerates_cordon(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        value: String::new(),
        effect: Effect::NoSchedule,
    };
    tolerations.iter().any(|t| t.tolerates(&taint))
}

/// Whether the node lets the class in, without saying why not.
pub fn allows(nodes: &Nodes, slot: usize, class: &Class) -> bool {
    let row = nodes.row(slot);
    row.present
        && fits(nodes, slot, class)
        && (!row.unschedulable || tolerates_cordon(&class.tolerations))
        && (row.taints.is_empty() || untolerated(&row.taints, &class.tolerations).is_none())
        && class.selects(&row.name, &row.labels)
        && !ports_taken(nodes, slot, class)
}

fn ports_taken(nodes: &Nodes, slot: usize, class: &Class) -> bool {
    let open = &nodes.row(slot).ports;
    class.ports.iter().any(|port| open.iter().any(|(other, _)| port.conflicts(other)))
}

/// What is left of a resource. A sum out of range counts as everything.
fn lacks(nodes: &Nodes, slot: usize, column: usize, amount: i64) -> bool {
    let (allocatable, requested) = nodes.amounts(column, slot);
    requested < 0 || amount > allocatable.saturating_sub(requested)
}

fn fits(nodes: &Nodes, slot: usize, class: &Class) -> bool {
    let row = nodes.row(slot);
    (row.pods.len() as i64) < row.max_pods
        && !class.requests.iter().any(|(column, amount)| lacks(nodes, slot, *column, *amount))
}

/// Why the node rejects the class; `wanted` is the node the pod asks for by name, if any.
pub fn check(
    nodes: &Nodes,
    slot: usize,
    class: &Class,
    wanted: &str,
    columns: &Columns,
) -> Result<(), Rejection> {
    let row = nodes.row(slot);
    if row.unschedulable && !tolerates_cordon(&class.tolerations) {
        return Err(Rejection::fixed("NodeUnschedulable", "node(s) were unschedulable"));
    }
    if !wanted.is_empty() && wanted != row.name {
        let reason = "node(s) didn't match the requested node name";
        return Err(Rejection::fixed("NodeName", reason));
    }
    if let Some(taint) = untolerated(&row.taints, &class.tolerations) {
        let reason = format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value);
        return Err(Rejection::fixed("TaintToleration", reason));
    }
    if !class.selects(&row.name, &row.labels) {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        return Err(Rejection::fixed("NodeAffinity", reason));
    }
    if ports_taken(nodes, slot, class) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::resolvable("NodePorts", reason));
    }
    let mut reasons = Vec::new();
    let mut resolvable = true;
    if row.pods.len() as i64 >= row.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    for (column, amount) in &class.requests {
        if lacks(nodes, slot, *column, *amount) {
            reasons.push(format!("Insufficient {}", columns.name(*column)));
            resolvable &= *amount <= nodes.amounts(*column, slot).0;
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection { plugin: "NodeResourcesFit", reasons, resolvable })
}
