//! Random lives of many watchers against what they must have seen: the nine guarantees of watching.
//!
//! ordered, unique, atomic, resumable, reliable: what a watcher got is exactly what happened to its keys from its first
//! revision on, one revision never in two answers. bookmarkable: nothing at or below a progress comes after it.
//! filter-correct, isCreate, prevKV: each event is what the log says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;

use quorate_proto::mvccpb;
use quorate_store::{Event, EventKind, KeyRange};

use super::support::{Bell, Client, Dice, Later, Op, World, delete, everything, key, put, span};
use crate::watch::{Executor, Filters, Inline, Limits, Output, WatchCreate};

/// What one watcher was promised and has got.
struct Expectation {
    request: WatchCreate,
    /// Its first revision; known when it was created.
    start: i64,
    got: Vec<(i64, mvccpb::Event)>,
    /// The last revision of the answer before.
    last: i64,
    bookmark: i64,
    compacted: bool,
    canceled: bool,
}

struct Reader {
    client: Client,
    asked: BTreeMap<i64, WatchCreate>,
    watchers: BTreeMap<i64, Expectation>,
    finished: Vec<Expectation>,
    /// Watchers that compaction has ended, and that were not cancelled since.
    ended: BTreeSet<i64>,
    id_next: i64,
    bookmarks: usize,
    bell: Arc<Bell>,
    /// Ready when polled last.
    runs: bool,
}

struct Run {
    dice: Dice,
    world: World,
    later: Option<Arc<Later>>,
    readers: Vec<Reader>,
    compacted: i64,
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        ring_bytes: [0, 300, 2_000, 1 << 20][dice.below(4) as usize],
        stream_bytes: [60, 300, 1 << 20][dice.below(3) as usize],
        queues_bytes: [100, 1 << 20][dice.below(2) as usize],
        page_bytes: [1, 200, 1 << 20][dice.below(3) as usize],
        page_revisions: [1, 3, 1000][dice.below(3) as usize],
        page_matches: [1, 10, 1000][dice.below(3) as usize],
        page_spread: [1, 5, 4096][dice.below(3) as usize],
        pages_at_once: 1 + dice.below(3) as usize,
        poll_pages: 1 + dice.below(3) as usize,
        poll_bytes: [1, 100, 1 << 20][dice.below(3) as usize],
        controls: 4,
    }
}

fn range(dice: &mut Dice) -> KeyRange {
    let names = ["a", "b", "c", "d", "e"];
    let name = |dice: &mut Dice| names[dice.below(5) as usize];
    match dice.below(5) {
        0 | 1 => key(name(dice)),
        2 => span(name(dice), "f"),
        3 => KeyRange::AtLeast(bytes::Bytes::from(name(dice))),
        _ => everything(),
    }
}

fn ops(dice: &mut Dice) -> Vec<Op> {
    let names = ["a", "b", "c", "d", "e"];
    let mut ops = Vec::new();
    for name in names {
        match dice.below(8) {
            0 | 1 => ops.push(put(name, &dice.below(1000).to_string())),
            2 => ops.push(delete(name)),
            _ => {}
        }
    }
    ops
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let limits = limits(&mut dice);
        let later = dice.one_in(2).then(Arc::<Later>::default);
        let executor: Arc<dyn Executor> = match &later {
            Some(later) => later.clone(),
            None => Arc::new(Inline),
        };
        let world = World::with(limits, executor);
        let mut run = Self { dice, world, later, readers: Vec::new(), compacted: -1 };
        (0..3).for_each(|_| run.open());
        run
    }

    fn open(&mut self) {
        let client = self.world.client();
        self.readers.push(Reader {
            client,
            asked: BTreeMap::new(),
            watchers: BTreeMap::new(),
            finished: Vec::new(),
            ended: BTreeSet::new(),
            id_next: 1,
            bookmarks: 0,
            bell: Arc::default(),
            runs: true,
        });
    }

    fn step(&mut self) {
        let reader = self.dice.below(self.readers.len() as u64) as usize;
        match self.dice.below(40) {
            0..12 => drop(self.world.txn(ops(&mut self.dice))),
            12..14 => self.publish_group(),
            14..19 => self.create(reader),
            19..21 => self.cancel(reader),
            21..33 => self.poll(reader),
            33 => self.readers[reader].client.stream.handle().progress(),
            34 => self.readers[reader].client.stream.tick(),
            35 => self.compact(),
            36 => self.install(),
            37 => self.reopen(reader),
            _ => {
                if let Some(later) = &self.later {
                    later.run_all();
                }
            }
        }
    }

    fn publish_group(&mut self) {
        let mut effects = quorate_store::Effects::default();
        for _ in 0..self.dice.below(6) {
            let ops = ops(&mut self.dice);
            effects.revisions.extend(self.world.apply(ops));
        }
        self.world.hub.publish(&effects);
    }

    fn compact(&mut self) {
        let span = (self.world.revision - self.compacted.max(0)) as u64;
        self.compacted = self.compacted.max(0) + self.dice.below(span + 1) as i64;
        self.world.compact(self.compacted);
    }

    fn install(&mut self) {
        for _ in 0..self.dice.below(5) {
            let ops = ops(&mut self.dice);
            self.world.apply(ops);
        }
        if self.dice.one_in(4) {
            self.compacted = self.compacted.max(self.world.revision - self.dice.below(3) as i64);
        }
        self.world.install(self.compacted);
    }

    fn create(&mut self, reader: usize) {
        let dice = &mut self.dice;
        let start = match dice.below(4) {
            0 => 0,
            1 => self.world.revision + dice.below(6) as i64,
            _ => (self.world.revision - dice.below(20) as i64).max(0),
        };
        let reader = &mut self.readers[reader];
        let request = WatchCreate {
            watch_id: reader.id_next,
            range: range(dice),
            start_revision: start,
            filters: Filters { no_put: dice.one_in(5), no_delete: dice.one_in(5) },
            prev_kv: dice.one_in(2),
            progress_notify: dice.one_in(2),
            fragment: false,
        };
        reader.id_next += 1;
        reader.client.create(&request);
        reader.asked.insert(request.watch_id, request);
    }

    fn cancel(&mut self, reader: usize) {
        let reader = &mut self.readers[reader];
        let ids = || reader.watchers.keys().chain(&reader.ended);
        if let Some(id) = ids().nth(self.dice.below(ids().count().max(1) as u64) as usize) {
            reader.client.stream.handle().cancel(*id);
        }
    }

    /// A client that is gone; its unfinished watchers have seen a correct beginning.
    fn reopen(&mut self, reader: usize) {
        let gone = self.readers.swap_remove(reader);
        gone.check(&self.world, false);
        self.open();
    }

    /// Polls those who are woken until nobody is, as a runtime would.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = self.later.as_ref().is_some_and(|later| later.run_all() > 0);
            for reader in 0..self.readers.len() {
                if self.readers[reader].bell.rings() > 0 || self.readers[reader].runs {
                    busy = true;
                    self.poll(reader);
                }
            }
        }
    }

    fn poll(&mut self, reader: usize) {
        let compacted = self.compacted;
        let reader = &mut self.readers[reader];
        let outputs = reader.client.poll_with(&Waker::from(reader.bell.clone()));
        reader.runs = !outputs.is_empty();
        outputs.into_iter().for_each(|output| reader.take(output, compacted));
    }

    /// Everybody reads to the end, and has seen everything.
    fn finish(mut self) -> (usize, usize) {
        self.settle();
        // No watcher in the future holds it back for ever.
        while self.readers.iter().any(|reader| reader.watchers.values().any(|w| w.start > self.world.revision)) {
            self.world.put("z", "");
        }
        let before: Vec<_> = self.readers.iter().map(|reader| reader.bookmarks).collect();
        self.readers.iter().for_each(|reader| reader.client.stream.handle().progress());
        self.settle();
        let mut counts = (0, 0);
        for (reader, before) in self.readers.iter().zip(before) {
            assert!(reader.bookmarks > before, "progress is always answered, some time");
            assert!(reader.asked.is_empty(), "and every request");
            let (events, compacted) = reader.check(&self.world, true);
            counts = (counts.0 + events, counts.1 + compacted);
        }
        assert_eq!(self.world.hub.stats().slow_watchers, 0);
        assert_eq!(self.world.hub.stats().queued_bytes, 0);
        counts
    }
}

impl Reader {
    fn take(&mut self, output: Output, compacted: i64) {
        match output {
            Output::Created { watch_id, revision } => {
                let request = self.asked.remove(&watch_id).expect("created once, for a request");
                let start = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
                let (got, last, bookmark) = (Vec::new(), 0, 0);
                let expectation =
                    Expectation { request, start, got, last, bookmark, compacted: false, canceled: false };
                self.watchers.insert(watch_id, expectation);
            }
            Output::Refused { reason, .. } => panic!("{reason}"),
            Output::Canceled { watch_id, .. } => {
                let Some(mut watcher) = self.watchers.remove(&watch_id) else {
                    // The cancel came after compaction had ended it, and is answered all the same.
                    assert!(self.ended.remove(&watch_id), "canceled once");
                    return;
                };
                watcher.canceled = true;
                self.finished.push(watcher);
            }
            Output::Compacted { watch_id, compact_revision } => {
                let mut watcher = self.watchers.remove(&watch_id).expect("canceled once");
                assert!(compact_revision <= compacted);
                watcher.compacted = true;
                watcher.bookmark = compact_revision;
                self.finished.push(watcher);
                self.ended.insert(watch_id);
            }
            Output::Progress { watch_id: -1, revision } => {
                self.bookmarks += 1;
                self.watchers.values_mut().for_each(|watcher| watcher.bookmark(revision));
            }
            Output::Progress { watch_id, revision } => {
                let watcher = self.watchers.get_mut(&watch_id).expect("progress of a watcher that is there");
                assert!(watcher.request.progress_notify);
                watcher.bookmark(revision);
            }
            Output::Events(delivery) => {
                let watcher = self.watchers.get_mut(&delivery.watch_id).expect("created before, not canceled");
                let mut last = watcher.last;
                for (record, change) in delivery.events() {
                    let revision = record.revision();
                    assert!(revision > watcher.last && revision >= last, "ordered, unique, atomic");
                    assert!(revision > watcher.bookmark, "bookmarkable");
                    assert!(revision <= delivery.revision);
                    last = revision;
                    watcher.got.push((revision, record.event(change, delivery.prev_kv)));
                }
                assert!(last > watcher.last, "never empty");
                watcher.last = last;
            }
        }
    }

    fn check(&self, world: &World, complete: bool) -> (usize, usize) {
        let live = self.watchers.values().map(|watcher| (watcher, complete));
        let finished = self.finished.iter().map(|watcher| (watcher, false));
        let mut counts = (0, 0);
        for (watcher, complete) in live.chain(finished) {
            watcher.check(world, complete);
            counts.0 += watcher.got.len();
            counts.1 += usize::from(watcher.compacted);
        }
        counts
    }
}

impl Expectation {
    fn bookmark(&mut self, revision: i64) {
        assert!(revision >= self.bookmark && revision >= self.last, "progress does not go back");
        assert!(revision >= self.request.start_revision, "no progress before the first revision");
        self.bookmark = revision;
    }

    fn wants(&self, event: &Event) -> bool {
        self.request.range.contains(&event.kv.key)
            && match event.kind {
                EventKind::Put => !self.request.filters.no_put,
                EventKind::Delete => !self.request.filters.no_delete,
            }
    }

    fn check(&self, world: &World, complete: bool) {
        let history = world.history.all();
        let from_start = history.iter().filter(|revision| revision.revision >= self.start);
        let expected: Vec<(i64, &Event)> = from_start
            .flat_map(|revision| revision.events.iter().map(move |event| (revision.revision, event)))
            .filter(|(_, event)| self.wants(event))
            .collect();
        assert!(self.got.len() <= expected.len());
        for ((revision, got), (expected_revision, expected)) in self.got.iter().zip(&expected) {
            assert_eq!(revision, expected_revision, "reliable: nothing is left out");
            assert_eq!(got.kv.as_ref(), Some(&expected.kv));
            assert_eq!(got.r#type == mvccpb::event::EventType::Delete as i32, expected.kind == EventKind::Delete);
            let created = expected.kind == EventKind::Put && expected.kv.create_revision == expected.kv.mod_revision;
            assert_eq!(created, expected.kind == EventKind::Put && expected.prev_kv.is_none(), "isCreate");
            match &got.prev_kv {
                Some(prev) => assert_eq!(Some(prev), expected.prev_kv.as_ref().filter(|_| self.request.prev_kv)),
                // Only compaction takes it away.
                None => assert!(
                    !self.request.prev_kv || expected.prev_kv.is_none() || *revision <= world.hub.compacted(),
                    "prevKV"
                ),
            }
        }
        let missed = expected.get(self.got.len());
        if complete {
            assert_eq!(missed, None, "reliable: watched from {}, got {}", self.start, self.got.len());
        }
        let partly = missed.is_some_and(|(revision, _)| self.got.last().is_some_and(|(last, _)| last == revision));
        assert!(!partly, "atomic");
        if self.compacted {
            assert!(self.start < self.bookmark, "canceled although nothing was missing");
        }
    }
}

#[test]
fn watchers_see_what_the_model_says() {
    let seeds = std::env::var("WATCH_MODEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3_000);
    let (mut events, mut compacted) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            (0..250).for_each(|_| run.step());
            run.finish()
        });
        let (some_events, some_compacted) = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        events += some_events;
        compacted += some_compacted;
    }
    assert!(events as u64 > seeds * 20 && compacted as u64 > seeds / 10, "{events} events, {compacted} compacted");
}
