//! The reference, users and roles: maps of names, and permissions looked at one by one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::Rejection;

use super::means;
use pb::request_op::Request;

/// (key, range end) -> kind of permission.
type Permissions = BTreeMap<(Bytes, Bytes), i32>;

#[derive(Clone, Debug)]
pub(crate) struct AuthModel {
    pub enabled: bool,
    pub revision: u64,
    /// Name -> roles.
    pub users: BTreeMap<String, BTreeSet<String>>,
    pub roles: BTreeMap<String, Permissions>,
}

type Outcome = Result<(), Rejection>;

impl AuthModel {
    pub(crate) fn new() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }

    /// Every change moves the revision, but for switching on, and for what changes nothing.
    pub(super) fn command(&mut self, command: &Command) -> Outcome {
        match command {
            Command::AuthEnable(_) if self.enabled => return Ok(()),
            Command::AuthEnable(_) => {
                let roles = self.users.get("root").ok_or(Rejection::RootUserNotExist)?;
                self.enabled = roles.contains("root").then_some(true).ok_or(Rejection::RootRoleNotExist)?;
                return Ok(());
            }
            Command::AuthDisable(_) if !self.enabled => return Ok(()),
            Command::AuthDisable(_) => self.enabled = false,
            Command::AuthUserAdd(request) => match request.name.as_str() {
                "" => return Err(Rejection::UserEmpty),
                name if self.users.contains_key(name) => return Err(Rejection::UserAlreadyExist),
                name => drop(self.users.insert(name.into(), BTreeSet::new())),
            },
            Command::AuthUserDelete(request) => {
                self.spare_root(&request.name)?;
                self.users.remove(&request.name).ok_or(Rejection::UserNotFound)?;
            }
            Command::AuthUserChangePassword(request) => drop(self.user(&request.name)?),
            Command::AuthUserGrantRole(request) => {
                let exists = request.role == "root" || self.roles.contains_key(&request.role);
                let roles = self.user(&request.user)?;
                if !exists {
                    return Err(Rejection::RoleNotFound);
                }
                if !roles.insert(request.role.clone()) {
                    return Ok(());
                }
            }
            Command::AuthUserRevokeRole(request) => {
                if request.name == "root" {
                    self.spare_root(&request.role)?;
                }
                if !self.user(&request.name)?.remove(&request.role) {
                    return Err(Rejection::RoleNotGranted);
                }
            }
            Command::AuthRoleAdd(request) => match request.name.as_str() {
                "" => return Err(Rejection::RoleEmpty),
                name if self.roles.contains_key(name) => return Err(Rejection::RoleAlreadyExist),
                name => drop(self.roles.insert(name.into(), Permissions::new())),
            },
            Command::AuthRoleDelete(request) => {
                self.spare_root(&request.role)?;
                self.roles.remove(&request.role).ok_or(Rejection::RoleNotFound)?;
                for roles in self.users.values_mut() {
                    roles.remove(&request.role);
                }
            }
            Command::AuthRoleGrantPermission(request) => self.grant(request)?,
            Command::AuthRoleRevokePermission(request) => {
                let role = self.roles.get_mut(&request.role).ok_or(Rejection::RoleNotFound)?;
                let range = (request.key.clone(), request.range_end.clone());
                role.remove(&range).ok_or(Rejection::PermissionNotGranted)?;
            }
            other => unreachable!("{other:?} does not change users"),
        }
        self.revision += 1;
        Ok(())
    }

    fn user(&mut self, name: &str) -> Result<&mut BTreeSet<String>, Rejection> {
        self.users.get_mut(name).ok_or(Rejection::UserNotFound)
    }

    /// Neither the user root nor the role root may go while they are needed.
    fn spare_root(&self, name: &str) -> Outcome {
        if self.enabled && name == "root" { Err(Rejection::InvalidAuthManagement) } else { Ok(()) }
    }

    fn grant(&mut self, request: &pb::AuthRoleGrantPermissionRequest) -> Outcome {
        let permission = request.perm.as_ref().ok_or(Rejection::PermissionNotGiven)?;
        let (key, end) = (&permission.key, &permission.range_end);
        let crosses = !end.is_empty() && end != "\0" && key >= end;
        if key.is_empty() || crosses {
            return Err(Rejection::InvalidAuthManagement);
        }
        let role = self.roles.get_mut(&request.name).ok_or(Rejection::RoleNotFound)?;
        role.insert((key.clone(), end.clone()), permission.perm_type);
        Ok(())
    }

    /// Whether `user`, as known to the door at `revision`, may do this.
    pub(super) fn permit(
        &self,
        user: &str,
        revision: u64,
        command: &Command,
        lease_keys: &dyn Fn(i64) -> Vec<Bytes>,
    ) -> Outcome {
        if !self.enabled {
            return Ok(());
        }
        let asking = Asking { auth: self, user, revision, lease_keys };
        match command {
            Command::LeaseExpire(_) | Command::LeaseCheckpoint(_) | Command::LeaseRemaining(_) => Ok(()),
            Command::ClusterVersionSet(_) | Command::MemberPublish(_) => Ok(()),
            Command::LeaseGrant(_) => asking.known(),
            Command::Alarm(request) if !matches!(request.action, 1 | 2) => asking.known(),
            Command::LeaseRevoke(request) => asking.revoke(request.id),
            Command::Put(request) => asking.current().and_then(|()| asking.put(request)),
            Command::DeleteRange(request) => asking.current().and_then(|()| asking.delete(request)),
            Command::Txn(request) => asking.current().and_then(|()| asking.txn(request)),
            _ => asking.admin(),
        }
    }
}

struct Asking<'a> {
    auth: &'a AuthModel,
    user: &'a str,
    revision: u64,
    lease_keys: &'a dyn Fn(i64) -> Vec<Bytes>,
}

impl Asking<'_> {
    fn known(&self) -> Outcome {
        match self.user {
            "" => Err(Rejection::UserEmpty),
            name if self.auth.users.contains_key(name) => Ok(()),
            _ => Err(Rejection::PermissionDenied),
        }
    }

    fn is_root(&self) -> bool {
        self.auth.users.get(self.user).is_some_and(|roles| roles.contains("root"))
    }

    fn admin(&self) -> Outcome {
        match self.user {
            "" => Err(Rejection::UserEmpty),
            name if !self.auth.users.contains_key(name) => Err(Rejection::UserNotFound),
            _ if self.is_root() => Ok(()),
            _ => Err(Rejection::PermissionDenied),
        }
    }

    /// Whoever touches keys must come with rights that are not out of date.
    fn current(&self) -> Outcome {
        match self.revision {
            _ if self.user.is_empty() => Err(Rejection::UserEmpty),
            0 => Err(Rejection::UserEmpty),
            old if old < self.auth.revision => Err(Rejection::AuthOldRevision),
            _ => self.known(),
        }
    }

    fn revoke(&self, lease: i64) -> Outcome {
        self.known()?;
        if self.is_root() {
            return Ok(());
        }
        for key in (self.lease_keys)(lease) {
            self.current()?;
            self.need(Type::Write, &key, b"")?;
        }
        Ok(())
    }

    /// A range is covered when no part of it is not. A part that nobody granted would begin at the first key of the range
    /// or where some permission ends.
    fn need(&self, right: Type, key: &[u8], range_end: &[u8]) -> Outcome {
        let roles = self.auth.users[self.user].iter().filter_map(|role| self.auth.roles.get(role));
        let granted: Vec<_> = roles.flatten().collect();
        let has = |at: &[u8]| {
            granted.iter().any(|((from, until), kind)| {
                (**kind == right as i32 || **kind == Type::Readwrite as i32) && means(from, until, at)
            })
        };
        let ends = granted.iter().map(|((from, until), _)| match until.as_ref() {
            b"" => [from.as_ref(), b"\0"].concat(),
            until => until.to_vec(),
        });
        let inside = ends.filter(|end| !range_end.is_empty() && &end[..] > key && means(key, range_end, end));
        let covered = self.is_root() || has(key) && inside.into_iter().all(|end| has(&end));
        if covered { Ok(()) } else { Err(Rejection::PermissionDenied) }
    }

    fn put(&self, put: &pb::PutRequest) -> Outcome {
        self.need(Type::Write, &put.key, b"")?;
        if put.prev_kv {
            self.need(Type::Read, &put.key, b"")?;
        }
        let attached = if put.lease == 0 { Vec::new() } else { (self.lease_keys)(put.lease) };
        attached.iter().try_for_each(|key| self.need(Type::Write, key, b""))
    }

    fn delete(&self, delete: &pb::DeleteRangeRequest) -> Outcome {
        self.need(Type::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv { self.need(Type::Read, &delete.key, &delete.range_end) } else { Ok(()) }
    }

    /// Both branches count, whichever is taken.
    fn txn(&self, txn: &pb::TxnRequest) -> Outcome {
        for compare in &txn.compare {
            self.need(Type::Read, &compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.need(Type::Read, &range.key, &range.range_end)?,
                Some(Request::RequestPut(put)) => self.put(put)?,
                Some(Request::RequestDeleteRange(delete)) => self.delete(delete)?,
                Some(Request::RequestTxn(nested)) => self.txn(nested)?,
                None => {}
            }
        }
        Ok(())
    }
}
