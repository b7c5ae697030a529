//! Calls to etcd: single keys with compare-and-swap, and pages of ranges.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::mvccpb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;
use pb::watch_client::WatchClient;
use thiserror::Error;
use tonic::transport::Channel;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 512 << 20;

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nobody answered.
    #[error("etcd does not answer: {0}")]
    Unavailable(String),
    /// The revision is compacted.
    #[error("the revision is compacted")]
    Compacted,
    /// The revision is not there yet.
    #[error("the revision is in the future")]
    Future,
    /// The object is too large.
    #[error("the object is too large")]
    TooLarge,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<tonic::Status> for StoreError {
    fn from(status: tonic::Status) -> Self {
        let message = status.message();
        match status.code() {
            tonic::Code::OutOfRange if message.contains("compacted") => Self::Compacted,
            tonic::Code::OutOfRange if message.contains("future") => Self::Future,
            tonic::Code::InvalidArgument if message.contains("too large") => Self::TooLarge,
            tonic::Code::ResourceExhausted if message.contains("trying to send message larger") => {
                Self::TooLarge
            }
            tonic::Code::Unavailable
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Cancelled
            | tonic::Code::Unknown => Self::Unavailable(message.to_owned()),
            _ => Self::Other(message.to_owned()),
        }
    }
}

/// A key with its value.
pub type Kv = mvccpb::KeyValue;

/// What a compare-and-swap did.
#[derive(Debug)]
pub enum Outcome {
    /// Written at this revision.
    Done(i64),
    /// The key had another revision; here is what it holds now.
    Differs(Option<Kv>),
}

/// A page of a range.
#[derive(Debug)]
pub struct Page {
    /// Keys in order.
    pub kvs: Vec<Kv>,
    /// Revision the page shows.
    pub revision: i64,
    /// Whether keys follow.
    pub more: bool,
    /// Keys from the start of the page on.
    pub count: i64,
}

/// A client of the store.
#[derive(Clone, Debug)]
pub struct Etcd {
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    lease: LeaseClient<Channel>,
}

impl Etcd {
    /// A client that spreads calls over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            lease: LeaseClient::new(channel),
        }
    }

    /// The watch client.
    pub fn watcher(&self) -> WatchClient<Channel> {
        self.watch.clone()
    }

    /// One key, linearizable, and the store's revision.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self, key: &str) -> Result<(Option<Kv>, i64), StoreError> {
        let request = pb::RangeRequest { key: bytes(key), ..Default::default() };
        let response = timed(self.kv.clone().range(request)).await?;
        let revision = response.header.map_or(0, |h| h.revision);
        Ok((response.kvs.into_iter().next(), revision))
    }

    /// The store's revision, linearizable.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revision(&self, prefix: &str) -> Result<i64, StoreError> {
        let request =
            pb::RangeRequest { key: bytes(prefix), count_only: true, ..Default::default() };
        let response = timed(self.kv.clone().range(request)).await?;
        Ok(response.header.map_or(0, |h| h.revision))
    }

    /// Keys of `[from, end)` at `revision` (0: now), at most `limit` (0: all).
    ///
    /// # Errors
    /// When the store does not answer or the revision is compacted.
    pub async fn range(
        &self,
        from: &[u8],
        end: &[u8],
        revision: i64,
        limit: i64,
    ) -> Result<Page, StoreError> {
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(from),
            range_end: Bytes::copy_from_slice(end),
            revision,
            limit,
            ..Default::default()
        };
        let response = timed(self.kv.clone().range(request)).await?;
        Ok(Page {
            kvs: response.kvs,
            revision: response.header.map_or(0, |h| h.revision),
            more: response.more,
            count: response.count,
        })
    }

    /// Writes `key` when its modification revision is `expected` (0: when it does not exist).
    ///
    /// # Errors
    /// When the store does not answer; then the write may have happened or not.
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: i64,
        lease: i64,
    ) -> Result<Outcome, StoreError> {
        let put = pb::PutRequest { key: bytes(key), value, lease, ..Default::default() };
        self.swap(key, expected, Op::RequestPut(put)).await
    }

    /// Writes `key` when it does not exist and, in the same transaction, `guards` that must not exist either.
    /// `Differs(None)` says that a guard existed.
    ///
    /// # Errors
    /// As [`Etcd::put`].
    pub async fn create_guarded(
        &self,
        key: &str,
        value: Bytes,
        guards: Vec<(String, Bytes)>,
    ) -> Result<Outcome, StoreError> {
        let puts = guards.into_iter().chain([(key.to_owned(), value)]);
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for (key, value) in puts {
            compare.push(compare_revision(&key, 0));
            let put = pb::PutRequest { key: key.into(), value, ..Default::default() };
            success.push(pb::RequestOp { request: Some(Op::RequestPut(put)) });
        }
        let get = pb::RangeRequest { key: bytes(key), ..Default::default() };
        let failure = vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }];
        self.transact(pb::TxnRequest { compare, success, failure }).await
    }

    /// Deletes `key` when its modification revision is `expected`, and with it `others` whatever they hold.
    ///
    /// # Errors
    /// As [`Etcd::put`].
    pub async fn delete(
        &self,
        key: &str,
        expected: i64,
        others: &[String],
    ) -> Result<Outcome, StoreError> {
        let delete = |key: &str| {
            let request = pb::DeleteRangeRequest { key: bytes(key), ..Default::default() };
            pb::RequestOp { request: Some(Op::RequestDeleteRange(request)) }
        };
        let success = others.iter().map(|k| delete(k)).chain([delete(key)]).collect();
        let get = pb::RangeRequest { key: bytes(key), ..Default::default() };
        let failure = vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }];
        self.transact(pb::TxnRequest {
            compare: vec![compare_revision(key, expected)],
            success,
            failure,
        })
        .await
    }

    /// A lease of `seconds`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn grant(&self, seconds: i64) -> Result<i64, StoreError> {
        let request = pb::LeaseGrantRequest { ttl: seconds, id: 0 };
        let mut lease = self.lease.clone();
        Ok(timed(lease.lease_grant(request)).await?.id)
    }

    /// Gives up the history before `revision`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let request = pb::CompactionRequest { revision, physical: false };
        timed(self.kv.clone().compact(request)).await.map(drop)
    }

    async fn swap(&self, key: &str, expected: i64, op: Op) -> Result<Outcome, StoreError> {
        let get = pb::RangeRequest { key: bytes(key), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![compare_revision(key, expected)],
            success: vec![pb::RequestOp { request: Some(op) }],
            failure: vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }],
        };
        self.transact(request).await
    }

    async fn transact(&self, request: pb::TxnRequest) -> Result<Outcome, StoreError> {
        let response = timed(self.kv.clone().txn(request)).await?;
        if response.succeeded {
            return Ok(Outcome::Done(response.header.map_or(0, |h| h.revision)));
        }
        let first = response.responses.into_iter().next().and_then(|r| r.response);
        Ok(Outcome::Differs(match first {
            Some(OpResponse::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        }))
    }
}

fn bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

fn compare_revision(key: &str, expected: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(expected)),
    }
}

async fn timed<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => Ok(result?.into_inner()),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}
