//! A state much larger than what either end may hold: memory stays that of a chunk, and serving goes on meanwhile.
//!
//! `SNAPSHOT_MIB` says how large (default 200). The rows come out of thin air, so that it can be more than there is room
//! for twice.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_store::engine::{
    Batch, Direction, Engine, Family, MemoryEngine, Read, Replacement, RocksEngine, RocksSettings, Rows, Span, View,
};
use quorate_store::snapshot::{CHUNK_BYTES, CHUNK_OVERHEAD_BYTES};
use quorate_store::{Fault, Store};

use support::build::{Member, anonymous, batch, c_put, entry, put, range};
use support::chance::{Chance, from_env};

mod support;

const VALUE_BYTES: u64 = 1000;
const LARGE_EVERY: u64 = 20_000;
const LARGE_VALUE_BYTES: u64 = 3 << 20;

/// What the Rust side of the process has taken and not given back, and the most there was.
struct Heap;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is unsafe; this one counts and leaves the work to the system's")]
// SAFETY: every call is handed on as it came.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

/// A small state with `rows` heads that nobody has written.
struct Endless {
    engine: MemoryEngine,
    rows: u64,
}

struct EndlessView {
    view: Box<dyn View>,
    rows: u64,
}

fn value(number: u64) -> Bytes {
    let bytes = if number % LARGE_EVERY == 7 { LARGE_VALUE_BYTES } else { VALUE_BYTES };
    let mut chance = Chance(number);
    let mut value = Vec::with_capacity(bytes as usize);
    (0..bytes / 8).for_each(|_| value.extend(chance.next().to_le_bytes()));
    value.into()
}

impl View for EndlessView {}

impl Read for EndlessView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.view.get(family, key)
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        if family != Family::Heads {
            return self.view.scan(family, span, direction);
        }
        let number = |key: &Bytes| u64::from_be_bytes(key[..].try_into().unwrap());
        let from = match &span.from {
            Bound::Unbounded => 0,
            Bound::Included(key) => number(key),
            Bound::Excluded(key) => number(key) + 1,
        };
        Box::new((from..self.rows).map(|number| Ok((number.to_be_bytes().to_vec().into(), value(number)))))
    }
}

impl Engine for Endless {
    fn view(&self) -> Box<dyn View> {
        Box::new(EndlessView { view: self.engine.view(), rows: self.rows })
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.engine.get(family, key)
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.engine.write(batch)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.engine.flush()
    }

    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.engine.get_flushed(family, key)
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.engine.checkpoint(directory)
    }

    fn physical_bytes(&self) -> u64 {
        self.rows * VALUE_BYTES
    }

    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        self.engine.replacement(bytes_expected)
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        self.engine.reclaim()
    }
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_large_state_passes_through_little_memory_while_the_old_one_serves() {
    let mib = from_env("SNAPSHOT_MIB", 200);
    let rows = mib * (1 << 20) / (VALUE_BYTES + LARGE_VALUE_BYTES / LARGE_EVERY);
    let small = Member::new();
    let mut from = Store::open(Arc::new(Endless { engine: small.engine.reopened(), rows })).unwrap();
    let puts = (0..1000).map(|number| entry(number + 1, 1, batch(vec![anonymous(c_put(put("a", "b")))])));
    from.apply(&puts.collect::<Vec<_>>()).unwrap();

    let directory = tempfile::TempDir::new().unwrap();
    let settings = RocksSettings { block_cache_bytes: 8 << 20, memtable_bytes: 8 << 20, background_jobs_max: 2 };
    let engine = RocksEngine::open(&directory.path().join("state"), &settings).unwrap();
    let mut to = Store::open(Arc::new(engine)).unwrap();
    let reader = to.reader();

    let (heap_before, resident_before) = (LIVE.load(Ordering::Relaxed), status_kib("VmRSS"));
    PEAK.store(heap_before, Ordering::Relaxed);
    let mut chunks = from.reader().snapshot().unwrap();
    let mut sink = reader.receive(&chunks.next().unwrap().unwrap()).unwrap();
    let (mut served, mut pending_most) = (0, 0);
    for chunk in chunks {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= CHUNK_BYTES + CHUNK_OVERHEAD_BYTES);
        sink.push(&chunk).unwrap();
        pending_most = pending_most.max(sink.pending_bytes());
        if served < 900 {
            served += 1;
            to.apply(&[entry(served, 1, batch(vec![anonymous(c_put(put("key", &served.to_string())))]))]).unwrap();
            let found = reader.view().unwrap().range(&range("key", "", 0)).unwrap();
            assert_eq!(found.kvs[0].value, served.to_string());
        }
    }
    let heap_most = PEAK.load(Ordering::Relaxed) - heap_before;
    let received = sink.finish().unwrap();
    let resident_most = status_kib("VmHWM") - resident_before;
    eprintln!("{mib} MiB: {heap_most} bytes of heap at most, {resident_most} KiB resident with RocksDB's");
    assert!(pending_most < LARGE_VALUE_BYTES as usize + 64, "{pending_most}");
    // Some copies of a chunk and of the largest row, in buffers that double; not of many.
    assert!(heap_most < 8 * (CHUNK_BYTES + LARGE_VALUE_BYTES as usize), "{heap_most}");
    assert!(resident_most < 150 << 10, "{resident_most} KiB");

    let before = reader.view().unwrap();
    to.install(received).unwrap();
    assert_eq!((before.applied().index, reader.applied().index), (served, 1000));
    assert_eq!(reader.reclaim().unwrap(), 1);
    drop(before);
    assert_eq!(reader.reclaim().unwrap(), 0);
    let installed = reader.view().unwrap();
    let mut count = 0;
    for (number, row) in installed.rows(Family::Heads).enumerate() {
        let (key, found) = row.unwrap();
        let number = number as u64;
        assert_eq!(key, number.to_be_bytes().to_vec());
        if number.is_multiple_of(997) || number % LARGE_EVERY == 7 {
            assert_eq!(found, value(number));
        }
        count += 1;
    }
    assert_eq!(count, rows);
    to.apply(&[entry(1001, 1, batch(vec![anonymous(c_put(put("key", "after")))]))]).unwrap();
}
