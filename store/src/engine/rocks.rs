//! The engine on RocksDB: a column family per family, no write-ahead log, flushes of everything at once.
//!
//! ```text
//!   write ─▶ memtables of 10 families ─┬─ flush() ────────┐
//!                                      └─ memtables full ─┴─▶ one atomic group in the MANIFEST ─▶ a crash lands here
//! ```
//!
//! Every status that is not OK is a [`Fault`], and the first failed write or flush is the last one: what the disk
//! holds after it is unknown, and RocksDB's own way of trying again could make families of different moments durable.
//! Left out on purpose: column families added or dropped while open, and any write that is not a whole batch.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DB, DBRawIterator, ErrorKind, FlushOptions, ReadOptions,
    ReadTier, Snapshot, WriteBatch, WriteOptions,
};

use super::{Batch, Change, Direction, Engine, Family, Read, Replacement, Rows, Span, View};
use crate::overlay::crosses;
use crate::types::Fault;

mod generations;
mod options;
mod replace;

use generations::{Generations, sync_directory};
pub use options::RocksSettings;
use replace::{Home, RocksReplacement};

/// Bytes written between two looks at RocksDB's count of failed background jobs (each look takes its mutex).
const BACKGROUND_CHECK_BYTES: usize = 1 << 20;
/// The family that RocksDB insists on; nothing is in it.
const FAMILY_DEFAULT: &str = "default";

pub struct RocksEngine {
    database: Arc<Database>,
    home: Arc<Home>,
    write: WriteOptions,
    flush: FlushOptions,
    newest: ReadOptions,
    flushed: ReadOptions,
    /// The first failure of a write or flush, repeated to everyone after it.
    broken: OnceLock<Fault>,
    written_since_check: AtomicUsize,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksStats {
    pub memtable_bytes: u64,
    pub table_bytes: u64,
    pub cache_bytes: u64,
    pub cache_pinned_bytes: u64,
    pub compaction_pending_bytes: u64,
    pub snapshots: u64,
}

impl RocksEngine {
    /// Opens the database in `path`, or makes one there, or opens the one beside it that has replaced it; see
    /// `generations`. What else is left of replacements is removed. The parent of `path` must exist.
    pub fn open(path: &Path, settings: &RocksSettings) -> Result<Self, Fault> {
        let generations = Generations::find(path)?;
        let found = generations.found();
        let home = Home::new(generations, settings.clone(), options::cache(settings));
        let engine = Self::open_generation(Arc::new(home), found)?;
        engine.home.settle(&engine.database);
        engine.home.generations.sweep()?;
        Ok(engine)
    }

    fn open_generation(home: Arc<Home>, generation: u64) -> Result<Self, Fault> {
        let path = home.generations.directory(generation);
        let settings = &home.settings;
        let operation = || format!("open {}", path.display());
        let options = options::database(settings).map_err(|error| fault(&operation(), &error))?;
        refuse_unknown_families(&path, &options)?;
        let db = DB::open_cf_descriptors(&options, &path, options::families(settings, &home.cache))
            .map_err(|error| open_fault(&operation(), &error))?;

        let mut write = WriteOptions::default();
        write.disable_wal(true);
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        let mut flushed = ReadOptions::default();
        flushed.set_read_tier(ReadTier::Persisted);
        Ok(Self {
            database: Arc::new(Database { db, generation }),
            home,
            write,
            flush,
            newest: ReadOptions::default(),
            flushed,
            broken: OnceLock::new(),
            written_since_check: AtomicUsize::new(0),
        })
    }

    /// Flushes, then rewrites `family` into its last level: what was deleted gives its space back, and small files that
    /// were only ever moved become large ones. Reads and writes go on meanwhile; takes as long as it takes.
    pub fn compact_family(&self, family: Family) -> Result<(), Fault> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let handle = self.database.family(family);
        self.database.db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &options);
        self.background_ok() // the call itself has no status
    }

    pub fn compact_all(&self) -> Result<(), Fault> {
        Family::ALL.into_iter().try_for_each(|family| self.compact_family(family))
    }

    pub fn stats(&self) -> RocksStats {
        let database = &self.database;
        RocksStats {
            memtable_bytes: database.sum(properties::CUR_SIZE_ALL_MEM_TABLES),
            table_bytes: database.sum(properties::TOTAL_SST_FILES_SIZE),
            cache_bytes: self.home.cache.get_usage() as u64,
            cache_pinned_bytes: self.home.cache.get_pinned_usage() as u64,
            compaction_pending_bytes: database.sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            snapshots: database.db.property_int_value(properties::NUM_SNAPSHOTS).ok().flatten().unwrap_or(0),
        }
    }

    fn usable(&self) -> Result<(), Fault> {
        self.broken.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    fn failed(&self, fault: Fault) -> Fault {
        self.broken.get_or_init(|| fault).clone()
    }

    /// A failed background flush or compaction is kept by RocksDB to itself as long as it can take more writes.
    fn background_ok(&self) -> Result<(), Fault> {
        match self.database.db.property_int_value(properties::BACKGROUND_ERRORS) {
            Ok(Some(0)) => Ok(()),
            Ok(Some(count)) => {
                let log = self.database.db.path().join("LOG");
                let text = format!("{count} failed background flushes or compactions, see {}", log.display());
                Err(self.failed(Fault::Engine(text)))
            }
            Ok(None) => Err(self.failed(Fault::Engine("RocksDB does not count background errors".into()))),
            Err(error) => Err(self.failed(fault("count background errors", &error))),
        }
    }
}

impl Engine for RocksEngine {
    fn view(&self) -> Box<dyn View> {
        Box::new(RocksView::new(Arc::clone(&self.database)))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.database.get(family, key, &self.newest)
    }

    fn is_stalled(&self) -> bool {
        let is_set = |property| matches!(self.database.db.property_int_value(property), Ok(Some(1..)));
        is_set(properties::IS_WRITE_STOPPED) || is_set(properties::ACTUAL_DELAYED_WRITE_RATE)
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.usable()?;
        let raw = self.database.encode(&batch);
        let bytes = raw.size_in_bytes();
        self.database.db.write_opt(raw, &self.write).map_err(|error| self.failed(fault("write a batch", &error)))?;
        if self.written_since_check.fetch_add(bytes, Ordering::Relaxed) + bytes >= BACKGROUND_CHECK_BYTES {
            self.written_since_check.store(0, Ordering::Relaxed);
            self.background_ok()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.usable()?;
        // All of them by name: atomic_flush does not reach families that the call leaves out.
        let families = Family::ALL.map(|family| self.database.family(family));
        self.database
            .db
            .flush_cfs_opt(&families.each_ref(), &self.flush)
            .map_err(|error| self.failed(fault("flush", &error)))?;
        self.background_ok()
    }

    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.database.get(family, key, &self.flushed)
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.flush()?;
        let operation = format!("checkpoint to {}", directory.display());
        // RocksDB fills a directory beside it and renames; table files are links, so the cost is that of the MANIFEST.
        Checkpoint::new(&self.database.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(directory))
            .map_err(|error| fault(&operation, &error))?;
        // It leaves CURRENT, MANIFEST and the rename itself to the page cache.
        sync_directory(directory).map_err(|error| Fault::Engine(format!("{operation}: {error}")))
    }

    fn physical_bytes(&self) -> u64 {
        let database = &self.database;
        database.sum(properties::TOTAL_SST_FILES_SIZE) + database.sum(properties::CUR_SIZE_ALL_MEM_TABLES)
    }

    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        self.home.reclaim()?; // there may be no room for three
        Ok(Box::new(RocksReplacement::begin(&self.home, bytes_expected)?))
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        self.home.reclaim()
    }
}

/// What views share with the engine. It is closed, and its directory unlocked, when the last of them is gone.
struct Database {
    db: DB,
    generation: u64,
}

impl Database {
    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("open made a handle for every family")
    }

    fn get(&self, family: Family, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, Fault> {
        match self.db.get_pinned_cf_opt(self.family(family), key, options) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(fault(&format!("get from {}", family.name()), &error)),
        }
    }

    fn encode(&self, batch: &Batch) -> WriteBatch {
        const RECORD_BYTES_MAX: usize = 16; // kind, family and two lengths
        const HEADER_BYTES: usize = 12;
        let size = |change: &Change| match change {
            Change::Put { key, value, .. } => RECORD_BYTES_MAX + key.len() + value.len(),
            Change::Delete { key, .. } => RECORD_BYTES_MAX + key.len(),
        };
        let bytes = HEADER_BYTES + batch.changes.iter().map(size).sum::<usize>();
        let mut raw = WriteBatch::with_capacity_bytes(bytes);
        // Changes come ordered by family: one look-up per family, not per change.
        let mut last: Option<(Family, &ColumnFamily)> = None;
        for change in &batch.changes {
            let (Change::Put { family, .. } | Change::Delete { family, .. }) = change;
            let handle = match last {
                Some((of, handle)) if of == *family => handle,
                _ => self.family(*family),
            };
            last = Some((*family, handle));
            match change {
                Change::Put { key, value, .. } => raw.put_cf(handle, key, value),
                Change::Delete { key, .. } => raw.delete_cf(handle, key),
            }
        }
        raw
    }

    /// Over all families; 0 for what RocksDB does not know. For metrics.
    fn sum(&self, property: &properties::PropName) -> u64 {
        let of = |family| self.db.property_int_value_cf(self.family(family), property).ok().flatten().unwrap_or(0);
        Family::ALL.into_iter().map(of).sum()
    }
}

/// A RocksDB snapshot that holds its database open. Fields are dropped in this order.
struct RocksView {
    /// Points to the snapshot.
    options: ReadOptions,
    snapshot: Snapshot<'static>,
    database: Arc<Database>,
}

impl RocksView {
    fn new(database: Arc<Database>) -> Self {
        // SAFETY: the reference lives in `snapshot` only, which is private to this view and dropped before `database`;
        // that `Arc` keeps the target alive, and neither it nor the view moves it.
        #[allow(unsafe_code, reason = "a snapshot borrows its database; here it owns a share of it")]
        let db: &'static DB = unsafe { &*std::ptr::from_ref(&database.db) };
        let snapshot = db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        Self { options, snapshot, database }
    }
}

impl View for RocksView {
    fn pass(&self, family: Family, span: Span) -> Rows<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.walk(family, span, Direction::Forward, options)
    }
}

impl Read for RocksView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.database.get(family, key, &self.options)
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        self.walk(family, span, direction, ReadOptions::default())
    }
}

impl RocksView {
    fn walk(&self, family: Family, span: Span, direction: Direction, mut options: ReadOptions) -> Rows<'_> {
        if crosses(&span) {
            return Box::new(std::iter::empty());
        }
        options.set_snapshot(&self.snapshot);
        options.set_total_order_seek(true);
        // RocksDB includes the lower bound and excludes the upper one; the successor of a key turns one into the other.
        match span.from {
            Bound::Included(from) => options.set_iterate_lower_bound(from),
            Bound::Excluded(from) => options.set_iterate_lower_bound(successor(&from)),
            Bound::Unbounded => {}
        }
        match span.until {
            Bound::Included(until) => options.set_iterate_upper_bound(successor(&until)),
            Bound::Excluded(until) => options.set_iterate_upper_bound(until),
            Bound::Unbounded => {}
        }
        let cursor = self.database.db.raw_iterator_cf_opt(self.database.family(family), options);
        Box::new(RocksRows { cursor, family, direction, state: RowsState::Unplaced })
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

enum RowsState {
    /// Nothing is read before the first row is asked for.
    Unplaced,
    OnRow,
    Done,
}

struct RocksRows<'a> {
    cursor: DBRawIterator<'a>,
    family: Family,
    direction: Direction,
    state: RowsState,
}

impl Iterator for RocksRows<'_> {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match (&self.state, self.direction) {
            (RowsState::Unplaced, Direction::Forward) => self.cursor.seek_to_first(),
            (RowsState::Unplaced, Direction::Backward) => self.cursor.seek_to_last(),
            (RowsState::OnRow, Direction::Forward) => self.cursor.next(),
            (RowsState::OnRow, Direction::Backward) => self.cursor.prev(),
            (RowsState::Done, _) => return None,
        }
        if let Some((key, value)) = self.cursor.item() {
            self.state = RowsState::OnRow;
            return Some(Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))));
        }
        self.state = RowsState::Done;
        self.cursor.status().err().map(|error| Err(fault(&format!("scan {}", self.family.name()), &error)))
    }
}

fn fault(operation: &str, error: &rocksdb::Error) -> Fault {
    let text = format!("{operation}: {error}");
    match error.kind() {
        ErrorKind::Corruption => Fault::Data(text),
        _ => Fault::Engine(text),
    }
}

fn open_fault(operation: &str, error: &rocksdb::Error) -> Fault {
    let text = error.as_ref();
    if text.contains("LOCK: ") || text.contains("lock hold by current process") {
        return Fault::Engine(format!("{operation}: another process, or a view of this one, has it open: {text}"));
    }
    fault(operation, error)
}

/// RocksDB would refuse them too, but not say why.
fn refuse_unknown_families(path: &Path, options: &rocksdb::Options) -> Result<(), Fault> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    let operation = format!("list the families of {}", path.display());
    let found = DB::list_cf(options, path).map_err(|error| fault(&operation, &error))?;
    let known = |name: &str| name == FAMILY_DEFAULT || Family::ALL.iter().any(|family| family.name() == name);
    let unknown: Vec<_> = found.into_iter().filter(|name| !known(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Fault::Data(format!("{operation}: {} unknown to this release; a newer one wrote it", unknown.join(", "))))
}
