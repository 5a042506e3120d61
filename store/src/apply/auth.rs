//! Users, roles and permissions as commands; and the question, asked of every command, whether its user may.
//!
//! The question is asked again here although the door has asked it: between the two, the rights may have changed, and
//! what counts is what they are at this place of the log.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;

use super::Group;
use crate::auth::Access;
use crate::lease;
use crate::types::{Failure, Rejection};

impl Group<'_> {
    pub(super) fn permit(&self, user: &str, auth_revision: u64, command: &Command) -> Result<(), Failure> {
        let access = match command {
            Command::Put(request) => Access::Put(request),
            Command::DeleteRange(request) => Access::DeleteRange(request),
            Command::Txn(request) => Access::Txn(request),
            Command::LeaseGrant(_) => Access::AnyUser,
            Command::LeaseRevoke(request) => Access::LeaseWrite(request.id),
            Command::Compaction(_) | Command::DowngradeInfoSet(_) => Access::Admin,
            Command::Alarm(request) => match request.action() {
                pb::alarm_request::AlarmAction::Get => Access::AnyUser,
                pb::alarm_request::AlarmAction::Activate | pb::alarm_request::AlarmAction::Deactivate => Access::Admin,
            },
            // The cluster itself asks for these.
            Command::LeaseExpire(_)
            | Command::LeaseCheckpoint(_)
            | Command::LeaseRemaining(_)
            | Command::ClusterVersionSet(_)
            | Command::MemberPublish(_) => return Ok(()),
            Command::AuthEnable(_)
            | Command::AuthDisable(_)
            | Command::AuthUserAdd(_)
            | Command::AuthUserDelete(_)
            | Command::AuthUserChangePassword(_)
            | Command::AuthUserGrantRole(_)
            | Command::AuthUserRevokeRole(_)
            | Command::AuthRoleAdd(_)
            | Command::AuthRoleDelete(_)
            | Command::AuthRoleGrantPermission(_)
            | Command::AuthRoleRevokePermission(_) => Access::Admin,
        };
        self.state.auth.check(user, auth_revision, access, &|lease| lease::attached(&self.overlay, lease))
    }

    pub(super) fn auth(&mut self, command: &Command) -> Result<pb::ResponseHeader, Failure> {
        let (auth, overlay) = (&mut self.state.auth, &mut self.overlay);
        let outcome: Result<(), Rejection> = match command {
            Command::AuthEnable(_) => auth.enable(overlay),
            Command::AuthDisable(_) => {
                auth.disable(overlay);
                Ok(())
            }
            Command::AuthUserAdd(request) => auth.user_add(request, overlay),
            Command::AuthUserDelete(request) => auth.user_delete(request, overlay),
            Command::AuthUserChangePassword(request) => auth.user_change_password(request, overlay),
            Command::AuthUserGrantRole(request) => auth.user_grant_role(request, overlay),
            Command::AuthUserRevokeRole(request) => auth.user_revoke_role(request, overlay),
            Command::AuthRoleAdd(request) => auth.role_add(request, overlay),
            Command::AuthRoleDelete(request) => auth.role_delete(request, overlay),
            Command::AuthRoleGrantPermission(request) => auth.role_grant_permission(request, overlay),
            Command::AuthRoleRevokePermission(request) => auth.role_revoke_permission(request, overlay),
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compaction(_)
            | Command::LeaseGrant(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_)
            | Command::LeaseCheckpoint(_)
            | Command::LeaseRemaining(_)
            | Command::Alarm(_)
            | Command::ClusterVersionSet(_)
            | Command::DowngradeInfoSet(_)
            | Command::MemberPublish(_) => Err(Rejection::InvalidAuthManagement),
        };
        outcome?;
        self.effects.auth_changed = true;
        Ok(self.header())
    }
}
