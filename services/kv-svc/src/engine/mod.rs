//! The key-value domain: revisions, the key index, transactions, leases, watches, compaction and hashes.
//!
//! Knows neither gRPC nor the disk: it writes through [`store::Store`] and proposes through
//! [`consensus::Consensus`]. Applying an entry is deterministic: no clocks, no randomness, no I/O but the store.

pub mod alarm;
pub mod apply;
pub mod auth;
pub mod auth_rpc;
pub mod compact;
pub mod consensus;
pub mod hash;
pub mod history;
pub mod index;
pub mod keyspace;
pub mod lease;
pub mod lease_rpc;
pub mod line;
pub mod quota;
pub mod range;
pub mod retention;
pub mod revision;
pub mod server;
pub mod store;
pub mod txn;
pub mod validate;
pub mod watch;
pub mod write;
