//! An engine that writes nothing while it is told to wait: entries are committed and not applied.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use quorate_store::Fault;
use quorate_store::engine::{Batch, Engine, Family, MemoryEngine, Replacement, View};

#[derive(Default)]
pub(crate) struct GatedEngine {
    inner: Arc<MemoryEngine>,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl GatedEngine {
    pub(crate) fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    /// Loses what no flush has covered.
    pub(crate) fn crash(&self) {
        self.inner.crash();
    }
}

impl Engine for GatedEngine {
    fn view(&self) -> Box<dyn View> {
        self.inner.view()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.inner.get(family, key)
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.inner.write(batch)
    }

    fn is_stalled(&self) -> bool {
        *self.closed.lock().unwrap()
    }

    fn flush(&self) -> Result<(), Fault> {
        self.inner.flush()
    }

    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.inner.get_flushed(family, key)
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.inner.checkpoint(directory)
    }

    fn physical_bytes(&self) -> u64 {
        self.inner.physical_bytes()
    }

    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        self.inner.replacement(bytes_expected)
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        self.inner.reclaim()
    }
}
