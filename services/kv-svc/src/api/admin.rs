//! flotilla.kv.v1.Admin.

use std::sync::Arc;

use flotilla_proto::kv_admin::flotilla::kv::v1::admin_server::Admin;
use flotilla_proto::kv_admin::flotilla::kv::v1::{GetStoreRequest, GetStoreResponse};
use tonic::{Request, Response, Status};

use crate::engine::server::Server;

/// The service.
#[derive(Debug, Clone)]
pub struct AdminApi(pub Arc<Server>);

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn get_store(
        &self,
        _request: Request<GetStoreRequest>,
    ) -> Result<Response<GetStoreResponse>, Status> {
        let disk_bytes = self.0.keyspace().store().usage().total;
        let state = self.0.keyspace().state();
        Ok(Response::new(GetStoreResponse {
            revision: state.revision,
            compact_revision: state.compacted.max(0),
            live_keys: state.index.live_keys(),
            applied_index: state.applied.map_or(0, |at| at.index),
            disk_bytes,
        }))
    }
}
