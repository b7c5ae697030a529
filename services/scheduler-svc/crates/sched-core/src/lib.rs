//! The scheduling decision: pure, deterministic, without I/O or clock.
//!
//! [`Engine`] knows nodes and placed pods and says where the next pod goes, or why nowhere, with the filters,
//! scores, weights and words of kube-scheduler's default plugins. [`Queue`] orders the pods that wait. The
//! same sequence of calls gives the same answers on any machine.
//!
//! Hard demands that are not known here (volumes that need binding, dynamic resources) make a pod
//! unschedulable with a reason that names them; none is ignored.

pub mod class;
mod constraints;
mod counters;
mod diagnosis;
mod engine;
mod filter;
pub mod labels;
mod nodes;
mod preempt;
pub mod quantity;
mod queue;
mod score;
pub mod spec;
pub mod taints;

pub use class::PodInfo;
pub use diagnosis::Diagnosis;
pub use engine::{Engine, NodeView, Placement};
pub use filter::Rejection;
pub use preempt::Preemption;
pub use queue::{Attempt, Counts, Event, Queue};
pub use score::Weights;
