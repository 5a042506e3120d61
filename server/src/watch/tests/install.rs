//! Snapshots between real stores under the eyes of watchers: HAZARDS 29 and 30 with nothing made up.

use std::sync::Arc;

use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{Batch, Proposal, proposal::Command};
use quorate_store::engine::MemoryEngine;
use quorate_store::{Entry, LogPosition, Payload, Store};

use super::support::{Client, Dice, everything, key, request};
use crate::history::StoreHistory;
use crate::watch::{Hub, Inline, Limits, Output, WatchCreate};

/// A member that leads, and one that gets what it applied late, as entries or as a snapshot.
struct Pair {
    leader: Store,
    log: Vec<Entry>,
    follower: Store,
    hub: Hub,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let store = || Store::open(Arc::new(MemoryEngine::new())).unwrap();
        let (leader, follower) = (store(), store());
        let reader = follower.reader();
        let history = Arc::new(StoreHistory::new(reader.clone()));
        let hub = Hub::with_limits(reader.revision(), reader.compacted(), history, Arc::new(Inline), limits);
        Self { leader, log: Vec::new(), follower, hub }
    }

    fn lead(&mut self, command: Command) {
        let proposal = Proposal { command: Some(command), ..Default::default() };
        let batch = Batch { proposals: vec![proposal] }.encode_to_vec();
        let position = LogPosition { index: self.log.len() as u64 + 1, term: 1 };
        self.log.push(Entry { position, payload: Payload::Batch(batch.into()) });
        self.leader.apply(&self.log[self.log.len() - 1..]).unwrap();
    }

    fn put(&mut self, key: &str) {
        let value = (self.leader.reader().revision() + 1).to_string().into();
        self.lead(Command::Put(pb::PutRequest { key: key.to_owned().into(), value, ..Default::default() }));
    }

    fn compact(&mut self, revision: i64) {
        self.lead(Command::Compaction(pb::CompactionRequest { revision, physical: false }));
        while !self.leader.compact_step(100).unwrap() {}
    }

    /// The follower applies what it lacks.
    fn follow(&mut self) {
        let applied = self.follower.applied().index as usize;
        let applied = self.follower.apply(&self.log[applied..]).unwrap();
        self.hub.publish(&applied.effects);
    }

    fn install(&mut self) {
        if self.leader.applied() == self.follower.applied() {
            return;
        }
        let mut chunks = self.leader.reader().snapshot().unwrap().with_chunk_bytes(100).map(Result::unwrap);
        let mut sink = self.follower.reader().receive(&chunks.next().unwrap()).unwrap();
        let last = chunks.fold(false, |_, chunk| sink.push(&chunk).unwrap());
        assert!(last);
        let installed = self.follower.install(sink.finish().unwrap()).unwrap();
        self.hub.installed(installed.revision, installed.compacted);
    }

    fn client(&self) -> Client {
        Client { stream: self.hub.stream() }
    }
}

#[test]
fn watchers_read_what_a_snapshot_brought_and_go_on_live() {
    let mut pair = Pair::new(Limits::default());
    let mut client = pair.client();
    client.watch(1, key("a"), 0);
    client.watch(2, key("a"), 6);
    client.watch(3, key("a"), 9);
    pair.put("a");
    pair.follow();
    assert_eq!(client.words(), ["1 created@1", "2 created@1", "3 created@1", "1 events@2 a=2"]);
    for key in ["a", "b", "a", "a", "a"] {
        pair.put(key);
    }
    pair.install();
    assert_eq!(client.words(), ["1 events@7 a=3 a=5 a=6 a=7", "2 events@7 a=6 a=7"]);
    pair.put("a");
    pair.put("a");
    pair.follow();
    assert_eq!(
        client.words(),
        ["1 events@8 a=8", "2 events@8 a=8", "1 events@9 a=9", "2 events@9 a=9", "3 events@9 a=9"]
    );
}

#[test]
fn watchers_that_compaction_has_passed_are_told_and_those_ahead_of_it_are_not_touched() {
    let mut pair = Pair::new(Limits::default());
    let mut client = pair.client();
    pair.put("a");
    pair.follow();
    for (watch_id, start) in [(1, 0), (2, 2), (3, 5), (4, 6), (5, 7), (6, 100)] {
        client.watch(watch_id, key("a"), start);
    }
    client.drain();
    (0..6).for_each(|_| pair.put("a"));
    pair.compact(6);
    pair.install();
    let mut words = client.words();
    words.sort();
    assert_eq!(
        words,
        ["1 compacted@6", "2 compacted@6", "3 compacted@6", "4 events@8 a=6 a=7 a=8", "5 events@8 a=7 a=8"]
    );
    client.watch(7, key("a"), 5);
    client.watch(8, key("a"), 6);
    assert_eq!(client.words(), ["7 created@8", "7 compacted@6", "8 created@8", "8 events@8 a=6 a=7 a=8"]);
    pair.put("b");
    pair.follow();
    assert_eq!(client.words(), [""; 0]);
}

/// Whatever mix of entries, snapshots and compactions reaches the follower: a watcher sees every revision from its first
/// one on, once and in order, or is told where they begin.
#[test]
fn nothing_is_lost_repeated_or_out_of_order_across_any_mix_of_installs() {
    let (mut events, mut compacted) = (0, 0);
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let ring_bytes = [0, 500, 1 << 20][dice.below(3) as usize];
        let mut pair =
            Pair::new(Limits { ring_bytes, page_revisions: 1 + dice.below(5) as usize, ..Limits::default() });
        let mut client = pair.client();
        // By watch id: the next revision to come; none when the watcher is gone.
        let mut next: Vec<Option<i64>> = Vec::new();
        for _ in 0..120 {
            match dice.below(12) {
                0..6 => pair.put("a"),
                6 | 7 => pair.follow(),
                8 => pair.install(),
                9 if dice.one_in(3) => {
                    let (from, until) = (pair.leader.reader().compacted().max(0) + 1, pair.leader.reader().revision());
                    if from <= until {
                        pair.compact(from + dice.below((until - from + 1) as u64) as i64);
                    }
                }
                9 | 10 => {
                    let start = if dice.one_in(3) { 0 } else { 2 + dice.below(60) as i64 };
                    let watch_id = next.len() as i64 + 1;
                    client.create(&WatchCreate { watch_id, start_revision: start, ..request(everything()) });
                    next.push(Some(if start == 0 { pair.hub.published() + 1 } else { start }));
                }
                _ => check(&client.drain(), &mut next, &mut events, &mut compacted),
            }
        }
        pair.follow();
        check(&client.drain(), &mut next, &mut events, &mut compacted);
        let revision = pair.follower.reader().revision();
        for (number, next) in next.iter().enumerate() {
            assert!(next.is_none_or(|next| next > revision), "seed {seed}: watcher {} is at {next:?}", number + 1);
        }
    }
    assert!(events > 10_000 && compacted > 100, "{events} events, {compacted} told of compaction");
}

fn check(outputs: &[Output], next: &mut [Option<i64>], events: &mut u64, compacted: &mut u64) {
    for output in outputs {
        match output {
            Output::Events(delivery) => {
                let next = next[delivery.watch_id as usize - 1].as_mut().expect("nothing comes after an end");
                for (record, _) in delivery.events() {
                    assert_eq!(record.revision(), *next, "watcher {}", delivery.watch_id);
                    *next += 1;
                    *events += 1;
                }
            }
            Output::Compacted { watch_id, compact_revision } => {
                let next = next[*watch_id as usize - 1].take().expect("it is said once");
                assert!(next < *compact_revision, "watcher {watch_id} had not lost {next}");
                *compacted += 1;
            }
            Output::Created { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
