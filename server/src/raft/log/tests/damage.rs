//! Damage at rest, every cut, every bit, and ten thousand at random: all that was acknowledged is there, or the start
//! is refused with file and offset. No panic, no silent loss.

use std::path::{Path, PathBuf};

use super::super::sim::SimFs;
use super::super::{FORMAT_VERSION, OpenError};
use super::world::{Recovered, Rng, World, open_disk, path, recovered, segments};

/// A damage wider than this can take the tail and both other witnesses with it: the stated exception.
const REGION_BYTES_MAX: u64 = 2 << 10;

/// A log of several segments that has been idle for a while, so that its markers are on disk.
fn settled() -> (World, Recovered) {
    let mut world = World::new(11);
    while world.segments().len() < 5 {
        let bodies = (0..4).map(|_| world.body()).collect();
        world.append(bodies).unwrap();
        if world.rng.below(6) == 0 {
            world.vote().unwrap();
        }
        world.log.pump();
    }
    for _ in 0..12 {
        let bodies = vec![vec![5; 200].into(); 4];
        world.append(bodies).unwrap();
        world.log.pump();
    }
    world.log.tick();
    assert_eq!(world.acked(), world.recs.len());
    world.fs.restart();
    let found = recovered(&open_disk(&world.fs.fork()).unwrap().0);
    drop(found);
    let fork = world.fs.fork();
    let (log, _threads, _) = open_disk(&fork).unwrap();
    let found = recovered(&log).unwrap();
    assert_eq!(world.prefix_of(&found, world.recs.len()), Some(world.recs.len()));
    (world, found)
}

/// The last segment that holds records, and where they end.
fn tail(fs: &SimFs) -> (PathBuf, usize) {
    let mut used = segments(fs).into_iter().filter_map(|path| {
        let bytes = fs.bytes(&path)?;
        let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        (end > 4096).then_some((path, end))
    });
    used.next_back().unwrap()
}

#[derive(PartialEq, Debug)]
enum Outcome {
    Whole,
    Refused,
    /// Opened with less: so many records.
    Less(Option<usize>),
}

fn outcome(world: &World, whole: &Recovered, fs: &SimFs) -> Outcome {
    let (log, _threads, _) = match open_disk(fs) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(names_a_place(&error), "{error}");
            return Outcome::Refused;
        }
    };
    let found = recovered(&log).unwrap();
    if found == *whole { Outcome::Whole } else { Outcome::Less(world.prefix_of(&found, 0)) }
}

fn names_a_place(error: &OpenError) -> bool {
    match error {
        OpenError::Damaged { file, .. } => error.to_string().contains("at offset") && file.starts_with("/log"),
        OpenError::Version { file, .. } | OpenError::Missing { file, .. } => file.starts_with("/log"),
        OpenError::Io { .. } => false,
    }
}

#[test]
fn a_tail_zeroed_from_any_byte_is_refused_or_whole() {
    let (world, whole) = settled();
    let (file, end) = tail(&world.fs);
    let mut refused = 0;
    for from in end - (8 << 10)..end {
        let fs = world.fs.fork();
        fs.edit(&file, |bytes| bytes[from..].fill(0));
        match outcome(&world, &whole, &fs) {
            Outcome::Refused => refused += 1,
            // The marker at the end says nothing that the others do not.
            Outcome::Whole => assert!(from >= end - 64, "{from} of {end}"),
            less @ Outcome::Less(_) => panic!("zeroed from {from} of {end}: {less:?}"),
        }
    }
    assert!(refused > 8000);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (world, whole) = settled();
    let (file, end) = tail(&world.fs);
    for length in (end - (8 << 10)..end).chain([0, 1, 4095, 4096]) {
        let fs = world.fs.fork();
        fs.edit(&file, |bytes| bytes.truncate(length));
        assert_eq!(outcome(&world, &whole, &fs), Outcome::Refused, "{length} of {end}");
    }
}

#[test]
fn any_flipped_bit_is_refused_or_harmless() {
    let (world, whole) = settled();
    let (file, end) = tail(&world.fs);
    let mut refused = 0;
    for at in (end - (4 << 10)..end).chain(0..64).chain(500..540).chain(1020..1050) {
        for bit in 0..8 {
            let fs = world.fs.fork();
            fs.edit(&file, |bytes| bytes[at] ^= 1 << bit);
            match outcome(&world, &whole, &fs) {
                Outcome::Refused => refused += 1,
                Outcome::Whole => {
                    let marker_or_spare = at >= end - 64 || (36..4096).contains(&at);
                    assert!(marker_or_spare, "bit {bit} of byte {at} of {end} went unnoticed");
                }
                less @ Outcome::Less(_) => panic!("bit {bit} of byte {at} of {end}: {less:?}"),
            }
        }
    }
    assert!(refused > 32_000);
}

#[test]
fn ten_thousand_random_damages_lose_nothing_silently() {
    let (world, whole) = settled();
    let files = segments(&world.fs);
    let (active, _) = tail(&world.fs);
    let mut rng = Rng(5);
    let mut refused = 0;
    for round in 0..10_000 {
        let fs = world.fs.fork();
        let file = &files[rng.below(files.len() as u64) as usize];
        let what = damage(&fs, file, &files, &mut rng);
        match outcome(&world, &whole, &fs) {
            Outcome::Refused => refused += 1,
            Outcome::Whole => {}
            less @ Outcome::Less(_) => panic!("round {round}, {what} in {file:?} (active {active:?}): {less:?}"),
        }
    }
    assert!(refused > 4000, "{refused}");
}

/// One region of a file, or the file.
fn damage(fs: &SimFs, file: &Path, files: &[PathBuf], rng: &mut Rng) -> String {
    let size = fs.bytes(file).unwrap().len() as u64;
    let from = rng.below(size) as usize;
    let to = (from + 1 + rng.below(REGION_BYTES_MAX) as usize).min(size as usize);
    let other = fs.bytes(&files[rng.below(files.len() as u64) as usize]).unwrap();
    let elsewhere = rng.below((other.len() - (to - from)) as u64) as usize;
    let kind = rng.below(8);
    fs.edit(file, |bytes| match kind {
        0 => bytes[from..to].fill(0),
        1 => bytes[from..to].fill(0xff),
        2 => bytes[from..to].iter_mut().for_each(|byte| *byte = rng.next() as u8),
        3 => bytes[from..to].copy_from_slice(&other[elsewhere..elsewhere + (to - from)]),
        4 => (0..=rng.below(8)).for_each(|_| bytes[from] ^= 1 << rng.below(8)),
        5 => bytes.truncate(from),
        6 => bytes[from..to].rotate_left(1),
        _ => bytes.resize(size as usize + 1 + from, 0),
    });
    format!("kind {kind} at {from}..{to}")
}

#[test]
fn a_segment_that_was_removed_is_missed_by_name() {
    let (world, _) = settled();
    let files = segments(&world.fs);
    let (active, _) = tail(&world.fs);
    for file in files.iter().filter(|file| **file <= active) {
        let fs = world.fs.fork();
        super::super::Fs::remove(&fs, file).unwrap();
        let error = open_disk(&fs).unwrap_err();
        assert!(matches!(&error, OpenError::Missing { file: missing, .. } if missing == file), "{error}");
    }
}

#[test]
fn before_the_marker_only_the_last_batch_is_exposed() {
    let mut world = World::new(3);
    for _ in 0..8 {
        world.append(vec![vec![5; 200].into(); 3]).unwrap();
        world.log.pump();
    }
    let before = world.recs.len();
    world.append(vec![vec![6; 200].into(); 3]).unwrap();
    world.log.pump();
    world.fs.restart();
    let fork = world.fs.fork();
    let (log, _threads, _) = open_disk(&fork).unwrap();
    let whole = recovered(&log).unwrap();
    let (file, end) = tail(&world.fs);
    for from in 4096..end {
        let fs = world.fs.fork();
        fs.edit(&file, |bytes| bytes[from..from + 1].iter_mut().for_each(|byte| *byte = !*byte));
        match outcome(&world, &whole, &fs) {
            Outcome::Refused => {}
            Outcome::Less(Some(count)) => assert!(count >= before, "byte {from}: {count} of {before} records"),
            other => panic!("byte {from}: {other:?}"),
        }
    }
}

#[test]
fn a_log_that_was_cut_goes_on_and_can_be_cut_again() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for round in 0..4 {
            for _ in 0..3 {
                // No zeros at the end of a record: the end is found by them.
                let length = world.rng.below(600) as usize;
                world.append(vec![vec![5; length + 1].into(); 3]).unwrap();
            }
            world.log.pump();
            // What no sync confirmed: garbage behind the end, as a torn write leaves it.
            world.fs.restart();
            let (file, end) = tail(&world.fs);
            let room = world.fs.bytes(&file).unwrap().len() - end;
            let length = (world.rng.below(600) as usize + 1).min(room);
            let garbage: Vec<u8> = (0..length).map(|_| world.rng.next() as u8 | 1).collect();
            world.fs.edit(&file, |bytes| bytes[end..end + length].copy_from_slice(&garbage));
            let written = world.recs.len();
            world.reopen().unwrap();
            assert_eq!(world.recs.len(), written, "seed {seed} round {round}");
            assert!(length == 0 || world.report.cut.is_some());
            let cleared = world.fs.bytes(&file).unwrap();
            assert!(cleared[end..end + length] != garbage[..], "old bytes must not stay behind the new end");
        }
    }
}

#[test]
fn a_copy_of_the_log_as_a_value_is_no_witness() {
    let mut world = World::new(4);
    world.append(vec![vec![5; 100].into(); 3]).unwrap();
    world.log.tick();
    world.log.tick();
    let (file, end) = tail(&world.fs);
    let copy = world.fs.bytes(&file).unwrap()[4096..end].to_vec();
    let mark = world.recs.len();
    world.append(vec![copy.into()]).unwrap();
    world.log.pump();
    world.fs.restart();
    // The entry is torn at its first byte; the heads inside its value remain.
    world.fs.edit(&file, |bytes| bytes[end + 33] ^= 1);
    world.acked.store(mark, std::sync::atomic::Ordering::SeqCst);
    world.reopen().unwrap();
    assert_eq!(world.recs.len(), mark);
}

#[test]
fn an_intact_record_in_the_place_of_another_is_noticed() {
    const VOTE_RECORD_BYTES: usize = 16 + 17;
    let mut world = World::new(6);
    for _ in 0..3 {
        world.vote().unwrap();
    }
    world.log.tick();
    world.log.tick();
    world.fs.restart();
    let (file, _) = tail(&world.fs);
    // Header block, head and carry of the first batch, then the batch of three votes with its head.
    let bytes = world.fs.bytes(&file).unwrap();
    let is_vote = |at: &usize| bytes[at + 8] == 17 && bytes[at + 12] == 4;
    let votes: Vec<usize> = (4096..8192).filter(is_vote).collect();
    assert_eq!(votes.len(), 3);
    let oldest = bytes[votes[0]..votes[0] + VOTE_RECORD_BYTES].to_vec();
    world.fs.edit(&file, |bytes| bytes[votes[2]..votes[2] + VOTE_RECORD_BYTES].copy_from_slice(&oldest));
    assert!(matches!(open_disk(&world.fs), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let (world, _) = settled();
    world.fs.edit(&path(1), |bytes| bytes[8..12].copy_from_slice(&7u32.to_le_bytes()));
    let error = open_disk(&world.fs).unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 7, supported: FORMAT_VERSION, .. }));
    assert_eq!(error.to_string(), "/log/00000001.qlog has log format version 7, this build reads version 1");
}
