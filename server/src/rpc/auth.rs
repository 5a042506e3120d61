//! Auth, as etcd answers while authentication is off: users and roles are kept, and nobody is asked for a name.
//!
//! Tokens come with a later release. Until then authentication cannot be enabled, rather than being enabled and not
//! enforced. Passwords are hashed here, at the door: the log carries the hash alone.
//!
//! What a new hash is made of is etcd's rule, and differs: a new user's always of the password, whatever hash the request
//! brings; a changed one of the password unless that is empty, and then the request's own hash, or none at all.

use std::sync::Arc;

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

/// For the process, as its cores are: a member has one service.
static HASHING: Semaphore = Semaphore::const_new(HASHING_MAX);

/// What bcrypt looks at; etcd refuses more rather than ignoring it.
const PASSWORD_BYTES_MAX: usize = 72;

pub(super) struct AuthService(pub(super) Services);

impl AuthService {
    async fn submit(&self, command: Command) -> Result<Option<pb::ResponseHeader>, RequestError> {
        match self.0.node.propose(&Identity::default(), command).await? {
            Applied::Auth(header) => {
                let mut header = Some(header);
                self.0.node.fill(&mut header);
                Ok(header)
            }
            _ => Err(RequestError::Stopped),
        }
    }

    async fn change(&self, command: Command) -> Result<Option<pb::ResponseHeader>, Status> {
        self.submit(command).await.map_err(status)
    }

    /// The auth store as of now, and the header of an answer about it.
    async fn state(&self) -> Result<(Arc<quorate_store::StoreView>, Option<pb::ResponseHeader>), Status> {
        let view = self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let header = Some(self.0.node.header(view.revision()));
        Ok((view, header))
    }

    /// bcrypt, as base64 for the log (etcd's form).
    async fn hash(&self, password: String) -> Result<String, Status> {
        check_length(&password)?;
        let turn = HASHING.acquire().await.map_err(|_| status(RequestError::Stopped))?;
        let cost = self.0.options.bcrypt_cost;
        let hashed = tokio::task::spawn_blocking(move || {
            // Held until the work is done, for that goes on when the caller has gone.
            let _turn = turn;
            bcrypt::hash(password, cost)
        });
        match hashed.await {
            Ok(Ok(hashed)) => Ok(base64(hashed.as_bytes())),
            Ok(Err(error)) => Err(Status::unknown(format!("failed to hash the password: {error}"))),
            Err(_) => Err(status(RequestError::Stopped)),
        }
    }
}

fn check_length(password: &str) -> Result<(), Status> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
    }
    Ok(())
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
        // As of now: a member that lags may not know yet that it is enabled.
        self.state().await?;
        Err(status(Rejection::AuthNotEnabled))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        let no_password = request.options.as_ref().is_some_and(|options| options.no_password);
        if !no_password {
            check_length(&password)?;
        }
        require(&request.name, Rejection::UserEmpty)?;
        request.hashed_password = if no_password { String::new() } else { self.hash(password).await? };
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
        if !password.is_empty() {
            request.hashed_password = self.hash(password).await?;
        }
        let header = match self.submit(Command::AuthUserChangePassword(request)).await {
            // Apply says so of one thing only: the hash that the request brought is no base64.
            Err(RequestError::Rejected(Rejection::InvalidAuthManagement)) => {
                return Err(Status::unknown("auth: authentication failed, password was given for no password user"));
            }
            header => header.map_err(status)?,
        };
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
        let request = request.into_inner();
        require(&request.name, Rejection::RoleEmpty)?;
        let header = self.change(Command::AuthRoleAdd(request)).await?;
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

#[cfg(test)]
mod tests {
    use pb::auth_server::Auth;
    use quorate_proto::authpb;

    use super::super::concurrency::tests::Alone;
    use super::*;

    fn user(name: &str, password: &str) -> Request<pb::AuthUserAddRequest> {
        Request::new(pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() })
    }

    async fn stored(member: &Alone, name: &str) -> String {
        let auth = member.services.node.reader().auth();
        String::from_utf8(auth.user(name).expect("the user is there").hashed_password.to_vec()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hash_is_made_of_what_etcd_makes_it() {
        let member = Alone::start().await;
        let auth = AuthService(member.services.clone());
        let mut with_hash = user("a", "right").into_inner();
        with_hash.hashed_password = base64(b"planted");
        auth.user_add(Request::new(with_hash)).await.unwrap();
        assert!(bcrypt::verify("right", &stored(&member, "a").await).unwrap());

        let change = |password: &str, hashed: &str| {
            auth.user_change_password(Request::new(pb::AuthUserChangePasswordRequest {
                name: "a".into(),
                password: password.into(),
                hashed_password: hashed.into(),
            }))
        };
        change("new", &base64(b"planted")).await.unwrap();
        assert!(bcrypt::verify("new", &stored(&member, "a").await).unwrap());
        change("", &base64(b"brought")).await.unwrap();
        assert_eq!(stored(&member, "a").await, "brought");
        change("", "").await.unwrap();
        assert_eq!(stored(&member, "a").await, "", "an empty password must not become one that opens");
        let refused = change("", "%").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unknown);
        assert_eq!(refused.message(), "auth: authentication failed, password was given for no password user");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn users_without_password_have_no_hash() {
        let member = Alone::start().await;
        let auth = AuthService(member.services.clone());
        let mut request = user("cn", "ignored").into_inner();
        request.hashed_password = base64(b"planted");
        request.options = Some(authpb::UserAddOptions { no_password: true });
        auth.user_add(Request::new(request)).await.unwrap();
        assert_eq!(stored(&member, "cn").await, "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_door_refuses_in_the_order_of_etcd() {
        let member = Alone::start().await;
        let auth = AuthService(member.services.clone());
        let long = "p".repeat(PASSWORD_BYTES_MAX + 1);
        let refused = auth.user_add(user("", &long)).await.unwrap_err();
        assert_eq!(refused.message(), "bcrypt: password length exceeds 72 bytes");
        let refused = auth.user_add(user("", "p")).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: user name is empty");
        auth.user_add(user("longest", &long[1..])).await.unwrap();
        let refused = auth.authenticate(Request::new(pb::AuthenticateRequest::default())).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: authentication is not enabled");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn enabling_is_refused_last_and_disabling_is_answered() {
        let member = Alone::start().await;
        let auth = AuthService(member.services.clone());
        let enable = || auth.auth_enable(Request::new(pb::AuthEnableRequest {}));
        assert_eq!(enable().await.unwrap_err().message(), "etcdserver: root user does not exist");
        auth.user_add(user("root", "p")).await.unwrap();
        assert_eq!(enable().await.unwrap_err().message(), "etcdserver: root user does not have root role");
        let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        auth.user_grant_role(Request::new(grant)).await.unwrap();
        let refused = enable().await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::FailedPrecondition, "etcdserver: not capable"));
        let answer = auth.auth_disable(Request::new(pb::AuthDisableRequest {})).await.unwrap().into_inner();
        assert_ne!(answer.header.unwrap().member_id, 0);
        let state = auth.auth_status(Request::new(pb::AuthStatusRequest {})).await.unwrap().into_inner();
        assert!(!state.enabled && state.auth_revision == 3, "{state:?}");
    }
}
