//! What only the disk engine can get wrong: partial flushes, killed processes, damage, full or lost directories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod engine_support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use engine_support::{Chance, Subject, put, rows};
use quorate_store::Fault;
use quorate_store::engine::{Batch, Direction, Engine, Family, RocksEngine, RocksSettings, Span};
use tempfile::TempDir;

/// Memtables so small that RocksDB flushes by itself all the time.
fn tight() -> RocksSettings {
    RocksSettings { memtable_bytes: 256 << 10, ..RocksSettings::default() }
}

/// Batch `number` touches every family in another amount, so that families flushed apart would show.
fn numbered(number: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Family::Meta, "applied", number.to_be_bytes().to_vec());
    batch.put(Family::Revisions, number.to_be_bytes().to_vec(), vec![number as u8; 200]);
    batch.put(Family::Heads, (number % 100).to_be_bytes().to_vec(), number.to_be_bytes().to_vec());
    if number > 50 {
        batch.delete(Family::Tallies, (number - 50).to_be_bytes().to_vec());
    }
    batch.put(Family::Tallies, number.to_be_bytes().to_vec(), "");
    if number.is_multiple_of(1000) {
        batch.put(Family::Cluster, "thousands", number.to_be_bytes().to_vec());
    }
    batch
}

fn number(bytes: &Bytes) -> u64 {
    u64::from_be_bytes(bytes[..].try_into().unwrap())
}

/// The number of the last batch, after checking that exactly batches 1..=that are there.
fn whole_prefix(engine: &dyn Engine) -> u64 {
    let view = engine.view();
    let applied = view.get(Family::Meta, b"applied").unwrap().as_ref().map_or(0, number);
    let keys = |family| {
        rows(&*view, family, Span::all(), Direction::Forward).iter().map(|(key, _)| number(key)).collect::<Vec<_>>()
    };
    assert_eq!(keys(Family::Revisions), (1..=applied).collect::<Vec<_>>());
    let first = applied.saturating_sub(49).max(1);
    assert_eq!(keys(Family::Tallies), (first..=applied).collect::<Vec<_>>());
    for (key, value) in rows(&*view, Family::Heads, Span::all(), Direction::Forward) {
        let newest = (applied - number(&value)) / 100;
        assert_eq!((newest, number(&value) % 100), (0, number(&key)));
    }
    let thousands = view.get(Family::Cluster, b"thousands").unwrap().as_ref().map_or(0, number);
    assert_eq!(thousands, applied - applied % 1000);
    applied
}

#[test]
fn flushes_that_rocksdb_starts_itself_keep_whole_batches() {
    let mut subject = Subject::rocks_with(tight());
    let mut kept = 0;
    for round in 1..=4 {
        for number in kept + 1..=kept + 6000 {
            subject.engine().write(numbered(number)).unwrap();
        }
        let written = kept + 6000;
        subject.crash();
        kept = whole_prefix(subject.engine());
        assert!(kept > (round - 1) * 1000 && kept <= written, "round {round}: {kept} of {written}");
    }
}

const CHILD: &str = "ENGINE_KILL_CHILD";

/// Not a test of its own: the process that the next test kills. It writes, flushes, and says what it flushed.
#[test]
fn killed_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let engine = RocksEngine::open(Path::new(&path), &tight()).unwrap();
    let mut out = std::io::stdout().lock();
    let mut number = engine.get(Family::Meta, b"applied").unwrap().as_ref().map_or(0, self::number);
    loop {
        number += 1;
        engine.write(numbered(number)).unwrap();
        if number.is_multiple_of(700) {
            engine.flush().unwrap();
            writeln!(out, "flushed {number}").unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_whole_batches_and_every_flushed_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("db");
    let mut chance = Chance(5);
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed_child", "--exact", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let flushed = |line: String| line.strip_prefix("flushed ").map(|number| number.parse::<u64>().unwrap());
            let mut last = 0;
            while let Some(Ok(line)) = lines.next() {
                last = flushed(line).unwrap_or(last);
            }
            last
        });
        std::thread::sleep(Duration::from_millis(30 + chance.below(220)));
        child.kill().unwrap();
        child.wait().unwrap();
        let flushed = reader.join().unwrap();
        if path.join("CURRENT").exists() {
            let engine = RocksEngine::open(&path, &tight()).unwrap();
            let applied = whole_prefix(&engine);
            assert!(applied >= flushed, "round {round}: {applied} left, {flushed} flushed");
        } else {
            assert_eq!(flushed, 0, "round {round}");
        }
    }
}

#[test]
fn two_engines_do_not_share_a_directory() {
    let directory = TempDir::new().unwrap();
    let engine = RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap();
    let refused = |why: &str| {
        let text = RocksEngine::open(directory.path(), &RocksSettings::default()).err().unwrap().to_string();
        assert!(
            text.contains("has it open") && text.contains(&directory.path().display().to_string()),
            "{why}: {text}"
        );
    };
    refused("the engine lives");
    let view = engine.view();
    drop(engine);
    refused("a view lives");
    drop(view);
    RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap();
}

#[test]
fn families_of_a_newer_release_are_refused_by_name() {
    let directory = TempDir::new().unwrap();
    drop(RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap());
    let names: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), directory.path(), names).unwrap();
    db.create_cf("watermarks", &rocksdb::Options::default()).unwrap();
    drop(db);
    let refused = RocksEngine::open(directory.path(), &RocksSettings::default()).err().unwrap();
    assert!(matches!(&refused, Fault::Data(text) if text.contains("watermarks unknown to this release")), "{refused}");
}

#[test]
fn families_that_an_older_release_did_not_have_are_added() {
    let directory = TempDir::new().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, directory.path(), ["meta", "heads"]).unwrap());
    let engine = RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap();
    engine.write(put(Family::Cluster, "key", "value")).unwrap();
    assert_eq!(engine.get(Family::Cluster, b"key").unwrap().unwrap(), "value");
}

fn files(directory: &Path, kind: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = all.filter(|path| path.file_name().unwrap().to_string_lossy().contains(kind)).collect();
    assert!(!found.is_empty());
    found
}

/// Damages every file of one kind in a database of flushed rows, then reads all of it.
fn damaged(kind: &str, damage: impl Fn(&mut Vec<u8>)) -> Result<(), Fault> {
    let directory = TempDir::new().unwrap();
    let engine = RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap();
    for number in 1..=2000 {
        engine.write(numbered(number)).unwrap();
    }
    engine.flush().unwrap();
    drop(engine);
    for file in files(directory.path(), kind) {
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
    }
    let engine = RocksEngine::open(directory.path(), &RocksSettings::default())?;
    let view = engine.view();
    for family in Family::ALL {
        view.scan(family, Span::all(), Direction::Forward).try_for_each(|row| row.map(drop))?;
    }
    Ok(())
}

#[test]
fn damage_on_disk_is_a_fault_and_never_a_shorter_answer() {
    damaged(".sst", |_| ()).unwrap();
    for eighth in 0..8 {
        let flipped = damaged(".sst", |bytes| {
            let place = bytes.len() * eighth / 8;
            bytes[place] ^= 0x40;
        });
        assert!(matches!(flipped, Err(Fault::Data(_))), "{eighth}/8: {flipped:?}");
    }
    let cut = damaged(".sst", |bytes| bytes.truncate(bytes.len() / 2));
    assert!(matches!(cut, Err(Fault::Data(_))), "{cut:?}");
    let flipped = damaged("MANIFEST-", |bytes| {
        let place = bytes.len() / 2;
        bytes[place] ^= 0x40;
    });
    assert!(flipped.is_err(), "{flipped:?}");
    let empty = damaged("CURRENT", Vec::clear);
    assert!(empty.is_err(), "{empty:?}");
}

#[test]
fn the_first_failed_flush_is_the_last_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("db");
    let engine = RocksEngine::open(&path, &RocksSettings::default()).unwrap();
    engine.write(numbered(1)).unwrap();
    let lost = directory.path().join("lost");
    fs::rename(&path, &lost).unwrap();
    let first = engine.flush().unwrap_err().to_string();
    assert!(first.contains("flush"), "{first}");
    fs::rename(&lost, &path).unwrap(); // the disk is back: too late
    assert_eq!(engine.flush().unwrap_err().to_string(), first);
    assert_eq!(engine.write(numbered(2)).unwrap_err().to_string(), first);
    assert_eq!(engine.checkpoint(&directory.path().join("copy")).unwrap_err().to_string(), first);
    drop(engine);
    let engine = RocksEngine::open(&path, &RocksSettings::default()).unwrap();
    assert_eq!(whole_prefix(&engine), 0);
}

#[test]
fn a_failed_background_flush_stops_writes_soon() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("db");
    let engine = RocksEngine::open(&path, &tight()).unwrap();
    fs::rename(&path, directory.path().join("lost")).unwrap();
    let failed = (1..100_000).find_map(|number| engine.write(numbered(number)).err().map(|fault| (number, fault)));
    let (number, fault) = failed.expect("writes go on without a disk");
    eprintln!("batch {number}: {fault}");
    assert!(number < 20_000, "only after {number} batches: {fault}");
    assert_eq!(engine.write(numbered(1)).unwrap_err().to_string(), fault.to_string());
}

/// RocksDB says nothing to anybody when a compaction fails: it counts.
#[test]
fn a_failed_compaction_stops_the_engine() {
    let directory = TempDir::new().unwrap();
    let engine = RocksEngine::open(directory.path(), &RocksSettings::default()).unwrap();
    for number in 1..=2000 {
        engine.write(numbered(number)).unwrap();
    }
    engine.flush().unwrap();
    for file in files(directory.path(), ".sst") {
        let mut bytes = fs::read(&file).unwrap();
        bytes[100] ^= 0x40;
        fs::write(&file, bytes).unwrap();
    }
    let first = engine.compact_family(Family::Revisions).unwrap_err().to_string();
    assert!(first.contains("background"), "{first}");
    assert_eq!(engine.write(numbered(2001)).unwrap_err().to_string(), first);
    assert_eq!(engine.flush().unwrap_err().to_string(), first);
}

#[test]
fn compaction_gives_back_what_was_deleted() {
    let subject = Subject::rocks();
    let engine = subject.as_rocks().unwrap();
    for number in 0..4000_u64 {
        engine.write(put(Family::Revisions, number.to_be_bytes().to_vec(), vec![7; 1000])).unwrap();
    }
    engine.flush().unwrap();
    let full = engine.physical_bytes();
    for number in 0..3900_u64 {
        let mut batch = Batch::default();
        batch.delete(Family::Revisions, number.to_be_bytes().to_vec());
        engine.write(batch).unwrap();
    }
    engine.compact_family(Family::Revisions).unwrap();
    let compacted = engine.physical_bytes();
    assert!(compacted < full / 5, "{full} -> {compacted}");
    assert_eq!(rows(&*engine.view(), Family::Revisions, Span::all(), Direction::Forward).len(), 100);
    let stats = engine.stats();
    assert!(stats.table_bytes > 0 && stats.snapshots == 0, "{stats:?}");
}
