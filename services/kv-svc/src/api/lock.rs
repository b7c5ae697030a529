//! v3lockpb.Lock.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::{DeleteRangeRequest, LeaseGrantRequest};
use flotilla_proto::etcd::v3lockpb::lock_server::Lock;
use flotilla_proto::etcd::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use crate::api::caller::caller;
use crate::api::status::status;
use crate::engine::line::{Line, place_key};
use crate::engine::server::Server;

/// Seconds a lock lives whose caller brought no lease.
pub const DEFAULT_TTL: i64 = 60;

/// The service.
#[derive(Debug, Clone)]
pub struct LockApi(pub Arc<Server>);

/// Leaves the line when the caller goes away before it is served.
pub struct LeaveOnDrop<'a> {
    line: &'a Line,
    key: Option<Bytes>,
}

impl<'a> LeaveOnDrop<'a> {
    /// Watches over a place.
    pub fn new(line: &'a Line, key: Bytes) -> Self {
        Self { line, key: Some(key) }
    }

    /// The place is kept.
    pub fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.line.leave_behind(key);
        }
    }
}

#[tonic::async_trait]
impl Lock for LockApi {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        let LockRequest { name, mut lease } = request.into_inner();
        if lease == 0 {
            let grant = LeaseGrantRequest { ttl: DEFAULT_TTL, id: 0 };
            lease = self.0.lease_grant(&caller, grant).await.map_err(status)?.id;
        }
        let line = Line::new(self.0.clone(), caller, &name);
        let place =
            line.enter(place_key(&name, lease), lease, Bytes::new()).await.map_err(status)?;
        let leave = LeaveOnDrop::new(&line, place.key.clone());
        line.wait_first(&place).await.map_err(status)?;
        leave.keep();
        let mut response = LockResponse { header: None, key: place.key };
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        let keys = DeleteRangeRequest { key: request.into_inner().key, ..Default::default() };
        let deleted = self.0.delete(&caller, keys).await.map_err(status)?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}
