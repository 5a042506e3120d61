//! The reference: what etcd's keyspace, leases, alarms and members do, said as plainly as possible.
//!
//! Every change that ever happened stands in one list, in order, and nothing is ever taken out of it. Every question is
//! answered by walking that list from one end to the other. There is no index, no cache, no batch, and nothing on disk;
//! what compaction does is refuse questions. To be checked by reading, against etcd's documentation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{Effects, Event, EventKind, LeaseRecord, Rejection, Revision, RevisionEvents};

pub(crate) use auth::AuthModel;

mod auth;
mod changing;
mod txn;

/// One change of one key; a deletion has no value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub at: Revision,
    pub key: Bytes,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
    pub value: Option<Bytes>,
}

impl Change {
    pub(crate) fn kv(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.create,
            mod_revision: self.at.main,
            version: self.version,
            value: self.value.clone().unwrap_or_default(),
            lease: self.lease,
        }
    }
}

/// Whether `(key, range_end)` means `candidate`.
pub(crate) fn means(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        _ => candidate >= key && candidate < range_end,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub revision: i64,
    pub compacted: i64,
    pub changes: Vec<Change>,
    /// How many changes at the end of the list belong to the request at hand.
    open: i64,
    pub leases: BTreeMap<i64, LeaseRecord>,
    pub alarms: BTreeSet<(u64, i32)>,
    pub auth: AuthModel,
    pub members: BTreeMap<u64, pb::Member>,
    pub removed: BTreeSet<u64>,
    pub membership: Bytes,
    pub version: String,
    pub downgrade: Option<String>,
    /// Of the entries applied since somebody last took them.
    pub effects: Effects,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            changes: Vec::new(),
            open: 0,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auth: AuthModel::new(),
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            membership: Bytes::new(),
            version: String::new(),
            downgrade: None,
            effects: Effects::default(),
        }
    }

    /// The revision a reader sees now: one more as soon as the request at hand has changed something.
    fn now(&self) -> i64 {
        self.revision + i64::from(self.open > 0)
    }

    /// The newest change of `key` at `revision`, a deletion too.
    pub(crate) fn newest(&self, key: &[u8], revision: i64) -> Option<&Change> {
        self.changes.iter().rev().find(|change| change.key == key && change.at.main <= revision)
    }

    fn alive(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        self.newest(key, revision).filter(|change| change.value.is_some()).map(Change::kv)
    }

    /// What is alive of `(key, range_end)` at `revision`, in key order.
    pub(crate) fn live(&self, key: &[u8], range_end: &[u8], revision: i64) -> Vec<KeyValue> {
        let mut live = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.at.main <= revision) {
            if !means(key, range_end, &change.key) {
                continue;
            }
            match &change.value {
                Some(_) => live.insert(&change.key, change),
                None => live.remove(&change.key),
            };
        }
        live.into_values().map(Change::kv).collect()
    }

    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Rejection> {
        check_range_form(request)?;
        if request.revision > self.now() {
            return Err(Rejection::FutureRevision);
        }
        let at = if request.revision <= 0 { self.now() } else { request.revision };
        if at < self.compacted {
            return Err(Rejection::Compacted);
        }
        let mut kvs = self.live(&request.key, &request.range_end, at);
        let header = Some(header(self.now()));
        let count = kvs.len() as i64;
        if request.count_only {
            return Ok(pb::RangeResponse { header, count, ..Default::default() });
        }
        let outside = |number: i64, min: i64, max: i64| (min != 0 && number < min) || (max != 0 && number > max);
        kvs.retain(|kv| !outside(kv.mod_revision, request.min_mod_revision, request.max_mod_revision));
        kvs.retain(|kv| !outside(kv.create_revision, request.min_create_revision, request.max_create_revision));
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let ordered = request.sort_order() != pb::range_request::SortOrder::None;
        // Without an order, etcd looks no further than one row beyond the limit, even when it then sorts by a target.
        if request.limit > 0 && !ordered && !filtered {
            kvs.truncate(request.limit.saturating_add(1) as usize);
        }
        sort(request, &mut kvs);
        let more = request.limit > 0 && kvs.len() as i64 > request.limit;
        if more {
            kvs.truncate(request.limit as usize);
        }
        let by_value = request.sort_target() == pb::range_request::SortTarget::Value;
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                kv.lease = if by_value { kv.lease } else { 0 };
            }
        }
        Ok(pb::RangeResponse { header, kvs, more, count })
    }

    /// The change at `index` of the list, as watchers see it: beside the key as it was before all of that revision.
    fn event(&self, index: usize) -> Event {
        let change = &self.changes[index];
        let earlier = self.changes[..index].iter().rev().filter(|before| before.at.main < change.at.main);
        let before = earlier.clone().find(|before| before.key == change.key);
        let created = change.value.is_some() && change.version == 1;
        let before = before.filter(|before| before.value.is_some() && change.at.main > self.compacted && !created);
        let kind = if change.value.is_some() { EventKind::Put } else { EventKind::Delete };
        Event { kind, kv: change.kv(), prev_kv: before.map(Change::kv) }
    }

    pub(crate) fn events(
        &self,
        from: i64,
        until: i64,
        ranges: &[(Bytes, Bytes)],
    ) -> Result<Vec<RevisionEvents>, Rejection> {
        if from < self.compacted {
            return Err(Rejection::Compacted);
        }
        let mut found: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        for (index, change) in self.changes.iter().enumerate() {
            let wanted = ranges.iter().any(|(key, range_end)| means(key, range_end, &change.key));
            if wanted && from <= change.at.main && change.at.main <= until {
                found.entry(change.at.main).or_default().push(self.event(index));
            }
        }
        Ok(found.into_iter().map(|(revision, events)| RevisionEvents { revision, events: events.into() }).collect())
    }

    /// What is there after a compaction at C has done all its work: everything that happened at C or later, deletions
    /// too, and of what happened before C the version of each key that was the newest at C, if it was alive.
    pub(crate) fn kept(&self) -> Vec<&Change> {
        let stays = |change: &&Change| {
            change.at.main >= self.compacted
                || change.value.is_some() && self.newest(&change.key, self.compacted) == Some(*change)
        };
        self.changes.iter().filter(stays).collect()
    }

    /// etcd's rule: CRC32C of the word "key" and of every change up to `asked`, in order; but of what happened at C or
    /// before only what is still the newest of its key, and alive, at `asked`; or, when nothing at all is alive at
    /// `asked`, at C (etcd then hashes whatever its compaction has left). To etcd's index a key that was deleted at `asked` and
    /// put again is not alive there.
    pub(crate) fn hash(&self, asked: i64) -> Result<u32, Rejection> {
        if asked > 0 && asked < self.compacted {
            return Err(Rejection::Compacted);
        }
        if asked > self.revision {
            return Err(Rejection::FutureRevision);
        }
        let asked = if asked == 0 { self.revision } else { asked };
        let gone =
            |change: &Change, key: &Bytes| change.at.main == asked && change.value.is_none() && change.key == key;
        let reborn = |kv: &KeyValue| self.changes.iter().any(|change| gone(change, &kv.key));
        let nothing_alive = self.live(b"", b"\0", asked).iter().all(reborn);
        let judged_at = if nothing_alive { self.compacted } else { asked };
        let mut text = b"key".to_vec();
        for change in self.changes.iter().filter(|change| change.at.main <= asked) {
            let stands = change.value.is_some() && self.newest(&change.key, judged_at) == Some(change);
            if change.at.main <= self.compacted && !stands {
                continue;
            }
            text.extend(change.at.main.to_be_bytes());
            text.push(b'_');
            text.extend(change.at.sub.to_be_bytes());
            if change.value.is_some() {
                text.extend(change.kv().encode_to_vec());
            } else {
                text.push(b't');
                text.extend(KeyValue { key: change.key.clone(), ..Default::default() }.encode_to_vec());
            }
        }
        Ok(crc32c::crc32c(&text))
    }

    pub(crate) fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let live = self.live(b"", b"\0", i64::MAX).into_iter();
        live.filter(|kv| id != 0 && kv.lease == id).map(|kv| kv.key).collect()
    }

    pub(crate) fn alarm_list(&self, kind: i32) -> Vec<pb::AlarmMember> {
        let wanted = self.alarms.iter().filter(|(_, raised)| kind == 0 || kind == *raised);
        wanted.map(|(member_id, alarm)| pb::AlarmMember { member_id: *member_id, alarm: *alarm }).collect()
    }

    fn raised(&self, kind: pb::AlarmType) -> bool {
        self.alarms.iter().any(|(_, raised)| *raised == kind as i32)
    }
}

pub(super) fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..Default::default() }
}

pub(super) fn check_range_form(request: &pb::RangeRequest) -> Result<(), Rejection> {
    match request {
        _ if request.key.is_empty() => Err(Rejection::EmptyKey),
        _ if !(0..=4).contains(&request.sort_target) => Err(Rejection::InvalidSortOption),
        _ if !(0..=2).contains(&request.sort_order) => Err(Rejection::InvalidSortOption),
        _ => Ok(()),
    }
}

/// By the target; equals keep the order of their keys, also when sorted backwards.
pub(crate) fn sort(request: &pb::RangeRequest, kvs: &mut [KeyValue]) {
    use pb::range_request::{SortOrder, SortTarget};
    let compare = |a: &KeyValue, b: &KeyValue| match request.sort_target() {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match request.sort_order() {
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
        SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
    }
}
