//! What the engine asks of the replicated log. Its one production form is in `cluster`.

use async_trait::async_trait;
use flotilla_proto::etcd::etcdserverpb::InternalRaftRequest;

use crate::engine::apply::Reply;
use crate::error::KvError;

/// Where a member stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The leader this member follows; 0 when there is none.
    pub leader: u64,
    /// Term.
    pub term: u64,
    /// Newest entry that is known to be committed.
    pub committed: u64,
    /// Last applied entry.
    pub applied: u64,
    /// Whether this member only learns.
    pub learner: bool,
}

/// A replicated log.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Appends a request and waits until it is durable on a majority and applied here.
    ///
    /// # Errors
    /// What applying it came to, or why it was not appended. After a time-out it may still be applied.
    async fn propose(&self, request: InternalRaftRequest) -> Result<Reply, KvError>;

    /// Waits until this member has applied everything that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// When there is no leader or it does not answer in time.
    async fn read_barrier(&self) -> Result<(), KvError>;

    /// Where this member stands now.
    fn standing(&self) -> Standing;

    /// Hands leadership to another member and waits until it leads.
    ///
    /// # Errors
    /// When the target cannot lead.
    async fn transfer(&self, target: u64) -> Result<(), KvError>;
}
