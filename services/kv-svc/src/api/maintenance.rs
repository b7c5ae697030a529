//! etcdserverpb.Maintenance.

use std::pin::Pin;
use std::sync::Arc;

use flotilla_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use flotilla_proto::etcd::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use futures::Stream;
use tonic::{Request, Response, Status};

use crate::api::caller::{admin, caller};
use crate::api::status::status;
use crate::config::{ETCD_VERSION, STORAGE_VERSION};
use crate::engine::server::Server;
use crate::error::KvError;

/// The service.
#[derive(Debug, Clone)]
pub struct MaintenanceApi(pub Arc<Server>);

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("not supported yet: {what}"))
}

#[tonic::async_trait]
impl Maintenance for MaintenanceApi {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        self.0
            .alarm(&caller(&self.0, &request)?, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let standing = self.0.consensus().standing();
        let usage = self.0.keyspace().store().usage();
        let mut errors = Vec::new();
        if standing.leader == 0 {
            errors.push(KvError::NoLeader.text().to_owned());
        }
        for alarm in self.0.keyspace().state().alarms.list(AlarmType::None) {
            let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
            errors.push(format!("memberID:{} alarm:{} ", alarm.member_id, kind.as_str_name()));
        }
        let mut response = StatusResponse {
            header: None,
            version: ETCD_VERSION.to_owned(),
            db_size: usage.total as i64,
            db_size_in_use: usage.live as i64,
            db_size_quota: self.0.quota(),
            leader: standing.leader,
            raft_index: standing.committed,
            raft_term: standing.term,
            raft_applied_index: standing.applied,
            errors,
            is_learner: standing.learner,
            storage_version: STORAGE_VERSION.to_owned(),
            downgrade_info: Some(Default::default()),
        };
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        admin(&self.0, &request)?;
        let keyspace = self.0.keyspace().clone();
        tracing::info!("starting defragmentation");
        let reclaimed = tokio::task::spawn_blocking(move || keyspace.store().reclaim()).await;
        match reclaimed {
            Ok(Ok(())) => tracing::info!("finished defragmenting directory"),
            Ok(Err(error)) => return Err(Status::internal(error.to_string())),
            Err(error) => return Err(Status::internal(error.to_string())),
        }
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        admin(&self.0, &request)?;
        let keyspace = self.0.keyspace().clone();
        let hash = tokio::task::spawn_blocking(move || keyspace.hash_store())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(error.into()))?;
        let mut response = HashResponse { header: None, hash };
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        admin(&self.0, &request)?;
        let (keyspace, revision) = (self.0.keyspace().clone(), request.get_ref().revision);
        let mut response = tokio::task::spawn_blocking(move || keyspace.hash_kv(revision))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(error.into()))?;
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        admin(&self.0, &request)?;
        Err(not_yet("Snapshot"))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        admin(&self.0, &request)?;
        if self.0.consensus().standing().leader != self.0.identity().member {
            return Err(status(KvError::NotLeader));
        }
        self.0.consensus().transfer(request.get_ref().target_id).await.map_err(status)?;
        let mut response = MoveLeaderResponse::default();
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        admin(&self.0, &request)?;
        Err(not_yet("Downgrade"))
    }
}
