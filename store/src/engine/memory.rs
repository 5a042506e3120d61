//! The engine in memory: one persistent map per family, so that a view is a clone of one pointer.
//!
//! For the simulator and for model tests: it keeps the whole contract of [`Engine`], and a crash is a call. What
//! [`MemoryEngine::crash`] leaves is exactly what the last flush covered, the harshest reading of the contract; disk
//! engines may keep more, also in whole batches. What a disk would hold outlives a handle: [`MemoryEngine::reopened`] is
//! what a start would find. Left out on purpose: limits, and partial durability of any kind.

use std::fs;
use std::io::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use imbl::OrdMap;

use super::{Batch, Change, Direction, Engine, Family, Read, Replacement, Rows, Sealed, Span, View};
use crate::overlay::crosses;
use crate::types::Fault;

/// Checkpoint file, little-endian, the same bytes for the same state:
///
/// ```text
/// magic [8] | version u32 | families u32
/// per family:  number u32 | rows u64 | per row:  key length u32 | key | value length u32 | value
/// crc32c u32 of everything before it
/// ```
const CHECKPOINT_FILE: &str = "memory-engine";
const CHECKPOINT_MAGIC: [u8; 8] = *b"QUORMEM\0";
const CHECKPOINT_VERSION: u32 = 1;

#[derive(Clone, Default)]
struct Maps {
    families: [OrdMap<Bytes, Bytes>; Family::ALL.len()],
    /// Keys and values together: kept along, because counting them is O(rows).
    bytes: u64,
}

impl Maps {
    fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        let key_len = key.len() as u64;
        self.bytes += key_len + value.len() as u64;
        if let Some(old) = self.families[family as usize].insert(key, value) {
            self.bytes -= key_len + old.len() as u64;
        }
    }

    fn apply(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put { family, key, value } => self.put(family, key, value),
                Change::Delete { family, key } => self.delete(family, &key),
            }
        }
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        if let Some(old) = self.families[family as usize].remove(key) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }
}

#[derive(Default)]
struct State {
    current: Arc<Maps>,
    flushed: Arc<Maps>,
}

impl State {
    fn flushed(maps: Maps) -> Self {
        let maps = Arc::new(maps);
        Self { current: Arc::clone(&maps), flushed: maps }
    }
}

type Generation = RwLock<State>;

#[derive(Default)]
pub struct MemoryEngine {
    generation: Arc<Generation>,
    disk: Arc<Disk>,
}

/// The generation that a start would open; none before the first replacement, when it is the handle's own.
#[derive(Default)]
struct Disk(RwLock<Option<Arc<Generation>>>);

impl MemoryEngine {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state in a directory that [`Engine::checkpoint`] made; it counts as flushed.
    pub fn restore(directory: &Path) -> Result<Self, Fault> {
        let path = directory.join(CHECKPOINT_FILE);
        let bytes = fs::read(&path).map_err(|error| io_fault("read", &path, &error))?;
        let maps = decode(&bytes).map_err(|reason| Fault::Data(format!("{}: {reason}", path.display())))?;
        Ok(Self { generation: Arc::new(RwLock::new(State::flushed(maps))), disk: Arc::default() })
    }

    /// Loses everything that no flush has covered. Views made before keep what they saw.
    pub fn crash(&self) {
        let mut state = self.exclusive();
        state.current = Arc::clone(&state.flushed);
    }

    /// What a start after a crash would open: the last replacement committed, or else this engine, as last flushed.
    pub fn reopened(&self) -> Self {
        let current = self.disk.0.read().expect("nothing panics while it holds the disk").clone();
        let generation = current.unwrap_or_else(|| Arc::clone(&self.generation));
        let engine = Self { generation, disk: Arc::clone(&self.disk) };
        engine.crash();
        engine
    }

    fn shared(&self) -> RwLockReadGuard<'_, State> {
        self.generation.read().expect("nothing panics while it holds the state")
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.generation.write().expect("nothing panics while it holds the state")
    }
}

impl Engine for MemoryEngine {
    fn view(&self) -> Box<dyn View> {
        Box::new(MemoryView { maps: Arc::clone(&self.shared().current) })
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.shared().current.families[family as usize].get(key).cloned())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut state = self.exclusive();
        // Copies the ten roots when a view or the last flush still holds them, and nothing below the roots.
        Arc::make_mut(&mut state.current).apply(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        let mut state = self.exclusive();
        state.flushed = Arc::clone(&state.current);
        Ok(())
    }

    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.shared().flushed.families[family as usize].get(key).cloned())
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.flush()?;
        let maps = Arc::clone(&self.shared().flushed);
        if directory.exists() {
            return Err(Fault::Engine(format!("checkpoint to {}: it exists already", directory.display())));
        }
        // Whole or not at all: filled under another name, then renamed.
        let staging = staging(directory);
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(|error| io_fault("clear", &staging, &error))?;
        }
        fs::create_dir(&staging).map_err(|error| io_fault("create", &staging, &error))?;
        let path = staging.join(CHECKPOINT_FILE);
        let bytes = encode(&maps)?;
        fs::File::create_new(&path)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .map_err(|error| io_fault("write", &path, &error))?;
        fs::rename(&staging, directory).map_err(|error| io_fault("rename to", directory, &error))
    }

    fn physical_bytes(&self) -> u64 {
        self.shared().current.bytes
    }

    fn replacement(&self, _bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault> {
        Ok(Box::new(MemoryReplacement { maps: Maps::default(), disk: Arc::clone(&self.disk) }))
    }

    fn reclaim(&self) -> Result<usize, Fault> {
        Ok(0) // what nobody holds is gone already
    }
}

struct MemoryReplacement {
    maps: Maps,
    disk: Arc<Disk>,
}

impl Replacement for MemoryReplacement {
    fn write(&mut self, mut batch: Batch) -> Result<(), Fault> {
        // Keys and values may be slices of a large buffer, which a row that stays would keep alive.
        for change in &mut batch.changes {
            let (Change::Put { key, .. } | Change::Delete { key, .. }) = change;
            *key = Bytes::copy_from_slice(key);
            if let Change::Put { value, .. } = change {
                *value = Bytes::copy_from_slice(value);
            }
        }
        self.maps.apply(batch);
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault> {
        let generation = Arc::new(RwLock::new(State::flushed(self.maps)));
        Ok(Box::new(MemorySealed(MemoryEngine { generation, disk: self.disk })))
    }
}

struct MemorySealed(MemoryEngine);

impl Sealed for MemorySealed {
    fn view(&self) -> Box<dyn View> {
        self.0.view()
    }

    fn commit(self: Box<Self>) -> Result<Arc<dyn Engine>, Fault> {
        let mut current = self.0.disk.0.write().expect("nothing panics while it holds the disk");
        *current = Some(Arc::clone(&self.0.generation));
        drop(current);
        Ok(Arc::new(self.0))
    }
}

struct MemoryView {
    maps: Arc<Maps>,
}

impl View for MemoryView {}

impl Read for MemoryView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.maps.families[family as usize].get(key).cloned())
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        if crosses(&span) {
            return Box::new(std::iter::empty());
        }
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (as_slice(&span.from), as_slice(&span.until));
        let rows = self.maps.families[family as usize].range::<_, [u8]>(range);
        let row = |(key, value): (&Bytes, &Bytes)| Ok((key.clone(), value.clone()));
        match direction {
            Direction::Forward => Box::new(rows.map(row)),
            Direction::Backward => Box::new(rows.rev().map(row)),
        }
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}

fn staging(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn io_fault(operation: &str, path: &Path, error: &std::io::Error) -> Fault {
    Fault::Engine(format!("checkpoint: {operation} {}: {error}", path.display()))
}

fn encode(maps: &Maps) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    out.extend(CHECKPOINT_MAGIC);
    out.extend(CHECKPOINT_VERSION.to_le_bytes());
    out.extend((Family::ALL.len() as u32).to_le_bytes());
    for (family, rows) in Family::ALL.iter().zip(&maps.families) {
        out.extend((*family as u32).to_le_bytes());
        out.extend((rows.len() as u64).to_le_bytes());
        for (key, value) in rows {
            for part in [key, value] {
                let len = u32::try_from(part.len())
                    .map_err(|_| Fault::Engine(format!("checkpoint: {} bytes in one key or value", part.len())))?;
                out.extend(len.to_le_bytes());
                out.extend_from_slice(part);
            }
        }
    }
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    Ok(out)
}

fn decode(bytes: &[u8]) -> Result<Maps, String> {
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or("shorter than its checksum")?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
        return Err("checksum does not match".into());
    }
    let mut rest = content;
    if take::<8>(&mut rest)? != CHECKPOINT_MAGIC {
        return Err("not a checkpoint of the memory engine".into());
    }
    let version = u32::from_le_bytes(take(&mut rest)?);
    if version != CHECKPOINT_VERSION {
        return Err(format!("format version {version}; this release knows {CHECKPOINT_VERSION}"));
    }
    let mut maps = Maps::default();
    for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
        let number = u32::from_le_bytes(take(&mut rest)?);
        let family = Family::ALL.into_iter().find(|family| *family as u32 == number);
        let family = family.ok_or_else(|| format!("unknown family {number}"))?;
        for _ in 0..u64::from_le_bytes(take(&mut rest)?) {
            let key = take_bytes(&mut rest)?;
            let value = take_bytes(&mut rest)?;
            maps.put(family, key, value);
        }
    }
    if rest.is_empty() { Ok(maps) } else { Err(format!("{} bytes after its end", rest.len())) }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or("ends too early")?;
    *rest = tail;
    Ok(*head)
}

fn take_bytes(rest: &mut &[u8]) -> Result<Bytes, String> {
    let len = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(len).ok_or("ends too early")?;
    *rest = tail;
    Ok(Bytes::copy_from_slice(head))
}
