//! Random commands against a model of maps: the same answers, the same revision, the same users and roles, and after each
//! of them the loaded state equal to the one in memory ([`Member::run`]).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::oracle::{some_end, some_key, some_permission};
use super::*;

#[derive(Clone, Debug)]
enum Command {
    Enable,
    Disable,
    UserAdd { name: String, no_password: bool },
    UserDelete { name: String },
    ChangePassword { name: String },
    GrantRole { user: String, role: String },
    RevokeRole { user: String, role: String },
    RoleAdd { name: String },
    RoleDelete { name: String },
    Grant { role: String, permission: Option<authpb::Permission> },
    Revoke { role: String, key: Vec<u8>, range_end: Vec<u8> },
}

#[derive(Default)]
struct Model {
    enabled: bool,
    changes: u64,
    users: BTreeMap<String, BTreeSet<String>>,
    roles: BTreeMap<String, BTreeMap<(Bytes, Bytes), i32>>,
}

impl Model {
    fn apply(&mut self, command: &Command) -> Result<(), Rejection> {
        let root_is_safe = self.enabled;
        match command {
            Command::Enable => {
                let root = self.users.get("root").ok_or(Rejection::RootUserNotExist);
                if !self.enabled && !root?.contains("root") {
                    return Err(Rejection::RootRoleNotExist);
                }
                self.enabled = true;
                return Ok(());
            }
            Command::Disable if !self.enabled => return Ok(()),
            Command::Disable => self.enabled = false,
            Command::UserAdd { name, .. } if name.is_empty() => return Err(Rejection::UserEmpty),
            Command::UserAdd { name, .. } if self.users.contains_key(name) => return Err(Rejection::UserAlreadyExist),
            Command::UserAdd { name, .. } => drop(self.users.insert(name.clone(), BTreeSet::new())),
            Command::UserDelete { name } if root_is_safe && name == "root" => {
                return Err(Rejection::InvalidAuthManagement);
            }
            Command::UserDelete { name } => drop(self.users.remove(name).ok_or(Rejection::UserNotFound)?),
            Command::ChangePassword { name } => drop(self.users.get(name).ok_or(Rejection::UserNotFound)?),
            Command::GrantRole { user, role } => {
                let roles = self.users.get_mut(user).ok_or(Rejection::UserNotFound)?;
                if role != "root" && !self.roles.contains_key(role) {
                    return Err(Rejection::RoleNotFound);
                }
                if !roles.insert(role.clone()) {
                    return Ok(());
                }
            }
            Command::RevokeRole { user, role } if root_is_safe && user == "root" && role == "root" => {
                return Err(Rejection::InvalidAuthManagement);
            }
            Command::RevokeRole { user, role } => {
                if !self.users.get_mut(user).ok_or(Rejection::UserNotFound)?.remove(role) {
                    return Err(Rejection::RoleNotGranted);
                }
            }
            Command::RoleAdd { name } if name.is_empty() => return Err(Rejection::RoleEmpty),
            Command::RoleAdd { name } if self.roles.contains_key(name) => return Err(Rejection::RoleAlreadyExist),
            Command::RoleAdd { name } => drop(self.roles.insert(name.clone(), BTreeMap::new())),
            Command::RoleDelete { name } if root_is_safe && name == "root" => {
                return Err(Rejection::InvalidAuthManagement);
            }
            Command::RoleDelete { name } => {
                self.roles.remove(name).ok_or(Rejection::RoleNotFound)?;
                for roles in self.users.values_mut() {
                    roles.remove(name);
                }
            }
            Command::Grant { role, permission } => self.grant(role, permission.as_ref())?,
            Command::Revoke { role, key, range_end } => {
                let held = self.roles.get_mut(role).ok_or(Rejection::RoleNotFound)?;
                held.remove(&(bytes(key), bytes(range_end))).ok_or(Rejection::PermissionNotGranted)?;
            }
        }
        self.changes += 1;
        Ok(())
    }

    fn grant(&mut self, role: &str, permission: Option<&authpb::Permission>) -> Result<(), Rejection> {
        let permission = permission.ok_or(Rejection::PermissionNotGiven)?;
        let (key, range_end) = (permission.key.clone(), permission.range_end.clone());
        if !range_end.is_empty() && range_end != b"\0"[..] && key >= range_end {
            return Err(Rejection::InvalidAuthManagement);
        }
        let held = self.roles.get_mut(role).ok_or(Rejection::RoleNotFound)?;
        held.insert((key, range_end), permission.perm_type);
        Ok(())
    }

    fn compare(&self, auth: &AuthState) {
        assert_eq!((auth.is_enabled(), auth.revision()), (self.enabled, 1 + self.changes));
        assert_eq!(auth.user_list().users, self.users.keys().cloned().collect::<Vec<_>>());
        assert_eq!(auth.role_list().roles, self.roles.keys().cloned().collect::<Vec<_>>());
        for (name, roles) in &self.users {
            let own = auth.user_get(&pb::AuthUserGetRequest { name: name.clone() }).unwrap().roles;
            assert_eq!(own, roles.iter().cloned().collect::<Vec<_>>());
        }
        for (name, held) in &self.roles {
            let permissions = &auth.role(name).unwrap().permissions;
            assert!(permissions.is_sorted_by_key(|own| own.key.clone()));
            assert_eq!(permissions.len(), held.len());
            let held = held.iter().map(|(range, kind)| (range.clone(), *kind)).collect::<BTreeMap<_, _>>();
            let own = permissions.iter().map(|own| ((own.key.clone(), own.range_end.clone()), own.perm_type)).collect();
            assert_eq!(held, own);
        }
    }
}

fn run(member: &mut Member, command: &Command) -> Result<(), Rejection> {
    member.run(|auth, overlay| match command {
        Command::Enable => auth.enable(overlay),
        Command::Disable => {
            auth.disable(overlay);
            Ok(())
        }
        Command::UserAdd { name, no_password } => {
            let options = Some(authpb::UserAddOptions { no_password: *no_password });
            auth.user_add(&pb::AuthUserAddRequest { options, ..user_add(name) }, overlay)
        }
        Command::UserDelete { name } => auth.user_delete(&user_delete(name), overlay),
        Command::ChangePassword { name } => auth.user_change_password(&change_password(name, "bmV3"), overlay),
        Command::GrantRole { user, role } => auth.user_grant_role(&grant_role(user, role), overlay),
        Command::RevokeRole { user, role } => auth.user_revoke_role(&revoke_role(user, role), overlay),
        Command::RoleAdd { name } => auth.role_add(&role_add(name), overlay),
        Command::RoleDelete { name } => auth.role_delete(&role_delete(name), overlay),
        Command::Grant { role, permission } => {
            let request = pb::AuthRoleGrantPermissionRequest { name: role.clone(), perm: permission.clone() };
            auth.role_grant_permission(&request, overlay)
        }
        Command::Revoke { role, key, range_end } => auth.role_revoke_permission(&revoke(role, key, range_end), overlay),
    })
}

fn some_name() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(""), 6 => Just("root"), 6 => Just("a"), 6 => Just("b")].prop_map(str::to_owned)
}

fn some_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => Just(Command::Enable),
        1 => Just(Command::Disable),
        3 => (some_name(), any::<bool>()).prop_map(|(name, no_password)| Command::UserAdd { name, no_password }),
        1 => some_name().prop_map(|name| Command::UserDelete { name }),
        1 => some_name().prop_map(|name| Command::ChangePassword { name }),
        4 => (some_name(), some_name()).prop_map(|(user, role)| Command::GrantRole { user, role }),
        2 => (some_name(), some_name()).prop_map(|(user, role)| Command::RevokeRole { user, role }),
        3 => some_name().prop_map(|name| Command::RoleAdd { name }),
        1 => some_name().prop_map(|name| Command::RoleDelete { name }),
        6 => (some_name(), prop::option::weighted(0.95, some_permission()))
            .prop_map(|(role, permission)| Command::Grant { role, permission }),
        3 => (some_name(), some_key(), some_end())
            .prop_map(|(role, key, range_end)| Command::Revoke { role, key, range_end }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_do_what_the_model_does(commands in prop::collection::vec(some_command(), 1..80)) {
        let (mut member, mut model) = (Member::default(), Model::default());
        for command in &commands {
            let before = (member.disk.clone(), member.auth.clone());
            let answer = run(&mut member, command);
            prop_assert_eq!(&answer, &model.apply(command), "{:?}", command);
            if answer.is_err() {
                prop_assert_eq!(&before, &(member.disk.clone(), member.auth.clone()));
            }
            model.compare(&member.auth);
        }
    }
}
