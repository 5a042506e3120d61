//! The data directory: who may use it, and whose it is.
//!
//! ```text
//!   <data-dir>/LOCK             held by the process that uses it
//!   <data-dir>/member/identity  cluster and member id, written before anything else, and that the log has begun
//!   <data-dir>/member/state/    the engine; after an installed snapshot state.<n>/, and state.current that says so
//!   <data-dir>/member/wal/      the Raft log, unless --wal-dir says otherwise; that one has
//!   <wal-dir>/LOCK, identity    a lock and a copy of the identity
//! ```
//!
//! A log without its state, a state without its log, or the log of another member would be served as if nothing were
//! missing; each is refused by name. Left out: what is inside of log and engine, which have versions of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::node::MemberIdentity;
use crate::raft::log::{Fs, StdFs};

/// Nobody but the owner has business in there (etcd's modes).
const FILE_MODE: u32 = 0o600;
/// Of the identity file; a higher number is refused.
const IDENTITY_VERSION: u32 = 1;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";

/// An open data directory. The lock lasts as long as this lives.
pub struct DataDirectory {
    root: PathBuf,
    /// `--wal-dir`.
    wal: Option<PathBuf>,
    _locks: Vec<File>,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    version: u32,
    cluster_id: String,
    member_id: String,
    name: String,
    /// There is a log: from now on a missing one was lost.
    #[serde(default)]
    log_begun: bool,
}

impl DataDirectory {
    pub fn open(root: &Path, wal: Option<&Path>) -> anyhow::Result<Self> {
        create(root)?;
        let mut locks = vec![lock(root, "data directory")?];
        create(&root.join("member"))?;
        let directory = Self { root: root.to_owned(), wal: wal.map(Path::to_owned), _locks: Vec::new() };
        create(&directory.log())?;
        if let Some(wal) = wal {
            locks.push(lock(wal, "--wal-dir")?);
        }
        Ok(Self { _locks: locks, ..directory })
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("member/state")
    }

    pub fn log(&self) -> PathBuf {
        self.wal.clone().unwrap_or_else(|| self.root.join("member/wal"))
    }

    /// `None` in a directory that has never been part of a cluster.
    pub fn identity(&self) -> anyhow::Result<Option<MemberIdentity>> {
        read_identity(&self.member()).map(|known| known.map(|(identity, _)| identity))
    }

    /// Makes the directory that of `identity`, unless it shows that it is not, or that part of it is missing. Durable on
    /// return. Called before the log is opened, which would begin one where there is none.
    pub fn claim(&self, identity: &MemberIdentity) -> anyhow::Result<()> {
        let log = self.log();
        let has_log = has_log(&log).with_context(|| format!("look into {}", log.display()))?;
        match read_identity(&self.member())? {
            Some((_, true)) if !has_log => bail!(
                "{} holds a member whose Raft log is not in {}: was --wal-dir changed, or the log removed?",
                self.root.display(),
                log.display()
            ),
            Some(_) => {}
            None if has_log => bail!(
                "{} holds the Raft log of a member, but {} has no identity: was --data-dir changed, or removed?",
                log.display(),
                self.root.display()
            ),
            None => write_identity(&self.member(), identity, false)?,
        }
        let Some(wal) = &self.wal else { return Ok(()) };
        match read_identity(wal)? {
            Some((other, _)) if (other.cluster_id, other.member_id) != (identity.cluster_id, identity.member_id) => {
                bail!(
                    "{} is the --wal-dir of member {:x} of cluster {:x}, not of {:x} of {:x}",
                    wal.display(),
                    other.member_id,
                    other.cluster_id,
                    identity.member_id,
                    identity.cluster_id
                )
            }
            Some(_) => Ok(()),
            None => write_identity(wal, identity, false),
        }
    }

    /// Notes that there is a log now. Durable on return.
    pub fn log_begun(&self, identity: &MemberIdentity) -> anyhow::Result<()> {
        match read_identity(&self.member())? {
            Some((_, true)) => Ok(()),
            Some((_, false)) | None => write_identity(&self.member(), identity, true),
        }
    }

    fn member(&self) -> PathBuf {
        self.root.join("member")
    }
}

/// Whether a Raft log is in there, and not only what this file puts beside it.
fn has_log(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if ![LOCK, IDENTITY, IDENTITY_NEW].iter().any(|own| name == *own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The identity, and whether the log has begun.
fn read_identity(directory: &Path) -> anyhow::Result<Option<(MemberIdentity, bool)>> {
    let path = directory.join(IDENTITY);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    parse_identity(&bytes).map(Some).with_context(|| format!("read the member's identity in {}", path.display()))
}

fn parse_identity(bytes: &[u8]) -> anyhow::Result<(MemberIdentity, bool)> {
    // The version first: a newer file may look different.
    let value: serde_json::Value = serde_json::from_slice(bytes).context("it is damaged")?;
    let version = value.get("version").and_then(serde_json::Value::as_u64).context("it is damaged: no version")?;
    if version > u64::from(IDENTITY_VERSION) {
        bail!("it is of version {version}, this release knows versions up to {IDENTITY_VERSION}");
    }
    let file: IdentityFile = serde_json::from_value(value).context("it is damaged")?;
    let id = |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("it is damaged: {text:?} is no id"));
    let (cluster_id, member_id) = (id(&file.cluster_id)?, id(&file.member_id)?);
    Ok((MemberIdentity { cluster_id, member_id, name: file.name }, file.log_begun))
}

fn write_identity(directory: &Path, identity: &MemberIdentity, log_begun: bool) -> anyhow::Result<()> {
    let file = IdentityFile {
        version: IDENTITY_VERSION,
        cluster_id: format!("{:x}", identity.cluster_id),
        member_id: format!("{:x}", identity.member_id),
        name: identity.name.clone(),
        log_begun,
    };
    let (path, fresh) = (directory.join(IDENTITY), directory.join(IDENTITY_NEW));
    let write = || -> io::Result<()> {
        let mut out = OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&fresh)?;
        out.write_all(&serde_json::to_vec_pretty(&file)?)?;
        out.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn create(path: &Path) -> anyhow::Result<()> {
    StdFs::default().create_dir(path).with_context(|| format!("create the directory {}", path.display()))
}

#[allow(unsafe_code, reason = "flock is a plain system call on a descriptor that is open for the whole call")]
fn lock(directory: &Path, what: &str) -> anyhow::Result<File> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    // SAFETY: `file` owns the descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(file);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        bail!("lock {}: another process uses this {what}", path.display());
    }
    Err(error).with_context(|| format!("lock {}", path.display()))
}
