//! etcdserverpb.Cluster.

use std::sync::Arc;

use flotilla_proto::etcd::etcdserverpb::cluster_server::Cluster;
use flotilla_proto::etcd::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use crate::api::status::status;
use crate::engine::server::Server;

/// The service.
#[derive(Debug, Clone)]
pub struct ClusterApi {
    /// The member.
    pub server: Arc<Server>,
    /// How it presents itself.
    pub this: Member,
}

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("not supported yet: {what}"))
}

#[tonic::async_trait]
impl Cluster for ClusterApi {
    async fn member_add(
        &self,
        _request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(not_yet("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(not_yet("MemberRemove"))
    }

    async fn member_update(
        &self,
        _request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(not_yet("MemberUpdate"))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.server.consensus().read_barrier().await.map_err(status)?;
        }
        let mut response = MemberListResponse { header: None, members: vec![self.this.clone()] };
        self.server.stamp(&mut response.header);
        if let Some(header) = &mut response.header {
            // etcd leaves the revision out here.
            header.revision = 0;
        }
        Ok(Response::new(response))
    }

    async fn member_promote(
        &self,
        _request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(not_yet("MemberPromote"))
    }
}
