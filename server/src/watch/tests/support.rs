//! A keyspace in memory that publishes what happens to it, and a client that polls by hand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{Effects, Event, EventKind, KeyRange, RevisionEvents};

use crate::watch::{
    Executor, Filters, History, HistoryError, HistoryPage, Hub, Inline, Job, KeySet, Limits, Output, WatchCreate,
    WatchStream, lock,
};

/// splitmix64: the same run for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Default)]
pub(crate) struct MemoryHistory(Mutex<Past>);

#[derive(Default)]
struct Past {
    /// Revision 2 and on.
    revisions: Vec<RevisionEvents>,
    compacted: i64,
    broken: bool,
}

impl MemoryHistory {
    pub(crate) fn break_disk(&self) {
        lock(&self.0).broken = true;
    }

    pub(crate) fn all(&self) -> Vec<RevisionEvents> {
        lock(&self.0).revisions.clone()
    }
}

impl History for MemoryHistory {
    fn events(&self, from: i64, until: i64, keys: &KeySet, bytes_max: usize) -> Result<HistoryPage, HistoryError> {
        let past = lock(&self.0);
        if past.broken {
            return Err(HistoryError::Fault("disk".to_owned()));
        }
        if from < past.compacted {
            return Err(HistoryError::Compacted { compact_revision: past.compacted });
        }
        let mut page = HistoryPage { revisions: Vec::new(), next: until + 1 };
        let mut bytes = 0;
        for revision in past.revisions.iter().filter(|revision| (from..=until).contains(&revision.revision)) {
            let kept = |event: &Event| Event {
                prev_kv: event.prev_kv.clone().filter(|_| revision.revision > past.compacted),
                ..event.clone()
            };
            let events: Vec<_> = revision.events.iter().filter(|e| keys.contains(&e.kv.key)).map(kept).collect();
            if !events.is_empty() {
                page.revisions.push(RevisionEvents { revision: revision.revision, events: events.into() });
            }
            bytes += revision.events.iter().map(|event| event.kv.value.len() + 32).sum::<usize>();
            if bytes >= bytes_max {
                page.next = revision.revision + 1;
                break;
            }
        }
        Ok(page)
    }
}

/// Runs jobs when the test says so.
#[derive(Default)]
pub(crate) struct Later(Mutex<Vec<Job>>);

impl Later {
    /// How many there were.
    pub(crate) fn run_all(&self) -> usize {
        let jobs = std::mem::take(&mut *lock(&self.0));
        let count = jobs.len();
        jobs.into_iter().for_each(|job| job());
        count
    }

    pub(crate) fn drop_all(&self) {
        lock(&self.0).clear();
    }
}

impl Executor for Later {
    fn run(&self, job: Job) {
        lock(&self.0).push(job);
    }
}

/// Tells whether it was woken.
#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    /// Since the last time.
    pub(crate) fn rings(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

pub(crate) enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete(Bytes::copy_from_slice(key.as_bytes()))
}

/// The member: state, history and hub.
pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) history: Arc<MemoryHistory>,
    keys: BTreeMap<Bytes, KeyValue>,
    pub(crate) revision: i64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), Arc::new(Inline))
    }

    pub(crate) fn with(limits: Limits, executor: Arc<dyn Executor>) -> Self {
        let history = Arc::new(MemoryHistory::default());
        let hub = Hub::with_limits(1, -1, history.clone(), executor, limits);
        Self { hub, history, keys: BTreeMap::new(), revision: 1 }
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        self.txn(vec![put(key, value)])
    }

    pub(crate) fn delete(&mut self, key: &str) -> i64 {
        self.txn(vec![delete(key)])
    }

    /// One revision, published.
    pub(crate) fn txn(&mut self, ops: Vec<Op>) -> i64 {
        let revisions: Vec<_> = self.apply(ops).into_iter().collect();
        self.hub.publish(&Effects { revisions, ..Effects::default() });
        self.revision
    }

    /// One revision, in the store only. None if nothing changed.
    pub(crate) fn apply(&mut self, ops: Vec<Op>) -> Option<RevisionEvents> {
        let revision = self.revision + 1;
        let events: Vec<_> = ops.into_iter().filter_map(|op| self.change(op, revision)).collect();
        if events.is_empty() {
            return None;
        }
        self.revision = revision;
        let events = RevisionEvents { revision, events: events.into() };
        lock(&self.history.0).revisions.push(events.clone());
        Some(events)
    }

    fn change(&mut self, op: Op, revision: i64) -> Option<Event> {
        match op {
            Op::Put(key, value) => {
                let prev_kv = self.keys.get(&key).cloned();
                let (create_revision, version) =
                    prev_kv.as_ref().map_or((revision, 1), |prev| (prev.create_revision, prev.version + 1));
                let kv =
                    KeyValue { key: key.clone(), create_revision, mod_revision: revision, version, value, lease: 0 };
                self.keys.insert(key, kv.clone());
                Some(Event { kind: EventKind::Put, kv, prev_kv })
            }
            Op::Delete(key) => {
                let prev_kv = Some(self.keys.remove(&key)?);
                let kv = KeyValue { key, mod_revision: revision, ..KeyValue::default() };
                Some(Event { kind: EventKind::Delete, kv, prev_kv })
            }
        }
    }

    pub(crate) fn compact(&mut self, revision: i64) {
        lock(&self.history.0).compacted = revision;
        self.hub.publish(&Effects { compacted: Some(revision), ..Effects::default() });
    }

    /// What was applied without being published arrives as a snapshot.
    pub(crate) fn install(&mut self, compacted: i64) {
        lock(&self.history.0).compacted = compacted;
        self.hub.installed(self.revision, compacted);
    }

    pub(crate) fn client(&self) -> Client {
        Client { stream: self.hub.stream() }
    }
}

/// Reads a stream by hand.
pub(crate) struct Client {
    pub(crate) stream: WatchStream,
}

impl Client {
    pub(crate) fn watch(&self, watch_id: i64, range: KeyRange, start_revision: i64) {
        self.create(&WatchCreate { watch_id, start_revision, ..request(range) });
    }

    pub(crate) fn create(&self, request: &WatchCreate) {
        self.stream.handle().create(request);
    }

    /// One poll's worth.
    pub(crate) fn poll(&mut self) -> Vec<Output> {
        self.poll_with(Waker::noop())
    }

    pub(crate) fn poll_with(&mut self, waker: &Waker) -> Vec<Output> {
        let mut out = Vec::new();
        let poll = self.stream.poll_outputs(&mut Context::from_waker(waker), &mut out);
        assert_eq!(out.is_empty(), !matches!(poll, Poll::Ready(Ok(()))), "ready if and only if there is something");
        out
    }

    /// Everything there is now.
    pub(crate) fn drain(&mut self) -> Vec<Output> {
        let mut all = Vec::new();
        let mut idle = 0;
        // A stream that reads history gives others their turn, and is ready again at once.
        while idle < 64 {
            let some = self.poll();
            idle = if some.is_empty() { idle + 1 } else { 0 };
            all.extend(some);
        }
        all
    }

    pub(crate) fn words(&mut self) -> Vec<String> {
        self.drain().iter().map(say).collect()
    }
}

/// An output in a line: `7 events@5 a=1 -b` and so on.
pub(crate) fn say(output: &Output) -> String {
    match output {
        Output::Created { watch_id, revision } => format!("{watch_id} created@{revision}"),
        Output::Refused { reason, .. } => format!("refused: {reason}"),
        Output::Canceled { watch_id, .. } => format!("{watch_id} canceled"),
        Output::Compacted { watch_id, compact_revision } => format!("{watch_id} compacted@{compact_revision}"),
        Output::Progress { watch_id, revision } => format!("{watch_id} progress@{revision}"),
        Output::Events(delivery) => {
            let mut line = format!("{} events@{}", delivery.watch_id, delivery.revision);
            for (record, change) in delivery.events() {
                let event = record.event(change, delivery.prev_kv);
                let kv = event.kv.unwrap_or_default();
                let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
                match record.kind(change) {
                    EventKind::Put => line += &format!(" {key}={value}"),
                    EventKind::Delete => line += &format!(" -{key}"),
                }
            }
            line
        }
    }
}

pub(crate) fn request(range: KeyRange) -> WatchCreate {
    WatchCreate {
        watch_id: 0,
        range,
        start_revision: 0,
        filters: Filters::default(),
        prev_kv: false,
        progress_notify: false,
        fragment: false,
    }
}

pub(crate) fn key(key: &str) -> KeyRange {
    KeyRange::One(Bytes::copy_from_slice(key.as_bytes()))
}

pub(crate) fn span(from: &str, until: &str) -> KeyRange {
    KeyRange::Span { from: Bytes::copy_from_slice(from.as_bytes()), until: Bytes::copy_from_slice(until.as_bytes()) }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::AtLeast(Bytes::from_static(&[0]))
}

/// Polls until there is nothing to say, leaving `bell` to be rung.
pub(crate) fn listen(client: &mut Client, bell: &Arc<Bell>) -> Vec<String> {
    let waker = Waker::from(bell.clone());
    let mut words = Vec::new();
    loop {
        let mut out = Vec::new();
        match client.stream.poll_outputs(&mut Context::from_waker(&waker), &mut out) {
            Poll::Ready(end) => end.unwrap(),
            Poll::Pending if bell.rings() > 0 => {}
            Poll::Pending => return words,
        }
        words.extend(out.iter().map(say));
    }
}

pub(crate) fn small_ring() -> Limits {
    Limits { ring_bytes: 0, ..Limits::default() }
}
