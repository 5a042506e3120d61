//! openraft's own tests of a log storage, over a real directory with threads and over the disk in memory without.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use openraft::alias::{LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};

use super::super::sim::SimFs;
use super::super::{Driver, Fs, LogOptions, LogStore, LogThreads, RaftLog, RawLeader, RawLogId, StdFs};
use super::types::{Codec, MemoryMachine, Types};

type Store = LogStore<Types, Codec>;

fn open(fs: Arc<dyn Fs>, dir: &Path, driver: Driver) -> (LogThreads, Store) {
    let mut options = LogOptions::new(dir, Arc::new(|reason: &str| panic!("the suite found a fault: {reason}")));
    options.segment_bytes = 8 << 10;
    options.tail_cache_bytes_max = 256;
    options.any_first_index = true;
    options.driver = driver;
    let (log, threads, _) = RaftLog::open(fs, options).unwrap();
    // The suite purges without a state machine that flushes.
    log.set_flushed(RawLogId { leader: RawLeader::default(), index: u64::MAX }).unwrap();
    (threads, LogStore::new(log))
}

struct OnDisk;

impl StoreBuilder<Types, Store, MemoryMachine, (LogThreads, tempfile::TempDir)> for OnDisk {
    async fn build(&self) -> Result<((LogThreads, tempfile::TempDir), Store, MemoryMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let (threads, store) = open(Arc::new(StdFs::default()), dir.path(), Driver::Threads);
        Ok(((threads, dir), store, MemoryMachine::default()))
    }
}

struct InMemory;

impl StoreBuilder<Types, Store, MemoryMachine, LogThreads> for InMemory {
    async fn build(&self) -> Result<(LogThreads, Store, MemoryMachine), StorageError<Types>> {
        let (threads, store) = open(Arc::new(SimFs::new(1)), Path::new("/log"), Driver::Inline);
        Ok((threads, store, MemoryMachine::default()))
    }
}

#[tokio::test]
async fn passes_on_a_real_directory() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test]
async fn passes_on_the_disk_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test]
async fn streams_in_steps_what_was_there_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (_threads, mut store) = open(Arc::new(StdFs::default()), dir.path(), Driver::Threads);
    let entry = |index| RaftEntry::new_normal(LogIdOf::<Types>::new(1.into(), index), "x".repeat(3000));
    store.blocking_append((0..1000).map(entry)).await.unwrap();
    let mut reader = store.clone();
    let mut stream = reader.entries_stream(10..).await;
    let first = stream.next().await.unwrap().unwrap();
    store.blocking_append((1000..1010).map(entry)).await.unwrap();
    let rest: Vec<u64> = stream.map(|entry| entry.unwrap().log_id().index).collect().await;
    assert_eq!(first.log_id().index, 10);
    assert!(rest.into_iter().eq(11..1000));
    // A limited read ends early, an unlimited one does not.
    assert!(store.limited_get_log_entries(0, 1000).await.unwrap().len() < 400);
    assert_eq!(store.try_get_log_entries(0..1000).await.unwrap().len(), 1000);
    // What is removed while it is read is an error, never a hole.
    let mut reader = store.clone();
    let mut stream = reader.entries_stream(0..).await;
    stream.next().await.unwrap().unwrap();
    store.purge(LogIdOf::<Types>::new(1.into(), 900)).await.unwrap();
    assert!(stream.any(|entry| async move { entry.is_err() }).await);
}

#[tokio::test]
async fn a_vote_that_goes_back_stops_the_log() {
    type Vote = VoteOf<Types>;
    for (second, goes_back) in [(Vote::new(3, 9), true), (Vote::new(2, 7), true), (Vote::new_committed(3, 9), false)] {
        let fs = SimFs::new(1);
        let mut options = super::world::options(&Arc::default());
        options.driver = Driver::Inline;
        let (log, _threads, _) = RaftLog::open(Arc::new(fs), options).unwrap();
        let mut store = Store::new(log);
        store.save_vote(&Vote::new(3, 7)).await.unwrap();
        assert_eq!(store.save_vote(&second).await.is_err(), goes_back);
        assert_eq!(store.read_vote().await.is_err(), goes_back);
    }
}
