//! The client of the control plane: one aggregated stream, state of the world or delta.
//!
//! What arrives is applied through the managers; what cannot work is answered with a NACK that says why, and the old
//! stays. When the stream breaks, everything keeps serving and the client comes back with growing pauses.

mod apply;
mod delta;
mod session;
mod sotw;

pub use session::{AdsConfig, run};
