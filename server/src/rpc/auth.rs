//! Auth, as etcd answers while authentication is off: users and roles are kept, and nobody is asked for a name.
//!
//! Tokens come with a later release. Until then authentication cannot be enabled, rather than being enabled and not
//! enforced. Passwords are hashed here, at the door: the log carries the hash alone.

use std::sync::{Arc, LazyLock};

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::{Rejection, Response as Applied};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Services;
use super::cluster::not_capable;
use super::error::status;
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};

/// Passwords hashed at the same time, at most: each keeps a core busy for a tenth of a second.
const HASHING_MAX: usize = 2;

static HASHING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(HASHING_MAX));

pub(super) struct AuthService(pub(super) Services);

impl AuthService {
    async fn change(&self, command: Command) -> Result<Option<pb::ResponseHeader>, Status> {
        match self.0.node.propose(&Identity::default(), command).await.map_err(status)? {
            Applied::Auth(header) => {
                let mut header = Some(header);
                self.0.node.fill(&mut header);
                Ok(header)
            }
            _ => Err(status(RequestError::Stopped)),
        }
    }

    /// The auth store as of now, and the header of an answer about it.
    async fn state(&self) -> Result<(Arc<quorate_store::StoreView>, Option<pb::ResponseHeader>), Status> {
        let view = self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let header = Some(self.0.node.header(view.revision()));
        Ok((view, header))
    }

    /// bcrypt, as base64 for the log (etcd's form).
    async fn hash(&self, password: String) -> Result<String, Status> {
        let _turn = HASHING.acquire().await.map_err(|_| status(RequestError::Stopped))?;
        let cost = self.0.options.bcrypt_cost;
        let hashed = tokio::task::spawn_blocking(move || bcrypt::hash(password, cost)).await;
        match hashed {
            Ok(Ok(hashed)) => Ok(base64(hashed.as_bytes())),
            Ok(Err(error)) => Err(Status::unknown(format!("failed to hash the password: {error}"))),
            Err(_) => Err(status(RequestError::Stopped)),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn require(name: &str, missing: Rejection) -> Result<(), Status> {
    if name.is_empty() { Err(status(missing)) } else { Ok(()) }
}

#[tonic::async_trait]
impl pb::auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        _request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (view, _) = self.state().await?;
        let root = view.auth().user(quorate_store::auth::USER_ROOT);
        match root {
            None => Err(status(Rejection::RootUserNotExist)),
            Some(root) if !root.is_root() => Err(status(Rejection::RootRoleNotExist)),
            Some(_) => {
                tracing::warn!("authentication was asked for, which this release does not enforce: not enabled");
                Err(not_capable())
            }
        }
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(Command::AuthDisable(request.into_inner())).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (view, header) = self.state().await?;
        Ok(Response::new(pb::AuthStatusResponse { header, ..view.auth().status() }))
    }

    async fn authenticate(
        &self,
        _request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(status(Rejection::AuthNotEnabled))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let mut request = request.into_inner();
        require(&request.name, Rejection::UserEmpty)?;
        let password = std::mem::take(&mut request.password);
        if request.options.as_ref().is_some_and(|options| options.no_password) {
            request.hashed_password.clear();
        } else if request.hashed_password.is_empty() {
            request.hashed_password = self.hash(password).await?;
        }
        let header = self.change(Command::AuthUserAdd(request)).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (view, header) = self.state().await?;
        let answer = view.auth().user_get(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::AuthUserGetResponse { header, ..answer }))
    }

    async fn user_list(
        &self,
        _request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (view, header) = self.state().await?;
        Ok(Response::new(pb::AuthUserListResponse { header, ..view.auth().user_list() }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        if request.hashed_password.is_empty() {
            request.hashed_password = self.hash(password).await?;
        }
        let header = self.change(Command::AuthUserChangePassword(request)).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (view, header) = self.state().await?;
        let answer = view.auth().role_get(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::AuthRoleGetResponse { header, ..answer }))
    }

    async fn role_list(
        &self,
        _request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (view, header) = self.state().await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, ..view.auth().role_list() }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header = self.change(Command::AuthUserDelete(request.into_inner())).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let header = self.change(Command::AuthUserGrantRole(request.into_inner())).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let header = self.change(Command::AuthUserRevokeRole(request.into_inner())).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = self.change(Command::AuthRoleAdd(request.into_inner())).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header = self.change(Command::AuthRoleDelete(request.into_inner())).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let request = request.into_inner();
        if request.perm.is_none() {
            return Err(status(Rejection::PermissionNotGiven));
        }
        let header = self.change(Command::AuthRoleGrantPermission(request)).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let header = self.change(Command::AuthRoleRevokePermission(request.into_inner())).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
