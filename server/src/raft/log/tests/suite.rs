//! openraft's own tests of a log storage, over a real directory with threads and over the disk in memory without.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

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
