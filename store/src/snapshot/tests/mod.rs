//! Crashes and full disks at every step of an install: what a start finds is the old state or the new one, and nothing
//! else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};
use tempfile::TempDir;

use super::{InstallError, TransferError};
use crate::engine::{Engine, MemoryEngine, RocksEngine, RocksSettings, steps};
use crate::{Entry, Fault, LogPosition, Payload, ReceivedSnapshot, Store};

mod crash;
mod layout;

/// Puts of `value`, one in each entry.
fn entries(from: u64, until: u64, value: &str) -> Vec<Entry> {
    let entry = |index: u64| {
        let key = format!("key-{:03}", index % 40).into();
        let put = pb::PutRequest { key, value: format!("{value} {index}").into(), ..Default::default() };
        let proposal = log::Proposal { command: Some(Command::Put(put)), ..Default::default() };
        let batch = log::Batch { proposals: vec![proposal] }.encode_to_vec();
        Entry { position: LogPosition { index, term: 1 }, payload: Payload::Batch(batch.into()) }
    };
    (from..=until).map(entry).collect()
}

/// A member's directory with an engine in it, in `state`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> Store {
        open(self.0.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

fn open(directory: &Path) -> Result<Store, Fault> {
    let settings = RocksSettings { memtable_bytes: 1 << 20, ..RocksSettings::default() };
    Store::open(Arc::new(RocksEngine::open(&directory.join("state"), &settings)?))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// As it is at one moment: RocksDB may be at work in the background, and a copy during which something moved is made again.
fn copy(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        let copied = before.iter().try_for_each(|(name, _)| {
            let (from, to) = (from.join(name), to.join(name));
            fs::create_dir_all(to.parent().unwrap())?;
            fs::copy(from, to).map(drop)
        });
        if copied.is_ok() && listing(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

/// Every file below `directory`, with its length.
fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for name in names(directory) {
        let path = directory.join(&name);
        if path.is_dir() {
            found.extend(listing(&path).into_iter().map(|(below, bytes)| (Path::new(&name).join(below), bytes)));
        } else {
            // Gone already: then the next listing differs.
            found.push((name.into(), fs::metadata(&path).map_or(u64::MAX, |found| found.len())));
        }
    }
    found
}

/// A store in memory that has applied `count` entries.
fn sender(count: u64) -> Store {
    let mut store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
    store.apply(&entries(1, count, "value")).unwrap();
    store
}

/// Gives a snapshot of `from` to `to`, and says when a chunk was taken.
fn transfer(from: &Store, to: &Store, mut taken: impl FnMut()) -> Result<ReceivedSnapshot, TransferError> {
    let mut chunks = from.reader().snapshot().unwrap().with_chunk_bytes(700).map(Result::unwrap);
    let mut sink = to.reader().receive(&chunks.next().unwrap())?;
    taken();
    for chunk in chunks {
        sink.push(&chunk)?;
        taken();
    }
    sink.finish()
}

/// `revision` and every row.
fn contents(store: &Store) -> Vec<(i64, Bytes, Bytes)> {
    let view = store.reader().view().unwrap();
    let mut rows = vec![(view.revision(), Bytes::new(), Bytes::new())];
    for family in crate::engine::Family::ALL {
        rows.extend(view.rows(family).map(Result::unwrap).map(|(key, value)| (family as i64, key, value)));
    }
    rows
}
