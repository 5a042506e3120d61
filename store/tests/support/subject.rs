//! A store that can crash, on either engine.

use std::sync::Arc;

use quorate_store::Store;
use quorate_store::engine::{Engine, MemoryEngine, RocksEngine, RocksSettings};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Rocks,
}

enum Disk {
    Memory(Arc<MemoryEngine>),
    Rocks(TempDir),
}

pub(crate) struct Subject {
    disk: Disk,
    /// `None` only while it is being opened again.
    store: Option<Store>,
}

impl Subject {
    pub(crate) fn new(kind: Kind) -> Self {
        let disk = match kind {
            Kind::Memory => Disk::Memory(Arc::new(MemoryEngine::new())),
            Kind::Rocks => Disk::Rocks(TempDir::new().unwrap()),
        };
        let store = Some(Store::open(open(&disk)).unwrap());
        Self { disk, store }
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    /// Loses what no flush has covered. Closing RocksDB without its log is not a flush, so that it stands for a crash.
    pub(crate) fn crash(&mut self) {
        drop(self.store.take());
        if let Disk::Memory(engine) = &mut self.disk {
            *engine = Arc::new(engine.reopened());
        }
        self.store = Some(Store::open(open(&self.disk)).unwrap());
    }
}

fn open(disk: &Disk) -> Arc<dyn Engine> {
    match disk {
        Disk::Memory(engine) => engine.clone(),
        Disk::Rocks(directory) => {
            Arc::new(RocksEngine::open(&directory.path().join("db"), &RocksSettings::default()).unwrap())
        }
    }
}
