//! Counts of live keys: exact, and without looking at the keys.
//!
//! Kubernetes lists in pages and is owed the count of the whole range with each of them; a scan would make a list of n
//! keys cost n² / page. So neighbouring keys are gathered in buckets of a few hundred, each with the number of its
//! live keys: the count of now is the sum of the buckets inside the range plus a bounded scan at either end. For a
//! count at an older revision, what `tallies` says came since is taken off, and what went is put back.
//!
//! ```text
//!  buckets      ""          "k3"          "k7"
//!               ├── 412 ────┼──── 380 ────┼──── 95 ───▶
//!  range             [......................)
//!                    scan     whole         scan
//! ```
//!
//! A deleted key keeps its head until compaction, and a scan pays for it like for a live one. So it is heads that a bucket
//! has a limit of, dead or alive, and a bucket without live keys is not scanned. Where a bucket's last head has gone the
//! engine may still have its tombstones to walk over: such a bucket joins only its like, never one that is scanned.

use std::ops::Bound;

use bytes::Bytes;

use super::{KeyRange, Keyspace, Want};
use crate::engine::{Direction, Family, Read, Span};
use crate::keys;
use crate::keys::{BucketRecord, HeadRecord};
use crate::overlay::Overlay;
use crate::types::{Fault, Revision};

/// A bucket that would have more heads than this is split in two.
const BUCKET_HEADS_MAX: i64 = 512;
/// A bucket that has fewer, but some, is joined to the one before it, if both fit into three quarters of a bucket.
const BUCKET_HEADS_MIN: i64 = 96;

/// First key of a bucket -> how many keys it has. The first bucket starts at the empty key and is always there.
/// Some 70 bytes of memory for every few hundred keys; shared structure makes a copy cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Buckets(imbl::OrdMap<Bytes, BucketRecord>);

impl Buckets {
    pub(crate) fn load(read: &dyn Read) -> Result<Self, Fault> {
        let mut buckets = imbl::OrdMap::new();
        for row in read.scan(Family::Buckets, Span::all(), Direction::Forward) {
            let (start, bucket) = row?;
            buckets.insert(start, BucketRecord::decode(&bucket)?);
        }
        Ok(Self(buckets))
    }

    fn of(&self, key: &[u8]) -> (Bytes, BucketRecord) {
        match self.0.range::<_, [u8]>((Bound::Unbounded, Bound::Included(key))).next_back() {
            Some((start, bucket)) => (start.clone(), *bucket),
            None => (Bytes::new(), BucketRecord::default()),
        }
    }

    fn before(&self, start: &[u8]) -> Option<(Bytes, BucketRecord)> {
        let before = self.0.range::<_, [u8]>((Bound::Unbounded, Bound::Excluded(start))).next_back();
        before.map(|(start, bucket)| (start.clone(), *bucket))
    }

    fn after(&self, start: &[u8]) -> Option<(Bytes, BucketRecord)> {
        let after = self.0.range::<_, [u8]>((Bound::Excluded(start), Bound::Unbounded)).next();
        after.map(|(start, bucket)| (start.clone(), *bucket))
    }

    /// Where the bucket that starts at `start` ends; `None` for the last one.
    fn end_of(&self, start: &[u8]) -> Option<Bytes> {
        self.after(start).map(|(end, _)| end)
    }

    fn set(&mut self, overlay: &mut Overlay<'_>, start: Bytes, bucket: BucketRecord) {
        overlay.put(Family::Buckets, start.clone(), bucket.encode());
        self.0.insert(start, bucket);
    }

    /// `key` came to life; its head is already in the overlay. `had_head` says whether it had one before, of a deleted key.
    pub(crate) fn created(&mut self, overlay: &mut Overlay<'_>, key: &[u8], had_head: bool) -> Result<(), Fault> {
        let (start, mut bucket) = self.of(key);
        bucket.live += 1;
        bucket.heads += i64::from(!had_head);
        self.set(overlay, start.clone(), bucket);
        if bucket.heads > BUCKET_HEADS_MAX { self.split(overlay, start, bucket) } else { Ok(()) }
    }

    /// `key` was deleted, and keeps its head.
    pub(crate) fn deleted(&mut self, overlay: &mut Overlay<'_>, key: &[u8]) {
        let (start, mut bucket) = self.of(key);
        bucket.live -= 1;
        self.set(overlay, start, bucket);
    }

    /// The head of the deleted `key` was dropped.
    pub(crate) fn dropped(&mut self, overlay: &mut Overlay<'_>, key: &[u8]) {
        let (start, mut bucket) = self.of(key);
        bucket.heads -= 1;
        self.set(overlay, start.clone(), bucket);
        if bucket.heads > BUCKET_HEADS_MIN {
            return;
        }
        let fit = |one: BucketRecord, other: BucketRecord| {
            let both = one.heads + other.heads;
            (one.heads == 0) == (other.heads == 0) && both <= BUCKET_HEADS_MAX * 3 / 4
        };
        let mut start = start;
        if let Some((before, neighbour)) = self.before(&start)
            && fit(neighbour, bucket)
        {
            bucket = self.join(overlay, before.clone(), neighbour, start, bucket);
            start = before;
        }
        // An empty one may have stood between two others.
        if let Some((after, neighbour)) = self.after(&start)
            && bucket.heads == 0
            && fit(neighbour, bucket)
        {
            self.join(overlay, start, bucket, after, neighbour);
        }
    }

    /// Makes one of two neighbours.
    fn join(
        &mut self,
        overlay: &mut Overlay<'_>,
        start: Bytes,
        bucket: BucketRecord,
        next: Bytes,
        joined: BucketRecord,
    ) -> BucketRecord {
        let both = BucketRecord { live: bucket.live + joined.live, heads: bucket.heads + joined.heads };
        self.0.remove(&next);
        overlay.delete(Family::Buckets, next);
        self.set(overlay, start, both);
        both
    }

    fn split(&mut self, overlay: &mut Overlay<'_>, start: Bytes, bucket: BucketRecord) -> Result<(), Fault> {
        let until = self.end_of(&start).map_or(Bound::Unbounded, Bound::Excluded);
        let span = Span { from: Bound::Included(start.clone()), until };
        let (mut left, mut middle) = (BucketRecord::default(), None);
        for row in overlay.scan(Family::Heads, span, Direction::Forward) {
            let (key, head) = row?;
            if left.heads == bucket.heads / 2 {
                middle = Some(key);
                break;
            }
            left.heads += 1;
            left.live += i64::from(!HeadRecord::decode(head)?.is_deleted());
        }
        let Some(middle) = middle else {
            return Err(Fault::Data(format!("bucket {start:?} has {bucket:?}, a scan finds {left:?}")));
        };
        let right = BucketRecord { live: bucket.live - left.live, heads: bucket.heads - left.heads };
        self.set(overlay, start, left);
        self.set(overlay, middle, right);
        Ok(())
    }
}

impl Keyspace<'_> {
    /// How many keys of `range` were alive at `at`.
    pub(crate) fn count(&self, range: &KeyRange, at: i64) -> Result<i64, Fault> {
        let (from, until) = match range {
            KeyRange::One(key) => {
                let Some(head) = self.head(key)? else { return Ok(0) };
                return Ok(i64::from(self.version_of_head(key, head, at, Want::WithoutValue)?.is_some()));
            }
            KeyRange::Span { from, until } if from >= until => return Ok(0),
            KeyRange::Span { from, until } => (from, Some(until)),
            KeyRange::AtLeast(from) => (from, None),
        };
        let now = self.count_now(from, until)?;
        if at == self.revision { Ok(now) } else { Ok(now - self.grown_since(range, at)?) }
    }

    fn count_now(&self, from: &Bytes, until: Option<&Bytes>) -> Result<i64, Fault> {
        let (first, bucket) = self.buckets.of(from);
        let first_end = self.buckets.end_of(&first);
        let inside = |end: &Option<Bytes>| match (end, until) {
            (Some(end), Some(until)) => end <= until,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if !inside(&first_end) {
            return self.count_part(bucket, from, until);
        }
        // The first bucket may begin before the range: what of it lies before is scanned and taken off its count.
        let mut total = bucket.live;
        if first < *from {
            total -= self.count_part(bucket, &first, Some(from))?;
        }
        let Some(mut start) = first_end else { return Ok(total) };
        let whole = self.buckets.0.range::<_, [u8]>((Bound::Included(start.as_ref()), Bound::Unbounded));
        let mut whole = whole.peekable();
        while let Some((first, bucket)) = whole.next() {
            start = first.clone();
            let end = whole.peek().map(|(key, _)| (*key).clone());
            if !inside(&end) {
                return Ok(total + self.count_part(*bucket, &start, until)?);
            }
            total += bucket.live;
            if end.as_ref() == until {
                return Ok(total);
            }
        }
        Ok(total)
    }

    /// Live keys of a part of `bucket`.
    fn count_part(&self, bucket: BucketRecord, from: &Bytes, until: Option<&Bytes>) -> Result<i64, Fault> {
        if bucket.live == 0 { Ok(0) } else { self.count_by_scan(from, until) }
    }

    fn count_by_scan(&self, from: &Bytes, until: Option<&Bytes>) -> Result<i64, Fault> {
        let span = match until {
            Some(until) => Span::half_open(from.clone(), until.clone()),
            None => Span::at_least(from.clone()),
        };
        let mut live = 0;
        for row in self.read.scan(Family::Heads, span, Direction::Forward) {
            live += i64::from(!HeadRecord::decode(row?.1)?.is_deleted());
        }
        Ok(live)
    }

    /// Creations less deletions in `range` after revision `at`.
    fn grown_since(&self, range: &KeyRange, at: i64) -> Result<i64, Fault> {
        let mut grown = 0;
        let span = Span::at_least(keys::revision_key(Revision::new(at + 1, 0)));
        for row in self.read.scan(Family::Tallies, span, Direction::Forward) {
            let (_, tally) = row?;
            let (sign, key) = keys::parse_tally(&tally)?;
            if range.contains(key) {
                grown += sign;
            }
        }
        Ok(grown)
    }
}
