//! The replicated log: openraft over our own log on disk, behind the engine's `Consensus` trait.

pub mod identity;
pub mod keeper;
pub mod log_store;
pub mod machine;
pub mod membership;
pub mod network;
pub mod raft;
pub mod types;
