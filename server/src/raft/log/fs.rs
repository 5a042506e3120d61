//! The files of the log as a trait: everything of the disk, the clock and chance that the log sees comes through here.
//!
//! [`StdFs`] is Linux; [`super::sim::SimFs`] is a disk in memory that loses what was not synced. Left out: file locks
//! (the data directory has one), directories below the log's own, anything but whole reads and whole writes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Only the owner reads the log: values may be secrets.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

pub trait Fs: Send + Sync + 'static {
    /// With its parents, durable on return; one that exists is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in `dir`, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// An empty file; one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A number that no earlier call returned, for telling our bytes from copies of them.
    fn salt(&self) -> u64;
    /// A clock that never goes back.
    fn now(&self) -> Duration;
}

pub trait FsFile: Send + Sync + 'static {
    fn size_bytes(&self) -> io::Result<u64>;
    /// Reserves `bytes` from the start and makes the file that long; what is new reads as zeros.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// The next stretch at or after `offset` that may hold anything but zeros.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
    /// Fills `buf` or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` or fails.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
    fn sync_all(&self) -> io::Result<()>;
}

/// Linux.
#[derive(Debug)]
pub struct StdFs {
    started: Instant,
    hasher: RandomState,
}

impl Default for StdFs {
    fn default() -> Self {
        Self { started: Instant::now(), hasher: RandomState::new() }
    }
}

impl Fs for StdFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let parent = match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        if !parent.exists() {
            self.create_dir(parent)?;
        }
        match DirBuilder::new().mode(DIR_MODE).create(dir) {
            Ok(()) => self.sync_dir(parent),
            Err(_) if dir.is_dir() => {
                // The process that created it may have died before this; where the parent is another's, it did not.
                match self.sync_dir(parent) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    synced => synced,
                }
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| {
                let name = entry?.file_name();
                name.into_string().map_err(|name| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("file name {name:?} is not UTF-8"))
                })
            })
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(StdFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(StdFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn salt(&self) -> u64 {
        // RandomState is seeded by the kernel once a process; the clock tells calls and processes apart.
        self.hasher.hash_one((std::process::id(), Instant::now(), std::time::SystemTime::now()))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

#[derive(Debug)]
struct StdFile(File);

impl FsFile for StdFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, bytes) {
            // tmpfs on old kernels, NFS and others: the length alone still serves the check for a cut file.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                self.0.set_len(bytes)
            }
            result => result,
        }
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size_bytes()?;
        match seek(&self.0, offset, libc::SEEK_DATA) {
            Ok(start) => Ok(Some(start..seek(&self.0, start, libc::SEEK_HOLE)?)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            // A file system that does not know its holes: all of it is data.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((offset < size).then_some(offset..size)),
            Err(error) => Err(error),
        }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[allow(unsafe_code, reason = "std has no call that reserves blocks of a file")]
fn fallocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        // SAFETY: the descriptor is open for the whole call because `file` is borrowed; no memory is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // Nothing was written: after a signal asking again is not the retry that the log forbids.
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Moves the position of the file, which nothing else here uses.
#[allow(unsafe_code, reason = "std has no call that finds data and holes")]
fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for the whole call because `file` is borrowed; no memory is passed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}
