//! The keyspace: every version of every key, by revision.
//!
//! ```text
//!  heads      "a" ─▶ newest version, value inline         a read of now: one lookup; a list of now: one scan
//!                │
//!  history    "a" 5, "a" 9                                a read of then: one seek for (key, <= revision) ...
//!                │
//!  revisions  1 2 3 4 5:a 6 7 8 9:a 10 11:a              ... and one lookup. Watch, hash and compaction walk this log
//!  tallies    5:+a                                        what came and went, for counts of then
//!  buckets    ""=412  "k3"=380 ...                        live keys by neighbourhood, for counts of now
//! ```
//!
//! `history` takes the place of chains of links from version to version: a key with a million versions is read at any
//! revision with one seek, and compaction forgets a version by deleting two rows it can name without looking.
//! Left out: leases. A version carries a lease id as plain data; `apply` joins the two.

mod compact;
mod contradiction;
mod count;
mod events;
mod hash;
mod range;
mod write;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use crate::engine::{Direction, Family, Read, Span};
use crate::keys::{self, ChangeRecord, HeadRecord, HeadValue};
use crate::types::{Fault, Rejection, Revision};

pub(crate) use compact::WalkProgress;
pub(crate) use compact::walk_step;
pub(crate) use count::Buckets;
pub use events::EventPage;
pub use hash::KeyspaceHash;
pub(crate) use range::sort;
pub use range::validate as validate_range;
pub(crate) use write::{Tracks, Writer};

/// The keys that a request means, by etcd's convention for `(key, range_end)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// `range_end` is empty.
    One(Bytes),
    /// `[from, until)`; empty when they cross.
    Span { from: Bytes, until: Bytes },
    /// `range_end` is one zero byte: every key from here on.
    AtLeast(Bytes),
}

impl KeyRange {
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::AtLeast(key.clone()),
            _ => Self::Span { from: key.clone(), until: range_end.clone() },
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Span { from, until } => from.as_ref() <= key && key < until.as_ref(),
            Self::AtLeast(from) => from.as_ref() <= key,
        }
    }

    /// The rows of `heads` that hold these keys.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::One(key) => {
                use std::ops::Bound::Included;
                Span { from: Included(key.clone()), until: Included(key.clone()) }
            }
            Self::Span { from, until } => Span::half_open(from.clone(), until.clone()),
            Self::AtLeast(from) => Span::at_least(from.clone()),
        }
    }
}

/// How much of a version a reader wants: the value may cost a second lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Everything,
    WithoutValue,
}

/// The keyspace as one reader sees it: a frozen state, or a frozen state with a request's own changes over it.
pub(crate) struct Keyspace<'a> {
    pub read: &'a dyn Read,
    /// The newest main revision that this reader sees.
    pub revision: i64,
    /// Reads below it are refused; -1 before the first compaction (etcd's rule).
    pub compacted: i64,
    pub buckets: &'a Buckets,
}

impl Keyspace<'_> {
    /// The revision that a request for `asked` reads at: 0 and below mean now.
    pub(crate) fn resolve(&self, asked: i64) -> Result<i64, Rejection> {
        if asked > self.revision {
            return Err(Rejection::FutureRevision);
        }
        let at = if asked <= 0 { self.revision } else { asked };
        if at < self.compacted { Err(Rejection::Compacted) } else { Ok(at) }
    }

    pub(crate) fn head(&self, key: &[u8]) -> Result<Option<HeadRecord>, Fault> {
        head(self.read, key)
    }

    /// The newest version of `key` now.
    pub(crate) fn newest(&self, key: &Bytes) -> Result<Option<KeyValue>, Fault> {
        match self.head(key)? {
            Some(head) => self.version_of_head(key, head, self.revision, Want::Everything),
            None => Ok(None),
        }
    }

    /// The version of `key` that was the newest at `at`, given its head.
    fn version_of_head(&self, key: &Bytes, head: HeadRecord, at: i64, want: Want) -> Result<Option<KeyValue>, Fault> {
        if head.modified.main > at {
            return self.version_in_history(key, at);
        }
        if head.is_deleted() { Ok(None) } else { key_value(self.read, key, head, want).map(Some) }
    }

    /// As [`Self::version_of_head`], for a key whose head is younger than `at`.
    fn version_in_history(&self, key: &Bytes, at: i64) -> Result<Option<KeyValue>, Fault> {
        let Some(revision) = self.newest_in_history(key, at)? else { return Ok(None) };
        let change = change_at(self.read, revision)?;
        Ok((!change.is_deletion()).then(|| change.key_value(revision)))
    }

    fn newest_in_history(&self, key: &[u8], at: i64) -> Result<Option<Revision>, Fault> {
        let span = Span {
            from: std::ops::Bound::Included(keys::history_key(key, Revision::new(0, 0))),
            until: std::ops::Bound::Included(keys::history_key(key, Revision::new(at, i64::MAX))),
        };
        match self.read.scan(Family::History, span, Direction::Backward).next() {
            Some(row) => keys::parse_history_revision(&row?.0).map(Some),
            None => Ok(None),
        }
    }
}

pub(crate) fn head(read: &dyn Read, key: &[u8]) -> Result<Option<HeadRecord>, Fault> {
    read.get(Family::Heads, key)?.map(HeadRecord::decode).transpose()
}

/// The entry of the revision log at `revision`, which some other row says is there.
pub(crate) fn change_at(read: &dyn Read, revision: Revision) -> Result<ChangeRecord, Fault> {
    match read.get(Family::Revisions, &keys::revision_key(revision))? {
        Some(record) => ChangeRecord::decode(record),
        None => Err(Fault::Data(format!("revision {revision} is referred to, but it is not there"))),
    }
}

/// The version that a head of a live key stands for.
pub(crate) fn key_value(read: &dyn Read, key: &Bytes, head: HeadRecord, want: Want) -> Result<KeyValue, Fault> {
    let value = match (head.value, want) {
        (_, Want::WithoutValue) | (HeadValue::Deleted, Want::Everything) => Bytes::new(),
        (HeadValue::Inline(value), Want::Everything) => value,
        (HeadValue::Elsewhere { .. }, Want::Everything) => change_at(read, head.modified)?.value.unwrap_or_default(),
    };
    Ok(KeyValue {
        key: key.clone(),
        create_revision: head.create_revision,
        mod_revision: head.modified.main,
        version: head.version,
        value,
        lease: head.lease,
    })
}
