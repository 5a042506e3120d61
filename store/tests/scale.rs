//! Many keys and many versions: counts are exact, and reads look at few rows. Work is counted in rows, not in time.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::engine::Family;
use quorate_store::{KeyRange, Store};

use support::build::{Member, anonymous, batch, bytes, c_compact, c_delete, c_put, entry, everything, put, range};
use support::chance::{Chance, from_env};
use support::counting::Counting;

mod support;

struct Counted {
    engine: Arc<Counting>,
    store: Store,
}

impl Counted {
    fn new() -> Self {
        let engine = Arc::new(Counting::default());
        Self { store: Store::open(engine.clone()).unwrap(), engine }
    }

    /// All commands in one entry: a revision each.
    fn apply(&mut self, commands: impl IntoIterator<Item = Command>) {
        let index = self.store.applied().index + 1;
        let proposals = commands.into_iter().map(anonymous).collect();
        let applied = self.store.apply(&[entry(index, 1, batch(proposals))]).unwrap();
        assert!(applied.answers[0].iter().all(Result::is_ok));
    }

    fn rows_for(&self, request: &pb::RangeRequest) -> (u64, pb::RangeResponse) {
        let view = self.store.reader().view().unwrap();
        self.engine.rows(|| view.range(request).unwrap())
    }
}

#[test]
fn a_hot_key_is_read_at_any_revision_with_a_few_rows() {
    const VERSIONS: i64 = 20_000;
    let mut counted = Counted::new();
    for round in 0..VERSIONS / 1000 {
        counted.apply((0..1000).map(|version| c_put(put("hot", &(round * 1000 + version).to_string()))));
    }
    for revision in [2, 3, 500, VERSIONS / 2, VERSIONS, VERSIONS + 1] {
        let (rows, response) = counted.rows_for(&range("hot", "", revision));
        assert_eq!(response.kvs[0].value, (revision - 2).to_string());
        assert!(rows <= 3, "{rows} rows at {revision}");
        let (rows, _) = counted.rows_for(&range("h", "i", revision));
        assert!(rows <= 4, "{rows} rows at {revision}");
    }
    let (rows, _) = counted.engine.rows(|| ());
    assert_eq!(rows, 0);
    let engine = counted.engine.clone();
    let (rows, ()) = engine.rows(|| counted.apply([c_put(put("hot", "next"))]));
    assert!(rows <= 4, "a put looks at {rows} rows");
}

#[test]
fn a_page_of_a_large_range_looks_at_little_more_than_the_page() {
    const KEYS: u64 = 20_000;
    let mut counted = Counted::new();
    for round in 0..KEYS / 1000 {
        counted.apply((0..1000).map(|key| c_put(put(&format!("k{:05}", round * 1000 + key), "v"))));
    }
    let page = pb::RangeRequest { limit: 10, ..range("k", "l", 0) };
    let (rows, response) = counted.rows_for(&page);
    assert_eq!((response.count, response.kvs.len(), response.more), (KEYS as i64, 10, true));
    assert!(rows < 700, "{rows} rows for 10 of {KEYS}");
    let middle = pb::RangeRequest { key: bytes("k10007"), ..page.clone() };
    let (rows, response) = counted.rows_for(&middle);
    assert_eq!(response.count, KEYS as i64 - 10_007);
    assert!(rows < 1300, "{rows} rows for 10 from the middle");

    counted.apply([c_delete("k00000", "k00100"), c_put(put("z", "1"))]);
    let (rows, response) = counted.rows_for(&pb::RangeRequest { revision: KEYS as i64 + 1, ..page });
    assert_eq!(response.count, KEYS as i64, "before the deletions");
    assert!(rows < 1000, "{rows} rows, of which 101 tallies");
}

/// What was deleted beside a range, and is not compacted yet, costs a count of the range nothing.
#[test]
fn a_count_does_not_walk_over_what_was_deleted_beside_it() {
    let mut counted = Counted::new();
    for place in ["a", "c", "e"] {
        for round in 0..10 {
            counted.apply((0..1000).map(|key| c_put(put(&format!("{place}{:05}", round * 1000 + key), "v"))));
        }
    }
    counted.apply((0..300).map(|key| c_put(put(&format!("b{key:05}"), "v"))));
    for place in ["a", "c", "e"] {
        counted.apply([c_delete(place, &format!("{place}09990"))]);
    }
    let count = |from: &str, until: &str| pb::RangeRequest { count_only: true, ..range(from, until, 0) };
    for (from, until, wanted) in
        [("b", "c", 300), ("a", "c", 310), ("a05000", "b", 10), ("c", "d", 10), ("b00100", "d", 210)]
    {
        let (rows, response) = counted.rows_for(&count(from, until));
        assert_eq!(response.count, wanted, "{from} to {until}");
        assert!(rows < 1100, "{rows} rows from {from} to {until}");
    }
    // Nor what compaction has dropped since.
    let revision = counted.store.reader().view().unwrap().revision();
    counted.apply([c_put(put("b00000", "again")), c_compact(revision + 1)]);
    while !counted.store.compact_step(1000).unwrap() {}
    for (from, until, wanted) in [("b", "c", 300), ("a", "c", 310), ("c", "d", 10)] {
        let (rows, response) = counted.rows_for(&count(from, until));
        assert_eq!(response.count, wanted, "{from} to {until}");
        assert!(rows < 1100, "{rows} rows from {from} to {until} after compaction");
    }
}

#[test]
fn a_walk_looks_at_what_has_changed_and_not_at_what_is_there() {
    let mut counted = Counted::new();
    counted.apply((0..10_000).map(|key| c_put(put(&format!("k{key:05}"), "v"))));
    counted.apply([c_compact(10_001)]);
    while !counted.store.compact_step(1000).unwrap() {}
    counted.apply((0..10).map(|_| c_put(put("k00007", "again"))));
    counted.apply([c_compact(10_011)]);
    let engine = counted.engine.clone();
    let (rows, done) = engine.rows(|| counted.store.compact_step(1000).unwrap());
    assert!(done);
    assert!(rows < 60, "{rows} rows for 10 changes");
    let (rows, done) = engine.rows(|| counted.store.compact_step(1000).unwrap());
    assert_eq!((rows, done), (0, true));
}

/// Thousands of keys come and go, so that buckets split and join; every count of every past revision stays exact.
#[test]
fn counts_are_exact_at_every_revision_while_buckets_split_and_join() {
    for seed in 0..from_env("SCALE_SEEDS", 3) {
        let mut chance = Chance(seed);
        let (mut member, mut live) = (Member::new(), BTreeMap::new());
        let (mut past, mut buckets_most) = (Vec::new(), 0);
        for round in 0..150 {
            let commands = commands(&mut chance, &mut live, round);
            member.apply_all(commands);
            past.push((member.revision(), live.clone()));
            if chance.one_in(10) {
                let (revision, _) = past[chance.below(past.len() as u64) as usize];
                let _ = member.apply(c_compact(revision));
            }
            if chance.one_in(2) {
                member.store.compact_step(200).unwrap();
            }
            if chance.one_in(20) {
                member.flush();
                member.crash();
            }
            counts(&member, &past, &mut chance);
            buckets_most = buckets_most.max(member.rows(Family::Buckets).len());
        }
        assert!(buckets_most >= 4, "{buckets_most} buckets at most");
        member.ok(c_delete("\0", "\0"));
        assert_eq!(member.view().count(&everything(), 0).unwrap(), 0);
        member.ok(c_compact(member.revision()));
        member.ok(c_put(put("last", "v")));
        member.ok(c_compact(member.revision()));
        while !member.store.compact_step(200).unwrap() {}
        assert_eq!(member.rows(Family::Buckets).len(), 2, "those without a head have all joined again");
    }
}

fn key(chance: &mut Chance) -> String {
    format!("{:04}", chance.below(4000))
}

/// Mostly creations at first, mostly deletions later.
fn commands(chance: &mut Chance, live: &mut BTreeMap<Bytes, ()>, round: u64) -> Vec<Command> {
    let mut commands = Vec::new();
    for _ in 0..120 {
        if chance.below(100) >= round / 2 {
            let key = key(chance);
            live.insert(bytes(&key), ());
            commands.push(c_put(put(&key, "v")));
        } else {
            let from = key(chance);
            let until = format!("{:04}", from.parse::<u64>().unwrap() + chance.below(12));
            live.retain(|key, ()| !(from.as_bytes() <= key.as_ref() && key.as_ref() < until.as_bytes()));
            commands.push(c_delete(&from, &until));
        }
    }
    commands
}

fn counts(member: &Member, past: &[(i64, BTreeMap<Bytes, ()>)], chance: &mut Chance) {
    let view = member.view();
    for _ in 0..6 {
        let (revision, live) = &past[chance.below(past.len() as u64) as usize];
        if *revision < view.compacted() {
            continue;
        }
        let (from, until) = (bytes(&key(chance)), bytes(&key(chance)));
        let inside = |key: &&Bytes| from <= **key && **key < until;
        let wanted = live.keys().filter(inside).count() as i64;
        let span = KeyRange::new(&from, &until);
        assert_eq!(view.count(&span, *revision).unwrap(), wanted, "{span:?} at {revision}");
        let open = KeyRange::AtLeast(from.clone());
        let wanted = live.keys().filter(|key| from <= **key).count() as i64;
        assert_eq!(view.count(&open, *revision).unwrap(), wanted, "{open:?} at {revision}");
        assert_eq!(view.count(&everything(), *revision).unwrap(), live.len() as i64);
    }
    let now = past.last().unwrap();
    assert_eq!(view.count(&everything(), 0).unwrap(), now.1.len() as i64);
}
