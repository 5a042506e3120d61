//! The newest revisions, whole and without holes, up to a number of bytes: who is a little behind needs no disk.
//!
//! ```text
//!      first                          last published
//!        │ 41 │ 42 │ 43 │ ... │ 97 │ 98 │
//!   evicted ◀── over the limit               ◀── push
//! ```
//!
//! It also is what keeps the events alive that wait in the queues of the streams: those hold weak references only, so
//! that a thousand stalled streams cost no more memory than this.
//! Left out: matching. Whoever reads gets everything and looks for himself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::Record;

#[derive(Debug)]
pub(super) struct Ring {
    records: VecDeque<Arc<Record>>,
    /// The revision of the oldest record; with no record, the revision of the next one.
    first: i64,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(next: i64, bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), first: next, bytes: 0, bytes_max }
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn push(&mut self, record: Arc<Record>) {
        assert_eq!(record.revision(), self.next(), "revisions are published in order and without holes");
        self.bytes += record.cost_bytes();
        self.records.push_back(record);
        // The newest stays whatever its size: its watchers have not seen it yet.
        while self.bytes > self.bytes_max && self.records.len() > 1 {
            if let Some(oldest) = self.records.pop_front() {
                self.bytes -= oldest.cost_bytes();
                self.first += 1;
            }
        }
    }

    /// At most `records_max` records from `from` to `until`; nothing if `from` is no longer here.
    pub(super) fn read(&self, from: i64, until: i64, records_max: usize) -> Option<Vec<Arc<Record>>> {
        if from < self.first || until < from {
            return None;
        }
        let skip = usize::try_from(from - self.first).ok()?;
        let wanted = usize::try_from(until - from + 1).ok()?.min(records_max);
        Some(self.records.iter().skip(skip).take(wanted).cloned().collect())
    }

    /// A snapshot was installed: what comes next does not continue what is here.
    pub(super) fn restart(&mut self, next: i64) {
        self.records = VecDeque::new();
        self.first = next;
        self.bytes = 0;
    }

    fn next(&self) -> i64 {
        self.first + self.records.len() as i64
    }
}
