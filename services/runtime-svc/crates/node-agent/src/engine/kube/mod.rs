//! The parts of the Kubernetes API objects that a node reads and writes.
//!
//! Names and shapes are those of `k8s.io/api/core/v1`; fields a node has no use for are left out and ignored.

mod container;
mod pod;
mod status;
mod volume;

pub use container::*;
pub use pod::*;
pub use status::*;
pub use volume::*;
