//! The commands: each checks everything, then changes state and rows together. A rejected one leaves no trace.
//!
//! The rules, their order and their rejections are etcd's. One is not: granting a range that the role already has always
//! replaces the old permission. etcd looks only at the first permission of that key, so that a role with several ranges
//! from one key keeps the wider right that a later grant meant to take away.

use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;

use super::password::hash_from_log;
use super::{AuthState, ROLE_ROOT, Role, USER_ROOT, User, records};
use crate::engine::Family;
use crate::mvcc::KeyRange;
use crate::overlay::Overlay;
use crate::types::Rejection;

impl AuthState {
    /// Does not move the revision. Of no effect when it is on already.
    pub fn enable(&mut self, overlay: &mut Overlay<'_>) -> Result<(), Rejection> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(USER_ROOT).ok_or(Rejection::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Rejection::RootRoleNotExist);
        }
        self.enabled = true;
        self.put_state(overlay);
        Ok(())
    }

    /// Users and roles stay. Of no effect when it is off already.
    pub fn disable(&mut self, overlay: &mut Overlay<'_>) {
        if self.enabled {
            self.enabled = false;
            self.commit(overlay);
        }
    }

    pub fn user_add(&mut self, request: &pb::AuthUserAddRequest, overlay: &mut Overlay<'_>) -> Result<(), Rejection> {
        if request.name.is_empty() {
            return Err(Rejection::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Rejection::UserAlreadyExist);
        }
        let no_password = request.options.as_ref().is_some_and(|options| options.no_password);
        let hashed = if no_password { "" } else { &request.hashed_password };
        let hashed = hash_from_log(&request.password, hashed)?;
        self.put_user(&request.name, User::new(hashed, no_password, Vec::new()), overlay);
        self.commit(overlay);
        Ok(())
    }

    pub fn user_delete(
        &mut self,
        request: &pb::AuthUserDeleteRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        if self.enabled && request.name == USER_ROOT {
            return Err(Rejection::InvalidAuthManagement);
        }
        self.users.remove(&request.name).ok_or(Rejection::UserNotFound)?;
        overlay.delete(Family::Auth, records::user_key(&request.name));
        self.commit(overlay);
        Ok(())
    }

    /// A user without password stays one; the revision moves all the same.
    pub fn user_change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        let mut user = self.user_to_change(&request.name)?;
        let hashed = if user.no_password { "" } else { &request.hashed_password };
        user.hashed_password = hash_from_log(&request.password, hashed)?;
        self.put_user(&request.name, user, overlay);
        self.commit(overlay);
        Ok(())
    }

    /// A role that the user has already is granted again without effect: the revision stays.
    pub fn user_grant_role(
        &mut self,
        request: &pb::AuthUserGrantRoleRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        let mut user = self.user_to_change(&request.user)?;
        if request.role != ROLE_ROOT && !self.roles.contains_key(&request.role) {
            return Err(Rejection::RoleNotFound);
        }
        if let Err(at) = user.roles.binary_search(&request.role) {
            user.roles.insert(at, request.role.clone());
            self.put_user(&request.user, user, overlay);
            self.commit(overlay);
        }
        Ok(())
    }

    pub fn user_revoke_role(
        &mut self,
        request: &pb::AuthUserRevokeRoleRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        if self.enabled && request.name == USER_ROOT && request.role == ROLE_ROOT {
            return Err(Rejection::InvalidAuthManagement);
        }
        let mut user = self.user_to_change(&request.name)?;
        let at = user.roles.binary_search(&request.role).map_err(|_| Rejection::RoleNotGranted)?;
        user.roles.remove(at);
        self.put_user(&request.name, user, overlay);
        self.commit(overlay);
        Ok(())
    }

    pub fn role_add(&mut self, request: &pb::AuthRoleAddRequest, overlay: &mut Overlay<'_>) -> Result<(), Rejection> {
        if request.name.is_empty() {
            return Err(Rejection::RoleEmpty);
        }
        if self.roles.contains_key(&request.name) {
            return Err(Rejection::RoleAlreadyExist);
        }
        self.put_role(&request.name, Role::default(), overlay);
        self.commit(overlay);
        Ok(())
    }

    /// Takes the role from every user that has it, in the same revision.
    pub fn role_delete(
        &mut self,
        request: &pb::AuthRoleDeleteRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        if self.enabled && request.role == ROLE_ROOT {
            return Err(Rejection::InvalidAuthManagement);
        }
        self.roles.remove(&request.role).ok_or(Rejection::RoleNotFound)?;
        overlay.delete(Family::Auth, records::role_key(&request.role));
        for (name, mut user) in self.holders(&request.role) {
            user.roles.retain(|role| *role != request.role);
            self.put_user(&name, user, overlay);
        }
        self.commit(overlay);
        Ok(())
    }

    pub fn role_grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        let permission = request.perm.as_ref().ok_or(Rejection::PermissionNotGiven)?;
        if !can_be_granted(permission) {
            return Err(Rejection::InvalidAuthManagement);
        }
        let mut role = self.role_to_change(&request.name)?;
        let granted = &mut role.permissions;
        match granted.iter_mut().find(|own| is_of(own, &permission.key, &permission.range_end)) {
            Some(own) => own.perm_type = permission.perm_type,
            None => {
                let at = granted.partition_point(|own| own.key <= permission.key);
                granted.insert(at, permission.clone());
            }
        }
        self.put_role(&request.name, role, overlay);
        self.commit(overlay);
        Ok(())
    }

    /// By the exact range: a permission that merely overlaps it stays.
    pub fn role_revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
        overlay: &mut Overlay<'_>,
    ) -> Result<(), Rejection> {
        let mut role = self.role_to_change(&request.role)?;
        let before = role.permissions.len();
        role.permissions.retain(|own| !is_of(own, &request.key, &request.range_end));
        if role.permissions.len() == before {
            return Err(Rejection::PermissionNotGranted);
        }
        self.put_role(&request.role, role, overlay);
        self.commit(overlay);
        Ok(())
    }

    fn user_to_change(&self, name: &str) -> Result<User, Rejection> {
        self.users.get(name).map(|user| User::clone(user)).ok_or(Rejection::UserNotFound)
    }

    fn role_to_change(&self, name: &str) -> Result<Role, Rejection> {
        self.roles.get(name).map(|role| Role::clone(role)).ok_or(Rejection::RoleNotFound)
    }
}

fn is_of(permission: &authpb::Permission, key: &[u8], range_end: &[u8]) -> bool {
    permission.key == key && permission.range_end == range_end
}

fn can_be_granted(permission: &authpb::Permission) -> bool {
    !permission.key.is_empty()
        && match KeyRange::new(&permission.key, &permission.range_end) {
            KeyRange::One(_) | KeyRange::AtLeast(_) => true,
            KeyRange::Span { from, until } => from < until,
        }
}
