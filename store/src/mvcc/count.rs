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

use std::ops::Bound;

use bytes::Bytes;

use super::{KeyRange, Keyspace, Want};
use crate::engine::{Direction, Family, Read, Span};
use crate::keys::{self, HeadRecord};
use crate::overlay::Overlay;
use crate::types::{Fault, Revision};

/// A bucket that would hold more live keys than this is split in two.
const BUCKET_KEYS_MAX: i64 = 512;
/// A bucket that holds fewer is joined to the one before it, if both fit into three quarters of a bucket.
const BUCKET_KEYS_MIN: i64 = 96;

/// First key of a bucket -> how many live keys it has. The first bucket starts at the empty key and is always there.
/// Some 60 bytes of memory for every few hundred keys; shared structure makes a copy cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Buckets(imbl::OrdMap<Bytes, i64>);

impl Buckets {
    pub(crate) fn load(read: &dyn Read) -> Result<Self, Fault> {
        let mut buckets = imbl::OrdMap::new();
        for row in read.scan(Family::Buckets, Span::all(), Direction::Forward) {
            let (start, live) = row?;
            buckets.insert(start, keys::decode_i64(&live)?);
        }
        Ok(Self(buckets))
    }

    fn of(&self, key: &[u8]) -> (Bytes, i64) {
        match self.0.range::<_, [u8]>((Bound::Unbounded, Bound::Included(key))).next_back() {
            Some((start, live)) => (start.clone(), *live),
            None => (Bytes::new(), 0),
        }
    }

    /// Where the bucket that starts at `start` ends; `None` for the last one.
    fn end_of(&self, start: &[u8]) -> Option<Bytes> {
        self.0.range::<_, [u8]>((Bound::Excluded(start), Bound::Unbounded)).next().map(|(key, _)| key.clone())
    }

    fn set(&mut self, overlay: &mut Overlay<'_>, start: Bytes, live: i64) {
        overlay.put(Family::Buckets, start.clone(), keys::encode_i64(live));
        self.0.insert(start, live);
    }

    fn remove(&mut self, overlay: &mut Overlay<'_>, start: &Bytes) {
        overlay.delete(Family::Buckets, start.clone());
        self.0.remove(start);
    }

    /// `key` came to life; its head is already in the overlay.
    pub(crate) fn created(&mut self, overlay: &mut Overlay<'_>, key: &[u8]) -> Result<(), Fault> {
        let (start, live) = self.of(key);
        self.set(overlay, start.clone(), live + 1);
        if live + 1 > BUCKET_KEYS_MAX { self.split(overlay, start, live + 1) } else { Ok(()) }
    }

    /// `key` was deleted; its head is already in the overlay.
    pub(crate) fn deleted(&mut self, overlay: &mut Overlay<'_>, key: &[u8]) {
        let (start, live) = self.of(key);
        self.set(overlay, start.clone(), live - 1);
        if live > BUCKET_KEYS_MIN || start.is_empty() {
            return;
        }
        let before = self.0.range::<_, [u8]>((Bound::Unbounded, Bound::Excluded(start.as_ref()))).next_back();
        if let Some((before, neighbours)) = before.map(|(key, live)| (key.clone(), *live))
            && neighbours + live - 1 <= BUCKET_KEYS_MAX * 3 / 4
        {
            self.remove(overlay, &start);
            self.set(overlay, before, neighbours + live - 1);
        }
    }

    fn split(&mut self, overlay: &mut Overlay<'_>, start: Bytes, live: i64) -> Result<(), Fault> {
        let until = self.end_of(&start).map_or(Bound::Unbounded, Bound::Excluded);
        let span = Span { from: Bound::Included(start.clone()), until };
        let (mut left, mut middle) = (0, None);
        for row in overlay.scan(Family::Heads, span, Direction::Forward) {
            let (key, head) = row?;
            if HeadRecord::decode(head)?.is_deleted() {
                continue;
            }
            if left == live / 2 {
                middle = Some(key);
                break;
            }
            left += 1;
        }
        let Some(middle) = middle else {
            return Err(Fault::Data(format!("bucket {start:?} counts {live} live keys, a scan finds {left}")));
        };
        self.set(overlay, start, left);
        self.set(overlay, middle, live - left);
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
        let (first, _) = self.buckets.of(from);
        let first_end = self.buckets.end_of(&first);
        let inside = |end: &Option<Bytes>| match (end, until) {
            (Some(end), Some(until)) => end <= until,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if !inside(&first_end) {
            return self.count_by_scan(from, until);
        }
        // The first bucket may begin before the range: what of it lies before is scanned and taken off its count.
        let mut total = self.buckets.of(&first).1;
        if first < *from {
            total -= self.count_by_scan(&first, Some(from))?;
        }
        let Some(mut start) = first_end else { return Ok(total) };
        let whole = self.buckets.0.range::<_, [u8]>((Bound::Included(start.as_ref()), Bound::Unbounded));
        let mut whole = whole.peekable();
        while let Some((bucket, live)) = whole.next() {
            start = bucket.clone();
            let end = whole.peek().map(|(key, _)| (*key).clone());
            if !inside(&end) {
                return Ok(total + self.count_by_scan(&start, until)?);
            }
            total += live;
            if end.as_ref() == until {
                return Ok(total);
            }
        }
        Ok(total)
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
