//! Checks of a request against the rules, when it is applied or answered.

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::request_op::Request;
use flotilla_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, TxnRequest,
};

use crate::engine::auth::Caller;
use crate::engine::auth::permission::Access;
use crate::engine::index::KeyRange;
use crate::engine::keyspace::State;
use crate::error::KvError;

/// What a caller may do in a state.
pub struct Guard<'a> {
    state: &'a State,
    caller: Caller,
}

impl<'a> Guard<'a> {
    /// Checks requests of `caller`.
    pub fn new(state: &'a State, caller: Caller) -> Self {
        Self { state, caller }
    }

    fn keys(&self, range: &KeyRange, access: Access) -> Result<(), KvError> {
        self.state.auth.allow(&self.caller.user, self.caller.revision, range, access)
    }

    /// Checks reading a range.
    ///
    /// # Errors
    /// When it is not permitted.
    pub fn read(&self, key: &Bytes, range_end: &Bytes) -> Result<(), KvError> {
        self.keys(&KeyRange::new(key, range_end), Access::Read)
    }

    /// Checks a range request.
    ///
    /// # Errors
    /// When it is not permitted.
    pub fn range(&self, request: &RangeRequest) -> Result<(), KvError> {
        self.read(&request.key, &request.range_end)
    }

    fn put(&self, put: &PutRequest) -> Result<(), KvError> {
        let key = KeyRange::single(&put.key);
        self.keys(&key, Access::Write)?;
        self.lease_keys(put.lease, Access::Write)?;
        if put.prev_kv { self.keys(&key, Access::Read) } else { Ok(()) }
    }

    fn delete(&self, request: &DeleteRangeRequest) -> Result<(), KvError> {
        let range = KeyRange::new(&request.key, &request.range_end);
        self.keys(&range, Access::Write)?;
        if request.prev_kv { self.keys(&range, Access::Read) } else { Ok(()) }
    }

    /// Checks every key attached to a lease.
    ///
    /// # Errors
    /// When one is not permitted.
    pub fn lease_keys(&self, lease: i64, access: Access) -> Result<(), KvError> {
        let Some(lease) = self.state.leases.get(lease) else { return Ok(()) };
        lease.keys.iter().try_for_each(|key| self.keys(&KeyRange::single(key), access))
    }

    /// Checks a transaction, both branches.
    ///
    /// # Errors
    /// When a part is not permitted.
    pub fn txn(&self, txn: &TxnRequest) -> Result<(), KvError> {
        for compare in &txn.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.range(range)?,
                Some(Request::RequestPut(put)) => self.put(put)?,
                Some(Request::RequestDeleteRange(keys)) => self.delete(keys)?,
                Some(Request::RequestTxn(nested)) => self.txn(nested)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Checks a request of the log.
    ///
    /// # Errors
    /// When it is not permitted.
    pub fn request(&self, request: &InternalRaftRequest) -> Result<(), KvError> {
        if !self.state.auth.enabled {
            return Ok(());
        }
        if administers(request) {
            return self.state.auth.allow_admin(&self.caller.user);
        }
        if let Some(put) = &request.put {
            return self.put(put);
        }
        if let Some(keys) = &request.delete_range {
            return self.delete(keys);
        }
        if let Some(txn) = &request.txn {
            return self.txn(txn);
        }
        match &request.lease_revoke {
            // The server itself revokes what has ended, in nobody's name.
            Some(revoke) if request.header.is_some() => self.lease_keys(revoke.id, Access::Write),
            _ => Ok(()),
        }
    }
}

/// Whether only root may send a request.
fn administers(request: &InternalRaftRequest) -> bool {
    request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
}
