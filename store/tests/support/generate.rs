//! Random histories. A model goes along, so that most of what is asked for makes sense: revisions that exist, leases
//! that are there, the right revision of the auth store; and some of it, on purpose, does not.

use bytes::Bytes;
use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};

use super::chance::Chance;
use super::history::{History, Load, Step, What, membership};
use super::model::Model;
use pb::compare::TargetUnion;
use pb::request_op::Request;

/// Few, and close together: prefixes of each other, a zero byte, the last byte.
const KEYS: [&[u8]; 9] = [b"a", b"a\0", b"ab", b"b", b"ba", b"c", b"d", b"\xff", b"\xff\xff"];
const LEASES: [i64; 5] = [1, 2, 3, -7, i64::MAX];
const USERS: [&str; 4] = ["root", "alice", "bob", ""];
const ROLES: [&str; 4] = ["root", "reader", "writer", ""];
/// base64 of a hash that no password has.
const HASH: &str = "aGFzaA==";

pub(crate) fn key(chance: &mut Chance) -> Bytes {
    Bytes::from_static(chance.pick(&KEYS))
}

/// One key, everything from the key on, a crossing range, a wide range.
pub(crate) fn range_end(chance: &mut Chance) -> Bytes {
    match chance.weighted(&[4, 2, 4]) {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"\0"),
        _ => Bytes::from_static(chance.pick(&[&b"a"[..], b"a\0", b"b", b"c", b"e", b"\xff", b"\xff\xff"])),
    }
}

pub(crate) fn revision(chance: &mut Chance, model: &Model) -> i64 {
    match chance.weighted(&[4, 8, 1, 1, 1]) {
        0 => 0,
        1 => chance.within(model.compacted.max(1), model.revision.max(1)),
        2 => chance.within(-2, model.revision + 1),
        3 => model.compacted,
        _ => model.revision,
    }
}

pub(crate) fn range(chance: &mut Chance, model: &Model) -> pb::RangeRequest {
    let bound = |chance: &mut Chance| if chance.one_in(6) { chance.within(-1, model.revision + 1) } else { 0 };
    let unknown = chance.one_in(60);
    pb::RangeRequest {
        key: if chance.one_in(50) { Bytes::new() } else { key(chance) },
        range_end: range_end(chance),
        limit: if chance.one_in(2) { chance.within(-1, 4) } else { 0 },
        revision: revision(chance, model),
        sort_order: if unknown { 9 } else { chance.pick(&[0, 0, 1, 2]) },
        sort_target: chance.pick(&[0, 0, 0, 1, 2, 3, 4, 4]),
        serializable: chance.one_in(4),
        keys_only: chance.one_in(4),
        count_only: chance.one_in(6),
        min_mod_revision: bound(chance),
        max_mod_revision: bound(chance),
        min_create_revision: bound(chance),
        max_create_revision: bound(chance),
    }
}

pub(crate) fn history(seed: u64, commands: usize) -> History {
    let mut generator = Generator { chance: Chance(seed), model: Model::new(), term: 1, steps: Vec::new() };
    if generator.chance.one_in(5) {
        generator.users();
    }
    let mut left = commands;
    while left > 0 {
        generator.step(&mut left);
    }
    History { steps: generator.steps }
}

struct Generator {
    chance: Chance,
    model: Model,
    term: u64,
    steps: Vec<Step>,
}

impl Generator {
    fn step(&mut self, left: &mut usize) {
        let probe = self.chance.next() >> 32;
        let step = match self.chance.weighted(&[40, 12, 4, 2, 1]) {
            0 => {
                let entries = if self.chance.one_in(3) { 1 + self.chance.below(4) } else { 1 };
                Step::Group { probe, entries: (0..entries).map(|_| self.entry(left)).collect() }
            }
            1 => Step::Walk { probe, entries_max: 1 + self.chance.below(4) },
            2 => Step::Flush,
            3 => Step::Crash { split: probe },
            _ => Step::Install { split: probe },
        };
        self.steps.push(step);
    }

    fn entry(&mut self, left: &mut usize) -> Load {
        self.term += u64::from(self.chance.one_in(15));
        let what = match self.chance.weighted(&[1, 1, 30]) {
            0 => What::Blank,
            1 => {
                let ids = [1, 2, 3, 4].into_iter().filter(|_| !self.chance.one_in(3)).collect::<Vec<_>>();
                let members = ids.into_iter().map(|id| (id, self.chance.one_in(3))).collect::<Vec<_>>();
                self.model.membership(&membership(&members));
                What::Members(members)
            }
            _ => {
                let proposals = if self.chance.one_in(4) { 1 + self.chance.below(4) } else { 1 };
                *left = left.saturating_sub(proposals as usize);
                What::Proposals((0..proposals).map(|_| self.proposal()).collect())
            }
        };
        Load { term: self.term, what }
    }

    fn proposal(&mut self) -> log::Proposal {
        let (mut user, mut auth_revision) = (String::new(), 0);
        if self.model.auth.enabled && !self.chance.one_in(20) {
            user = self.chance.pick(&["root", "root", "root", "root", "alice", "alice", "bob", "nobody"]).into();
            auth_revision = self.model.auth.revision - u64::from(self.chance.one_in(20));
        }
        let proposal = log::Proposal { user, auth_revision, command: Some(self.command()) };
        // The answer does not matter here; what it leaves behind does.
        let _ = self.model.proposal(self.term, &proposal);
        proposal
    }

    fn command(&mut self) -> Command {
        // Alarms stop nearly everything: they soon go again.
        if !self.model.alarms.is_empty() && self.chance.one_in(3) {
            return Command::Alarm(self.alarm());
        }
        if self.model.leases.is_empty() && self.chance.one_in(8) {
            return Command::LeaseGrant(pb::LeaseGrantRequest { id: self.chance.pick(&LEASES), ttl: 60 });
        }
        match self.chance.weighted(&[30, 10, 22, 6, 5, 3, 3, 2, 2, 1, 1, 1, 4]) {
            0 => Command::Put(self.put()),
            1 => Command::DeleteRange(self.delete()),
            2 => Command::Txn(self.txn(0)),
            3 => Command::Compaction(pb::CompactionRequest { revision: self.compaction(), physical: false }),
            4 => {
                let ttl = self.chance.pick(&[60, 1, 0, -3, 9_000_000_000, 9_000_000_001]);
                let id = if self.chance.one_in(12) { 0 } else { self.lease() };
                Command::LeaseGrant(pb::LeaseGrantRequest { id, ttl })
            }
            5 => Command::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            6 => {
                let leader_term = self.term - u64::from(self.chance.one_in(3));
                let ids = (0..self.chance.below(4)).map(|_| self.lease()).collect();
                Command::LeaseExpire(log::LeaseExpire { leader_term, ids })
            }
            7 => {
                let checkpoint = |generator: &mut Self| {
                    let remaining_ttl = generator.chance.pick(&[30, 0, -1]);
                    pb::LeaseCheckpoint { id: generator.lease(), remaining_ttl }
                };
                let checkpoints = (0..1 + self.chance.below(2)).map(|_| checkpoint(self)).collect();
                if self.chance.one_in(2) {
                    let leader_term = self.term - u64::from(self.chance.one_in(3));
                    return Command::LeaseRemaining(log::LeaseRemaining { leader_term, checkpoints });
                }
                Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })
            }
            8 => Command::Alarm(self.alarm()),
            9 => Command::ClusterVersionSet(log::ClusterVersionSet {
                version: self.chance.pick(&["3.6.0", "3.7.0"]).into(),
            }),
            10 => {
                let (id, name) = (self.chance.within(1, 5) as u64, self.chance.pick(&["one", "two"]).to_owned());
                let client_urls = vec![format!("http://{name}:2379")];
                Command::MemberPublish(log::MemberPublish { id, name, client_urls })
            }
            11 => Command::DowngradeInfoSet(log::DowngradeInfoSet {
                enabled: self.chance.one_in(2),
                version: self.chance.pick(&["3.6.0", "3.5.0"]).into(),
            }),
            _ => self.auth_command(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let chance = &mut self.chance;
        let mut put = pb::PutRequest {
            key: if chance.one_in(60) { Bytes::new() } else { key(chance) },
            prev_kv: chance.one_in(4),
            ignore_value: chance.one_in(12),
            ignore_lease: chance.one_in(12),
            ..Default::default()
        };
        if !put.ignore_value || chance.one_in(20) {
            put.value = match chance.weighted(&[30, 1, 2]) {
                0 => Bytes::from_static(chance.pick(&[&b"1"[..], b"2", b"3", b"\0\xff \"\\"])),
                1 => vec![b'x'; 4097].into(),
                _ => Bytes::new(),
            };
        }
        let one_in = if self.model.leases.is_empty() { 40 } else { 3 };
        if (!put.ignore_lease && chance.one_in(one_in)) || chance.one_in(80) {
            put.lease = self.lease();
        }
        put
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let chance = &mut self.chance;
        let key = if chance.one_in(60) { Bytes::new() } else { key(chance) };
        pb::DeleteRangeRequest { key, range_end: range_end(chance), prev_kv: chance.one_in(4) }
    }

    /// Mostly one that exists.
    fn lease(&mut self) -> i64 {
        let there = self.model.leases.keys().copied().collect::<Vec<_>>();
        if there.is_empty() || self.chance.one_in(8) { self.chance.pick(&LEASES) } else { self.chance.pick(&there) }
    }

    fn compaction(&mut self) -> i64 {
        let (compacted, revision) = (self.model.compacted, self.model.revision);
        match self.chance.weighted(&[6, 3, 1]) {
            0 => self.chance.within(compacted.max(0), revision),
            1 => revision,
            _ => self.chance.within(-2, revision + 2),
        }
    }

    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compare = (0..self.chance.below(3)).map(|_| self.compare()).collect();
        let mut txn = pb::TxnRequest { compare, ..Default::default() };
        for branch in [&mut txn.success, &mut txn.failure] {
            let ops = self.chance.below(4);
            branch.extend((0..ops).map(|_| self.op(depth)));
        }
        txn
    }

    fn op(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.chance.weighted(&[8, 10, 6, if depth < 3 { 3 } else { 0 }]) {
            0 => Request::RequestRange(range(&mut self.chance, &self.model)),
            1 => Request::RequestPut(self.put()),
            2 => Request::RequestDeleteRange(self.delete()),
            _ => Request::RequestTxn(self.txn(depth + 1)),
        };
        pb::RequestOp { request: Some(request).filter(|_| !self.chance.one_in(200)) }
    }

    fn compare(&mut self) -> pb::Compare {
        let (revision, chance) = (self.model.revision, &mut self.chance);
        let target = chance.within(0, 4) as i32;
        let matching = if chance.one_in(20) { chance.within(0, 4) as i32 } else { target };
        let number = if chance.one_in(2) { chance.within(0, 3) } else { chance.within(0, revision) };
        let union = match matching {
            0 => TargetUnion::Version(number),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(Bytes::from_static(chance.pick(&[&b"1"[..], b"2", b""]))),
            _ => TargetUnion::Lease(chance.pick(&[0, 1, 2])),
        };
        pb::Compare {
            result: if chance.one_in(60) { 17 } else { chance.within(0, 3) as i32 },
            target: if chance.one_in(60) { -4 } else { target },
            key: key(chance),
            range_end: if chance.one_in(3) { range_end(chance) } else { Bytes::new() },
            target_union: Some(union).filter(|_| !chance.one_in(20)),
        }
    }

    fn alarm(&mut self) -> pb::AlarmRequest {
        let raised = self.model.alarms.iter().copied().collect::<Vec<_>>();
        if !raised.is_empty() && !self.chance.one_in(3) {
            let (member_id, alarm) = self.chance.pick(&raised);
            return pb::AlarmRequest { action: 2, member_id, alarm };
        }
        let chance = &mut self.chance;
        let alarm = chance.pick(&[1, 1, 1, 1, 2, 0, 7]);
        pb::AlarmRequest { action: chance.pick(&[0, 1, 1, 2, 5]), member_id: chance.within(1, 3) as u64, alarm }
    }

    /// Two users with some rights, and root; then authentication is switched on.
    fn users(&mut self) {
        let grant = |user: &str, role: &str| {
            Command::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
        };
        let user = |name: &str| Command::AuthUserAdd(user_add(name));
        let role = |name: &str| Command::AuthRoleAdd(pb::AuthRoleAddRequest { name: name.into() });
        let mut commands = vec![user("root"), user("alice"), user("bob"), role("reader"), role("writer")];
        commands.extend([grant("root", "root"), grant("alice", "writer"), grant("bob", "reader")]);
        commands.extend((0..4).map(|_| self.grant_permission()));
        commands.push(Command::AuthEnable(pb::AuthEnableRequest {}));
        let proposals = commands.into_iter().map(|command| {
            let proposal = log::Proposal { command: Some(command), ..Default::default() };
            let _ = self.model.proposal(self.term, &proposal);
            proposal
        });
        let entries = vec![Load { term: 1, what: What::Proposals(proposals.collect()) }];
        self.steps.push(Step::Group { probe: 0, entries });
    }

    fn grant_permission(&mut self) -> Command {
        let chance = &mut self.chance;
        let (key, range_end) = (key(chance), range_end(chance));
        let perm = Some(authpb::Permission { perm_type: chance.pick(&[0, 1, 2, 2, 5]), key, range_end });
        let name = chance.pick(&["reader", "writer", "writer", "nothing"]).into();
        Command::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name,
            perm: perm.filter(|_| !chance.one_in(20)),
        })
    }

    fn auth_command(&mut self) -> Command {
        let (name, role) = (self.chance.pick(&USERS).to_owned(), self.chance.pick(&ROLES).to_owned());
        match self.chance.weighted(&[2, 2, 3, 1, 1, 4, 2, 2, 1, 4, 2]) {
            0 => Command::AuthEnable(pb::AuthEnableRequest {}),
            1 => Command::AuthDisable(pb::AuthDisableRequest {}),
            2 => Command::AuthUserAdd(user_add(&name)),
            3 => Command::AuthUserDelete(pb::AuthUserDeleteRequest { name }),
            4 => Command::AuthUserChangePassword(pb::AuthUserChangePasswordRequest {
                name,
                hashed_password: HASH.into(),
                ..Default::default()
            }),
            5 => Command::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role }),
            6 => Command::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role }),
            7 => Command::AuthRoleAdd(pb::AuthRoleAddRequest { name: role }),
            8 => Command::AuthRoleDelete(pb::AuthRoleDeleteRequest { role }),
            9 => self.grant_permission(),
            _ => Command::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                role,
                key: key(&mut self.chance),
                range_end: range_end(&mut self.chance),
            }),
        }
    }
}

fn user_add(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.into(), hashed_password: HASH.into(), ..Default::default() }
}
