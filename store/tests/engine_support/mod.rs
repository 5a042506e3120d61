//! What the engine tests share: both engines behind one crash button, a seeded source of chance, a plain model.

#![allow(dead_code, reason = "every test file uses a part of it")]

#[path = "../support/chance.rs"]
mod chance;

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;

use bytes::Bytes;
use quorate_store::engine::{
    Batch, Change, Direction, Engine, Family, MemoryEngine, Read, RocksEngine, RocksSettings, Span,
};
use tempfile::TempDir;

#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use chance::{Chance, from_env};

pub(crate) type Row = (Bytes, Bytes);
pub(crate) type Model = BTreeMap<(Family, Bytes), Bytes>;

/// An engine that can crash: everything is lost that no flush has covered.
pub(crate) enum Subject {
    Memory(MemoryEngine),
    /// `None` only while it is being reopened.
    Rocks {
        engine: Option<Box<RocksEngine>>,
        settings: RocksSettings,
        directory: TempDir,
    },
}

impl Subject {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryEngine::new())
    }

    pub(crate) fn rocks() -> Self {
        Self::rocks_with(RocksSettings::default())
    }

    pub(crate) fn rocks_with(settings: RocksSettings) -> Self {
        let directory = TempDir::new().unwrap();
        let engine = RocksEngine::open(&directory.path().join("db"), &settings).unwrap();
        Self::Rocks { engine: Some(Box::new(engine)), settings, directory }
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        match self {
            Self::Memory(engine) => engine,
            Self::Rocks { engine, .. } => engine.as_deref().unwrap(),
        }
    }

    pub(crate) fn as_rocks(&self) -> Option<&RocksEngine> {
        match self {
            Self::Memory(_) => None,
            Self::Rocks { engine, .. } => engine.as_deref(),
        }
    }

    /// Closing RocksDB is not a flush, so that it stands for a crash. No view may be alive.
    pub(crate) fn crash(&mut self) {
        match self {
            Self::Memory(engine) => engine.crash(),
            Self::Rocks { engine, settings, directory } => {
                drop(engine.take());
                let reopened = RocksEngine::open(&directory.path().join("db"), settings).unwrap();
                *engine = Some(Box::new(reopened));
            }
        }
    }

    /// An engine over a checkpoint of this one.
    pub(crate) fn open_checkpoint(&self, directory: &std::path::Path) -> Box<dyn Engine> {
        match self {
            Self::Memory(_) => Box::new(MemoryEngine::restore(directory).unwrap()),
            Self::Rocks { settings, .. } => Box::new(RocksEngine::open(directory, settings).unwrap()),
        }
    }
}

/// Every row of every family.
pub(crate) fn state(read: &dyn Read) -> Model {
    let rows = |family| {
        let row = move |row: Result<Row, _>| row.map(|(key, value)| ((family, key), value)).unwrap();
        read.scan(family, Span::all(), Direction::Forward).map(row).collect::<Vec<_>>()
    };
    Family::ALL.into_iter().flat_map(rows).collect()
}

pub(crate) fn rows(read: &dyn Read, family: Family, span: Span, direction: Direction) -> Vec<Row> {
    read.scan(family, span, direction).map(Result::unwrap).collect()
}

pub(crate) fn apply(model: &mut Model, batch: &Batch) {
    for change in &batch.changes {
        match change {
            Change::Put { family, key, value } => model.insert((*family, key.clone()), value.clone()),
            Change::Delete { family, key } => model.remove(&(*family, key.clone())),
        };
    }
}

/// By definition, with no regard for cost.
pub(crate) fn model_rows(model: &Model, family: Family, span: &Span, direction: Direction) -> Vec<Row> {
    let inside = |key: &Bytes| (span.from.clone(), span.until.clone()).contains(key);
    let mine = model.iter().filter(|((of, key), _)| *of == family && inside(key));
    let mut rows: Vec<Row> = mine.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    if direction == Direction::Backward {
        rows.reverse();
    }
    rows
}

pub(crate) fn put(family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
    let mut batch = Batch::default();
    batch.put(family, key, value);
    batch
}

/// What chance makes for an engine.
impl Chance {
    pub(crate) fn family(&mut self) -> Family {
        self.pick(&Family::ALL)
    }

    pub(crate) fn direction(&mut self) -> Direction {
        if self.one_in(2) { Direction::Backward } else { Direction::Forward }
    }

    /// Up to three bytes out of five that sit at the edges: short keys meet often, and are prefixes of each other.
    pub(crate) fn key(&mut self) -> Bytes {
        let len = self.below(4);
        (0..len).map(|_| self.pick(&[0x00, 0x01, b'k', 0xfe, 0xff])).collect()
    }

    pub(crate) fn value(&mut self) -> Bytes {
        let len = if self.one_in(50) { 5000 } else { self.below(24) };
        let fill = self.next().to_le_bytes();
        fill.into_iter().cycle().take(len as usize).collect()
    }

    pub(crate) fn span(&mut self) -> Span {
        Span { from: self.bound(), until: self.bound() }
    }

    fn bound(&mut self) -> Bound<Bytes> {
        match self.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }

    /// One to eight changes, sometimes of the same key.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..=self.below(8) {
            let (family, key) = (self.family(), self.key());
            if self.one_in(3) {
                batch.delete(family, key);
            } else {
                batch.put(family, key, self.value());
            }
        }
        batch
    }
}

pub(crate) fn scratch() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("copy");
    (directory, path)
}
