//! One member as clients see it: requests in, answers with a filled header out.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestHeader, ResponseHeader, TxnRequest,
    TxnResponse,
};
use prost::Message;

use crate::engine::apply::Reply;
use crate::engine::auth::Caller;
use crate::engine::auth::check::Guard;
use crate::engine::auth::permission::Access;
use crate::engine::consensus::Consensus;
use crate::engine::keyspace::Keyspace;
use crate::engine::{txn, validate};
use crate::error::KvError;

/// Limits a member keeps.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes a request may have.
    pub request_bytes: usize,
    /// Operations a transaction may have.
    pub txn_ops: usize,
    /// Bytes the store may have; 0 means 2 GiB, less than 0 no limit.
    pub quota_bytes: i64,
    /// Cost of a password hash.
    pub bcrypt_cost: u32,
}

/// Who this member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Cluster.
    pub cluster: u64,
    /// Member.
    pub member: u64,
}

/// A member.
pub struct Server {
    keyspace: Arc<Keyspace>,
    consensus: Arc<dyn Consensus>,
    identity: Identity,
    limits: Limits,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Server {
    /// A member over a key space and its log.
    pub fn new(
        keyspace: Arc<Keyspace>,
        consensus: Arc<dyn Consensus>,
        identity: Identity,
        limits: Limits,
    ) -> Self {
        Self { keyspace, consensus, identity, limits }
    }

    /// The key space.
    pub fn keyspace(&self) -> &Arc<Keyspace> {
        &self.keyspace
    }

    /// The log.
    pub fn consensus(&self) -> &dyn Consensus {
        self.consensus.as_ref()
    }

    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes the store may have.
    pub fn quota(&self) -> i64 {
        const DEFAULT: i64 = 2 << 30;
        if self.limits.quota_bytes == 0 { DEFAULT } else { self.limits.quota_bytes }
    }

    /// Fills in who answers, the term, and the newest revision where none is set.
    pub fn stamp(&self, header: &mut Option<ResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.identity.cluster;
        header.member_id = self.identity.member;
        header.raft_term = self.consensus.standing().term;
        if header.revision == 0 {
            header.revision = self.keyspace.revision();
        }
    }

    /// Proposes a request in a caller's name.
    ///
    /// # Errors
    /// When it is too large, refused or not committed.
    pub async fn propose(
        &self,
        caller: &Caller,
        mut request: InternalRaftRequest,
    ) -> Result<Reply, KvError> {
        request.header = Some(RequestHeader {
            id: 0,
            username: caller.user.clone(),
            auth_revision: caller.revision,
        });
        if request.encoded_len() > self.limits.request_bytes {
            return Err(KvError::RequestTooLarge);
        }
        self.check_room(&request).await?;
        self.consensus.propose(request).await
    }

    /// Refuses a caller who was recognised under older rules.
    fn check_fresh(&self, caller: &Caller) -> Result<(), KvError> {
        let state = self.keyspace.state();
        let old =
            state.auth.enabled && caller.revision != 0 && caller.revision != state.auth.revision;
        if old { Err(KvError::AuthOldRevision) } else { Ok(()) }
    }

    /// Whether a caller may read the keys of a lease.
    ///
    /// # Errors
    /// When not.
    pub fn may_read_lease(&self, caller: &Caller, lease: i64) -> Result<(), KvError> {
        Guard::new(&self.keyspace.state(), caller.clone()).lease_keys(lease, Access::Read)
    }

    /// Whether a caller may read a range.
    ///
    /// # Errors
    /// When not.
    pub fn may_read(&self, caller: &Caller, key: &Bytes, range_end: &Bytes) -> Result<(), KvError> {
        Guard::new(&self.keyspace.state(), caller.clone()).read(key, range_end)
    }

    /// Reads a range.
    ///
    /// # Errors
    /// When the request is malformed or its revision cannot be read.
    pub async fn range(
        &self,
        caller: &Caller,
        request: &RangeRequest,
    ) -> Result<RangeResponse, KvError> {
        validate::range(request)?;
        if !request.serializable {
            self.consensus.read_barrier().await?;
        }
        self.check_fresh(caller)?;
        Guard::new(&self.keyspace.state(), caller.clone()).range(request)?;
        let mut response = self.keyspace.range(request)?;
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When the request is malformed, refused or not committed.
    pub async fn put(&self, caller: &Caller, put: PutRequest) -> Result<PutResponse, KvError> {
        validate::put(&put)?;
        let request = InternalRaftRequest { put: Some(put), ..InternalRaftRequest::default() };
        let Reply::Put(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// As [`Server::put`].
    pub async fn delete(
        &self,
        caller: &Caller,
        keys: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError> {
        validate::delete(&keys)?;
        let request =
            InternalRaftRequest { delete_range: Some(keys), ..InternalRaftRequest::default() };
        let Reply::Delete(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// As [`Server::put`].
    pub async fn txn(&self, caller: &Caller, txn: TxnRequest) -> Result<TxnResponse, KvError> {
        validate::txn(&txn, self.limits.txn_ops)?;
        let mut response = if txn::is_read_only(&txn) {
            if !txn::is_serializable(&txn) {
                self.consensus.read_barrier().await?;
            }
            let snapshot = self.keyspace.snapshot();
            Guard::new(&snapshot.state, caller.clone()).txn(&txn)?;
            txn::read_only(&snapshot, &txn)?
        } else {
            let request = InternalRaftRequest { txn: Some(txn), ..InternalRaftRequest::default() };
            let Reply::Txn(response) = self.propose(caller, request).await? else {
                return Err(KvError::StoreFailed);
            };
            response
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Compacts the history.
    ///
    /// # Errors
    /// When the revision is compacted already or in the future, or the request is not committed.
    pub async fn compact(
        &self,
        caller: &Caller,
        compaction: CompactionRequest,
    ) -> Result<CompactionResponse, KvError> {
        let request =
            InternalRaftRequest { compaction: Some(compaction), ..InternalRaftRequest::default() };
        let Reply::Compact(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Grants a lease; id 0 lets the server choose.
    ///
    /// # Errors
    /// When the id is taken, the time too long, or the request is not committed.
    pub async fn lease_grant(
        &self,
        caller: &Caller,
        mut grant: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, KvError> {
        while grant.id == 0 {
            grant.id = rand::random::<i64>() & i64::MAX;
        }
        let request =
            InternalRaftRequest { lease_grant: Some(grant), ..InternalRaftRequest::default() };
        let Reply::LeaseGrant(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// Revokes a lease and deletes its keys.
    ///
    /// # Errors
    /// When there is no such lease or the request is not committed.
    pub async fn lease_revoke(
        &self,
        caller: &Caller,
        revoke: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, KvError> {
        let request =
            InternalRaftRequest { lease_revoke: Some(revoke), ..InternalRaftRequest::default() };
        let Reply::LeaseRevoke(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }

    /// All leases.
    pub fn leases(&self) -> LeaseLeasesResponse {
        let ids = self.keyspace.state().leases.ids();
        let mut response = LeaseLeasesResponse {
            header: None,
            leases: ids.into_iter().map(|id| LeaseStatus { id }).collect(),
        };
        self.stamp(&mut response.header);
        response
    }

    /// Lists or changes alarms.
    ///
    /// # Errors
    /// When the request is not committed.
    pub async fn alarm(
        &self,
        caller: &Caller,
        alarm: AlarmRequest,
    ) -> Result<AlarmResponse, KvError> {
        let request = InternalRaftRequest { alarm: Some(alarm), ..InternalRaftRequest::default() };
        let Reply::Alarm(mut response) = self.propose(caller, request).await? else {
            return Err(KvError::StoreFailed);
        };
        self.stamp(&mut response.header);
        Ok(response)
    }
}
