//! EIO and ENOSPC at the k-th call of each kind, k = 1..50: dead at once, no answer afterwards, nothing acknowledged lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::sim::{Call, SimFs};
use super::super::{EntryBatch, OpenError, RaftLog};
use super::world::{World, id, open_disk, options, vote};

const ERRNOS: [i32; 2] = [libc::EIO, libc::ENOSPC];

/// How a run with one fault ended.
#[derive(Default)]
struct Ends {
    refused: usize,
    died: usize,
    survived: usize,
    not_struck: usize,
}

/// What every call of a dead log must do.
fn assert_dead(world: &mut World) {
    let acked = world.acked();
    let told = Arc::new(AtomicUsize::new(0));
    let answer = || {
        let told = Arc::clone(&told);
        move |result: std::io::Result<()>| {
            assert!(result.is_err(), "an answer after a fault");
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    let log = &world.log;
    let mut batch = EntryBatch::default();
    batch.push(id(99, world.model.next_index()), |_| {});
    assert!(log.append(batch, answer()).is_err());
    assert!(log.save_vote(vote(99), answer()).is_err());
    assert!(log.barrier(answer()).is_err());
    assert!(log.save_committed(None).is_err());
    assert!(log.truncate_after(None).is_err());
    assert!(log.purge(id(99, u64::MAX)).is_err());
    assert!(log.set_flushed(id(99, 1)).is_err());
    assert!(log.ids().is_err());
    log.tick();
    assert_eq!(told.load(Ordering::SeqCst), 3, "whoever waits is told");
    assert_eq!(world.acked(), acked);
    assert_eq!(world.faults.lock().unwrap().len(), 1, "the fault is told once");
}

fn run(call: Call, k: u64, errno: i32, opened_before: bool, ends: &mut Ends) {
    let seed = k * 100 + errno as u64;
    let fs = SimFs::new(seed);
    let mut world = if opened_before {
        // A log with some past, so that recovery meets the fault.
        let mut world = World::on(fs.clone(), seed).unwrap();
        for _ in 0..60 {
            world.step().unwrap();
        }
        world.log.tick();
        fs.restart();
        fs.fail(call, k, errno);
        if world.reopen().is_err() {
            ends.refused += 1;
            fs.restart();
            world.reopen().unwrap();
            return;
        }
        world
    } else {
        fs.fail(call, k, errno);
        match World::on(fs.clone(), seed) {
            Ok(world) => world,
            Err(OpenError::Io { file, source, .. }) => {
                assert!(file.starts_with("/log") && !source.to_string().is_empty());
                ends.refused += 1;
                fs.power_cycle();
                assert!(open_disk(&fs).is_ok());
                return;
            }
            Err(other) => panic!("{other}"),
        }
    };
    let mut died = false;
    for _ in 0..250 {
        if world.step().is_err() || world.look().is_err() {
            died = true;
            break;
        }
    }
    died |= {
        world.log.tick();
        world.log.ids().is_err()
    };
    match (died, fs.faults_struck()) {
        (true, _) => {
            ends.died += 1;
            assert_dead(&mut world);
        }
        (false, true) => ends.survived += 1,
        (false, false) => ends.not_struck += 1,
    }
    // The process dies and the page cache stays; then, on the same disk, the power goes.
    fs.restart();
    world.reopen().unwrap();
    fs.power_cycle();
    world.reopen().unwrap();
}

fn run_all(opened_before: bool) -> Vec<(Call, Ends)> {
    let mut all = Vec::new();
    for call in Call::ALL {
        let mut ends = Ends::default();
        for k in 1..=50 {
            for errno in ERRNOS {
                run(call, k, errno, opened_before, &mut ends);
            }
        }
        all.push((call, ends));
    }
    all
}

fn assert_each_kind_struck(all: &[(Call, Ends)], not_called: &[Call]) {
    for (call, ends) in all {
        if not_called.contains(call) {
            continue;
        }
        assert!(ends.refused + ends.died + ends.survived > 0, "{call:?} was never struck");
        if matches!(call, Call::Write | Call::SyncData | Call::SyncAll | Call::SyncDir | Call::Rename) {
            assert_eq!(ends.survived, 0, "{call:?} failed and the log went on");
        }
        if matches!(call, Call::Write | Call::SyncData) {
            assert_eq!(ends.not_struck, 0, "{call:?}");
        }
    }
}

#[test]
fn at_any_call_of_a_new_log_the_acknowledged_prefix_survives() {
    // There is no file yet to look into, and nothing to remove.
    assert_each_kind_struck(&run_all(false), &[Call::Open, Call::Size]);
}

#[test]
fn at_any_call_of_an_old_log_the_acknowledged_prefix_survives() {
    assert_each_kind_struck(&run_all(true), &[]);
}

#[test]
fn a_sync_that_failed_is_not_trusted_when_the_next_one_succeeds() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.append(vec!["durable".into()]).unwrap();
        world.log.pump();
        world.fs.fail(Call::SyncData, 1, libc::EIO);
        world.append(vec!["in the page cache only".into()]).unwrap();
        world.log.pump();
        assert_dead(&mut world);
        assert_eq!(world.acked(), 1);
        // The new process reads it from the page cache: from here on it promises it, so it must be on disk.
        world.fs.restart();
        world.reopen().unwrap();
        let promised = world.recs.len();
        assert_eq!(promised, 2);
        world.fs.power_cycle();
        world.reopen().unwrap();
        assert_eq!(world.recs.len(), promised);
    }
}

#[test]
fn a_full_disk_ends_the_log_and_freed_space_revives_it() {
    let mut world = World::new(1);
    // From now on there is no space for another segment.
    for k in 1..=50 {
        world.fs.fail(Call::Preallocate, k, libc::ENOSPC);
    }
    while world.append(vec![vec![1; 900].into()]).is_ok() {
        world.log.pump();
    }
    assert!(world.faults.lock().unwrap()[0].contains("reserve space for"));
    assert_dead(&mut world);
    world.fs.restart();
    world.reopen().unwrap();
    world.append(vec!["after".into()]).unwrap();
    world.log.pump();
    assert_eq!(world.acked(), world.recs.len());
}

#[test]
fn a_wrong_caller_stops_the_log() {
    type Wrong = fn(&RaftLog) -> std::io::Result<()>;
    let wrongs: [(&str, Wrong); 8] = [
        ("hole", |log| wrong_append(log, &[(2, 4)])),
        ("hole", |log| wrong_append(log, &[(2, 2)])),
        ("goes back", |log| wrong_append(log, &[(1, 3)])),
        ("in one append", |log| wrong_append(log, &[(2, 3), (2, 5)])),
        ("committed", |log| log.truncate_after(Some(id(2, 0)))),
        ("the entry there is of", |log| log.truncate_after(Some(id(1, 1)))),
        ("past the end", |log| log.purge(id(2, 3))),
        ("the entry there is of", |log| log.purge(id(1, 1))),
    ];
    for (words, wrong) in wrongs {
        let faults = Arc::<Mutex<Vec<String>>>::default();
        let (log, _threads, _) = RaftLog::open(Arc::new(SimFs::new(1)), options(&faults)).unwrap();
        let mut batch = EntryBatch::default();
        (0..3).for_each(|index| batch.push(id(2, index), |_| {}));
        log.append(batch, |result| result.unwrap()).unwrap();
        log.save_committed(Some(id(2, 1))).unwrap();
        log.pump();
        let error = wrong(&log).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(faults.lock().unwrap().len(), 1);
        assert!(log.ids().is_err());
    }
}

fn wrong_append(log: &RaftLog, ids: &[(u64, u64)]) -> std::io::Result<()> {
    let mut batch = EntryBatch::default();
    ids.iter().for_each(|(term, index)| batch.push(id(*term, *index), |_| {}));
    log.append(batch, |result| assert!(result.is_err()))
}
