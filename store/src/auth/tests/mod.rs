//! A small disk and the hands that the tests share.

use std::collections::BTreeMap;

use bytes::Bytes;

use quorate_proto::authpb;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;

use super::{Access, AuthState};
use crate::engine::{Batch, Change, Direction, Family, Read, Rows, Span, View};
use crate::keys;
use crate::lease;
use crate::mvcc::KeyRange;
use crate::overlay::{Overlay, crosses};
use crate::types::{Failure, Fault, Rejection};

mod advisories;
mod checks;
mod commands;
mod merges;
mod model;
mod oracle;
mod rows;

#[derive(Clone, Debug, Default, PartialEq)]
struct Disk {
    rows: BTreeMap<(Family, Bytes), Bytes>,
}

impl Disk {
    fn write(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put { family, key, value } => self.rows.insert((family, key), value),
                Change::Delete { family, key } => self.rows.remove(&(family, key)),
            };
        }
    }

    fn attach(&mut self, lease: i64, key: &[u8]) {
        self.rows.insert((Family::LeaseKeys, keys::lease_attachment_key(lease, key)), Bytes::new());
    }
}

impl Read for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.get(&(family, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        if crosses(&span) {
            return Box::new(std::iter::empty());
        }
        let own: BTreeMap<&Bytes, &Bytes> =
            self.rows.iter().filter(|((of, _), _)| *of == family).map(|((_, key), value)| (key, value)).collect();
        let mut rows: Vec<_> = own
            .range::<Bytes, _>((span.from.as_ref(), span.until.as_ref()))
            .map(|(key, value)| Ok((Bytes::clone(key), Bytes::clone(value))))
            .collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        Box::new(rows.into_iter())
    }
}

impl View for Disk {}

/// One member: its state in memory and its disk, held equal after every command.
#[derive(Clone, Default)]
struct Member {
    disk: Disk,
    auth: AuthState,
}

impl Member {
    fn run<Answer>(&mut self, command: impl FnOnce(&mut AuthState, &mut Overlay<'_>) -> Answer) -> Answer {
        let before = self.disk.clone();
        let mut overlay = Overlay::new(&before);
        let answer = command(&mut self.auth, &mut overlay);
        self.disk.write(overlay.into_batch());
        assert_eq!(AuthState::load(&self.disk).unwrap(), self.auth, "what is loaded is what was saved");
        answer
    }

    /// A command that must be refused, and leave nothing behind.
    fn refused(
        &mut self,
        why: Rejection,
        command: impl FnOnce(&mut AuthState, &mut Overlay<'_>) -> Result<(), Rejection>,
    ) {
        let (disk, auth) = (self.disk.clone(), self.auth.clone());
        assert_eq!(self.run(command), Err(why));
        assert_eq!((&self.disk, &self.auth), (&disk, &auth));
    }

    fn user(&mut self, name: &str, roles: &[&str]) {
        self.run(|auth, overlay| auth.user_add(&user_add(name), overlay)).unwrap();
        for role in roles {
            self.run(|auth, overlay| auth.user_grant_role(&grant_role(name, role), overlay)).unwrap();
        }
    }

    fn role(&mut self, name: &str, permissions: &[authpb::Permission]) {
        self.run(|auth, overlay| auth.role_add(&role_add(name), overlay)).unwrap();
        for permission in permissions {
            self.run(|auth, overlay| auth.role_grant_permission(&grant(name, permission), overlay)).unwrap();
        }
    }

    fn enable(&mut self) {
        self.run(AuthState::enable).unwrap();
    }

    /// As a request that was established just now.
    fn check(&self, user: &str, access: Access<'_>) -> Result<(), Rejection> {
        self.check_at(user, self.auth.revision(), access)
    }

    fn check_at(&self, user: &str, auth_revision: u64, access: Access<'_>) -> Result<(), Rejection> {
        match self.auth.check(user, auth_revision, access, &|lease| lease::attached(&self.disk, lease)) {
            Ok(()) => Ok(()),
            Err(Failure::Rejected(why)) => Err(why),
            Err(Failure::Fault(fault)) => panic!("{fault}"),
        }
    }

    fn may_read(&self, user: &str, key: &[u8], range_end: &[u8]) -> bool {
        self.check(user, Access::Range(&keys_of(key, range_end))).is_ok()
    }

    fn may_write(&self, user: &str, key: &[u8], range_end: &[u8]) -> bool {
        self.check(user, Access::DeleteRange(&delete(key, range_end))).is_ok()
    }
}

/// Authentication is on; `alice` holds the role `work` with these permissions.
fn member_with(permissions: &[authpb::Permission]) -> Member {
    let mut member = Member::default();
    member.user("root", &["root"]);
    member.role("work", permissions);
    member.user("alice", &["work"]);
    member.enable();
    member
}

fn user_add(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.into(), hashed_password: "aGFzaA==".into(), ..Default::default() }
}

fn user_delete(name: &str) -> pb::AuthUserDeleteRequest {
    pb::AuthUserDeleteRequest { name: name.into() }
}

fn change_password(name: &str, hashed: &str) -> pb::AuthUserChangePasswordRequest {
    pb::AuthUserChangePasswordRequest { name: name.into(), hashed_password: hashed.into(), ..Default::default() }
}

fn grant_role(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn revoke_role(user: &str, role: &str) -> pb::AuthUserRevokeRoleRequest {
    pb::AuthUserRevokeRoleRequest { name: user.into(), role: role.into() }
}

fn role_add(name: &str) -> pb::AuthRoleAddRequest {
    pb::AuthRoleAddRequest { name: name.into() }
}

fn role_delete(name: &str) -> pb::AuthRoleDeleteRequest {
    pb::AuthRoleDeleteRequest { role: name.into() }
}

fn grant(role: &str, permission: &authpb::Permission) -> pb::AuthRoleGrantPermissionRequest {
    pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(permission.clone()) }
}

fn revoke(role: &str, key: &[u8], range_end: &[u8]) -> pb::AuthRoleRevokePermissionRequest {
    pb::AuthRoleRevokePermissionRequest { role: role.into(), key: bytes(key), range_end: bytes(range_end) }
}

fn permission(kind: Type, key: &[u8], range_end: &[u8]) -> authpb::Permission {
    authpb::Permission { perm_type: kind.into(), key: bytes(key), range_end: bytes(range_end) }
}

fn range(key: &[u8], range_end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

fn keys_of(key: &[u8], range_end: &[u8]) -> KeyRange {
    KeyRange::new(&bytes(key), &bytes(range_end))
}

fn put(key: &[u8]) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), ..Default::default() }
}

fn delete(key: &[u8], range_end: &[u8]) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

fn compare(key: &[u8], range_end: &[u8]) -> pb::Compare {
    pb::Compare { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn succeed(request: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![operation(request)], ..Default::default() }
}

fn fail(request: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest { failure: vec![operation(request)], ..Default::default() }
}

/// `txn`, this many transactions deep, in alternating branches.
fn nest(mut txn: pb::TxnRequest, depth: usize) -> pb::TxnRequest {
    for level in 0..depth {
        let inner = pb::request_op::Request::RequestTxn(txn);
        txn = if level % 2 == 0 { succeed(inner) } else { fail(inner) };
    }
    txn
}

fn bytes(of: &[u8]) -> Bytes {
    Bytes::copy_from_slice(of)
}
