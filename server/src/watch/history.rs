//! What the hub asks of the store: the past, in bounded pages. And of its surroundings: somewhere to wait for a disk.
//!
//! ```text
//!   cursor at 17 ──▶ History::events(17, published, keys, 256 KiB) ──▶ revisions 17..44, next 45
//!                         ▲ by way of an Executor: never on the apply thread, never on an async worker
//! ```
//!
//! Left out: how it is stored, and who watches. [`KeySet`] says which keys are wanted, and nothing more.

use std::fmt;

use bytes::Bytes;
use quorate_store::{KeyRange, RevisionEvents};

/// Reads what happened. One page looks at a bounded amount of log, however little of it matches.
pub trait History: Send + Sync {
    /// The events of `keys` from revision `from` up to and including `until`, in revision order, those of one revision
    /// together, with prev_kv filled where compaction has left it. Stops after the revision with which about
    /// `bytes_max` bytes have been looked at; always covers at least one revision. `until` is never beyond what the
    /// store holds.
    fn events(&self, from: i64, until: i64, keys: &KeySet, bytes_max: usize) -> Result<HistoryPage, HistoryError>;
}

/// `next` is the first revision that the page does not cover; revisions in which nothing matched may be absent.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    pub revisions: Vec<RevisionEvents>,
    pub next: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// `from` is below the compacted revision.
    #[error("compacted at {compact_revision}")]
    Compacted { compact_revision: i64 },
    #[error("{0}")]
    Fault(String),
}

pub type Job = Box<dyn FnOnce() + Send>;

/// Runs a page of catch-up: on a thread that may wait for a disk, or at once (simulator, tests, memory engine).
pub trait Executor: Send + Sync {
    fn run(&self, job: Job);
}

/// Runs each job where it is asked for. A page is bounded, so this is fair to the others; a slow disk is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Executor for Inline {
    fn run(&self, job: Job) {
        job();
    }
}

/// A union of key ranges: disjoint, in order, the overlaps merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    ranges: Vec<KeyRange>,
}

impl KeySet {
    pub fn new<'a>(ranges: impl IntoIterator<Item = &'a KeyRange>) -> Self {
        let mut sorted: Vec<&KeyRange> = ranges.into_iter().filter(|range| !is_empty_range(range)).collect();
        sorted.sort_by(|a, b| lower(a).cmp(lower(b)));
        let mut merged: Vec<KeyRange> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.contains(lower(range)) => {
                    if reaches_further(range, last) {
                        *last = with_end_of(last, range);
                    }
                }
                Some(_) | None => merged.push(range.clone()),
            }
        }
        Self { ranges: merged }
    }

    /// Disjoint and ascending.
    pub fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        let after = self.ranges.partition_point(|range| lower(range).as_ref() <= key);
        after > 0 && self.ranges[after - 1].contains(key)
    }
}

impl fmt::Display for KeySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ranges", self.ranges.len())
    }
}

/// Nothing can ever be in it: such a watch is refused.
pub(super) fn is_empty_range(range: &KeyRange) -> bool {
    match range {
        KeyRange::Span { from, until } => from >= until,
        KeyRange::One(_) | KeyRange::AtLeast(_) => false,
    }
}

fn lower(range: &KeyRange) -> &Bytes {
    match range {
        KeyRange::One(key) | KeyRange::AtLeast(key) => key,
        KeyRange::Span { from, .. } => from,
    }
}

fn reaches_further(range: &KeyRange, than: &KeyRange) -> bool {
    match (range, than) {
        (_, KeyRange::AtLeast(_)) => false,
        (KeyRange::AtLeast(_), _) => true,
        // Starts inside `than`, so it ends inside too: a single key has no room for more.
        (KeyRange::One(_), _) => false,
        (KeyRange::Span { from, until }, KeyRange::One(key)) => from <= key && key < until,
        (KeyRange::Span { until, .. }, KeyRange::Span { until: other, .. }) => until > other,
    }
}

fn with_end_of(first: &KeyRange, last: &KeyRange) -> KeyRange {
    let from = lower(first).clone();
    match last {
        KeyRange::One(_) => first.clone(),
        KeyRange::AtLeast(_) => KeyRange::AtLeast(from),
        KeyRange::Span { until, .. } => KeyRange::Span { from, until: until.clone() },
    }
}
