//! What may go, when it goes, and what must not go with it.

use std::sync::Arc;

use super::super::RaftLog;
use super::super::sim::{Call, SimFs};
use super::world::{World, id, now, open_disk, recovered, vote};

/// `count` entries in batches of their own, over several segments.
fn filled(seed: u64, count: u64) -> World {
    let mut world = World::new(seed);
    while world.model.next_index() < count {
        world.append(vec![vec![3; 700].into()]).unwrap();
        world.log.pump();
    }
    world
}

fn purged_after_restart(world: &World) -> Option<u64> {
    world.log.pump();
    let fork = world.fs.fork();
    let (log, _threads, _) = open_disk(&fork).unwrap();
    recovered(&log).unwrap().0.purged.map(|id| id.index)
}

#[test]
fn is_held_back_until_the_state_is_flushed() {
    let world = filled(1, 80);
    let files = world.segments().len();
    world.log.purge(id(1, 60)).unwrap();
    assert_eq!(world.log.ids().unwrap().purged, Some(id(1, 60)));
    assert_eq!(now(world.log.read(0..u64::MAX, 1)).unwrap()[0].0, id(1, 61));
    assert_eq!(purged_after_restart(&world), None);
    assert_eq!(world.segments().len(), files);
    // As far as the flush goes, and not further.
    world.log.set_flushed(id(1, 30)).unwrap();
    assert_eq!(purged_after_restart(&world), Some(30));
    let after_a_part = world.segments().len();
    assert!(after_a_part < files);
    world.log.set_flushed(id(1, 75)).unwrap();
    assert_eq!(purged_after_restart(&world), Some(60));
    assert!(world.segments().len() < after_a_part);
}

#[test]
fn removes_whole_segments_and_keeps_what_is_behind() {
    let mut world = filled(2, 100);
    let before = world.segments();
    world.purge(id(1, 49)).unwrap();
    world.log.pump();
    let after = world.segments();
    assert!(after.len() < before.len() && before.ends_with(&after));
    assert_eq!(world.log.stats().segments, after.len() - 1, "one is prepared");
    world.look().unwrap();
    world.fs.power_cycle();
    world.reopen().unwrap();
    assert_eq!(world.model.entries[0].0, id(1, 50));
    assert_eq!(world.model.entries.len(), 50);
}

#[test]
fn keeps_vote_and_committed_of_removed_segments() {
    let mut world = World::new(3);
    world.vote().unwrap();
    world.append(vec!["first".into()]).unwrap();
    world.commit(id(2, 0)).unwrap();
    world.log.pump();
    while world.model.next_index() < 100 {
        world.append(vec![vec![3; 700].into()]).unwrap();
        world.log.pump();
    }
    world.purge(id(2, 90)).unwrap();
    world.log.pump();
    assert!(world.fs.bytes(&super::world::path(1)).is_none());
    world.fs.power_cycle();
    world.reopen().unwrap();
    let ids = world.log.ids().unwrap();
    assert_eq!((ids.vote, ids.committed), (Some(vote(2)), Some(id(2, 0))));
}

#[test]
fn a_cut_at_each_of_its_calls_is_survived() {
    for cut in 0..40 {
        for seed in 0..10 {
            let mut world = filled(seed, 100);
            world.fs.cut_power_after(cut);
            let _ = world.purge(id(1, 80));
            world.log.pump();
            world.fs.power_cycle();
            world.reopen().unwrap();
            world.append(vec!["on".into()]).unwrap();
            world.log.pump();
            assert_eq!(world.acked(), world.recs.len());
        }
    }
}

#[test]
fn past_the_end_makes_last_equal_purged() {
    for crash in [false, true] {
        let mut world = filled(4, 50);
        world.purge(id(1, 70)).unwrap();
        let ids = world.log.ids().unwrap();
        assert_eq!((ids.purged, ids.last), (Some(id(1, 70)), Some(id(1, 70))));
        assert!(now(world.log.read(0..u64::MAX, usize::MAX)).unwrap().is_empty());
        // In one batch with what continues from there.
        world.append(vec!["71".into(), "72".into()]).unwrap();
        world.log.pump();
        if crash {
            world.fs.power_cycle();
            world.reopen().unwrap();
            assert_eq!(world.model.last, Some(id(1, 72)));
        }
        world.append(vec!["73".into()]).unwrap();
        world.log.pump();
        world.look().unwrap();
        assert_eq!(world.log.last_ids(0..=u64::MAX).unwrap().last().copied(), Some(id(1, u64::MAX)));
    }
}

#[test]
fn the_state_may_be_ahead_of_a_log_that_lost_its_tail() {
    for seed in 0..100 {
        let mut world = filled(seed, 20);
        // Applied and flushed by the state machine, not yet synced by the log, when the power goes.
        world.append(vec!["20".into(), "21".into()]).unwrap();
        world.fs.power_cycle();
        world.reopen().unwrap();
        assert_eq!(world.model.last, Some(id(1, 19)));
        world.purge(id(1, 21)).unwrap();
        world.append(vec!["22".into()]).unwrap();
        world.log.pump();
        world.fs.power_cycle();
        world.reopen().unwrap();
        assert_eq!((world.model.purged, world.model.last), (Some(id(1, 21)), Some(id(1, 22))));
    }
}

#[test]
fn of_an_empty_log_is_where_it_begins() {
    let mut world = World::new(5);
    world.purge(id(3, 500)).unwrap();
    world.log.pump();
    world.fs.power_cycle();
    world.reopen().unwrap();
    let ids = world.log.ids().unwrap();
    assert_eq!((ids.purged, ids.last), (Some(id(3, 500)), Some(id(3, 500))));
}

#[test]
fn a_removal_that_fails_ends_the_log() {
    let mut world = filled(6, 100);
    world.fs.fail(Call::Remove, 1, libc::EIO);
    world.purge(id(1, 80)).unwrap();
    world.log.pump();
    assert!(world.faults.lock().unwrap()[0].starts_with("remove /log/00000001.qlog"));
    assert!(world.log.ids().is_err());
}

#[test]
fn an_empty_directory_is_a_new_log() {
    let mut world = filled(7, 100);
    world.vote().unwrap();
    world.log.pump();
    let (log, _threads, report) = open_disk(&SimFs::new(7)).unwrap();
    assert_eq!(log.ids().unwrap(), super::super::LogIds::default());
    assert_eq!((report.entries, report.cut), (0, None));
}

#[test]
fn a_log_begins_at_zero_unless_told_otherwise() {
    let mut options = super::world::options(&Arc::default());
    options.any_first_index = true;
    let fs = SimFs::new(8);
    let (log, _threads, _) = RaftLog::open(Arc::new(fs.clone()), options).unwrap();
    let mut batch = super::super::EntryBatch::default();
    batch.push(id(1, 5), |_| {});
    log.append(batch, |result| result.unwrap()).unwrap();
    log.pump();
    let (log, _threads, _) = open_disk(&fs.fork()).unwrap();
    assert_eq!(recovered(&log).unwrap().0.entries[0].0, id(1, 5));
    let (log, _threads, _) = open_disk(&SimFs::new(9)).unwrap();
    let mut batch = super::super::EntryBatch::default();
    batch.push(id(1, 5), |_| {});
    assert!(log.append(batch, |result| assert!(result.is_err())).is_err());
}
