//! The scheduling decision: pure, deterministic, without I/O or clock.

pub mod labels;
pub mod taints;
