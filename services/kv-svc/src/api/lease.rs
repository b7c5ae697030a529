//! etcdserverpb.Lease.

use std::pin::Pin;
use std::sync::Arc;

use async_stream::try_stream;
use flotilla_proto::etcd::etcdserverpb::lease_server::Lease;
use flotilla_proto::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::api::caller::caller;
use crate::api::status::status;
use crate::engine::server::Server;

/// The service.
#[derive(Debug, Clone)]
pub struct LeaseApi(pub Arc<Server>);

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

impl LeaseApi {
    /// What a stream of keep-alives is answered with.
    pub fn keep_alives<S>(&self, mut requests: S) -> KeepAlives
    where
        S: Stream<Item = Result<LeaseKeepAliveRequest, Status>> + Send + Unpin + 'static,
    {
        let server = self.0.clone();
        Box::pin(try_stream! {
            while let Some(request) = requests.next().await {
                let id = request?.id;
                let mut response = LeaseKeepAliveResponse { header: None, id, ttl: server.lease_renew(id) };
                server.stamp(&mut response.header);
                yield response;
            }
        })
    }
}

#[tonic::async_trait]
impl Lease for LeaseApi {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.0
            .lease_grant(&caller(&self.0, &request)?, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.0
            .lease_revoke(&caller(&self.0, &request)?, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        Ok(Response::new(self.keep_alives(request.into_inner())))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        if request.get_ref().keys {
            self.0
                .may_read_lease(&caller(&self.0, &request)?, request.get_ref().id)
                .map_err(status)?;
        }
        Ok(Response::new(self.0.lease_times(request.get_ref())))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Ok(Response::new(self.0.leases()))
    }
}
