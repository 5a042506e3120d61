//! The contract of `Engine`, promise by promise, on both engines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod engine_support;

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use engine_support::{Chance, Model, Subject, apply, model_rows, put, rows, scratch, state};
use quorate_store::engine::{Batch, Direction, Engine, Family, MemoryEngine, Span};

macro_rules! on_both_engines {
    ($($promise:ident),* $(,)?) => {
        mod memory { $(#[test] fn $promise() { super::$promise(super::Subject::memory()); })* }
        mod rocks { $(#[test] fn $promise() { super::$promise(super::Subject::rocks()); })* }
    };
}

on_both_engines! {
    a_batch_is_seen_whole_as_soon_as_it_is_written,
    later_changes_of_a_key_win_inside_a_batch,
    families_do_not_share_keys,
    every_pair_of_bounds_gives_what_the_definition_gives,
    a_scan_can_be_left_at_any_row,
    odd_keys_and_values_come_back,
    a_view_stays_as_it_was,
    a_view_outlives_deletes_flushes_and_the_engine,
    views_see_whole_batches_while_another_thread_writes,
    get_flushed_knows_nothing_before_a_flush,
    a_flush_keeps_everything_over_a_crash,
    a_crash_loses_exactly_the_batches_after_the_last_flush,
    a_checkpoint_and_its_origin_go_separate_ways,
    a_checkpoint_covers_what_was_not_flushed,
    a_checkpoint_refuses_a_directory_that_exists,
    physical_bytes_grow_with_the_data,
}

fn a_batch_is_seen_whole_as_soon_as_it_is_written(subject: Subject) {
    let engine = subject.engine();
    let mut batch = Batch::default();
    for family in Family::ALL {
        batch.put(family, "key", family.name());
    }
    engine.write(batch).unwrap();
    let view = engine.view();
    for family in Family::ALL {
        assert_eq!(engine.get(family, b"key").unwrap().unwrap(), family.name());
        assert_eq!(view.get(family, b"key").unwrap().unwrap(), family.name());
        assert_eq!(engine.get(family, b"other").unwrap(), None);
    }
    let mut batch = Batch::default();
    batch.delete(Family::Heads, "key");
    batch.delete(Family::Heads, "was never there");
    engine.write(batch).unwrap();
    assert_eq!(engine.get(Family::Heads, b"key").unwrap(), None);
    engine.write(Batch::default()).unwrap();
}

fn later_changes_of_a_key_win_inside_a_batch(subject: Subject) {
    let engine = subject.engine();
    let mut batch = Batch::default();
    batch.put(Family::Heads, "a", "1");
    batch.put(Family::Heads, "a", "2");
    batch.put(Family::Heads, "b", "1");
    batch.delete(Family::Heads, "b");
    batch.delete(Family::Heads, "c");
    batch.put(Family::Heads, "c", "3");
    engine.write(batch).unwrap();
    let found = rows(&*engine.view(), Family::Heads, Span::all(), Direction::Forward);
    assert_eq!(found, [("a".into(), "2".into()), ("c".into(), "3".into())]);
}

fn families_do_not_share_keys(subject: Subject) {
    let engine = subject.engine();
    engine.write(put(Family::Leases, "key", "lease")).unwrap();
    let others = Family::ALL.into_iter().filter(|family| *family != Family::Leases);
    let view = engine.view();
    for family in others {
        assert_eq!(view.get(family, b"key").unwrap(), None);
        assert_eq!(rows(&*view, family, Span::all(), Direction::Forward), []);
    }
}

/// Keys at the edges of byte order: empty, zeros, prefixes of each other, 0xff runs.
const EDGES: [&[u8]; 13] = [
    b"",
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"a",
    b"a\x00",
    b"a\x00\x00",
    b"a\x01",
    b"ab",
    b"b",
    b"\xff",
    b"\xff\x00",
    b"\xff\xff",
];

fn every_pair_of_bounds_gives_what_the_definition_gives(subject: Subject) {
    let engine = subject.engine();
    let bounds: Vec<Bound<Bytes>> = EDGES
        .iter()
        .flat_map(|key| [Bound::Included(Bytes::from_static(key)), Bound::Excluded(Bytes::from_static(key))])
        .chain([Bound::Unbounded])
        .collect();
    // Every key is there in one family, every second in two more, none in another; then the same again from disk.
    let mut model = Model::new();
    for flushed in [false, true] {
        for (place, key) in EDGES.iter().enumerate() {
            let mut batch = put(Family::Heads, *key, *key);
            batch.put([Family::Revisions, Family::Tallies][place % 2], *key, "half");
            apply(&mut model, &batch);
            engine.write(batch).unwrap();
        }
        if flushed {
            engine.flush().unwrap();
        }
        let view = engine.view();
        for family in [Family::Heads, Family::Revisions, Family::Tallies, Family::Meta] {
            for (from, until) in bounds.iter().flat_map(|from| bounds.iter().map(move |until| (from, until))) {
                let span = Span { from: from.clone(), until: until.clone() };
                for direction in [Direction::Forward, Direction::Backward] {
                    let found = rows(&*view, family, span.clone(), direction);
                    assert_eq!(
                        found,
                        model_rows(&model, family, &span, direction),
                        "{family:?} {span:?} {direction:?}"
                    );
                }
            }
        }
    }
}

fn a_scan_can_be_left_at_any_row(subject: Subject) {
    let engine = subject.engine();
    let mut batch = Batch::default();
    for number in 0..1000_u32 {
        batch.put(Family::Revisions, number.to_be_bytes().to_vec(), "");
    }
    engine.write(batch).unwrap();
    let view = engine.view();
    for direction in [Direction::Forward, Direction::Backward] {
        let whole = rows(&*view, Family::Revisions, Span::all(), direction);
        assert_eq!(whole.len(), 1000);
        for limit in [0, 1, 2, 999] {
            let part: Vec<_> = view.scan(Family::Revisions, Span::all(), direction).take(limit).collect();
            assert_eq!(part.into_iter().map(Result::unwrap).collect::<Vec<_>>(), whole[..limit]);
        }
        let mut scan = view.scan(Family::Revisions, Span::half_open("", ""), direction);
        assert!(scan.next().is_none() && scan.next().is_none());
        let mut scan = view.scan(Family::Revisions, Span::all(), direction);
        assert_eq!(scan.by_ref().count(), 1000);
        assert!(scan.next().is_none(), "what has ended stays ended");
    }
}

fn odd_keys_and_values_come_back(subject: Subject) {
    let engine = subject.engine();
    let long = vec![0xff; 70_000];
    let values = [Bytes::new(), Bytes::from_static(b"\x00"), Bytes::from(vec![0; 2 << 20])];
    for value in values {
        for key in EDGES.into_iter().chain([&*long]) {
            engine.write(put(Family::Heads, key.to_vec(), value.clone())).unwrap();
            assert_eq!(engine.get(Family::Heads, key).unwrap().unwrap(), value);
        }
        engine.flush().unwrap();
        let found = rows(&*engine.view(), Family::Heads, Span::all(), Direction::Forward);
        assert_eq!(found.len(), EDGES.len() + 1);
        assert!(found.iter().all(|(_, found)| *found == value));
    }
}

fn a_view_stays_as_it_was(subject: Subject) {
    let engine = subject.engine();
    let mut chance = Chance(7);
    let mut model = Model::new();
    let mut kept = Vec::new();
    for round in 0..600 {
        let batch = chance.batch();
        apply(&mut model, &batch);
        engine.write(batch).unwrap();
        if round % 60 == 0 {
            kept.push((engine.view(), model.clone()));
        }
        if round % 100 == 0 {
            engine.flush().unwrap();
        }
    }
    for (view, model) in kept {
        assert_eq!(state(&*view), model);
    }
}

fn a_view_outlives_deletes_flushes_and_the_engine(subject: Subject) {
    let engine = subject.engine();
    engine.write(put(Family::Heads, "key", "old")).unwrap();
    engine.flush().unwrap();
    let view = engine.view();
    let mut batch = Batch::default();
    batch.delete(Family::Heads, "key");
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    if let Some(rocks) = subject.as_rocks() {
        rocks.compact_all().unwrap();
    }
    assert_eq!(engine.get(Family::Heads, b"key").unwrap(), None);
    let directory = match subject {
        Subject::Memory(engine) => {
            drop(engine);
            None
        }
        Subject::Rocks { engine, directory, .. } => {
            drop(engine);
            Some(directory)
        }
    };
    assert_eq!(view.get(Family::Heads, b"key").unwrap().unwrap(), "old");
    assert_eq!(rows(&*view, Family::Heads, Span::all(), Direction::Backward), [("key".into(), "old".into())]);
    drop(view);
    drop(directory);
}

fn views_see_whole_batches_while_another_thread_writes(subject: Subject) {
    let engine = subject.engine();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0..3000_u32 {
                let mut batch = Batch::default();
                for family in Family::ALL {
                    batch.put(family, "number", number.to_be_bytes().to_vec());
                    batch.put(family, number.to_be_bytes().to_vec(), "");
                }
                engine.write(batch).unwrap();
                if number % 1000 == 999 {
                    engine.flush().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut newest = None;
        while !done.load(Ordering::Acquire) {
            let view = engine.view();
            let number = view.get(Family::Meta, b"number").unwrap();
            assert!(number >= newest, "a later view shows no less");
            for family in Family::ALL {
                assert_eq!(view.get(family, b"number").unwrap(), number);
            }
            if let Some(number) = &number {
                let number = u32::from_be_bytes(number[..].try_into().unwrap());
                let found = view.scan(Family::Revisions, Span::all(), Direction::Backward).nth(1).unwrap().unwrap();
                assert_eq!(found.0, number.to_be_bytes()[..]);
            }
            newest = number;
        }
    });
}

fn get_flushed_knows_nothing_before_a_flush(subject: Subject) {
    let engine = subject.engine();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap(), None);
    engine.write(put(Family::Meta, "applied", "1")).unwrap();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap(), None);
    engine.flush().unwrap();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap().unwrap(), "1");
    engine.write(put(Family::Meta, "applied", "2")).unwrap();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap().unwrap(), "1");
    assert_eq!(engine.get(Family::Meta, b"applied").unwrap().unwrap(), "2");
    let mut batch = Batch::default();
    batch.delete(Family::Meta, "applied");
    engine.write(batch).unwrap();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap().unwrap(), "1");
    engine.flush().unwrap();
    assert_eq!(engine.get_flushed(Family::Meta, b"applied").unwrap(), None);
}

fn a_flush_keeps_everything_over_a_crash(mut subject: Subject) {
    let mut chance = Chance(11);
    let mut model = Model::new();
    for _ in 0..5 {
        for _ in 0..200 {
            let batch = chance.batch();
            apply(&mut model, &batch);
            subject.engine().write(batch).unwrap();
        }
        subject.engine().flush().unwrap();
        subject.engine().flush().unwrap();
        subject.crash();
        assert_eq!(state(&*subject.engine().view()), model);
    }
}

fn a_crash_loses_exactly_the_batches_after_the_last_flush(mut subject: Subject) {
    let mut chance = Chance(13);
    let mut model = Model::new();
    for round in 0..5 {
        for number in 0..100 {
            let batch = chance.batch();
            if number < 50 {
                apply(&mut model, &batch);
            }
            subject.engine().write(batch).unwrap();
            if number == 49 {
                subject.engine().flush().unwrap();
            }
        }
        assert_ne!(state(&*subject.engine().view()), model);
        subject.crash();
        assert_eq!(state(&*subject.engine().view()), model, "round {round}");
    }
}

fn a_checkpoint_and_its_origin_go_separate_ways(subject: Subject) {
    let engine = subject.engine();
    let (_keep, copy) = scratch();
    let mut chance = Chance(17);
    let mut model = Model::new();
    for number in 0..400 {
        let batch = chance.batch();
        apply(&mut model, &batch);
        engine.write(batch).unwrap();
        if number == 200 {
            engine.flush().unwrap();
        }
    }
    let view = engine.view();
    engine.checkpoint(&copy).unwrap();
    for _ in 0..400 {
        engine.write(chance.batch()).unwrap();
    }
    engine.write(put(Family::Heads, "of the origin", "")).unwrap();
    engine.flush().unwrap();
    if let Some(rocks) = subject.as_rocks() {
        rocks.compact_all().unwrap();
    }
    let after = state(&*engine.view());
    let other = subject.open_checkpoint(&copy);
    assert_eq!(state(&*other.view()), model);
    assert_eq!(state(&*view), model);
    other.write(put(Family::Heads, "of the copy", "")).unwrap();
    other.flush().unwrap();
    assert_eq!(state(&*engine.view()), after);
    apply(&mut model, &put(Family::Heads, "of the copy", ""));
    assert_eq!(state(&*other.view()), model);
}

fn a_checkpoint_covers_what_was_not_flushed(mut subject: Subject) {
    let (_keep, copy) = scratch();
    subject.engine().write(put(Family::Meta, "applied", "9")).unwrap();
    subject.engine().checkpoint(&copy).unwrap();
    assert_eq!(subject.engine().get_flushed(Family::Meta, b"applied").unwrap().unwrap(), "9");
    let other = subject.open_checkpoint(&copy);
    assert_eq!(other.get(Family::Meta, b"applied").unwrap().unwrap(), "9");
    assert_eq!(other.get_flushed(Family::Meta, b"applied").unwrap().unwrap(), "9");
    subject.crash();
    assert_eq!(subject.engine().get(Family::Meta, b"applied").unwrap().unwrap(), "9");
}

fn a_checkpoint_refuses_a_directory_that_exists(subject: Subject) {
    let (keep, copy) = scratch();
    let refused = subject.engine().checkpoint(keep.path()).unwrap_err().to_string();
    assert!(refused.contains(&keep.path().display().to_string()), "{refused}");
    subject.engine().checkpoint(&copy).unwrap();
    subject.engine().checkpoint(&copy).unwrap_err();
    subject.engine().write(put(Family::Heads, "key", "goes on")).unwrap();
}

fn physical_bytes_grow_with_the_data(subject: Subject) {
    let engine = subject.engine();
    let before = engine.physical_bytes();
    for number in 0..64_u32 {
        engine.write(put(Family::Heads, number.to_be_bytes().to_vec(), vec![1; 64 << 10])).unwrap();
    }
    let written = engine.physical_bytes();
    assert!(written >= before + (4 << 20), "{before} -> {written}");
    engine.flush().unwrap();
    assert!(engine.physical_bytes() >= before + (4 << 20));
}

#[test]
fn checkpoints_in_memory_are_equal_for_equal_states_and_refuse_damage() {
    let build = |order: &[u32]| {
        let engine = MemoryEngine::new();
        for number in order {
            engine.write(put(Family::Heads, number.to_be_bytes().to_vec(), "value")).unwrap();
        }
        let (keep, copy) = scratch();
        engine.checkpoint(&copy).unwrap();
        let file = copy.join("memory-engine");
        (keep, copy, std::fs::read(file).unwrap())
    };
    let (_keep, _, forward) = build(&[1, 2, 3]);
    let (_keep, copy, backward) = build(&[3, 1, 2, 3]);
    assert_eq!(forward, backward);
    for place in 0..forward.len() {
        let mut damaged = forward.clone();
        damaged[place] ^= 0x10;
        for bytes in [&damaged[..], &forward[..place]] {
            std::fs::write(copy.join("memory-engine"), bytes).unwrap();
            assert!(MemoryEngine::restore(&copy).is_err(), "byte {place}");
        }
    }
}
