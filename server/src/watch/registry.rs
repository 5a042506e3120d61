//! Who is there: the streams by number, and the index from keys to their watchers.
//!
//! Behind one lock, together with what is published: a watcher that is added either sees a revision in the hub's number
//! or gets it into its queue. Left out: the streams' own state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use super::index::Index;
use super::limits::Limits;
use super::lock;
use super::record::Record;
use super::state::{Item, Target};
use super::stream::Shared;

#[derive(Debug)]
pub(super) struct Registry {
    pub index: Index<Place>,
    streams: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// (revision, stream): who wants to be woken when it is published.
    wakes: BTreeSet<(i64, u32)>,
    matched: Vec<(Place, u32)>,
}

/// A watcher: its stream and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub stream: u32,
    pub slot: u32,
}

#[derive(Debug)]
struct Entry {
    stream: Arc<Shared>,
    wake_at: Option<i64>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { index: Index::new(), streams: Vec::new(), free: Vec::new(), wakes: BTreeSet::new(), matched: Vec::new() }
    }

    pub(super) fn add(&mut self, make: impl FnOnce(u32) -> Arc<Shared>) -> Arc<Shared> {
        let number = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            u32::try_from(self.streams.len() - 1).expect("a member has fewer than 2^32 streams")
        });
        let stream = make(number);
        self.streams[number as usize] = Some(Entry { stream: stream.clone(), wake_at: None });
        stream
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.wake_at(number, None);
        self.streams[number as usize] = None;
        self.free.push(number);
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = &Arc<Shared>> {
        self.streams.iter().flatten().map(|entry| &entry.stream)
    }

    /// Replaces what the stream asked for before.
    pub(super) fn wake_at(&mut self, number: u32, revision: Option<i64>) {
        let Some(entry) = &mut self.streams[number as usize] else { return };
        if let Some(before) = std::mem::replace(&mut entry.wake_at, revision) {
            self.wakes.remove(&(before, number));
        }
        self.wakes.extend(revision.map(|revision| (revision, number)));
    }

    /// Those who wait for `published`.
    pub(super) fn due(&mut self, published: i64, wakers: &mut Vec<Waker>) {
        while let Some((revision, number)) = self.wakes.first().copied()
            && revision <= published
        {
            self.wakes.pop_first();
            if let Some(entry) = &mut self.streams[number as usize] {
                entry.wake_at = None;
                wakers.extend(lock(&entry.stream.state).waker());
            }
        }
    }

    /// Queues `record` on every stream that has a watcher for it.
    pub(super) fn spread(&mut self, record: &Arc<Record>, limits: &Limits, wakers: &mut Vec<Waker>) {
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        let mut sets = 0;
        for change in 0..record.len() {
            self.index.matches(record.key(change), |targets| {
                sets += 1;
                targets.each(|place| matched.push((place, change as u32)));
            });
        }
        if sets > 1 {
            matched.sort_unstable();
        }
        for mine in matched.chunk_by(|a, b| a.0.stream == b.0.stream) {
            let Some(entry) = &self.streams[mine[0].0.stream as usize] else { continue };
            let item = Item {
                revision: record.revision(),
                record: Arc::downgrade(record),
                targets: mine.iter().map(|(place, change)| Target { slot: place.slot, change: *change }).collect(),
                done: 0,
            };
            wakers.extend(lock(&entry.stream.state).push(item, limits.stream_bytes, limits.queues_bytes));
        }
        self.matched = matched;
    }
}
