//! Changes of one request: one main revision, a sub-revision for each change.
//!
//! A writer is begun for every request that may change something and costs nothing until it does: a request that
//! changes nothing (a delete that matches no key, a txn that only reads) takes no revision. Two changes of one key
//! under one revision are fine here; it is the door that refuses them.

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::{Buckets, KeyRange, Keyspace, Want, head, key_value};
use crate::effects::{Event, EventKind, RevisionEvents};
use crate::engine::{Direction, Family, Read};
use crate::keys::{
    self, ChangeRecord, HeadRecord, HeadValue, INLINE_VALUE_BYTES_MAX, Previous, VERSION_OVERHEAD_BYTES,
};
use crate::overlay::Overlay;
use crate::types::{Fault, Revision};

/// What a request's changes move beside the rows themselves.
#[derive(Clone, Debug)]
pub(crate) struct Tracks {
    /// The newest main revision.
    pub revision: i64,
    pub compacted: i64,
    /// Logical bytes of all versions: see [`keys::meta::BYTES`].
    pub bytes: i64,
    pub buckets: Buckets,
}

pub(crate) struct Writer<'o, 'b> {
    pub overlay: &'o mut Overlay<'b>,
    tracks: Tracks,
    events: Vec<Event>,
}

impl<'o, 'b> Writer<'o, 'b> {
    pub(crate) fn new(overlay: &'o mut Overlay<'b>, tracks: Tracks) -> Self {
        Self { overlay, tracks, events: Vec::new() }
    }

    /// The keyspace with this request's changes so far in it.
    pub(crate) fn keyspace(&self) -> Keyspace<'_> {
        Keyspace {
            read: &*self.overlay,
            revision: self.revision(),
            compacted: self.tracks.compacted,
            buckets: &self.tracks.buckets,
        }
    }

    /// The revision that an answer given now carries: moved on by the first change.
    pub(crate) fn revision(&self) -> i64 {
        self.tracks.revision + i64::from(!self.events.is_empty())
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.tracks.revision + 1, self.events.len() as i64)
    }

    /// Writes `value` under `lease`. Returns the version it replaced.
    pub(crate) fn put(&mut self, key: &Bytes, value: Bytes, lease: i64) -> Result<Option<KeyValue>, Fault> {
        let old = head(self.overlay, key)?;
        let alive = old.as_ref().filter(|old| !old.is_deleted());
        let modified = self.next_revision();
        let kv = KeyValue {
            key: key.clone(),
            create_revision: alive.map_or(modified.main, |old| old.create_revision),
            mod_revision: modified.main,
            version: alive.map_or(0, |old| old.version) + 1,
            value,
            lease,
        };
        let (born, had_head) = (alive.is_none(), old.is_some());
        let prev_kv = match alive {
            Some(old) => Some(key_value(self.overlay, key, old.clone(), Want::Everything)?),
            None => None,
        };
        self.record(key, old, modified, Some(&kv))?;
        if born {
            self.overlay.put(Family::Tallies, keys::revision_key(modified), keys::encode_tally(1, key));
            self.tracks.buckets.created(self.overlay, key, had_head)?;
        }
        let before = prev_kv.as_ref().and_then(|prev| self.before(prev));
        self.events.push(Event { kind: EventKind::Put, kv, prev_kv: before });
        Ok(prev_kv)
    }

    /// Deletes every live key of `range`, in key order. Returns what was there.
    pub(crate) fn delete_range(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, Fault> {
        let mut heads = Vec::new();
        if let KeyRange::One(key) = range {
            heads.extend(head(self.overlay, key)?.map(|head| (key.clone(), head)));
        } else {
            for row in self.overlay.scan(Family::Heads, range.span(), Direction::Forward) {
                let (key, head) = row?;
                heads.push((key, HeadRecord::decode(head)?));
            }
        }
        let mut gone = Vec::new();
        for (key, old) in heads.into_iter().filter(|(_, head)| !head.is_deleted()) {
            gone.push(self.delete_live(&key, old)?);
        }
        Ok(gone)
    }

    fn delete_live(&mut self, key: &Bytes, old: HeadRecord) -> Result<KeyValue, Fault> {
        let modified = self.next_revision();
        let prev_kv = key_value(self.overlay, key, old.clone(), Want::Everything)?;
        self.record(key, Some(old), modified, None)?;
        self.overlay.put(Family::Tallies, keys::revision_key(modified), keys::encode_tally(-1, key));
        self.tracks.buckets.deleted(self.overlay, key);
        let kv = KeyValue { key: key.clone(), mod_revision: modified.main, ..Default::default() };
        let before = self.before(&prev_kv);
        self.events.push(Event { kind: EventKind::Delete, kv, prev_kv: before });
        Ok(prev_kv)
    }

    /// What watchers are told that a change has replaced: the key before this revision, whatever else this request did to it. Its
    /// own answer tells `replaced` instead.
    fn before(&self, replaced: &KeyValue) -> Option<KeyValue> {
        if replaced.mod_revision <= self.tracks.revision {
            return Some(replaced.clone());
        }
        self.events.iter().find(|event| event.kv.key == replaced.key)?.prev_kv.clone()
    }

    /// The rows of one change: the log entry, the head, and the replaced version's place in the history.
    fn record(
        &mut self,
        key: &Bytes,
        old: Option<HeadRecord>,
        modified: Revision,
        kv: Option<&KeyValue>,
    ) -> Result<(), Fault> {
        if let Some(old) = &old {
            if old.modified >= modified {
                return Err(Fault::Data(format!("key {key:?} is at {}, a change at {modified} came", old.modified)));
            }
            self.overlay.put(Family::History, keys::history_key(key, old.modified), Bytes::new());
        }
        let previous = old.map(|old| Previous {
            revision: old.modified,
            value_bytes: u32::try_from(old.value_bytes()).unwrap_or(u32::MAX),
        });
        let change = ChangeRecord {
            key: key.clone(),
            create_revision: kv.map_or(0, |kv| kv.create_revision),
            version: kv.map_or(0, |kv| kv.version),
            lease: kv.map_or(0, |kv| kv.lease),
            previous,
            value: kv.map(|kv| kv.value.clone()),
        };
        self.tracks.bytes += version_bytes(key, kv.map_or(0, |kv| kv.value.len() as i64));
        let value = match change.value.clone() {
            None => HeadValue::Deleted,
            Some(value) if value.len() <= INLINE_VALUE_BYTES_MAX => HeadValue::Inline(value),
            Some(value) => HeadValue::Elsewhere { bytes: u32::try_from(value.len()).unwrap_or(u32::MAX) },
        };
        let (create_revision, version, lease) = (change.create_revision, change.version, change.lease);
        let head = HeadRecord { modified, create_revision, version, lease, value };
        self.overlay.put(Family::Revisions, keys::revision_key(modified), change.encode());
        self.overlay.put(Family::Heads, key.clone(), head.encode());
        Ok(())
    }

    /// Ends the request: what it moved, and its events if it changed anything.
    pub(crate) fn finish(mut self) -> (Tracks, Option<RevisionEvents>) {
        if self.events.is_empty() {
            return (self.tracks, None);
        }
        self.tracks.revision += 1;
        let events = RevisionEvents { revision: self.tracks.revision, events: self.events.into() };
        (self.tracks, Some(events))
    }
}

/// What one version weighs in [`keys::meta::BYTES`].
pub(crate) fn version_bytes(key: &[u8], value_bytes: i64) -> i64 {
    key.len() as i64 + value_bytes + VERSION_OVERHEAD_BYTES
}
