//! Every key and record on disk, with its layout. Integers in keys are big-endian, so that byte order is number order;
//! integers in records are little-endian. Numbers and names here are pinned: they are never given another meaning.
//!
//! ```text
//! family      key                                    record
//! meta        name (below)                           by name
//! heads       user key                               HeadRecord: newest version, a deletion included until compacted
//! revisions   main:8 sub:8                           ChangeRecord: what happened, whole
//! history     len:4 user key main:8 sub:8            empty: a version that a newer one replaced
//! tallies     main:8 sub:8                           ±1:1 user key: a creation or a deletion
//! buckets     first user key                         BucketRecord: how many keys from here to the next bucket
//! leases      id:8                                   LeaseRecord
//! lease_keys  id:8 user key                          empty
//! auth        0x00 | 0x01 user | 0x02 role           state | authpb.User | authpb.Role
//! cluster     0x01 id:8 | 0x02 id:8 | 0x03 id:8 n:4  member | removed member: empty | alarm: empty
//! ```
//!
//! `history` is only ever looked at for one user key at a time, so it is ordered by length first and needs no escape.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use quorate_proto::mvccpb::KeyValue;

use crate::types::{Fault, LogPosition, Revision};

/// The format of everything in this file. A directory of another number is refused at start: 1 was never released.
pub const FORMAT_VERSION: u64 = 2;

/// Names in the meta family.
pub mod meta {
    /// u64: [`super::FORMAT_VERSION`] of the writer.
    pub const FORMAT: &[u8] = b"format";
    /// index:8 term:8: the last entry applied.
    pub const APPLIED: &[u8] = b"applied";
    /// The Raft membership as of the last entry applied, as the Raft room encodes it; the store never looks inside.
    pub const MEMBERSHIP: &[u8] = b"membership";
    /// i64: the current main revision. Stored, not derived: compaction may leave no key that carries it.
    pub const REVISION: &[u8] = b"revision";
    /// i64: reads below this revision are refused; absent before the first compaction.
    pub const COMPACTED: &[u8] = b"compacted";
    /// i64: the compacted revision up to which the physical walk is done; equal to `COMPACTED` at rest.
    pub const WALKED: &[u8] = b"walked";
    /// main:8 sub:8 target:8: the next revision that a walk under way has to look at, and the compacted revision it
    /// serves; absent at rest.
    pub const WALK_CURSOR: &[u8] = b"walk_cursor";
    /// i64: logical bytes in use (keys, values and a fixed overhead each); what the quota and `dbSizeInUse` go by.
    pub const BYTES: &[u8] = b"bytes";
    /// The cluster version, as text ("3.7.0").
    pub const CLUSTER_VERSION: &[u8] = b"cluster_version";
    /// The version that a downgrade under way leads to, as text ("3.6.0"); absent when there is none.
    pub const DOWNGRADE: &[u8] = b"downgrade";
}

/// What one version of a key costs beside key and value, in bytes. Also keeps `dbSize` from being 0.
pub const VERSION_OVERHEAD_BYTES: i64 = 64;

/// Values up to this many bytes stand in the head too, so that a read of the newest version is one lookup. Larger ones
/// stand in `revisions` alone and cost a second.
pub const INLINE_VALUE_BYTES_MAX: usize = 4096;

/// The newest version of a user key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRecord {
    pub modified: Revision,
    /// Main revision of the creation; 0 for a deletion.
    pub create_revision: i64,
    /// 1 at creation, one more at each change; 0 for a deletion.
    pub version: i64,
    pub lease: i64,
    pub value: HeadValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadValue {
    Inline(Bytes),
    /// In `revisions`, at `modified`; of so many bytes.
    Elsewhere {
        bytes: u32,
    },
    /// The key is deleted.
    Deleted,
}

impl HeadRecord {
    const FIXED_BYTES: usize = 1 + 5 * 8;

    pub fn is_deleted(&self) -> bool {
        self.value == HeadValue::Deleted
    }

    /// Bytes of the value, wherever it stands.
    pub fn value_bytes(&self) -> i64 {
        match &self.value {
            HeadValue::Inline(value) => value.len() as i64,
            HeadValue::Elsewhere { bytes } => i64::from(*bytes),
            HeadValue::Deleted => 0,
        }
    }

    pub fn encode(&self) -> Bytes {
        let (kind, value_bytes) = match &self.value {
            HeadValue::Inline(value) => (0, value.len()),
            HeadValue::Elsewhere { .. } => (1, 4),
            HeadValue::Deleted => (2, 0),
        };
        let mut out = BytesMut::with_capacity(Self::FIXED_BYTES + value_bytes);
        out.put_u8(kind);
        for number in [self.modified.main, self.modified.sub, self.create_revision, self.version, self.lease] {
            out.put_i64_le(number);
        }
        match &self.value {
            HeadValue::Inline(value) => out.put_slice(value),
            HeadValue::Elsewhere { bytes } => out.put_u32_le(*bytes),
            HeadValue::Deleted => {}
        }
        out.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() < Self::FIXED_BYTES {
            return Err(Fault::Data(format!("a head record of {} bytes", bytes.len())));
        }
        let kind = bytes.get_u8();
        let modified = Revision::new(bytes.get_i64_le(), bytes.get_i64_le());
        let (create_revision, version, lease) = (bytes.get_i64_le(), bytes.get_i64_le(), bytes.get_i64_le());
        let value = match kind {
            0 => HeadValue::Inline(bytes),
            1 if bytes.len() == 4 => HeadValue::Elsewhere { bytes: bytes.get_u32_le() },
            2 => HeadValue::Deleted,
            other => return Err(Fault::Data(format!("a head record of kind {other}"))),
        };
        Ok(Self { modified, create_revision, version, lease, value })
    }
}

/// One change, whole: a version of a key, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    pub key: Bytes,
    /// 0 for a deletion, as `version` and `lease` are.
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
    /// The version of the key (a deletion included) that this one replaced, if compaction had left one.
    pub previous: Option<Previous>,
    /// `None` for a deletion.
    pub value: Option<Bytes>,
}

/// The link from a version to the one before it. Carries the size too, so that compaction need not read what it drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    pub revision: Revision,
    /// Of the value that stood there.
    pub value_bytes: u32,
}

impl ChangeRecord {
    const FIXED_BYTES: usize = 1 + 5 * 8 + 4 + 4;

    pub fn is_deletion(&self) -> bool {
        self.value.is_none()
    }

    pub fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(Self::FIXED_BYTES + self.key.len() + value.len());
        out.put_u8(u8::from(self.is_deletion()));
        let previous = self.previous.unwrap_or_default();
        let at = previous.revision;
        for number in [self.create_revision, self.version, self.lease, at.main, at.sub] {
            out.put_i64_le(number);
        }
        out.put_u32_le(previous.value_bytes);
        out.put_u32_le(u32::try_from(self.key.len()).expect("a key is below the request limit, which is below 4 GiB"));
        out.put_slice(&self.key);
        out.put_slice(value);
        out.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() < Self::FIXED_BYTES {
            return Err(Fault::Data(format!("a change record of {} bytes", bytes.len())));
        }
        let kind = bytes.get_u8();
        let (create_revision, version, lease) = (bytes.get_i64_le(), bytes.get_i64_le(), bytes.get_i64_le());
        let revision = Revision::new(bytes.get_i64_le(), bytes.get_i64_le());
        let previous = Previous { revision, value_bytes: bytes.get_u32_le() };
        let key_bytes = bytes.get_u32_le() as usize;
        if bytes.len() < key_bytes {
            return Err(Fault::Data(format!("a change record whose key of {key_bytes} bytes is cut")));
        }
        let key = bytes.split_to(key_bytes);
        let value = match kind {
            0 => Some(bytes),
            1 => None,
            other => return Err(Fault::Data(format!("a change record of kind {other}"))),
        };
        let previous = (revision.main > 0).then_some(previous);
        Ok(Self { key, create_revision, version, lease, previous, value })
    }

    /// The version as clients see it; a deletion shows its key and revision only (etcd's form).
    pub fn key_value(&self, modified: Revision) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: modified.main,
            version: self.version,
            value: self.value.clone().unwrap_or_default(),
            lease: self.lease,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// As granted, in seconds.
    pub ttl_secs: i64,
    /// What a checkpoint last said is left, in seconds; 0 when no checkpoint was made.
    pub remaining_ttl_secs: i64,
}

impl LeaseRecord {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_i64_le(self.ttl_secs);
        out.put_i64_le(self.remaining_ttl_secs);
        out.freeze()
    }

    pub fn decode(mut bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() != 16 {
            return Err(Fault::Data(format!("a lease record of {} bytes", bytes.len())));
        }
        Ok(Self { ttl_secs: bytes.get_i64_le(), remaining_ttl_secs: bytes.get_i64_le() })
    }
}

pub fn revision_key(revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_i64(revision.main);
    out.put_i64(revision.sub);
    out.freeze()
}

pub fn parse_revision_key(mut key: &[u8]) -> Result<Revision, Fault> {
    if key.len() != 16 {
        return Err(Fault::Data(format!("a revision key of {} bytes", key.len())));
    }
    Ok(Revision::new(key.get_i64(), key.get_i64()))
}

pub fn history_key(key: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + key.len() + 16);
    out.put_u32(u32::try_from(key.len()).expect("a key is below the request limit, which is below 4 GiB"));
    out.put_slice(key);
    out.put_i64(revision.main);
    out.put_i64(revision.sub);
    out.freeze()
}

/// The revision at the end of a history key.
pub fn parse_history_revision(key: &[u8]) -> Result<Revision, Fault> {
    match key.len().checked_sub(16) {
        Some(at) => parse_revision_key(&key[at..]),
        None => Err(Fault::Data(format!("a history key of {} bytes", key.len()))),
    }
}

pub fn lease_key(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

pub fn lease_attachment_key(id: i64, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + key.len());
    out.put_i64(id);
    out.put_slice(key);
    out.freeze()
}

pub fn encode_position(position: LogPosition) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u64_le(position.index);
    out.put_u64_le(position.term);
    out.freeze()
}

pub fn decode_position(mut bytes: &[u8]) -> Result<LogPosition, Fault> {
    if bytes.len() != 16 {
        return Err(Fault::Data(format!("a log position of {} bytes", bytes.len())));
    }
    Ok(LogPosition { index: bytes.get_u64_le(), term: bytes.get_u64_le() })
}

pub fn encode_i64(number: i64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

pub fn decode_i64(bytes: &[u8]) -> Result<i64, Fault> {
    let bytes = bytes.try_into().map_err(|_| Fault::Data(format!("a number of {} bytes", bytes.len())))?;
    Ok(i64::from_le_bytes(bytes))
}

/// How many keys a bucket has: live:8 heads:8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketRecord {
    /// Keys alive now.
    pub live: i64,
    /// Rows in `heads`: keys alive, and deleted ones that compaction has not dropped yet.
    pub heads: i64,
}

impl BucketRecord {
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_i64_le(self.live);
        out.put_i64_le(self.heads);
        out.freeze()
    }

    pub fn decode(mut bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() != 16 {
            return Err(Fault::Data(format!("a bucket of {} bytes", bytes.len())));
        }
        Ok(Self { live: bytes.get_i64_le(), heads: bytes.get_i64_le() })
    }
}

/// A key that came (+1) or went (-1) at the revision of its row.
pub fn encode_tally(sign: i64, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + key.len());
    out.put_u8(u8::from(sign > 0));
    out.put_slice(key);
    out.freeze()
}

pub fn parse_tally(tally: &[u8]) -> Result<(i64, &[u8]), Fault> {
    match tally.split_first() {
        Some((1, key)) => Ok((1, key)),
        Some((0, key)) => Ok((-1, key)),
        _ => Err(Fault::Data(format!("a tally of {} bytes", tally.len()))),
    }
}
