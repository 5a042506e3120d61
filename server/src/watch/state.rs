//! One stream under its lock: its watchers, where each of them stands, and what waits to be said.
//!
//! ```text
//!            covered                          published
//!  revisions ───┼─────────────────────────────────┼──▶      the queue holds all that matched after `covered`
//!     ▲   ▲     │   ▲    ▲         ▲              │
//!     │   │     │ queue items (weak references)    │
//!   cursors     │   live watchers take from the queue; a cursor becomes live when it has read past `covered`
//!               │
//!     closed {from, last}: the queue was dropped; from..=last has to be read, and until then nothing is queued
//! ```
//!
//! An item that comes out of the queue is not for cursors: they will read it. So `covered` moves to its revision first,
//! and a cursor that has not come that far stays one. Every watcher has `next`, the first revision it accepts, whatever
//! way events come to it: that makes doubles impossible, and keeps a start revision in the future as a filter for ever.
//!
//! Left out: what is said when (turn.rs), reading (catchup.rs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use quorate_store::KeyRange;

use super::output::{Filters, Output};
use super::record::Record;
use super::stream::{End, WatchCreate};

/// Ids that a stream remembers of ended watchers; more, and the lowest are free again without having been cancelled.
const WATCH_ENDED_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct State {
    /// By slot. A slot is given away again only after the hub's index has forgotten it.
    pub watchers: Vec<Option<Watcher>>,
    free: Vec<u32>,
    pub ids: BTreeMap<i64, u32>,
    /// Ids of watchers that compaction has ended. As in etcd they stay taken, and their cancel is answered, until the client cancels
    /// them: its library does when it hears of the end, and waits for the answer.
    ended: BTreeSet<i64>,
    id_next: i64,
    serial_next: u64,

    /// Answers to requests: they go first, so `created` comes before any event.
    pub controls: VecDeque<Output>,
    queue: VecDeque<Item>,
    queue_bytes: usize,
    /// What all streams of the hub have queued.
    queued_bytes: Arc<AtomicUsize>,
    pub covered: i64,
    pub closed: Option<Closed>,

    /// (next, slot) of those who read history.
    pub cursors: BTreeSet<(i64, u32)>,
    /// Where the last page ended: the next one begins with a cursor beyond it, so that nobody waits for ever.
    pub page_end: i64,
    /// A page is being read.
    pub reading: bool,
    /// What the last page found, not yet said.
    pub ready: VecDeque<(Seat, Output)>,
    pub ready_first: bool,

    pub progress: Progress,
    /// The newest revision of which something was said, to whomever.
    pub delivered: i64,

    waker: Option<Waker>,
    pub end: Option<End>,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub watch_id: i64,
    /// Tells this watcher from others that had or will have its slot.
    pub serial: u64,
    pub range: KeyRange,
    /// The first revision it accepts.
    pub next: i64,
    pub start: i64,
    pub live: bool,
    pub filters: Filters,
    pub prev_kv: bool,
    pub fragment: bool,
    /// Wants periodic progress, and had no event since the last time.
    pub quiet: bool,
}

#[derive(Debug)]
pub(super) struct Item {
    pub revision: i64,
    /// Kept alive by the ring: when it is gone there, it is read again.
    pub record: Weak<Record>,
    /// Ascending.
    pub targets: Box<[Target]>,
    /// How many targets have been served.
    pub done: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub slot: u32,
    pub change: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub from: i64,
    pub last: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub slot: u32,
    pub serial: u64,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Asked for when this revision was published.
    pub asked: Option<i64>,
    /// (start, slot) of watchers that began in the future: no progress is told before they have begun.
    pub future: BTreeSet<(i64, u32)>,
    /// Watchers with progress_notify.
    pub notified: BTreeSet<u32>,
    /// Those of them whose turn it is.
    pub due: Vec<u32>,
}

impl Item {
    fn cost_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.targets.as_ref())
    }
}

impl State {
    pub(super) fn new(published: i64, queued_bytes: Arc<AtomicUsize>) -> Self {
        Self {
            watchers: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            ended: BTreeSet::new(),
            id_next: 0,
            serial_next: 0,
            controls: VecDeque::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            queued_bytes,
            covered: published,
            closed: None,
            cursors: BTreeSet::new(),
            page_end: 0,
            reading: false,
            ready: VecDeque::new(),
            ready_first: false,
            progress: Progress::default(),
            delivered: 0,
            waker: None,
            end: None,
        }
    }

    // ---- watchers ----

    /// The id that a request for `asked` gets: 0 lets the stream pick; nothing if another watcher has it.
    pub(super) fn pick_id(&mut self, asked: i64) -> Option<i64> {
        let taken = |id: &i64| self.ids.contains_key(id) || self.ended.contains(id);
        if asked != 0 {
            return (!taken(&asked)).then_some(asked);
        }
        while taken(&self.id_next) {
            self.id_next += 1;
        }
        self.id_next += 1;
        Some(self.id_next - 1)
    }

    /// A watcher that stands at `next`: live beyond what is published, a cursor otherwise.
    pub(super) fn add(&mut self, watch_id: i64, request: &WatchCreate, range: KeyRange, published: i64) -> u32 {
        let start = request.start_revision;
        let next = if start == 0 { published + 1 } else { start };
        let live = next > published;
        self.serial_next += 1;
        let watcher = Watcher {
            watch_id,
            serial: self.serial_next,
            range,
            next,
            start,
            live,
            filters: request.filters,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            quiet: true,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.watchers.push(None);
            u32::try_from(self.watchers.len() - 1).expect("a stream has fewer than 2^32 watchers")
        });
        self.watchers[slot as usize] = Some(watcher);
        self.ids.insert(watch_id, slot);
        if !live {
            // The queue knows nothing of this watcher before now.
            self.covered = self.covered.max(published);
            self.cursors.insert((next, slot));
        } else if start > 0 {
            self.progress.future.insert((start, slot));
        }
        if request.progress_notify {
            self.progress.notified.insert(slot);
        }
        slot
    }

    /// Forgets the watcher. Its slot stays taken until [`State::release`].
    pub(super) fn remove(&mut self, slot: u32) -> Option<Watcher> {
        let watcher = self.watchers[slot as usize].take()?;
        self.ids.remove(&watcher.watch_id);
        self.cursors.remove(&(watcher.next, slot));
        self.progress.future.remove(&(watcher.start, slot));
        self.progress.notified.remove(&slot);
        Some(watcher)
    }

    /// Compaction has ended the watcher.
    pub(super) fn end_watcher(&mut self, slot: u32) -> Option<Watcher> {
        let watcher = self.remove(slot)?;
        self.note_ended(watcher.watch_id);
        Some(watcher)
    }

    pub(super) fn note_ended(&mut self, watch_id: i64) {
        if self.ended.len() == WATCH_ENDED_MAX {
            self.ended.pop_first();
        }
        self.ended.insert(watch_id);
    }

    /// The client cancels a watcher that compaction has ended.
    pub(super) fn cancel_ended(&mut self, watch_id: i64) -> bool {
        self.ended.remove(&watch_id)
    }

    pub(super) fn release(&mut self, slot: u32) {
        self.free.push(slot);
        if self.ids.is_empty() && self.free.len() == self.watchers.len() && self.watchers.capacity() > 1024 {
            self.watchers = Vec::new();
            self.free = Vec::new();
        }
    }

    pub(super) fn seated(&self, seat: Seat) -> Option<&Watcher> {
        self.watchers.get(seat.slot as usize)?.as_ref().filter(|watcher| watcher.serial == seat.serial)
    }

    /// A cursor, whose place in `cursors` follows its `next`.
    pub(super) fn advance(&mut self, seat: Seat, next: i64) {
        let Some(watcher) = self.watchers.get_mut(seat.slot as usize).and_then(Option::as_mut) else { return };
        if watcher.serial != seat.serial || watcher.live || watcher.next >= next {
            return;
        }
        self.cursors.remove(&(watcher.next, seat.slot));
        watcher.next = next;
        self.cursors.insert((next, seat.slot));
    }

    // ---- queue ----

    /// Called by the apply thread. Whoever is to be woken, is to be woken after the locks.
    pub(super) fn push(&mut self, item: Item, stream_bytes_max: usize, queues_bytes_max: usize) -> Option<Waker> {
        if self.end.is_some() {
            return None;
        }
        if let Some(closed) = &mut self.closed {
            closed.last = item.revision;
            return self.waker.take();
        }
        let cost = item.cost_bytes();
        let crowded = self.queued_bytes.load(Ordering::Relaxed) + cost > queues_bytes_max && !self.queue.is_empty();
        if self.queue_bytes + cost > stream_bytes_max || crowded {
            let from = self.queue.front().map_or(item.revision, |first| first.revision);
            self.close(Closed { from, last: item.revision });
            return self.waker.take();
        }
        self.queue_bytes += cost;
        self.queued_bytes.fetch_add(cost, Ordering::Relaxed);
        self.queue.push_back(item);
        self.waker.take()
    }

    pub(super) fn front(&mut self) -> Option<&mut Item> {
        self.queue.front_mut()
    }

    pub(super) fn front_revision(&self) -> Option<i64> {
        self.queue.front().map(|item| item.revision)
    }

    pub(super) fn pop(&mut self) {
        if let Some(item) = self.queue.pop_front() {
            self.queue_bytes -= item.cost_bytes();
            self.queued_bytes.fetch_sub(item.cost_bytes(), Ordering::Relaxed);
            if self.queue.is_empty() && self.queue.capacity() > 64 {
                self.queue = VecDeque::new();
            }
        }
    }

    /// Drops the queue: `closed` says what has to be read instead, beside what was to be read already.
    pub(super) fn close(&mut self, closed: Closed) {
        let queued = self.queue.back().map_or(closed.last, |item| item.revision);
        self.queued_bytes.fetch_sub(self.queue_bytes, Ordering::Relaxed);
        self.queue = VecDeque::new();
        self.queue_bytes = 0;
        let before = self.closed.unwrap_or(closed);
        self.closed =
            Some(Closed { from: before.from.min(closed.from), last: before.last.max(closed.last).max(queued) });
    }

    /// A snapshot took the store from `published` to `last` without events.
    pub(super) fn skip(&mut self, published: i64, last: i64) -> Option<Waker> {
        let from = self.closed.map_or(published + 1, |closed| closed.from);
        self.closed = Some(Closed { from, last });
        self.waker.take()
    }

    /// Queues again from now on; who was live reads what was missed.
    pub(super) fn reopen(&mut self) {
        let Some(closed) = self.closed.take() else { return };
        assert!(self.queue.is_empty(), "what is queued is said before the queue is opened again");
        self.covered = self.covered.max(closed.last);
        for (slot, watcher) in self.watchers.iter_mut().enumerate() {
            let Some(watcher) = watcher.as_mut().filter(|watcher| watcher.live) else { continue };
            let next = watcher.next.max(closed.from);
            if next <= self.covered {
                watcher.live = false;
                watcher.next = next;
                self.cursors.insert((next, slot as u32));
            }
        }
    }

    /// Cursors that have read all that the queue does not have become live.
    pub(super) fn promote(&mut self) {
        if self.closed.is_some() {
            return;
        }
        while let Some((next, slot)) = self.cursors.last().copied()
            && next > self.covered
        {
            self.cursors.pop_last();
            if let Some(watcher) = self.watchers[slot as usize].as_mut() {
                watcher.live = true;
            }
        }
    }

    pub(super) fn slow_watchers(&self) -> usize {
        let behind = self.closed.is_some();
        if behind { self.ids.len() } else { self.cursors.len() }
    }

    // ---- waking ----

    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    pub(super) fn waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Nothing is said any more, nothing is kept.
    pub(super) fn finish(&mut self, end: End) -> Option<Waker> {
        self.close(Closed { from: 0, last: 0 });
        self.ready = VecDeque::new();
        self.controls = VecDeque::new();
        self.end.get_or_insert(end);
        self.waker.take()
    }
}
