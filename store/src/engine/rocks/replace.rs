//! Replacing one database by another, while both are open: what [`RocksEngine`]s of one place share.
//!
//! The replaced database stays open as long as somebody reads it. Nobody who reads is made to close it, because that
//! and the removal of its files take a while: it is closed by [`Home::reclaim`], once nobody else holds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::Cache;

use super::generations::Generations;
use super::{Database, RocksEngine, RocksSettings};
use crate::engine::{Batch, Engine, Replacement, Sealed, View};
use crate::types::Fault;

/// What outlives a generation.
pub(super) struct Home {
    pub(super) generations: Generations,
    pub(super) settings: RocksSettings,
    /// One for all generations, so that two of them cost no more than one.
    pub(super) cache: Cache,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    /// Of the generation that counts. Not held open by this.
    current: Weak<Database>,
    retired: Vec<Arc<Database>>,
}

impl Home {
    pub(super) fn new(generations: Generations, settings: RocksSettings, cache: Cache) -> Self {
        Self { generations, settings, cache, standing: Mutex::default() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settle(&self, database: &Arc<Database>) {
        let mut standing = self.standing();
        let before = std::mem::replace(&mut standing.current, Arc::downgrade(database));
        standing.retired.extend(before.upgrade());
    }

    pub(super) fn reclaim(&self) -> Result<usize, Fault> {
        let mut standing = self.standing();
        // Whoever counts one is alone: nobody finds a retired database who does not hold it already.
        let unread = |database: &mut Arc<Database>| Arc::strong_count(database) == 1;
        let unread: Vec<_> = standing.retired.extract_if(.., unread).collect();
        let still_read = standing.retired.len();
        drop(standing);
        for database in unread {
            let generation = database.generation;
            drop(database);
            self.generations.remove(generation)?;
        }
        Ok(still_read)
    }
}

/// A generation that nothing names yet.
pub(super) struct RocksReplacement {
    engine: RocksEngine,
    /// Dropped after the engine, which is closed then.
    unnamed: Unnamed,
}

impl RocksReplacement {
    pub(super) fn begin(home: &Arc<Home>, bytes_expected: u64) -> Result<Self, Fault> {
        let number = home.generations.begin(bytes_expected)?;
        let unnamed = Unnamed { home: Some(Arc::clone(home)), number };
        Ok(Self { engine: RocksEngine::open_generation(Arc::clone(home), number)?, unnamed })
    }
}

impl Replacement for RocksReplacement {
    fn write(&mut self, batch: Batch) -> Result<(), Fault> {
        self.engine.write(batch)
    }

    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        self.engine.flush()?;
        self.engine.home.generations.prepare(self.unnamed.number)?;
        Ok(self)
    }
}

impl Sealed for RocksReplacement {
    fn view(&self) -> Box<dyn View> {
        self.engine.view()
    }

    fn commit(self: Box<Self>) -> Result<Arc<dyn Engine>, Fault> {
        let Self { engine, mut unnamed } = *self;
        let home = Arc::clone(&engine.home);
        // Whatever becomes of the step: what may have a name is not removed.
        unnamed.home = None;
        home.generations.switch(unnamed.number)?;
        home.settle(&engine.database);
        Ok(Arc::new(engine))
    }
}

/// Removes what was written, unless it was given its name.
struct Unnamed {
    home: Option<Arc<Home>>,
    number: u64,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // What is left of it is removed at the next start.
            let _ = home.generations.remove(self.number);
        }
    }
}
