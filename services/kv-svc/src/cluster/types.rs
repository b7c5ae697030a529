//! openraft's types as this service uses them.

use std::fmt;
use std::sync::Arc;

use flotilla_proto::etcd::etcdserverpb::InternalRaftRequest;

use crate::engine::apply::Applied;

/// A request on its way through the log. Clones share it; it is encoded only for disk and wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal(pub Arc<InternalRaftRequest>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it may hold passwords.
        f.write_str("request")
    }
}

openraft::declare_raft_types!(
    /// One leader per term, as etcd has it; nodes are etcd member ids with their peer URLs.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        Node = openraft::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// Entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Place of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// Vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// Membership with the entry that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, openraft::BasicNode>;
/// The raft handle.
pub type Raft = openraft::Raft<TypeConfig, crate::cluster::machine::Machine>;
