//! v3electionpb.Election.

use std::pin::Pin;
use std::sync::Arc;

use async_stream::try_stream;
use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::v3electionpb::election_server::Election;
use flotilla_proto::etcd::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use futures::Stream;
use pb::request_op::Request as Op;
use tonic::{Request, Response, Status};

use crate::api::caller::caller;
use crate::api::lock::{DEFAULT_TTL, LeaveOnDrop};
use crate::api::status::status;
use crate::engine::auth::Caller;
use crate::engine::line::{Line, created_at, op, place_key};
use crate::engine::server::Server;

/// The service.
#[derive(Debug, Clone)]
pub struct ElectionApi(pub Arc<Server>);

fn unknown(text: &str) -> Status {
    Status::unknown(text)
}

impl ElectionApi {
    /// Runs an operation if the leader's key is still the one that won.
    async fn as_leader(
        &self,
        caller: &Caller,
        leader: &LeaderKey,
        operation: Op,
    ) -> Result<pb::TxnResponse, Status> {
        let txn = pb::TxnRequest {
            compare: vec![created_at(&leader.key, leader.rev)],
            success: vec![op(operation)],
            failure: Vec::new(),
        };
        self.0.txn(caller, txn).await.map_err(status)
    }

    async fn proclaim_value(
        &self,
        caller: &Caller,
        leader: &LeaderKey,
        value: Bytes,
    ) -> Result<pb::TxnResponse, Status> {
        let put = pb::PutRequest {
            key: leader.key.clone(),
            value,
            lease: leader.lease,
            ..Default::default()
        };
        let response = self.as_leader(caller, leader, Op::RequestPut(put)).await?;
        if response.succeeded { Ok(response) } else { Err(unknown("election: not leader")) }
    }
}

#[tonic::async_trait]
impl Election for ElectionApi {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        let CampaignRequest { name, mut lease, value } = request.into_inner();
        if lease == 0 {
            let grant = pb::LeaseGrantRequest { ttl: DEFAULT_TTL, id: 0 };
            lease = self.0.lease_grant(&caller, grant).await.map_err(status)?.id;
        }
        let line = Line::new(self.0.clone(), caller.clone(), &name);
        let place =
            line.enter(place_key(&name, lease), lease, value.clone()).await.map_err(status)?;
        let leader = LeaderKey { name, key: place.key.clone(), rev: place.revision, lease };
        if place.found.as_ref().is_some_and(|found| *found != value) {
            self.proclaim_value(&caller, &leader, value).await?;
        }
        let leave = LeaveOnDrop::new(&line, place.key.clone());
        line.wait_first(&place).await.map_err(status)?;
        leave.keep();
        let mut response = CampaignResponse { header: None, leader: Some(leader) };
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(|| unknown("\"leader\" field must be provided"))?;
        let response = self.proclaim_value(&caller, &leader, value).await?;
        Ok(Response::new(ProclaimResponse { header: response.header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let line = Line::new(self.0.clone(), caller(&self.0, &request)?, &request.get_ref().name);
        let (first, _) = line.first().await.map_err(status)?;
        let kv = first.ok_or_else(|| unknown("election: no leader"))?;
        let mut response = LeaderResponse { header: None, kv: Some(kv) };
        self.0.stamp(&mut response.header);
        Ok(Response::new(response))
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let line = Line::new(self.0.clone(), caller(&self.0, &request)?, &request.get_ref().name);
        let server = self.0.clone();
        Ok(Response::new(Box::pin(try_stream! {
            let mut told = 0;
            loop {
                let (first, at) = line.first().await.map_err(status)?;
                if let Some(kv) = first.filter(|kv| kv.mod_revision != told) {
                    told = kv.mod_revision;
                    let mut response = LeaderResponse { header: None, kv: Some(kv) };
                    server.stamp(&mut response.header);
                    yield response;
                }
                line.changed(at).await;
            }
        })))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let caller = caller(&self.0, &request)?;
        let leader = request
            .into_inner()
            .leader
            .ok_or_else(|| unknown("\"leader\" field must be provided"))?;
        let keys = pb::DeleteRangeRequest { key: leader.key.clone(), ..Default::default() };
        let response = self.as_leader(&caller, &leader, Op::RequestDeleteRange(keys)).await?;
        Ok(Response::new(ResignResponse { header: response.header }))
    }
}
