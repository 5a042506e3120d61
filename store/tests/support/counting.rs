//! The memory engine with a counter of the rows that reads have looked at: a promise about work, without a clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_store::Fault;
use quorate_store::engine::{Batch, Direction, Engine, Family, MemoryEngine, Read, Replacement, Rows, Span, View};

#[derive(Default)]
pub(crate) struct Counting {
    engine: MemoryEngine,
    rows: Arc<AtomicU64>,
}

impl Counting {
    /// Rows looked at while `work` ran: every row of a scan, and every get.
    pub(crate) fn rows<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let before = self.rows.load(Ordering::Relaxed);
        let result = work();
        (self.rows.load(Ordering::Relaxed) - before, result)
    }
}

struct CountingView {
    view: Box<dyn View>,
    rows: Arc<AtomicU64>,
}

impl View for CountingView {}

impl Read for CountingView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.view.get(family, key)
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        Box::new(self.view.scan(family, span, direction).inspect(|_| {
            self.rows.fetch_add(1, Ordering::Relaxed);
        }))
    }
}

impl Engine for Counting {
    fn view(&self) -> Box<dyn View> {
        Box::new(CountingView { view: self.engine.view(), rows: self.rows.clone() })
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.rows.fetch_add(1, Ordering::Relaxed);
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
        self.engine.physical_bytes()
    }

    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        self.engine.replacement(bytes_expected)
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        self.engine.reclaim()
    }
}
