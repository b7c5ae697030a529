//! Waiting in line under a prefix: what locks and elections have in common.
//!
//! Whoever created the oldest key under the prefix is first. A key is attached to a lease, so that a client that
//! went away leaves the line.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::response_op::Response;

use crate::engine::auth::Caller;
use crate::engine::index::KeyRange;
use crate::engine::server::Server;
use crate::engine::watch::filter::Interest;
use crate::engine::watch::outbox::Outbox;
use crate::error::KvError;

/// A line and who asks.
#[derive(Debug, Clone)]
pub struct Line {
    server: Arc<Server>,
    caller: Caller,
    prefix: Bytes,
}

/// A place in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Key that holds it.
    pub key: Bytes,
    /// Revision that created the key; older ones are in front.
    pub revision: i64,
    /// The value the key had when it was already there.
    pub found: Option<Bytes>,
}

/// The key of a lease in the line `name`.
pub fn place_key(name: &[u8], lease: i64) -> Bytes {
    let mut key = name.to_vec();
    key.extend_from_slice(format!("/{lease:x}").as_bytes());
    key.into()
}

fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// A compare of the revision that created a key.
pub fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// An operation of a transaction.
pub fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

impl Line {
    /// The line `name`.
    pub fn new(server: Arc<Server>, caller: Caller, name: &[u8]) -> Self {
        let mut prefix = name.to_vec();
        prefix.push(b'/');
        Self { server, caller, prefix: prefix.into() }
    }

    fn read(&self, order: SortOrder, max_create: i64) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.prefix.clone(),
            range_end: end_of(&self.prefix),
            limit: 1,
            sort_order: order as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: max_create,
            ..Default::default()
        }
    }

    /// Takes a place, or finds the one taken before.
    ///
    /// # Errors
    /// When lease or permission are missing or the request is not committed.
    pub async fn enter(&self, key: Bytes, lease: i64, value: Bytes) -> Result<Place, KvError> {
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let response = self.server.txn(&self.caller, txn).await?;
        if response.succeeded {
            let revision = response.header.map_or(0, |header| header.revision);
            return Ok(Place { key, revision, found: None });
        }
        match response.responses.into_iter().next().and_then(|op| op.response) {
            Some(Response::ResponseRange(range)) => {
                let kv = range.kvs.into_iter().next().ok_or(KvError::KeyNotFound)?;
                Ok(Place { key, revision: kv.create_revision, found: Some(kv.value) })
            }
            _ => Err(KvError::StoreFailed),
        }
    }

    /// Waits until nobody is in front. Returns the revision at which that was so.
    ///
    /// # Errors
    /// When the place was lost meanwhile, or reading fails.
    pub async fn wait_first(&self, place: &Place) -> Result<i64, KvError> {
        loop {
            let in_front = self.read(SortOrder::Descend, place.revision - 1);
            let response = self.server.range(&self.caller, &in_front).await?;
            let at = response.header.map_or(0, |header| header.revision);
            let Some(kv) = response.kvs.into_iter().next() else { break };
            self.wait_deleted(&kv.key, at + 1).await;
        }
        let mine = pb::RangeRequest { key: place.key.clone(), ..Default::default() };
        let response = self.server.range(&self.caller, &mine).await?;
        if response.kvs.first().is_none_or(|kv| kv.create_revision != place.revision) {
            return Err(KvError::LeaseNotFound);
        }
        Ok(response.header.map_or(0, |header| header.revision))
    }

    async fn wait_deleted(&self, key: &Bytes, from: i64) {
        let interest = Interest::new(KeyRange::single(key), &[0], false);
        let change = Waiter::new(&self.server, interest, from);
        // Deleted between the read and the registration: the state tells.
        while self.server.keyspace().state().index.live(key).is_some() {
            change.outbox.woken().await;
        }
    }

    /// The first in line.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn first(&self) -> Result<(Option<KeyValue>, i64), KvError> {
        let response = self.server.range(&self.caller, &self.read(SortOrder::Ascend, 0)).await?;
        let at = response.header.map_or(0, |header| header.revision);
        Ok((response.kvs.into_iter().next(), at))
    }

    /// Waits for a change anywhere in the line after `at`.
    pub async fn changed(&self, at: i64) {
        let range = KeyRange { from: self.prefix.clone(), to: Some(end_of(&self.prefix)) };
        let change = Waiter::new(&self.server, Interest::new(range, &[], false), at + 1);
        if self.server.keyspace().revision() == at {
            change.outbox.woken().await;
        }
    }

    /// Leaves the line without waiting for it; for callers that go away.
    pub fn leave_behind(&self, key: Bytes) {
        let line = self.clone();
        tokio::spawn(async move {
            let keys = pb::DeleteRangeRequest { key, ..Default::default() };
            if let Err(error) = line.server.delete(&line.caller, keys).await {
                tracing::debug!(%error, "a place in line is left to its lease");
            }
        });
    }
}

/// A watcher that only wakes.
struct Waiter<'a> {
    server: &'a Server,
    id: u64,
    outbox: Arc<Outbox>,
}

impl<'a> Waiter<'a> {
    fn new(server: &'a Server, interest: Interest, from: i64) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (id, _) = server.keyspace().hub().add(outbox.clone(), interest, from.max(1));
        // What happened already is read from the state, not from the past.
        server.keyspace().hub().caught_up(id, server.keyspace().hub().revision() + 1);
        Self { server, id, outbox }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.server.keyspace().hub().remove(self.id);
    }
}
