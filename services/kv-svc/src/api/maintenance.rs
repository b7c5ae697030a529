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
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use crate::api::caller::{admin, caller};
use crate::api::status::status;
use crate::config::{ETCD_VERSION, STORAGE_VERSION};
use crate::engine::server::Server;
use crate::error::KvError;

/// The service.
#[derive(Clone)]
pub struct MaintenanceApi {
    /// The member.
    pub server: Arc<Server>,
    /// Writes etcd's database file and returns it.
    pub export: Arc<Export>,
}

/// Writes etcd's database file and returns it.
pub type Export = dyn Fn() -> std::io::Result<std::fs::File> + Send + Sync;

impl std::fmt::Debug for MaintenanceApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaintenanceApi").finish_non_exhaustive()
    }
}

/// Bytes of a part of a snapshot.
const PART: usize = 32 << 10;

/// A file in parts, and its SHA-256 after them.
fn chunks(mut file: std::fs::File) -> impl Stream<Item = Result<SnapshotResponse, Status>> + Send {
    use std::io::{Read, Seek, SeekFrom};
    async_stream::try_stream! {
        let failed = |error: std::io::Error| Status::internal(format!("cannot read a snapshot: {error}"));
        let mut remaining = file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut digest = Sha256::new();
        let version = STORAGE_VERSION;
        while remaining > 0 {
            let mut part = vec![0; PART.min(usize::try_from(remaining).unwrap_or(PART))];
            file.read_exact(&mut part).map_err(failed)?;
            digest.update(&part);
            remaining -= part.len() as u64;
            yield SnapshotResponse { header: None, remaining_bytes: remaining, blob: part.into(), version: version.to_owned() };
        }
        let blob = digest.finalize().to_vec().into();
        yield SnapshotResponse { header: None, remaining_bytes: 0, blob, version: version.to_owned() };
    }
}

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
        self.server
            .alarm(&caller(&self.server, &request)?, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let standing = self.server.consensus().standing();
        let usage = self.server.keyspace().store().usage();
        let mut errors = Vec::new();
        if standing.leader == 0 {
            errors.push(KvError::NoLeader.text().to_owned());
        }
        for alarm in self.server.keyspace().state().alarms.list(AlarmType::None) {
            let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
            errors.push(format!("memberID:{} alarm:{} ", alarm.member_id, kind.as_str_name()));
        }
        let mut response = StatusResponse {
            header: None,
            version: ETCD_VERSION.to_owned(),
            db_size: usage.total as i64,
            db_size_in_use: usage.live as i64,
            db_size_quota: self.server.quota(),
            leader: standing.leader,
            raft_index: standing.committed,
            raft_term: standing.term,
            raft_applied_index: standing.applied,
            errors,
            is_learner: standing.learner,
            storage_version: STORAGE_VERSION.to_owned(),
            downgrade_info: Some(Default::default()),
        };
        self.server.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        admin(&self.server, &request)?;
        let keyspace = self.server.keyspace().clone();
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
        admin(&self.server, &request)?;
        let keyspace = self.server.keyspace().clone();
        let hash = tokio::task::spawn_blocking(move || keyspace.hash_store())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(error.into()))?;
        let mut response = HashResponse { header: None, hash };
        self.server.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        admin(&self.server, &request)?;
        let (keyspace, revision) = (self.server.keyspace().clone(), request.get_ref().revision);
        let mut response = tokio::task::spawn_blocking(move || keyspace.hash_kv(revision))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status(error.into()))?;
        self.server.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        admin(&self.server, &request)?;
        let export = self.export.clone();
        let file = tokio::task::spawn_blocking(move || export())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(format!("cannot write a snapshot: {error}")))?;
        Ok(Response::new(Box::pin(chunks(file))))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        admin(&self.server, &request)?;
        if self.server.consensus().standing().leader != self.server.identity().member {
            return Err(status(KvError::NotLeader));
        }
        self.server.consensus().transfer(request.get_ref().target_id).await.map_err(status)?;
        let mut response = MoveLeaderResponse::default();
        self.server.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        admin(&self.server, &request)?;
        Err(not_yet("Downgrade"))
    }
}
