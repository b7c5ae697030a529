//! etcdserverpb.Auth.

use std::sync::Arc;

use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::etcdserverpb::auth_server::Auth;
use pb::InternalRaftRequest;
use tonic::{Request, Response, Status};

use crate::api::caller::caller;
use crate::api::status::status;
use crate::engine::server::Server;
use crate::error::KvError;

/// The service.
#[derive(Debug, Clone)]
pub struct AuthApi(pub Arc<Server>);

impl AuthApi {
    /// Proposes a change of the rules and returns the header of its answer.
    async fn change<T>(
        &self,
        request: &Request<T>,
        change: InternalRaftRequest,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let caller = caller(&self.0, request)?;
        self.0.propose(&caller, change).await.map_err(status)?;
        Ok(self.header())
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        let mut header = None;
        self.0.stamp(&mut header);
        header
    }

    async fn barrier(&self) -> Result<(), Status> {
        self.0.consensus().read_barrier().await.map_err(status)
    }
}

#[tonic::async_trait]
impl Auth for AuthApi {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let change =
            InternalRaftRequest { auth_enable: Some(*request.get_ref()), ..Default::default() };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let change =
            InternalRaftRequest { auth_disable: Some(*request.get_ref()), ..Default::default() };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        Ok(Response::new(self.0.auth_status()))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        self.0.authenticate(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let mut message = request.get_ref().clone();
        if message.name.is_empty() {
            return Err(status(KvError::UserEmpty));
        }
        // Only the hash goes into the log.
        let password = std::mem::take(&mut message.password);
        if !message.options.is_some_and(|options| options.no_password) {
            message.hashed_password = self.0.hash_password(password).await.map_err(status)?;
        }
        let change = InternalRaftRequest { auth_user_add: Some(message), ..Default::default() };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        self.barrier().await?;
        let roles = self
            .0
            .user_roles(&caller(&self.0, &request)?, &request.get_ref().name)
            .map_err(status)?;
        Ok(Response::new(pb::AuthUserGetResponse { header: self.header(), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        self.barrier().await?;
        let users = self.0.users(&caller(&self.0, &request)?).map_err(status)?;
        Ok(Response::new(pb::AuthUserListResponse { header: self.header(), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let change = InternalRaftRequest {
            auth_user_delete: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let mut message = request.get_ref().clone();
        // Only the hash goes into the log.
        let password = std::mem::take(&mut message.password);
        message.hashed_password = self.0.hash_password(password).await.map_err(status)?;
        let change =
            InternalRaftRequest { auth_user_change_password: Some(message), ..Default::default() };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let change = InternalRaftRequest {
            auth_user_grant_role: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let change = InternalRaftRequest {
            auth_user_revoke_role: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let change = InternalRaftRequest {
            auth_role_add: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        self.barrier().await?;
        let perm = self
            .0
            .role_permissions(&caller(&self.0, &request)?, &request.get_ref().role)
            .map_err(status)?;
        Ok(Response::new(pb::AuthRoleGetResponse { header: self.header(), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        self.barrier().await?;
        let roles = self.0.roles(&caller(&self.0, &request)?).map_err(status)?;
        Ok(Response::new(pb::AuthRoleListResponse { header: self.header(), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let change = InternalRaftRequest {
            auth_role_delete: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let change = InternalRaftRequest {
            auth_role_grant_permission: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let change = InternalRaftRequest {
            auth_role_revoke_permission: Some(request.get_ref().clone()),
            ..Default::default()
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
