//! HashKV: one number for the whole history up to a revision, equal on all members, and equal to etcd's.
//!
//! CRC32C over the word `key`, then over each change in revision order: its 17-byte revision key (`main _ sub`, and a
//! `t` for a deletion), then the key-value as protobuf. What is hashed is what is there *logically*: of the changes at
//! or below the compacted revision only those that are still the newest of their key at the hashed revision (at the
//! compacted one, where nothing is alive at the hashed one: [`Keyspace::reborn`]), whether or not this member's compaction has come to drop the
//! others; a deletion at the compacted revision never counts.

use bytes::{BufMut, Bytes};
use prost::Message;

use super::{KeyRange, Keyspace, change_at, head};
use crate::engine::{Direction, Family, Span};
use crate::keys::{self, ChangeRecord};
use crate::types::{Failure, Fault, Rejection, Revision};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceHash {
    pub hash: u32,
    /// The revision hashed up to, inclusive.
    pub revision: i64,
    pub compacted: i64,
}

impl Keyspace<'_> {
    /// `asked` 0 means now; a negative one hashes nothing, as in etcd.
    pub(crate) fn hash(&self, asked: i64) -> Result<KeyspaceHash, Failure> {
        if asked > 0 && asked < self.compacted {
            return Err(Rejection::Compacted.into());
        }
        if asked > self.revision {
            return Err(Rejection::FutureRevision.into());
        }
        let revision = if asked == 0 { self.revision } else { asked };
        // Where nothing at all is alive, etcd leaves its rule out, and hashes what its compaction has left.
        let nothing_alive = self.count(&KeyRange::AtLeast(Bytes::new()), revision)? == self.reborn(revision)?;
        let judged_at = if nothing_alive { self.compacted } else { revision };
        let mut hash = crc32c::crc32c(b"key");
        let mut bytes = Vec::new();
        let span = Span::half_open(
            keys::revision_key(Revision::new(0, 0)),
            keys::revision_key(Revision::new(revision.max(-1) + 1, 0)),
        );
        for row in self.read.scan(Family::Revisions, span, Direction::Forward) {
            let (at, change) = row?;
            let (at, change) = (keys::parse_revision_key(&at)?, ChangeRecord::decode(change)?);
            if at.main <= self.compacted && !self.stands(&change, at, judged_at)? {
                continue;
            }
            bytes.clear();
            bytes.put_i64(at.main);
            bytes.put_u8(b'_');
            bytes.put_i64(at.sub);
            if change.is_deletion() {
                bytes.put_u8(b't');
                let tombstone = quorate_proto::mvccpb::KeyValue { key: change.key, ..Default::default() };
                tombstone.encode(&mut bytes).expect("a Vec grows as needed");
            } else {
                change.key_value(at).encode(&mut bytes).expect("a Vec grows as needed");
            }
            hash = crc32c::crc32c_append(hash, &bytes);
        }
        Ok(KeyspaceHash { hash, revision, compacted: self.compacted })
    }

    /// How many of the keys that are alive at `revision` were deleted in that very revision, and put again: to etcd's index these are
    /// not alive there.
    fn reborn(&self, revision: i64) -> Result<i64, Fault> {
        let mut count = 0;
        let revision = revision.max(0);
        let span = Span::half_open(
            keys::revision_key(Revision::new(revision, 0)),
            keys::revision_key(Revision::new(revision + 1, 0)),
        );
        for row in self.read.scan(Family::Revisions, span, Direction::Forward) {
            let (at, change) = row?;
            let (at, change) = (keys::parse_revision_key(&at)?, ChangeRecord::decode(change)?);
            if change.create_revision == revision
                && self.stands(&change, at, revision)?
                && self.was_deleted(change, revision)?
            {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether a deletion under the main revision came before `change`, which is of that revision too.
    fn was_deleted(&self, mut change: ChangeRecord, main: i64) -> Result<bool, Fault> {
        while let Some(previous) = change.previous.filter(|previous| previous.revision.main == main) {
            change = change_at(self.read, previous.revision)?;
            if change.is_deletion() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the change at `at` is what a reader at `revision` sees of its key.
    fn stands(&self, change: &ChangeRecord, at: Revision, revision: i64) -> Result<bool, Fault> {
        if change.is_deletion() {
            return Ok(false);
        }
        let newest = match head(self.read, &change.key)? {
            Some(head) if head.modified.main <= revision => Some(head.modified),
            Some(_) => self.newest_in_history(&change.key, revision)?,
            None => None,
        };
        Ok(newest == Some(at))
    }
}
