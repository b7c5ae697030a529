//! etcdserverpb.KV.

use std::pin::Pin;
use std::sync::Arc;

use async_stream::try_stream;
use flotilla_proto::etcd::etcdserverpb::kv_server::Kv;
use flotilla_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::api::caller::caller;
use crate::api::status::{receivable, status};
use crate::engine::server::Server;
use crate::engine::validate;

/// Keys of the first part of a streamed range; later parts follow the size of what came before.
const FIRST_PART: i64 = 10;

/// The service.
#[derive(Debug, Clone)]
pub struct KvApi(pub Arc<Server>);

impl KvApi {
    fn check(&self, message: &impl Message) -> Result<(), Status> {
        receivable(message, self.0.limits().request_bytes)
    }
}

#[tonic::async_trait]
impl Kv for KvApi {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        self.0
            .range(&caller(&self.0, &request)?, request.get_ref())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let caller = caller(&self.0, &request)?;
        let request = request.into_inner();
        validate::range_stream(&request).map_err(status)?;
        if !request.serializable {
            self.0.consensus().read_barrier().await.map_err(status)?;
        }
        self.0.may_read(&caller, &request.key, &request.range_end).map_err(status)?;
        Ok(Response::new(Box::pin(range_parts(self.0.clone(), request))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.check(request.get_ref())?;
        let caller = caller(&self.0, &request)?;
        self.0.put(&caller, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.check(request.get_ref())?;
        let caller = caller(&self.0, &request)?;
        self.0.delete(&caller, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.check(request.get_ref())?;
        let caller = caller(&self.0, &request)?;
        self.0.txn(&caller, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        self.0.compact(&caller, request.into_inner()).await.map(Response::new).map_err(status)
    }
}

/// Answers a range in parts of one revision. Header, count and `more` come with the last part.
fn range_parts(
    server: Arc<Server>,
    request: RangeRequest,
) -> impl Stream<Item = Result<RangeStreamResponse, Status>> + Send {
    try_stream! {
        let target = server.limits().request_bytes;
        let wanted = if request.limit > 0 { request.limit } else { i64::MAX };
        let mut part = RangeRequest { ..request.clone() };
        let (mut sent, mut keys, mut total) = (0, FIRST_PART, None);
        let mut pinned = request.revision;
        loop {
            part.limit = keys.min(wanted - sent);
            part.revision = pinned;
            let mut response = server.keyspace().range(&part).map_err(status)?;
            let count = *total.get_or_insert(response.count);
            if pinned == 0 {
                pinned = response.header.as_ref().map_or(0, |header| header.revision);
            }
            sent += response.kvs.len() as i64;
            let last = !response.more || sent >= wanted || request.count_only;
            if let Some(kv) = response.kvs.last() {
                let mut next = kv.key.to_vec();
                next.push(0);
                part.key = next.into();
            }
            let bytes = response.encoded_len();
            if last {
                response.count = count;
                response.more = sent < count && !request.count_only;
                if let Some(header) = &mut response.header {
                    header.revision = server.keyspace().revision().max(pinned);
                }
                server.stamp(&mut response.header);
            } else {
                response.header = None;
                response.count = 0;
                response.more = false;
            }
            yield RangeStreamResponse { range_response: Some(response) };
            if last {
                break;
            }
            keys = if bytes > target { (keys / 2).max(1) } else if bytes * 2 <= target { keys * 2 } else { keys };
        }
    }
}
