//! Which directory holds the engine, when a snapshot has replaced it once or more.
//!
//! ```text
//!   state/             generation 0, where every member begins
//!   state.3/           generation 3, filled from a snapshot
//!   state.current      names the generation that counts; without it, 0 does
//!   state.current.4    to become it when generation 4 is whole
//!
//!   state.4/ filled ─▶ all files synced ─▶ state.current.4 synced ─▶ renamed to state.current, directory synced ─▶ state.3/ removed
//! ```
//!
//! The rename is the one step that counts. At a start everything is removed that the name does not lead to: what was
//! not whole yet, and what was replaced. A number is not used again while anything bears it.
//! Generations stand side by side rather than in a directory of their own, so that a data directory from before there
//! were any is one with generation 0, and nothing has to be moved.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Fault;

/// Of a disk that holds the state and the Raft log, at least so much is left free beside what a replacement needs.
const RESERVE_BYTES: u64 = 64 << 20;

pub(super) struct Generations {
    /// Of generation 0; the names of the others begin with it.
    base: PathBuf,
    /// The generation that counted when this was made.
    found: u64,
    next: AtomicU64,
}

impl Generations {
    /// Reads which generation counts, and changes nothing.
    pub(super) fn find(base: &Path) -> Result<Self, Fault> {
        let base = base.to_owned();
        let pointer = beside(&base, ".current");
        let named = match fs::read(&pointer) {
            Ok(text) => Some(parse(&text).ok_or_else(|| {
                Fault::Data(format!("{}: damaged; it says which directory holds the state", pointer.display()))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault("read", &pointer, &error)),
        };
        let generations = Self { base, found: named.unwrap_or(0), next: AtomicU64::new(0) };
        let others = generations.others()?;
        let highest = others.iter().map(|(number, _)| *number).chain([generations.found]).max().unwrap_or(0);
        generations.next.store(highest + 1, Ordering::Relaxed);
        let directory = generations.directory(generations.found);
        let is_there = directory.join("CURRENT").exists();
        if named.is_some() && !is_there {
            let text = format!("{} names {}, which holds no state", pointer.display(), directory.display());
            return Err(Fault::Data(text));
        }
        let filled = |path: &Path| path.join("CURRENT").exists();
        if let Some((_, other)) = others.iter().find(|(_, path)| named.is_none() && !is_there && filled(path)) {
            let text = format!("{} is there, but not {} that would name it", other.display(), pointer.display());
            return Err(Fault::Data(text));
        }
        Ok(generations)
    }

    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// Removes all that does not count, and makes sure of the name of what does: it may just have been created.
    pub(super) fn sweep(&self) -> Result<(), Fault> {
        for (_, path) in self.others()? {
            remove(&path)?;
        }
        self.sync_parent()
    }

    /// An empty directory for a new generation, which nothing names yet.
    pub(super) fn begin(&self, bytes_expected: u64) -> Result<u64, Fault> {
        self.check_room(bytes_expected)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory(number);
        step("create")?;
        fs::create_dir(&directory).map_err(|error| fault("create", &directory, &error))?;
        Ok(number)
    }

    fn check_room(&self, bytes_expected: u64) -> Result<(), Fault> {
        let parent = parent(&self.base);
        let free = rustix::fs::statvfs(parent).map_err(|error| fault("look for room in", parent, &error.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        // Compaction writes files before it removes what they replace.
        let needed = bytes_expected.saturating_add(bytes_expected / 8).saturating_add(RESERVE_BYTES);
        if free >= needed {
            return Ok(());
        }
        let text =
            format!("{}: {free} bytes are free, {needed} are needed for {bytes_expected} of state", parent.display());
        Err(Fault::Engine(text))
    }

    /// Makes the files of a generation durable, and all that [`Self::switch`] needs but its one step.
    pub(super) fn prepare(&self, number: u64) -> Result<(), Fault> {
        let directory = self.directory(number);
        step("sync files")?;
        sync_directory(&directory).map_err(|error| fault("sync", &directory, &error))?;
        let prepared = self.prepared(number);
        step("write name")?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&prepared)?;
            file.write_all(encode(number).as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| fault("write", &prepared, &error))?;
        step("sync parent")?;
        self.sync_parent()
    }

    /// From here on a start opens generation `number`.
    pub(super) fn switch(&self, number: u64) -> Result<(), Fault> {
        let (prepared, pointer) = (self.prepared(number), beside(&self.base, ".current"));
        step("rename")?;
        fs::rename(&prepared, &pointer).map_err(|error| fault("rename to", &pointer, &error))?;
        step("sync renamed")?;
        self.sync_parent()?;
        step("switched")
    }

    /// Removes a generation that does not count any more, or never did.
    pub(super) fn remove(&self, number: u64) -> Result<(), Fault> {
        step("remove")?;
        remove(&self.prepared(number))?;
        remove(&self.directory(number))?;
        self.sync_parent()
    }

    pub(super) fn directory(&self, number: u64) -> PathBuf {
        if number == 0 { self.base.clone() } else { beside(&self.base, &format!(".{number}")) }
    }

    fn prepared(&self, number: u64) -> PathBuf {
        beside(&self.base, &format!(".current.{number}"))
    }

    fn sync_parent(&self) -> Result<(), Fault> {
        let parent = parent(&self.base);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| fault("sync", parent, &error))
    }

    /// Everything beside the generation that counts, with its number.
    fn others(&self) -> Result<Vec<(u64, PathBuf)>, Fault> {
        let parent = parent(&self.base);
        let name = self.base.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found = Vec::new();
        if self.found != 0 && self.base.exists() {
            found.push((0, self.base.clone()));
        }
        let entries = fs::read_dir(parent).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(|error| fault("list", parent, &error))? {
            let entry_name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = entry_name.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let (number, is_directory) = match rest.strip_prefix("current.") {
                Some(rest) => (parse_number(rest), false),
                None => (parse_number(rest), true),
            };
            if let Some(number) = number.filter(|number| !(is_directory && *number == self.found)) {
                found.push((number, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A moment at which a crash may come, or a full disk: for tests to stop at.
fn step(name: &'static str) -> Result<(), Fault> {
    #[cfg(test)]
    crate::engine::steps::take(name)?;
    #[cfg(not(test))]
    let _ = name;
    Ok(())
}

fn encode(number: u64) -> String {
    let line = format!("generation {number}\n");
    format!("{line}crc32c {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn parse(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (line, _) = text.split_once('\n')?;
    let number = parse_number(line.strip_prefix("generation ")?)?;
    (encode(number) == text).then_some(number)
}

/// As [`ToString`] writes it, and no other way.
fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn beside(base: &Path, suffix: &str) -> PathBuf {
    let mut name = base.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    base.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove(path: &Path) -> Result<(), Fault> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fault(operation: &str, path: &Path, error: &io::Error) -> Fault {
    Fault::Engine(format!("{operation} {}: {error}", path.display()))
}

/// The files of a directory, and its name in its parent.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        match File::open(entry?.path()) {
            Ok(file) => file.sync_all()?,
            // Compaction goes on meanwhile, and syncs what it writes itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(directory)?.sync_all()?;
    File::open(parent(directory))?.sync_all()
}
