//! Leases, watches, compaction, hashes, alarms.

use quorate_proto::etcdserverpb as pb;
use rand::RngExt as _;

use super::{Generator, LEASES};
use crate::diff::call::{Call, STREAMS};

/// Far longer than a run: when a lease ends by itself is up to the clock.
const TTLS_LONG: [i64; 4] = [10_000, 100_000, 1_000_000_000, 9_000_000_000];
const TTLS_TOO_LONG: [i64; 2] = [9_000_000_001, i64::MAX];
/// Raised to the least there is, which is short: given back in the same step.
const TTLS_SHORT: [i64; 6] = [i64::MIN, -5, -1, 0, 1, 2];
/// For leases that live within one step only.
const LEASE_BRIEF: i64 = 1_001;
const ALARM_NOSPACE: i32 = 1;
const WATCH_IDS: [i64; 8] = [1, 2, 3, 4, 5, 6, 9, i64::MAX];
const WATCH_IDS_ODD: [i64; 3] = [-7, i64::MIN, 1_000];

impl Generator {
    pub(super) fn lease_grant(&mut self) -> pb::LeaseGrantRequest {
        let ttl = if self.one_in(12) { self.pick(&TTLS_TOO_LONG) } else { self.pick(&TTLS_LONG) };
        pb::LeaseGrantRequest { ttl, id: self.pick(&LEASES) }
    }

    pub(super) fn lease_revoke(&mut self) -> pb::LeaseRevokeRequest {
        pb::LeaseRevokeRequest { id: self.lease() }
    }

    pub(super) fn time_to_live(&mut self) -> pb::LeaseTimeToLiveRequest {
        pb::LeaseTimeToLiveRequest { id: self.lease(), keys: self.random.random_bool(0.7) }
    }

    pub(super) fn keep_alive(&mut self) -> pb::LeaseKeepAliveRequest {
        pb::LeaseKeepAliveRequest { id: self.lease() }
    }

    /// From grant to revoke in a few milliseconds, so that no clock has a say.
    pub(super) fn brief_lease(&mut self) -> Vec<Call> {
        let ttl = self.pick(&TTLS_SHORT);
        if self.one_in(3) {
            return vec![Call::AnonymousLease(pb::LeaseGrantRequest { ttl, id: 0 })];
        }
        let grant = pb::LeaseGrantRequest { ttl, id: LEASE_BRIEF };
        let mut calls = vec![Call::LeaseGrant(grant)];
        if self.random.random_bool(0.5) {
            calls.push(Call::Put(pb::PutRequest { lease: LEASE_BRIEF, ..self.put() }));
        }
        calls.push(Call::TimeToLive(pb::LeaseTimeToLiveRequest { id: LEASE_BRIEF, keys: true }));
        calls.push(Call::LeaseGrant(grant));
        calls.push(Call::KeepAlive(pb::LeaseKeepAliveRequest { id: LEASE_BRIEF }));
        calls.push(Call::LeaseRevoke(pb::LeaseRevokeRequest { id: LEASE_BRIEF }));
        calls
    }

    /// What still works while the alarm for space is raised.
    pub(super) fn without_space(&mut self) -> Vec<Call> {
        let alarm = |action| Call::Alarm(pb::AlarmRequest { action, member_id: 3, alarm: ALARM_NOSPACE });
        let mut calls = vec![alarm(1), alarm(0)];
        for _ in 0..self.random.random_range(1..6) {
            let call = match self.random.random_range(0..6) {
                0 => Call::Put(self.put()),
                1 => Call::DeleteRange(self.delete()),
                2 => Call::Txn(self.txn()),
                3 => Call::LeaseGrant(self.lease_grant()),
                4 => Call::LeaseRevoke(self.lease_revoke()),
                _ => Call::Range(self.range()),
            };
            calls.push(call);
        }
        calls.push(alarm(2));
        calls.push(Call::Alarm(pb::AlarmRequest { action: 0, member_id: 0, alarm: self.pick(&[0, 1, 2, 77]) }));
        calls
    }

    /// Mostly at or behind the middle of what is left, or history would be gone too soon.
    pub(super) fn compact(&mut self) -> pb::CompactionRequest {
        let revision =
            if self.one_in(3) { self.revision() } else { self.known.revision - self.random.random_range(0..150) };
        pb::CompactionRequest { revision, physical: self.random.random_bool(0.5) }
    }

    pub(super) fn hash_kv(&mut self) -> pb::HashKvRequest {
        pb::HashKvRequest { revision: self.revision_or_now() }
    }

    pub(super) fn stream(&mut self) -> usize {
        self.random.random_range(0..STREAMS)
    }

    pub(super) fn watch_create(&mut self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.span();
        let start_revision = if self.random.random_bool(0.5) { 0 } else { self.revision() };
        let filters = match self.random.random_range(0..12) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![1, 0],
            3 => vec![77, -1],
            4 => vec![0, 0],
            _ => Vec::new(),
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.one_in(8),
            filters,
            prev_kv: self.random.random_bool(0.5),
            watch_id: self.watch_id(),
            fragment: self.one_in(4),
        }
    }

    fn watch_id(&mut self) -> i64 {
        match self.random.random_range(0..20) {
            0..4 => 0,
            4 => self.pick(&WATCH_IDS_ODD),
            _ => self.pick(&WATCH_IDS),
        }
    }

    /// Number 0 is one that the server may have picked.
    pub(super) fn watch_cancel(&mut self) -> pb::WatchCancelRequest {
        pb::WatchCancelRequest { watch_id: self.watch_id() }
    }
}
