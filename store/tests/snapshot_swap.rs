//! Installs under the eyes of readers: who looks sees one state or the other, and never goes back.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_store::engine::{Engine, Family, MemoryEngine, RocksEngine, RocksSettings};
use quorate_store::{Reader, Store, StoreView};

use support::build::{Member, c_compact, c_put, put, range};
use support::install::transfer;

mod support;

/// Every entry writes the revision that it makes.
fn counted(member: &mut Member, entries: u64) {
    for _ in 0..entries {
        let revision = member.revision() + 1;
        member.ok(c_put(put("counter", &revision.to_string())));
    }
}

fn counter(view: &StoreView) -> i64 {
    let found = view.range(&range("counter", "", 0)).unwrap();
    found.kvs.first().map_or(1, |kv| std::str::from_utf8(&kv.value).unwrap().parse().unwrap())
}

/// Tells the others to stop, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks until it is told to stop.
fn look(reader: &Reader, stop: &AtomicBool, looks: &AtomicU64) {
    let (_stop, mut newest) = (Stop(stop), 0);
    while !stop.load(Ordering::Relaxed) {
        let view = reader.view().unwrap();
        assert_eq!(counter(&view), view.revision());
        assert_eq!(view.applied().index as i64, view.revision() - 1);
        assert!(view.revision() >= newest, "{} after {newest}", view.revision());
        newest = view.revision();
        assert!(reader.revision() >= newest);
        assert!(reader.applied().index as i64 >= newest - 1);
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

fn engines() -> (tempfile::TempDir, [Arc<dyn Engine>; 2]) {
    let directory = tempfile::TempDir::new().unwrap();
    let rocks = RocksEngine::open(&directory.path().join("state"), &RocksSettings::default()).unwrap();
    (directory, [Arc::new(MemoryEngine::new()), Arc::new(rocks)])
}

#[test]
fn readers_see_one_state_or_the_other_while_snapshots_are_installed() {
    const INSTALLS: u64 = 12;
    let (_directory, engines) = engines();
    for engine in engines {
        let (mut from, mut to) = (Member::new(), Store::open(engine).unwrap());
        let reader = to.reader();
        let (stop, flushed) = (AtomicBool::new(false), AtomicU64::new(0));
        let looks = [AtomicU64::new(0), AtomicU64::new(0)];
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            for looks in &looks {
                scope.spawn(|| look(&reader, &stop, looks));
            }
            // Flushes and reclaims come from threads of their own, as they do in a member.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let position = reader.flush().unwrap().index;
                    assert!(position >= flushed.swap(position, Ordering::Relaxed));
                    let found = reader.flushed_membership().unwrap();
                    assert!(found.position.index >= position && found.membership.is_empty());
                    reader.reclaim().unwrap();
                }
            });
            for _ in 0..INSTALLS {
                counted(&mut from, 20);
                let received = transfer(&from.store.reader(), &reader, 300).unwrap();
                let installed = to.install(received).unwrap();
                assert_eq!((installed.revision, to.applied()), (from.revision(), from.store.applied()));
                for looks in &looks {
                    let seen = looks.load(Ordering::Relaxed);
                    while looks.load(Ordering::Relaxed) == seen && !stop.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                }
                counted(&mut from, 20);
                for entry in &from.log[to.applied().index as usize..] {
                    to.apply(std::slice::from_ref(entry)).unwrap();
                }
            }
        });
        assert_eq!(reader.reclaim().unwrap(), 0);
        assert_eq!(reader.revision(), 1 + 40 * INSTALLS as i64);
    }
}

#[test]
fn views_from_before_read_on_and_their_files_go_with_the_last_of_them() {
    let (directory, [_, rocks]) = engines();
    let mut from = Member::new();
    let mut to = Store::open(rocks).unwrap();
    let reader = to.reader();
    let mut views = Vec::new();
    for round in 0..4 {
        counted(&mut from, 30);
        if round == 2 {
            let revision = from.revision();
            from.ok(c_compact(revision - 10));
            from.walk();
        }
        let received = transfer(&from.store.reader(), &reader, 4000).unwrap();
        views.push((reader.revision(), reader.view().unwrap()));
        to.install(received).unwrap();
    }
    let generations = || {
        let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "state.current");
        names.sort();
        names
    };
    assert_eq!(reader.reclaim().unwrap(), 4);
    assert_eq!(generations(), ["state", "state.1", "state.2", "state.3", "state.4"]);
    for (revision, view) in &views {
        assert_eq!((view.revision(), counter(view)), (*revision, *revision));
        let versions = view.rows(Family::Revisions).map(Result::unwrap).count();
        assert!(versions as i64 <= *revision);
        for at in view.compacted().max(2)..=*revision {
            let kvs = view.range(&range("counter", "", at)).unwrap().kvs;
            assert_eq!(kvs[0].value, at.to_string());
        }
    }
    // In any order.
    for (gone, left) in [(1, 3), (2, 2), (0, 1), (0, 0)] {
        drop(views.remove(gone));
        assert_eq!(reader.reclaim().unwrap(), left);
        assert_eq!(generations().len(), left + 1);
    }
    assert_eq!(generations(), ["state.4"]);
    assert_eq!(counter(&reader.view().unwrap()), from.revision());
}

/// Compaction that was under way at the sender goes on at the receiver, and ends in the same rows.
#[test]
fn a_compaction_under_way_goes_on_where_it_was() {
    let (_directory, engines) = engines();
    for engine in engines {
        let mut from = Member::new();
        counted(&mut from, 100);
        from.ok(c_compact(80));
        from.store.compact_step(30).unwrap();
        assert!(!from.store.compaction_done());
        let mut to = Store::open(engine).unwrap();
        let received = transfer(&from.store.reader(), &to.reader(), 4000).unwrap();
        to.install(received).unwrap();
        assert!(!to.compaction_done());
        assert_eq!(to.reader().walked(), from.store.reader().walked());
        from.walk();
        while !to.compact_step(7).unwrap() {}
        let rows =
            |view: StoreView| Family::ALL.map(|family| view.rows(family).map(Result::unwrap).collect::<Vec<_>>());
        assert_eq!(rows(to.reader().view().unwrap()), rows(from.view()));
        let hash = |view: StoreView| view.hash_kv(0).unwrap();
        assert_eq!(hash(to.reader().view().unwrap()), hash(from.view()));
    }
}
