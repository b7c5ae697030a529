//! Nodes that stop reporting, and the pods on them.

mod eviction;
mod lifecycle;

pub use eviction::TaintEviction;
pub use lifecycle::NodeLifecycle;
