//! The one place where a request is held against rights: asked at the door, and again by apply.
//!
//! ```text
//! put         WRITE key                      + READ key, for the previous value
//!                                            + WRITE every key of the lease: whoever attaches can make them expire
//! range       READ range                       (a watch, a range stream, a compare alike)
//! delete      WRITE range                    + READ range, for the previous values
//! txn         all of this for every compare and every operation of both branches, at any depth
//! lease       WRITE every key of it to revoke or renew, READ to be shown them
//! admin       the role root
//! ```
//!
//! A pair of key and range end is read once, into the [`KeyRange`] that is also what the keyspace is asked with. Read twice
//! and differently, the right to one key once gave all keys behind it (GHSA-xg4h-6gfc-h4m8).
//!
//! Nested transactions are walked with a list and not by recursion: their depth costs no stack.

use std::collections::BTreeSet;

use bytes::Bytes;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use super::rights::{Right, Rights};
use super::{AuthState, User};
use crate::mvcc::KeyRange;
use crate::types::{Failure, Fault, Rejection};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// Nothing but to be a user: lease grant, member list, status, alarm list.
    AnyUser,
    Admin,
    Range(&'a KeyRange),
    Put(&'a pb::PutRequest),
    DeleteRange(&'a pb::DeleteRangeRequest),
    Txn(&'a pb::TxnRequest),
    /// Revoke, keep alive.
    LeaseWrite(i64),
    /// Time to live with keys; for the list of leases, each of them.
    LeaseRead(i64),
    /// Of oneself, or as admin.
    UserGet(&'a str),
    /// Of a role that one has, or as admin.
    RoleGet(&'a str),
}

/// The keys attached to a lease; none when there is no such lease. Asked only when the answer depends on it.
pub type AttachedKeys<'a> = dyn Fn(i64) -> Result<Vec<Bytes>, Fault> + 'a;

impl AuthState {
    /// `user` and `auth_revision` as established at the door: empty and 0 when nobody said who asks.
    pub fn check(
        &self,
        user: &str,
        auth_revision: u64,
        access: Access<'_>,
        attached: &AttachedKeys<'_>,
    ) -> Result<(), Failure> {
        if !self.enabled {
            return Ok(());
        }
        match access {
            Access::AnyUser => self.check_user(user)?,
            Access::Admin => self.check_admin(user)?,
            Access::Range(range) => self.check_range(user, auth_revision, range)?,
            Access::Put(put) => self.walk(user, auth_revision, attached, |walk| walk.put(put))?,
            Access::DeleteRange(delete) => {
                self.walk(user, auth_revision, attached, |walk| Ok(walk.delete_range(delete)?))?;
            }
            Access::Txn(txn) => self.walk(user, auth_revision, attached, |walk| walk.txn(txn))?,
            Access::LeaseWrite(lease) => self.check_lease(user, auth_revision, lease, Right::Write, attached)?,
            Access::LeaseRead(lease) => self.check_lease(user, auth_revision, lease, Right::Read, attached)?,
            Access::UserGet(name) => {
                if user.is_empty() || user != name {
                    self.check_admin(user)?;
                }
            }
            Access::RoleGet(role) => {
                if !self.user(user).is_some_and(|own| own.has_role(role)) {
                    self.check_admin(user)?;
                }
            }
        }
        Ok(())
    }

    pub fn check_range(&self, user: &str, auth_revision: u64, range: &KeyRange) -> Result<(), Rejection> {
        if !self.enabled {
            return Ok(());
        }
        let asking = self.asking(user, auth_revision)?;
        permit(asking.is_root() || asking.rights.cover(Right::Read, range))
    }

    /// The revision is not asked for: what root changes moves it, and root's next request would always be refused.
    pub fn check_admin(&self, user: &str) -> Result<(), Rejection> {
        if !self.enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(Rejection::UserEmpty);
        }
        permit(self.user(user).ok_or(Rejection::UserNotFound)?.is_root())
    }

    pub fn check_user(&self, user: &str) -> Result<(), Rejection> {
        if !self.enabled {
            return Ok(());
        }
        self.known(user).map(|_| ())
    }

    /// Root may always; of a lease without keys there is nothing to protect.
    fn check_lease(
        &self,
        user: &str,
        auth_revision: u64,
        lease: i64,
        right: Right,
        attached: &AttachedKeys<'_>,
    ) -> Result<(), Failure> {
        if self.known(user)?.is_root() {
            return Ok(());
        }
        for key in attached(lease)? {
            let asking = self.asking(user, auth_revision)?;
            permit(asking.rights.cover(right, &KeyRange::One(key)))?;
        }
        Ok(())
    }

    fn walk<'a>(
        &'a self,
        user: &str,
        auth_revision: u64,
        attached: &'a AttachedKeys<'a>,
        judge: impl FnOnce(&mut Walk<'a>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let asking = self.asking(user, auth_revision)?;
        if asking.is_root() {
            return Ok(());
        }
        judge(&mut Walk { rights: &asking.rights, attached, leases_done: BTreeSet::new() })
    }

    /// Who touches keys, with rights that are not out of date.
    fn asking(&self, user: &str, auth_revision: u64) -> Result<&User, Rejection> {
        if user.is_empty() || auth_revision == 0 {
            return Err(Rejection::UserEmpty);
        }
        if auth_revision < self.revision {
            return Err(Rejection::AuthOldRevision);
        }
        self.known(user)
    }

    fn known(&self, user: &str) -> Result<&User, Rejection> {
        if user.is_empty() {
            return Err(Rejection::UserEmpty);
        }
        self.user(user).ok_or(Rejection::PermissionDenied)
    }
}

fn permit(yes: bool) -> Result<(), Rejection> {
    if yes { Ok(()) } else { Err(Rejection::PermissionDenied) }
}

struct Walk<'a> {
    rights: &'a Rights,
    attached: &'a AttachedKeys<'a>,
    /// A transaction may attach to one lease many times; its keys are looked at once.
    leases_done: BTreeSet<i64>,
}

impl Walk<'_> {
    fn need(&self, right: Right, range: &KeyRange) -> Result<(), Rejection> {
        permit(self.rights.cover(right, range))
    }

    fn put(&mut self, put: &pb::PutRequest) -> Result<(), Failure> {
        let key = &KeyRange::One(put.key.clone());
        self.need(Right::Write, key)?;
        if put.prev_kv {
            self.need(Right::Read, key)?;
        }
        if put.lease != 0 && self.leases_done.insert(put.lease) {
            for key in (self.attached)(put.lease)? {
                self.need(Right::Write, &KeyRange::One(key))?;
            }
        }
        Ok(())
    }

    fn delete_range(&self, delete: &pb::DeleteRangeRequest) -> Result<(), Rejection> {
        let range = &KeyRange::new(&delete.key, &delete.range_end);
        self.need(Right::Write, range)?;
        if delete.prev_kv {
            self.need(Right::Read, range)?;
        }
        Ok(())
    }

    fn txn(&mut self, outermost: &pb::TxnRequest) -> Result<(), Failure> {
        let mut pending = vec![outermost];
        while let Some(txn) = pending.pop() {
            for compare in &txn.compare {
                self.need(Right::Read, &KeyRange::new(&compare.key, &compare.range_end))?;
            }
            for operation in txn.success.iter().chain(&txn.failure) {
                match &operation.request {
                    Some(Request::RequestRange(range)) => {
                        self.need(Right::Read, &KeyRange::new(&range.key, &range.range_end))?;
                    }
                    Some(Request::RequestPut(put)) => self.put(put)?,
                    Some(Request::RequestDeleteRange(delete)) => self.delete_range(delete)?,
                    Some(Request::RequestTxn(inner)) => pending.push(inner),
                    // Touches nothing; apply refuses it for what it is.
                    None => {}
                }
            }
        }
        Ok(())
    }
}
