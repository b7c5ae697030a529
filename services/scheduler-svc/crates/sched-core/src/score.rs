//! Scores, with upstream's integer arithmetic, normalisation and weights.

use crate::class::{CPU, Class, MEMORY};
use crate::nodes::Nodes;
use crate::taints::Effect;

/// Highest score of one plugin.
pub const MAX: i64 = 100;
const MEGABYTE: i64 = 1024 * 1024;
const IMAGE_LEAST: i64 = 23 * MEGABYTE;
const IMAGE_MOST: i64 = 1000 * MEGABYTE;

/// Weights of the score plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// NodeResourcesFit with LeastAllocated.
    pub fit: i64,
    /// NodeResourcesBalancedAllocation.
    pub balanced: i64,
    /// TaintToleration.
    pub taints: i64,
    /// NodeAffinity.
    pub node_affinity: i64,
    /// PodTopologySpread.
    pub spread: i64,
    /// InterPodAffinity.
    pub pod_affinity: i64,
    /// ImageLocality.
    pub images: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            fit: 1,
            balanced: 1,
            taints: 3,
            node_affinity: 2,
            spread: 2,
            pod_affinity: 2,
            images: 1,
        }
    }
}

/// More is better the less of CPU and memory is asked for with the pod on the node.
pub fn least_allocated(nodes: &Nodes, slot: usize, class: &Class) -> i64 {
    let (mut score, mut weights) = (0, 0);
    for (index, column) in [CPU, MEMORY].into_iter().enumerate() {
        let (capacity, _) = nodes.amounts(column, slot);
        if capacity == 0 {
            continue;
        }
        weights += 1;
        let asked = nodes.scored(index, slot).saturating_add(class.scored[index]);
        if asked <= capacity && asked >= 0 {
            score += ((i128::from(capacity - asked) * 100) / i128::from(capacity)) as i64;
        }
    }
    if weights == 0 { 0 } else { score / weights }
}

/// More is better the closer the used fractions of CPU and memory are. A pod without requests has no say.
pub fn balanced(nodes: &Nodes, slot: usize, class: &Class) -> i64 {
    if class.requests.is_empty() {
        return 0;
    }
    let request =
        |column| class.requests.iter().find(|(c, _)| *c == column).map_or(0, |(_, amount)| *amount);
    let mut fractions = [0.0_f64; 2];
    let mut count = 0;
    for column in [CPU, MEMORY] {
        let (capacity, requested) = nodes.amounts(column, slot);
        if capacity == 0 {
            continue;
        }
        let asked = requested.saturating_add(request(column));
        fractions[count] = (asked as f64 / capacity as f64).min(1.0);
        count += 1;
    }
    let deviation = if count == 2 { ((fractions[0] - fractions[1]) / 2.0).abs() } else { 0.0 };
    ((1.0 - deviation) * MAX as f64) as i64
}

/// PreferNoSchedule taints that the class does not tolerate.
pub fn intolerable(nodes: &Nodes, slot: usize, class: &Class) -> i64 {
    let soft = nodes.row(slot).taints.iter().filter(|t| t.effect == Effect::PreferNoSchedule);
    let bad = soft.filter(|taint| !class.tolerations.iter().any(|t| t.tolerates(taint)));
    bad.count() as i64
}

/// Sum of the weights of preferred node terms that match.
pub fn preference(nodes: &Nodes, slot: usize, class: &Class) -> i64 {
    let row = nodes.row(slot);
    let matching = class.preferred.iter().filter(|(_, term)| term.matches(&row.name, &row.labels));
    matching.map(|(weight, _)| weight).sum()
}

/// Bytes of the pod's images that are on the node, images on few nodes counting less.
pub fn images(nodes: &Nodes, slot: usize, class: &Class) -> i64 {
    let row = nodes.row(slot);
    if row.images.is_empty() || class.images.is_empty() {
        return 0;
    }
    let scaled = |image: &String| {
        row.images.get(image).map_or(0, |size| {
            let part = nodes.with_image(image) as f64 / nodes.present().max(1) as f64;
            (*size as f64 * part) as i64
        })
    };
    let sum: i64 = class.images.iter().map(scaled).fold(0, i64::saturating_add);
    let most = IMAGE_MOST * class.images.len() as i64;
    MAX * (sum.clamp(IMAGE_LEAST, most) - IMAGE_LEAST) / (most - IMAGE_LEAST)
}

/// A raw score relative to the highest of all nodes.
pub fn relative(score: i64, highest: i64, reverse: bool) -> i64 {
    if highest == 0 {
        return if reverse { MAX } else { score };
    }
    let part = MAX * score / highest;
    if reverse { MAX - part } else { part }
}
