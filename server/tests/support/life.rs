//! A life of a member that ends at a chosen step, as by `kill -9` or a power cut.
//!
//! ```text
//!   log thread      ·Append [write ·Torn] ·Written [fdatasync] ·Synced [Raft is told]
//!                   ·Purge  [write ·Torn] ·PurgeWritten [fdatasync] ·PurgeSynced      ·Marker [write]
//!   apply thread    ·Apply [engine] ·Applied ·Publish [hub, leases] ·Published [answers] ·Answered
//!                   ·Walk [engine] ·Walked
//!   blocking pool   ·Flush [engine] ·Flushed [the log is told]
//!   log's helper    ·Remove [unlink] ·Removed [sync] ·Gone      ·Prepare [create, sync] ·Prepared [rename] ·Named [sync]
//! ```
//!
//! These are the fail points; they stand at the seams that the rooms have anyway ([`Fs`], [`Engine`], `RaftHooks`), so
//! nothing of them is compiled into the server. The thread that comes to the chosen one stops there (at once, or
//! after a while in which the others go on), every other at its next step: none of them changes the disk any more. Then the one who tests takes from log and engine what a crash
//! takes, and buries the life: all its calls fail from then on, so that its threads end.
//! Left out: the middle of an engine's flush, which the memory engine does not have (see the store's durability tests).

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quorate_server::raft::log::sim::SimFs;
use quorate_server::raft::log::{Fs, FsFile};
use quorate_store::Fault;
use quorate_store::engine::{Batch, Change, Engine, Family, MemoryEngine, Replacement, View};
use quorate_store::keys::meta;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// A batch is about to be written to the log.
    Append,
    /// Half of it is written.
    Torn,
    /// All of it is, and not synced.
    Written,
    /// It is synced, and Raft does not know.
    Synced,
    /// A group of entries is about to be written to the engine.
    Apply,
    /// It is there, and no reader sees it.
    Applied,
    /// Readers see it, and no watcher was told.
    Publish,
    /// Watchers were told, and not those who asked for it.
    Published,
    Answered,
    /// A step of compaction is about to be written to the engine.
    Walk,
    Walked,
    /// The state is about to be flushed.
    Flush,
    /// It is flushed, and the log does not know.
    Flushed,
    /// A batch with a purge in it is about to be written to the log.
    Purge,
    PurgeWritten,
    PurgeSynced,
    /// A segment behind the purge is about to be removed.
    Remove,
    /// It is removed, and its name may come back.
    Removed,
    Gone,
    /// The next segment is about to be created.
    Prepare,
    /// It is whole, under another name.
    Prepared,
    /// It has its name, which may be lost.
    Named,
    /// The proof of the last sync is about to be written.
    Marker,
}

impl Point {
    /// The ones that every request passes, and the ones that are passed once in many.
    pub(crate) const FREQUENT: [Self; 9] = [
        Self::Append,
        Self::Torn,
        Self::Written,
        Self::Synced,
        Self::Apply,
        Self::Applied,
        Self::Publish,
        Self::Published,
        Self::Answered,
    ];
    pub(crate) const RARE: [Self; 14] = [
        Self::Walk,
        Self::Walked,
        Self::Flush,
        Self::Flushed,
        Self::Purge,
        Self::PurgeWritten,
        Self::PurgeSynced,
        Self::Remove,
        Self::Removed,
        Self::Gone,
        Self::Prepare,
        Self::Prepared,
        Self::Named,
        Self::Marker,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alive,
    /// Nothing moves.
    Dead,
    /// What it left was taken: calls fail.
    Buried,
    /// It stopped in order, or did not hold.
    Ended,
}

struct Fate {
    stage: Stage,
    passed: BTreeMap<Point, u64>,
    /// Calls that are changing log or engine.
    busy: usize,
}

pub(crate) struct Life {
    disk: SimFs,
    engine: Arc<MemoryEngine>,
    /// The n-th passing of a point.
    end: Option<(Point, u64)>,
    last_call: Duration,
    fate: Mutex<Fate>,
    changed: Condvar,
    died: tokio::sync::Notify,
}

/// What unwinds a thread that outlived its member, where a call cannot fail.
pub(crate) struct Grave;

type Outcome = Result<(), Dead>;

#[derive(Debug)]
pub(crate) struct Dead;

impl From<Dead> for io::Error {
    fn from(_: Dead) -> Self {
        Self::other("the member is dead")
    }
}

impl From<Dead> for Fault {
    fn from(_: Dead) -> Self {
        Self::Engine("the member is dead".into())
    }
}

impl Life {
    pub(crate) fn new(
        disk: SimFs,
        engine: Arc<MemoryEngine>,
        end: Option<(Point, u64)>,
        last_call: Duration,
    ) -> Arc<Self> {
        let fate = Mutex::new(Fate { stage: Stage::Alive, passed: BTreeMap::new(), busy: 0 });
        Arc::new(Self { disk, engine, end, last_call, fate, changed: Condvar::new(), died: tokio::sync::Notify::new() })
    }

    /// Where it shall end, if anywhere.
    pub(crate) fn chosen(&self) -> Option<Point> {
        self.end.map(|(point, _)| point)
    }

    pub(crate) fn engine(self: &Arc<Self>) -> Arc<dyn Engine> {
        Arc::new(MortalEngine(self.clone()))
    }

    pub(crate) fn files(self: &Arc<Self>) -> Arc<dyn Fs> {
        Arc::new(MortalFs { life: self.clone(), renamed: AtomicBool::new(false), removed: AtomicBool::new(false) })
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap()
    }

    pub(crate) fn at(&self, point: Point) -> Outcome {
        self.at_with(point, || {})
    }

    /// `deed` is the last one, if this is the end.
    fn at_with(&self, point: Point, deed: impl FnOnce()) -> Outcome {
        let mut fate = self.while_alive()?;
        let passed = fate.passed.entry(point).or_default();
        *passed += 1;
        if self.end != Some((point, *passed)) {
            return Ok(());
        }
        // The last call may take long: whoever goes on without waiting for it gets far in that time.
        drop(fate);
        deed();
        std::thread::sleep(self.last_call);
        let mut fate = self.fate();
        fate.stage = Stage::Dead;
        // Before anybody can bury it: the dead must not hear of their calls' failures first.
        self.died.notify_one();
        drop(fate);
        self.changed.notify_all();
        self.while_alive().map(drop)
    }

    /// The dead wait until they are buried.
    fn while_alive(&self) -> Result<MutexGuard<'_, Fate>, Dead> {
        let fate = self.changed.wait_while(self.fate(), |fate| fate.stage == Stage::Dead).unwrap();
        if fate.stage == Stage::Buried { Err(Dead) } else { Ok(fate) }
    }

    /// Whoever takes what is left of the dead waits for `call`.
    fn whole<T, E: From<Dead>>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.while_alive()?.busy += 1;
        let done = call();
        self.fate().busy -= 1;
        self.changed.notify_all();
        done
    }

    pub(crate) async fn died(&self) {
        self.died.notified().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.fate().stage != Stage::Alive
    }

    /// For the thread that lived it.
    pub(crate) fn ended(&self) {
        let mut fate = self.fate();
        if fate.stage == Stage::Alive {
            fate.stage = Stage::Ended;
        }
        drop(fate);
        self.changed.notify_all();
    }

    /// Waits for the end; whether it was the chosen one, and log and engine rest.
    pub(crate) fn wait(&self) -> bool {
        let moving = |fate: &mut Fate| fate.stage == Stage::Alive || (fate.stage == Stage::Dead && fate.busy > 0);
        self.changed.wait_while(self.fate(), moving).unwrap().stage == Stage::Dead
    }

    pub(crate) fn bury(&self) {
        self.fate().stage = Stage::Buried;
        self.changed.notify_all();
    }
}

struct MortalEngine(Arc<Life>);

impl Engine for MortalEngine {
    /// Readers that look for a state that is gone would look for ever.
    fn view(&self) -> Box<dyn View> {
        match self.0.while_alive() {
            Ok(_) => self.0.engine.view(),
            Err(Dead) => std::panic::resume_unwind(Box::new(Grave)),
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.engine.get(family, key)
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let applies = batch.changes.iter().any(|change| match change {
            Change::Put { family, key, .. } => *family == Family::Meta && key == meta::APPLIED,
            Change::Delete { .. } => false,
        });
        let (before, after) = if applies { (Point::Apply, Point::Applied) } else { (Point::Walk, Point::Walked) };
        self.0.at(before)?;
        self.0.whole(|| self.0.engine.write(batch))?;
        Ok(self.0.at(after)?)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.0.at(Point::Flush)?;
        self.0.whole(|| self.0.engine.flush())?;
        Ok(self.0.at(Point::Flushed)?)
    }

    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.engine.get_flushed(family, key)
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.0.engine.checkpoint(directory)
    }

    fn physical_bytes(&self) -> u64 {
        self.0.engine.physical_bytes()
    }

    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        self.0.engine.replacement(bytes_expected)
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        self.0.engine.reclaim()
    }
}

struct MortalFs {
    life: Arc<Life>,
    /// What the next sync of the directory is for.
    renamed: AtomicBool,
    removed: AtomicBool,
}

impl MortalFs {
    fn file(&self, file: Arc<dyn FsFile>) -> Arc<dyn FsFile> {
        Arc::new(MortalFile { life: self.life.clone(), file, purges: AtomicBool::new(false) })
    }
}

impl Fs for MortalFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.life.whole(|| self.life.disk.create_dir(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.life.whole(|| self.life.disk.list(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.life.at(Point::Prepare)?;
        self.life.whole(|| self.life.disk.create(path)).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.life.whole(|| self.life.disk.open(path)).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.life.at(Point::Prepared)?;
        self.life.whole(|| self.life.disk.rename(from, to))?;
        self.renamed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.life.at(Point::Remove)?;
        self.life.whole(|| self.life.disk.remove(path))?;
        self.removed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (renamed, removed) = (&self.renamed, &self.removed);
        let (renamed, removed) = (renamed.swap(false, Ordering::SeqCst), removed.swap(false, Ordering::SeqCst));
        for point in [renamed.then_some(Point::Named), removed.then_some(Point::Removed)].into_iter().flatten() {
            self.life.at(point)?;
        }
        self.life.whole(|| self.life.disk.sync_dir(dir))?;
        if removed {
            self.life.at(Point::Gone)?;
        }
        Ok(())
    }

    fn salt(&self) -> u64 {
        self.life.disk.salt()
    }

    fn now(&self) -> Duration {
        self.life.disk.now()
    }
}

/// Of a segment: the header with the proofs of syncs in it.
const HEADER_BYTES: u64 = 4096;
/// Of a record: its own header, the length of the rest in it, and the kind that stands for a purge.
const RECORD_HEADER_BYTES: usize = 16;
const LENGTH_AT: usize = 8;
const KIND_AT: usize = 12;
const KIND_PURGE: u8 = 7;

fn purges(mut batch: &[u8]) -> bool {
    while let Some((header, rest)) = batch.split_first_chunk::<RECORD_HEADER_BYTES>() {
        if header[KIND_AT] == KIND_PURGE {
            return true;
        }
        let length = u32::from_le_bytes(header[LENGTH_AT..LENGTH_AT + 4].try_into().unwrap());
        // What recovery writes again may end within a record.
        batch = rest.get(length as usize..).unwrap_or_default();
    }
    false
}

struct MortalFile {
    life: Arc<Life>,
    file: Arc<dyn FsFile>,
    /// What was written last.
    purges: AtomicBool,
}

impl FsFile for MortalFile {
    fn size_bytes(&self) -> io::Result<u64> {
        self.life.whole(|| self.file.size_bytes())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.life.whole(|| self.file.preallocate(bytes))
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.life.whole(|| self.file.data_from(offset))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.life.whole(|| self.file.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match offset {
            0 => {}
            1..HEADER_BYTES => self.life.at(Point::Marker)?,
            _ => {
                let purges = purges(buf);
                self.purges.store(purges, Ordering::SeqCst);
                self.life.at(if purges { Point::Purge } else { Point::Append })?;
                self.life.at_with(Point::Torn, || self.file.write_at(&buf[..buf.len() / 2], offset).unwrap())?;
            }
        }
        self.life.whole(|| self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        let purges = self.purges.load(Ordering::SeqCst);
        self.life.at(if purges { Point::PurgeWritten } else { Point::Written })?;
        self.life.whole(|| self.file.sync_data())?;
        Ok(self.life.at(if purges { Point::PurgeSynced } else { Point::Synced })?)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.life.whole(|| self.file.sync_all())
    }
}
