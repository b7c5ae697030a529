//! The limit of the store's size.

use flotilla_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use flotilla_proto::etcd::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest};
use prost::Message;

use crate::engine::server::Server;
use crate::engine::validate::costs_space;
use crate::error::KvError;

/// Bytes counted for a key beside key and value.
const KEY_COST: u64 = 256;
/// Bytes counted for a lease.
const LEASE_COST: u64 = 64;

/// Bytes a request may add to the store; `None`: it adds nothing.
fn cost(request: &InternalRaftRequest) -> Option<u64> {
    if let Some(put) = &request.put {
        return Some(KEY_COST + put.encoded_len() as u64);
    }
    if let Some(txn) = request.txn.as_ref().filter(|txn| costs_space(txn)) {
        return Some(KEY_COST + txn.encoded_len() as u64);
    }
    request.lease_grant.as_ref().map(|_| LEASE_COST)
}

impl Server {
    /// Refuses a request the store has no room for, and raises the alarm.
    ///
    /// # Errors
    /// When the quota would be exceeded.
    pub async fn check_room(&self, request: &InternalRaftRequest) -> Result<(), KvError> {
        let quota = self.quota();
        let Some(cost) = cost(request).filter(|_| quota > 0) else { return Ok(()) };
        let used = self.keyspace().store().usage().total;
        if used + cost <= quota.cast_unsigned() {
            return Ok(());
        }
        let alarm = Some(AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.identity().member,
            alarm: AlarmType::Nospace as i32,
        });
        let request = InternalRaftRequest { alarm, ..InternalRaftRequest::default() };
        tracing::warn!(used, quota, "the store is full; compact, defragment and disarm the alarm");
        self.consensus().propose(request).await?;
        Err(KvError::NoSpace)
    }
}
