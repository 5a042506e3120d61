//! Power cuts at any call, again and again on the same disk.

use std::sync::Arc;

use super::super::RaftLog;
use super::super::sim::SimFs;
use super::world::{Rng, World};

/// One disk through several lives, each ended by a cut at a random call, some while recovering.
fn lives(seed: u64) -> usize {
    let mut rng = Rng(seed);
    let mut world = World::new(seed);
    let mut cuts_while_opening = 0;
    for _ in 0..4 {
        world.fs.cut_power_after(rng.below(220));
        for _ in 0..rng.below(300) {
            if world.step().is_err() || world.look().is_err() {
                break;
            }
        }
        world.fs.power_cycle();
        world.fs.cut_power_after(rng.below(60));
        if world.reopen().is_err() {
            cuts_while_opening += 1;
            world.fs.power_cycle();
            world.reopen().unwrap();
        }
    }
    cuts_while_opening
}

#[test]
fn what_was_acknowledged_is_recovered() {
    let cuts_while_opening: usize = (0..1500).map(lives).sum();
    assert!(cuts_while_opening > 100, "the cuts hit recovery too, {cuts_while_opening} times");
}

#[test]
fn a_kill_without_a_power_cut_loses_nothing_written() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..100 {
                world.step().unwrap();
            }
            world.log.pump();
            let written = world.recs.len();
            world.fs.restart();
            world.reopen().unwrap();
            assert_eq!(world.recs.len(), written);
        }
    }
}

#[test]
fn the_vote_never_goes_back() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        let mut promised = 0;
        for _ in 0..6 {
            world.fs.cut_power_after(world.rng.clone().below(40));
            for _ in 0..10 {
                if world.vote().is_err() {
                    break;
                }
                world.log.pump();
                if world.acked() == world.recs.len() {
                    promised = world.model.vote.unwrap().leader.term;
                }
            }
            world.fs.power_cycle();
            world.reopen().unwrap();
            assert!(world.model.vote.map_or(0, |vote| vote.leader.term) >= promised, "seed {seed}");
            world.rng.next();
        }
    }
}

#[test]
fn a_cut_at_each_call_of_a_roll_keeps_the_acknowledged_prefix() {
    for cut in 0..120 {
        for seed in 0..8 {
            let mut world = World::new(seed);
            world.fs.cut_power_after(cut);
            for _ in 0..40 {
                let bodies = vec![vec![7; 900].into(); 3];
                if world.append(bodies).is_err() {
                    break;
                }
                world.log.pump();
            }
            world.fs.power_cycle();
            world.reopen().unwrap();
        }
    }
}

#[test]
fn a_first_start_that_is_cut_anywhere_starts_again() {
    for cut in 0..30 {
        for seed in 0..20 {
            let fs = SimFs::new(seed);
            fs.cut_power_after(cut);
            let _ = World::on(fs.clone(), seed);
            fs.power_cycle();
            let world = World::on(fs, seed).unwrap();
            assert_eq!(world.log.ids().unwrap().last, None);
        }
    }
}

#[test]
fn without_fsync_a_power_cut_leaves_a_prefix() {
    let reopen = |world: &mut World, fs: &SimFs| {
        let mut options = super::world::options(&world.faults);
        options.fsync = false;
        let (log, threads, _) = RaftLog::open(Arc::new(fs.clone()), options).unwrap();
        world.log = log;
        threads
    };
    for seed in 0..300 {
        let fs = SimFs::new(seed);
        // The files themselves are durable; what is written now is not, and must not claim to be.
        let mut world = World::on(fs.clone(), seed).unwrap();
        for _ in 0..3 {
            fs.restart();
            let _threads = reopen(&mut world, &fs);
            for _ in 0..5 {
                world.append(vec![vec![5; 300].into(); 2]).unwrap();
                world.log.tick();
            }
        }
        fs.power_cycle();
        let _threads = reopen(&mut world, &fs);
        let found = super::world::recovered(&world.log).unwrap();
        assert!(world.prefix_of(&found, 0).is_some());
    }
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    for cut in 0..60 {
        let mut world = World::new(cut);
        // The last one runs through.
        world.fs.cut_power_after(if cut < 59 { cut } else { u64::MAX });
        for length in [10, 40_000, 10, 10, 16 << 10, 100_000] {
            if world.append(vec![vec![9; length].into(), "small".into()]).is_err() {
                break;
            }
            world.log.pump();
        }
        world.fs.power_cycle();
        world.reopen().unwrap();
        assert!(cut < 59 || world.recs.len() == 12);
        world.look().unwrap();
    }
}
