//! The hub: where the apply thread leaves what happened, and where streams come to watch it.
//!
//! ```text
//!   publish ─── registry lock ─ ring lock ──▶ stream locks, one at a time ──▶ published = r ──▶ wake
//!   create, cancel ──────── registry lock ──▶ the stream's lock
//!   poll ───────────────────────────────────▶ the stream's lock
//! ```
//!
//! Locks are taken from left to right only. Wakers are called after all of them.
//!
//! Left out: one stream's inside (state.rs, turn.rs).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use quorate_store::{Effects, KeyRange};

use super::herald::{Errands, Herald};
use super::history::{Executor, History, is_empty_range};
use super::limits::Limits;
use super::lock;
use super::output::{Output, WATCH_ID_NONE};
use super::reads::Reads;
use super::record::Record;
use super::registry::{Place, Registry};
use super::ring::Ring;
use super::state::State;
use super::stream::{End, Shared, WatchCreate, WatchStream};
use super::turn::Now;

/// etcd's texts for a watcher that cannot be.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// Index entries forgotten under one lock when a stream ends, so that apply does not wait for thousands of them.
const FORGET_AT_ONCE: usize = 64;

#[derive(Clone)]
pub struct Hub(Arc<Core>);

pub(super) struct Core {
    published: AtomicI64,
    compacted: AtomicI64,
    /// References in the queues of all streams, in bytes.
    queued_bytes: Arc<AtomicUsize>,
    watchers: AtomicUsize,
    pub errands: Errands,
    pub ring: Mutex<Ring>,
    pub registry: Mutex<Registry>,
    pub history: Arc<dyn History>,
    pub reads: Arc<Reads>,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    pub streams: usize,
    pub watchers: usize,
    /// Watchers that do not follow live: new ones with a past to read, and those of streams whose queue was full.
    pub slow_watchers: usize,
    pub queued_bytes: usize,
}

impl fmt::Debug for Hub {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Hub").field("published", &self.published()).finish_non_exhaustive()
    }
}

impl Hub {
    /// `published` is the revision that the store stands at, `compacted` the last one compacted (-1: none).
    pub fn new(published: i64, compacted: i64, history: Arc<dyn History>, executor: Arc<dyn Executor>) -> Self {
        Self::with_limits(published, compacted, history, executor, Limits::default())
    }

    pub fn with_limits(
        published: i64,
        compacted: i64,
        history: Arc<dyn History>,
        executor: Arc<dyn Executor>,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Core {
            published: AtomicI64::new(published),
            compacted: AtomicI64::new(compacted),
            queued_bytes: Arc::new(AtomicUsize::new(0)),
            watchers: AtomicUsize::new(0),
            errands: Errands::default(),
            ring: Mutex::new(Ring::new(published + 1, limits.ring_bytes)),
            registry: Mutex::new(Registry::new()),
            history,
            reads: Reads::new(executor, limits.pages_at_once),
            limits,
        }))
    }

    /// Called in revision order, after the batch is visible in the store and before any client is answered.
    pub fn publish(&self, effects: &Effects) {
        let core = self.core();
        let mut wakers = Vec::new();
        if let Some(last) = effects.revisions.last() {
            let records: Vec<_> = effects.revisions.iter().map(Record::new).collect();
            let mut registry = lock(&core.registry);
            let mut ring = lock(&core.ring);
            for record in &records {
                ring.push(record.clone());
            }
            drop(ring);
            if !registry.index.is_empty() {
                for record in &records {
                    registry.spread(record, &core.limits, &mut wakers);
                }
            }
            core.published.store(last.revision, Ordering::Release);
            registry.due(last.revision, &mut wakers);
        }
        if let Some(compacted) = effects.compacted {
            core.compacted.store(compacted, Ordering::Release);
        }
        core.errands.wake(wakers);
    }

    /// A snapshot took the store to `revision` without events: everybody reads what lies between.
    pub fn installed(&self, revision: i64, compacted: i64) {
        let core = self.core();
        let mut wakers = Vec::new();
        let mut registry = lock(&core.registry);
        let published = self.published();
        assert!(revision >= published, "a snapshot goes back from revision {published} to {revision}");
        lock(&core.ring).restart(revision + 1);
        if revision > published {
            for stream in registry.streams() {
                wakers.extend(lock(&stream.state).skip(published, revision));
            }
        }
        core.compacted.store(compacted, Ordering::Release);
        core.published.store(revision, Ordering::Release);
        registry.due(revision, &mut wakers);
        drop(registry);
        core.errands.wake(wakers);
    }

    /// To be spawned on the runtime of the streams: wakes them, so that publish need not.
    pub fn herald(&self) -> Herald {
        Herald::new(self.clone())
    }

    /// For one Watch call of a client. Dropping it forgets its watchers.
    pub fn stream(&self) -> WatchStream {
        let core = self.core();
        let mut registry = lock(&core.registry);
        let state = State::new(self.published(), core.queued_bytes.clone());
        WatchStream::new(self.clone(), registry.add(|number| Arc::new(Shared::new(number, state))))
    }

    /// The last revision whose events are with all who watch.
    pub fn published(&self) -> i64 {
        self.core().published.load(Ordering::Acquire)
    }

    pub fn compacted(&self) -> i64 {
        self.core().compacted.load(Ordering::Acquire)
    }

    /// For metrics. Walks the streams, but not under the lock that apply takes.
    pub fn stats(&self) -> HubStats {
        let core = self.core();
        let streams: Vec<_> = lock(&core.registry).streams().cloned().collect();
        let slow = |stream: &Arc<Shared>| lock(&stream.state).slow_watchers();
        HubStats {
            streams: streams.len(),
            watchers: core.watchers.load(Ordering::Relaxed),
            slow_watchers: streams.iter().map(slow).sum(),
            queued_bytes: core.queued_bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn core(&self) -> &Core {
        &self.0
    }

    pub(super) fn now(&self) -> Now {
        Now { published: self.published(), compacted: self.compacted() }
    }

    // ---- for streams ----

    pub(super) fn create(&self, stream: &Shared, request: &WatchCreate) {
        let core = self.core();
        // A slice of a request keeps the buffer alive that it came in.
        let range = owned(&request.range);
        let mut registry = lock(&core.registry);
        let revision = self.published();
        let mut state = lock(&stream.state);
        if state.end.is_some() {
            return;
        }
        let picked =
            if is_empty_range(&range) { Err(EMPTY_RANGE) } else { state.pick_id(request.watch_id).ok_or(DUPLICATE_ID) };
        match picked {
            Err(reason) => state.controls.push_back(Output::Refused { reason: reason.to_owned(), revision }),
            Ok(watch_id) => {
                state.controls.push_back(Output::Created { watch_id, revision });
                let start = request.start_revision;
                let compact_revision = self.compacted();
                if start > 0 && start <= revision && start < compact_revision {
                    state.note_ended(watch_id);
                    state.controls.push_back(Output::Compacted { watch_id, compact_revision });
                } else {
                    let slot = state.add(watch_id, request, range.clone(), revision);
                    registry.index.add(&range, Place { stream: stream.number, slot });
                    core.watchers.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let waker = state.waker();
        drop((state, registry));
        wake(waker);
    }

    /// An id that nobody has is not worth an answer.
    pub(super) fn cancel(&self, stream: &Shared, watch_id: i64) {
        let core = self.core();
        let mut registry = lock(&core.registry);
        let mut state = lock(&stream.state);
        if state.end.is_some() || watch_id == WATCH_ID_NONE {
            return;
        }
        if let Some(slot) = state.ids.get(&watch_id).copied() {
            let Some(watcher) = state.remove(slot) else { return };
            registry.index.remove(&watcher.range, Place { stream: stream.number, slot });
            state.release(slot);
            core.watchers.fetch_sub(1, Ordering::Relaxed);
        } else if !state.cancel_ended(watch_id) {
            return;
        }
        state.controls.push_back(Output::Canceled { watch_id, revision: self.published() });
        let waker = state.waker();
        drop((state, registry));
        wake(waker);
    }

    /// The index forgets watchers that their stream has removed; then their slots can be used again.
    pub(super) fn forget(&self, stream: &Shared, removed: Vec<(u32, KeyRange)>) {
        let core = self.core();
        for some in removed.chunks(FORGET_AT_ONCE) {
            let mut registry = lock(&core.registry);
            let mut state = lock(&stream.state);
            for (slot, range) in some {
                registry.index.remove(range, Place { stream: stream.number, slot: *slot });
                state.release(*slot);
            }
        }
        core.watchers.fetch_sub(removed.len(), Ordering::Relaxed);
    }

    /// Whether `revision` is published already; otherwise the stream is woken when it is.
    pub(super) fn wake_at(&self, stream: &Shared, revision: i64) -> bool {
        let mut registry = lock(&self.core().registry);
        let published = self.published() >= revision;
        registry.wake_at(stream.number, (!published).then_some(revision));
        published
    }

    pub(super) fn remove(&self, stream: &Shared) {
        let removed = {
            let mut state = lock(&stream.state);
            drop(state.finish(End::Closed));
            let slots = 0..state.watchers.len() as u32;
            slots.filter_map(|slot| Some((slot, state.remove(slot)?.range))).collect()
        };
        self.forget(stream, removed);
        lock(&self.core().registry).remove(stream.number);
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

fn owned(range: &KeyRange) -> KeyRange {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    match range {
        KeyRange::One(key) => KeyRange::One(copy(key)),
        KeyRange::Span { from, until } => KeyRange::Span { from: copy(from), until: copy(until) },
        KeyRange::AtLeast(from) => KeyRange::AtLeast(copy(from)),
    }
}
