//! Pods as the engine sees them, and the classes of pods that nodes cannot tell apart.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::labels::{Labels, Requirement, Rule, Selector};
use crate::quantity;
use crate::spec::{Amounts, Container, Pod, PodTermSpec, SpreadSpec};
use crate::taints::Toleration;

/// Column of CPU, in thousandths.
pub const CPU: usize = 0;
/// Column of memory, in bytes.
pub const MEMORY: usize = 1;
/// Column of ephemeral storage, in bytes.
pub const STORAGE: usize = 2;
/// What a container without a CPU request counts for in scores.
const SCORED_CPU: i64 = 100;
/// What a container without a memory request counts for in scores.
const SCORED_MEMORY: i64 = 200 * 1024 * 1024;

/// Names of the resource columns; extended resources get a column when first seen.
#[derive(Debug, Clone)]
pub struct Columns(Vec<String>);

impl Default for Columns {
    fn default() -> Self {
        Self(["cpu", "memory", "ephemeral-storage"].map(str::to_owned).to_vec())
    }
}

impl Columns {
    /// The column of a resource.
    pub fn of(&mut self, name: &str) -> usize {
        self.0.iter().position(|n| n == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }

    /// The name of a column.
    pub fn name(&self, column: usize) -> &str {
        &self.0[column]
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: three columns are always there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads amounts; `pods` is left out. Negative amounts count as none.
    pub fn read(&mut self, amounts: &Amounts) -> Result<BTreeMap<usize, i64>, String> {
        let mut read = BTreeMap::new();
        for (name, value) in amounts.iter().filter(|(name, _)| *name != "pods") {
            let amount = amount(name, value)?;
            read.insert(self.of(name), amount);
        }
        Ok(read)
    }
}

/// An amount of a resource, CPU in thousandths.
pub fn amount(name: &str, value: &Value) -> Result<i64, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let scale = if name == "cpu" { 3 } else { 0 };
    let parsed = quantity::parse(&text, scale);
    parsed.map(|n| n.max(0)).ok_or_else(|| format!("{text:?} is no quantity of {name}"))
}

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Address; empty for all.
    pub ip: String,
    /// Protocol.
    pub protocol: String,
    /// Number.
    pub port: i64,
}

impl Port {
    /// Whether both cannot be open on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip)
    }
}

/// A node selector term: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// On labels.
    pub labels: Vec<Requirement>,
    /// On the name.
    pub names: Vec<Requirement>,
}

impl NodeTerm {
    fn parse(value: &Value) -> Result<Self, String> {
        let read = |name: &str| -> Result<Vec<Requirement>, String> {
            let list = value[name].as_array().into_iter().flatten();
            list.map(|v| Requirement::parse(v, true)).collect()
        };
        let term = Self { labels: read("matchExpressions")?, names: read("matchFields")? };
        match term.names.iter().find(|r| r.key != "metadata.name") {
            Some(other) => Err(format!("{:?} is no field that nodes are selected by", other.key)),
            None => Ok(term),
        }
    }

    /// Whether the node fulfils the term; an empty term is fulfilled by none.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.names.is_empty() {
            return false;
        }
        self.labels.iter().all(|r| r.allows(labels.get(&r.key).map(String::as_str)))
            && self.names.iter().all(|r| r.allows(Some(name)))
    }
}

/// Everything about a pod that a node by itself can be judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Class {
    /// Column and amount, none zero.
    pub requests: Vec<(usize, i64)>,
    /// CPU and memory as scores count them.
    pub scored: [i64; 2],
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Labels the node must have.
    pub selector: Vec<(String, String)>,
    /// One of these must hold.
    pub required: Option<Vec<NodeTerm>>,
    /// These are preferred, with weights.
    pub preferred: Vec<(i64, NodeTerm)>,
    /// Ports of the node.
    pub ports: Vec<Port>,
    /// Images, one per container.
    pub images: Vec<String>,
}

impl Class {
    /// Whether a node's name and labels satisfy selector and required affinity.
    pub fn selects(&self, name: &str, labels: &Labels) -> bool {
        self.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.required.as_ref().is_none_or(|t| t.iter().any(|t| t.matches(name, labels)))
    }
}

/// Which pods a term of affinity means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label; `None` for no more than those by name.
    pub namespace_selector: Option<Selector>,
    /// Pods.
    pub selector: Selector,
    /// Label that names the domain.
    pub key: String,
}

/// A topology spread constraint.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Greatest difference.
    pub max_skew: i64,
    /// Label that names the domain.
    pub key: String,
    /// Whether it must hold.
    pub hard: bool,
    /// Pods in the pod's own namespace.
    pub selector: Selector,
    /// Domains there must be.
    pub min_domains: i64,
    /// Count only nodes that the pod's node affinity allows.
    pub honor_affinity: bool,
    /// Count only nodes whose taints the pod tolerates.
    pub honor_taints: bool,
}

/// A pod as the engine sees it.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Priority.
    pub priority: i64,
    /// Whether it may push out others.
    pub preempts: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// When it was created, as text; orders equal priorities.
    pub created: String,
    /// Node it asks for by name; empty for any.
    pub node_name: String,
    /// What nodes can be judged by.
    pub class: Class,
    /// Must be near such pods.
    pub affinity: Vec<Term>,
    /// Must not be near such pods.
    pub anti_affinity: Vec<Term>,
    /// Would like to be near such pods, or away from them when negative.
    pub preferred: Vec<(i64, Term)>,
    /// Spread.
    pub spread: Vec<Spread>,
    /// Why the pod cannot be scheduled at all, by name of what it uses.
    pub unsupported: Option<String>,
}

impl PodInfo {
    /// Reads a pod.
    ///
    /// # Errors
    /// When a quantity, selector or term is wrong.
    pub fn new(pod: &Pod, columns: &mut Columns) -> Result<Self, String> {
        let (spec, meta) = (&pod.spec, &pod.metadata);
        let (near, far) = (&spec.affinity.pod_affinity, &spec.affinity.pod_anti_affinity);
        let terms = |list: &[PodTermSpec]| -> Result<Vec<Term>, String> {
            list.iter().map(|t| term(t, pod)).collect()
        };
        let mut preferred = Vec::new();
        for (side, sign) in [(near, 1), (far, -1)] {
            for weighted in &side.preferred_during_scheduling_ignored_during_execution {
                let term = term(&weighted.pod_affinity_term, pod)?;
                preferred.push((sign * weighted.weight, term));
            }
        }
        let spread: Result<Vec<Spread>, String> =
            spec.topology_spread_constraints.iter().map(|s| spread(s, pod)).collect();
        Ok(Self {
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy != "Never",
            terminating: meta.deletion_timestamp.is_some(),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            node_name: spec.node_name.clone(),
            class: class(pod, columns)?,
            affinity: terms(&near.required_during_scheduling_ignored_during_execution)?,
            anti_affinity: terms(&far.required_during_scheduling_ignored_during_execution)?,
            preferred,
            spread: spread?,
            unsupported: unsupported(pod),
        })
    }
}

/// What the pod uses that must hold and that the engine does not know.
fn unsupported(pod: &Pod) -> Option<String> {
    for volume in &pod.spec.volumes {
        for kind in ["persistentVolumeClaim", "ephemeral"] {
            if volume.get(kind).is_some_and(|v| !v.is_null()) {
                let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
                return Some(format!("not supported yet: {kind} of volume {name:?}"));
            }
        }
    }
    (!pod.spec.resource_claims.is_empty()).then(|| "not supported yet: resourceClaims".to_owned())
}

fn class(pod: &Pod, columns: &mut Columns) -> Result<Class, String> {
    let spec = &pod.spec;
    let (requests, scored) = requests(pod, columns)?;
    let affinity = &spec.affinity.node_affinity;
    let required = &affinity.required_during_scheduling_ignored_during_execution;
    let required: Option<Result<Vec<NodeTerm>, String>> = required.as_ref().map(|required| {
        let terms = required["nodeSelectorTerms"].as_array().into_iter().flatten();
        terms.map(NodeTerm::parse).collect()
    });
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter();
    let preferred: Result<Vec<(i64, NodeTerm)>, String> = preferred
        .map(|p| Ok((p["weight"].as_i64().unwrap_or(0), NodeTerm::parse(&p["preference"])?)))
        .collect();
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let mut ports = Vec::new();
    for port in spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports) {
        let number = if spec.host_network && port.host_port == 0 {
            port.container_port
        } else {
            port.host_port
        };
        if number > 0 {
            let any = matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
            let ip = if any { String::new() } else { port.host_ip.clone() };
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            ports.push(Port { ip, protocol: protocol.to_owned(), port: number });
        }
    }
    ports.sort();
    ports.dedup();
    let images = spec.containers.iter().map(|c| image_name(&c.image)).collect();
    Ok(Class {
        requests,
        scored,
        tolerations: spec.tolerations.clone(),
        selector: spec.node_selector.clone().into_iter().collect(),
        required: required.transpose()?,
        preferred: preferred?,
        ports,
        images,
    })
}

/// An image name with its tag.
pub fn image_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

type Sums = BTreeMap<usize, i64>;

fn add(sums: &mut Sums, more: &Sums) {
    for (column, amount) in more {
        let sum = sums.entry(*column).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn most(sums: &mut Sums, other: &Sums) {
    for (column, amount) in other {
        let sum = sums.entry(*column).or_default();
        *sum = (*sum).max(*amount);
    }
}

/// Requests of a pod: the containers together, or what an init container needs while it runs beside the
/// sidecars started before it, whichever is more; plus overhead.
fn requests(pod: &Pod, columns: &mut Columns) -> Result<(Vec<(usize, i64)>, [i64; 2]), String> {
    let spec = &pod.spec;
    let mut totals = [Sums::new(), Sums::new()];
    for (pass, total) in totals.iter_mut().enumerate() {
        let mut of = |container: &Container| -> Result<Sums, String> {
            let mut sums = columns.read(&container.resources.requests)?;
            if pass == 1 {
                sums.entry(CPU).or_insert(SCORED_CPU);
                sums.entry(MEMORY).or_insert(SCORED_MEMORY);
            }
            Ok(sums)
        };
        for container in &spec.containers {
            add(total, &of(container)?);
        }
        let (mut sidecars, mut peak) = (Sums::new(), Sums::new());
        for container in &spec.init_containers {
            let own = of(container)?;
            if container.restart_policy == "Always" {
                add(total, &own);
                add(&mut sidecars, &own);
                most(&mut peak, &sidecars);
            } else {
                let mut beside = sidecars.clone();
                add(&mut beside, &own);
                most(&mut peak, &beside);
            }
        }
        most(total, &peak);
        total.extend(columns.read(&spec.resources.requests)?);
        add(total, &columns.read(&spec.overhead)?);
    }
    let [exact, scored] = totals;
    let at = |column| scored.get(&column).copied().unwrap_or(0);
    let scored = [at(CPU), at(MEMORY)];
    Ok((exact.into_iter().filter(|(_, amount)| *amount > 0).collect(), scored))
}

/// Adds what `matchLabelKeys` ask for, unless the API has done so already.
fn keyed(mut selector: Selector, keys: &[String], pod: &Pod, equal: bool) -> Selector {
    for key in keys {
        if let Some(value) = pod.metadata.labels.get(key) {
            let values = vec![value.clone()];
            let rule = if equal { Rule::In(values) } else { Rule::NotIn(values) };
            selector = selector.and(Requirement { key: key.clone(), rule });
        }
    }
    selector
}

fn term(spec: &PodTermSpec, pod: &Pod) -> Result<Term, String> {
    let mut namespaces = spec.namespaces.clone();
    let namespace_selector = match &spec.namespace_selector {
        Value::Null => None,
        value => Some(Selector::parse(value)?),
    };
    if namespaces.is_empty() && namespace_selector.is_none() {
        namespaces.push(pod.metadata.namespace.clone());
    }
    namespaces.sort();
    let selector = Selector::parse(&spec.label_selector)?;
    let selector = keyed(selector, &spec.match_label_keys, pod, true);
    let selector = keyed(selector, &spec.mismatch_label_keys, pod, false);
    Ok(Term { namespaces, namespace_selector, selector, key: spec.topology_key.clone() })
}

fn spread(spec: &SpreadSpec, pod: &Pod) -> Result<Spread, String> {
    let selector = Selector::parse(&spec.label_selector)?;
    Ok(Spread {
        max_skew: spec.max_skew.max(1),
        key: spec.topology_key.clone(),
        hard: spec.when_unsatisfiable != "ScheduleAnyway",
        selector: keyed(selector, &spec.match_label_keys, pod, true),
        min_domains: spec.min_domains.unwrap_or(1),
        honor_affinity: spec.node_affinity_policy != "Ignore",
        honor_taints: spec.node_taints_policy == "Honor",
    })
}
