//! What can be asked about users and roles. Headers are the caller's; so is asking [`AuthState::check`] first.

use bytes::Bytes;

use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;

use super::{AuthState, ROLE_ROOT};
use crate::types::Rejection;

impl AuthState {
    pub fn status(&self) -> pb::AuthStatusResponse {
        pb::AuthStatusResponse { header: None, enabled: self.enabled, auth_revision: self.revision }
    }

    pub fn user_get(&self, request: &pb::AuthUserGetRequest) -> Result<pb::AuthUserGetResponse, Rejection> {
        let user = self.user(&request.name).ok_or(Rejection::UserNotFound)?;
        Ok(pb::AuthUserGetResponse { header: None, roles: user.roles.clone() })
    }

    /// Ascending.
    pub fn user_list(&self) -> pb::AuthUserListResponse {
        pb::AuthUserListResponse { header: None, users: self.users.keys().cloned().collect() }
    }

    /// The role root shows the whole keyspace, whatever was granted to it; it too has to have been added.
    pub fn role_get(&self, request: &pb::AuthRoleGetRequest) -> Result<pb::AuthRoleGetResponse, Rejection> {
        let role = self.role(&request.role).ok_or(Rejection::RoleNotFound)?;
        let perm = if request.role == ROLE_ROOT { vec![everything()] } else { role.permissions.clone() };
        Ok(pb::AuthRoleGetResponse { header: None, perm })
    }

    /// Ascending.
    pub fn role_list(&self) -> pb::AuthRoleListResponse {
        pb::AuthRoleListResponse { header: None, roles: self.roles.keys().cloned().collect() }
    }
}

fn everything() -> authpb::Permission {
    authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    }
}
