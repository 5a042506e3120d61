//! Commands that no door has ever looked at: every field anything at all.

use bytes::Bytes;
use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};

use super::chance::Chance;
use pb::compare::TargetUnion;
use pb::request_op::Request;

pub(crate) struct Wild {
    pub chance: Chance,
}

impl Wild {
    pub(crate) fn proposal(&mut self) -> log::Proposal {
        let user = self.text();
        let auth_revision = if self.chance.one_in(3) { self.number() as u64 } else { self.chance.below(12) };
        let command = if self.chance.one_in(300) { None } else { Some(self.command()) };
        log::Proposal { user, auth_revision, command }
    }

    pub(crate) fn command(&mut self) -> Command {
        if self.chance.one_in(2) { self.data_command() } else { self.other_command() }
    }

    /// Puts, deletes, txns, compactions, leases and alarms.
    pub(crate) fn data_command(&mut self) -> Command {
        match self.chance.weighted(&[6, 3, 8, 2, 3, 1, 1, 1, 1]) {
            0 => Command::Put(self.put()),
            1 => Command::DeleteRange(self.delete()),
            2 => Command::Txn(self.txn(0)),
            3 => Command::Compaction(pb::CompactionRequest { revision: self.number(), physical: self.flag() }),
            4 => Command::LeaseGrant(pb::LeaseGrantRequest { ttl: self.number(), id: self.number() }),
            5 => Command::LeaseRevoke(pb::LeaseRevokeRequest { id: self.number() }),
            6 => {
                let leader_term = self.chance.below(3);
                Command::LeaseExpire(log::LeaseExpire { leader_term, ids: self.list(|wild| wild.number()) })
            }
            7 => {
                let checkpoint =
                    |wild: &mut Self| pb::LeaseCheckpoint { id: wild.number(), remaining_ttl: wild.number() };
                let (leader_term, checkpoints) = (self.chance.below(3), self.list(checkpoint));
                if self.flag() {
                    return Command::LeaseRemaining(log::LeaseRemaining { leader_term, checkpoints });
                }
                Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })
            }
            _ => Command::Alarm(pb::AlarmRequest {
                action: self.choice(3),
                member_id: self.number() as u64,
                // What stops everything comes seldom, or nothing else is ever tried.
                alarm: if self.chance.one_in(10) { self.choice(3) } else { self.chance.within(3, 9) as i32 },
            }),
        }
    }

    fn other_command(&mut self) -> Command {
        let (name, role) = (self.text(), self.text());
        let options = self.flag().then_some(authpb::UserAddOptions { no_password: self.flag() });
        let (password, hashed_password) = (self.text(), self.text());
        match self.chance.below(14) {
            0 => Command::ClusterVersionSet(log::ClusterVersionSet { version: name }),
            1 => {
                let id = self.number() as u64;
                Command::MemberPublish(log::MemberPublish { id, name, client_urls: self.list(Self::text) })
            }
            13 => Command::DowngradeInfoSet(log::DowngradeInfoSet { enabled: self.flag(), version: name }),
            2 => Command::AuthEnable(pb::AuthEnableRequest {}),
            3 => Command::AuthDisable(pb::AuthDisableRequest {}),
            4 => Command::AuthUserAdd(pb::AuthUserAddRequest { name, password, options, hashed_password }),
            5 => Command::AuthUserDelete(pb::AuthUserDeleteRequest { name }),
            6 => {
                let request = pb::AuthUserChangePasswordRequest { name, password, hashed_password };
                Command::AuthUserChangePassword(request)
            }
            7 => Command::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role }),
            8 => Command::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role }),
            9 => Command::AuthRoleAdd(pb::AuthRoleAddRequest { name }),
            10 => Command::AuthRoleDelete(pb::AuthRoleDeleteRequest { role }),
            11 => {
                let (perm_type, key, range_end) = (self.choice(3), self.key(), self.key());
                let perm = (!self.chance.one_in(9)).then_some(authpb::Permission { perm_type, key, range_end });
                Command::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
            }
            _ => {
                let (key, range_end) = (self.key(), self.key());
                Command::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
            }
        }
    }

    pub(crate) fn range(&mut self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(),
            range_end: self.key(),
            limit: self.number(),
            revision: self.number(),
            sort_order: self.choice(3),
            sort_target: self.choice(5),
            serializable: self.flag(),
            keys_only: self.flag(),
            count_only: self.flag(),
            min_mod_revision: self.number(),
            max_mod_revision: self.number(),
            min_create_revision: self.number(),
            max_create_revision: self.number(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.key(),
            value: if self.flag() { self.key() } else { self.chance.bytes(40) },
            lease: if self.flag() { 0 } else { self.number() },
            prev_kv: self.flag(),
            ignore_value: self.chance.one_in(5),
            ignore_lease: self.chance.one_in(5),
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.key(), prev_kv: self.flag() }
    }

    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compare = self.list(Self::compare);
        let success = self.list(|wild| wild.op(depth));
        let failure = self.list(|wild| wild.op(depth));
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.chance.below(if depth < 12 { 18 } else { 13 }) {
            0..4 => Some(Request::RequestPut(self.put())),
            4..8 => Some(Request::RequestDeleteRange(self.delete())),
            8..12 => Some(Request::RequestRange(self.range())),
            12 => None,
            _ => Some(Request::RequestTxn(self.txn(depth + 1))),
        };
        pb::RequestOp { request }
    }

    fn compare(&mut self) -> pb::Compare {
        let target_union = match self.chance.below(6) {
            0 => Some(TargetUnion::Version(self.number())),
            1 => Some(TargetUnion::CreateRevision(self.number())),
            2 => Some(TargetUnion::ModRevision(self.number())),
            3 => Some(TargetUnion::Value(self.key())),
            4 => Some(TargetUnion::Lease(self.number())),
            _ => None,
        };
        let (result, target) = (self.choice(4), self.choice(5));
        pb::Compare { result, target, key: self.key(), range_end: self.key(), target_union }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.chance.below(4)).map(|_| item(self)).collect()
    }

    pub(crate) fn number(&mut self) -> i64 {
        match self.chance.below(8) {
            0 => self.chance.pick(&[i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, -1, 1 << 32, -(1 << 32)]),
            1 => self.chance.next() as i64,
            2 | 3 => 0,
            _ => self.chance.within(-1, 9),
        }
    }

    fn choice(&mut self, known: i64) -> i32 {
        match self.chance.below(8) {
            0 => self.chance.pick(&[i32::MIN, i32::MAX, -1]),
            1 => known as i32,
            _ => self.chance.within(0, known - 1) as i32,
        }
    }

    /// Often one that was used before; sometimes empty, a zero byte, or long.
    pub(crate) fn key(&mut self) -> Bytes {
        match self.chance.below(12) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\0\0"),
            3 => vec![b'k'; 5000].into(),
            4 => self.chance.bytes(3),
            _ => Bytes::from_static(self.chance.pick(&[&b"a"[..], b"b", b"c", b"b\0", b"\xff"])),
        }
    }

    fn text(&mut self) -> String {
        let names = ["", "root", "root", "a", "b", "aGFzaA==", "\u{0}", "💥", "not base64"];
        self.chance.pick(&names).to_owned()
    }

    fn flag(&mut self) -> bool {
        self.chance.one_in(2)
    }
}
