//! Taints of nodes and tolerations of pods.

use serde::Deserialize;

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if there is another node.
    PreferNoSchedule,
    /// New pods stay away and running ones leave.
    NoExecute,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    #[serde(default)]
    pub value: String,
    /// Effect.
    pub effect: Effect,
}

/// A toleration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key; empty with `Exists` tolerates every taint.
    #[serde(default)]
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    #[serde(default)]
    pub operator: String,
    /// Value for `Equal`.
    #[serde(default)]
    pub value: String,
    /// `None` tolerates every effect.
    #[serde(default)]
    pub effect: Option<Effect>,
    /// How long a NoExecute taint is tolerated; `None` for ever.
    #[serde(default)]
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether the toleration covers the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|effect| effect != taint.effect) {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value && !self.key.is_empty(),
            "Exists" => true,
            _ => false,
        }
    }
}

/// The first taint that keeps a new pod away and that no toleration covers.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let hard = |taint: &&Taint| taint.effect != Effect::PreferNoSchedule;
    taints.iter().filter(hard).find(|taint| !tolerations.iter().any(|t| t.tolerates(taint)))
}
