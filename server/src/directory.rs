//! The data directory: who may use it, and whose it is.
//!
//! ```text
//!   <data-dir>/LOCK             held by the process that uses it
//!   <data-dir>/member/identity  cluster and member id, written once at bootstrap
//!   <data-dir>/member/state/    the engine; after an installed snapshot state.<n>/, and state.current that says so
//!   <data-dir>/member/wal/      the Raft log, unless --wal-dir says otherwise
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::node::MemberIdentity;

/// Nobody but the owner has business in there (etcd's modes).
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Of the identity file; a higher number is refused.
const IDENTITY_VERSION: u32 = 1;

/// An open data directory. The lock lasts as long as this lives.
pub struct DataDirectory {
    root: PathBuf,
    wal: Option<PathBuf>,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    version: u32,
    cluster_id: String,
    member_id: String,
    name: String,
}

impl DataDirectory {
    pub fn open(root: &Path, wal: Option<&Path>) -> anyhow::Result<Self> {
        create_directory(root)?;
        let lock = lock(&root.join("LOCK"))?;
        create_directory(&root.join("member"))?;
        let directory = Self { root: root.to_owned(), wal: wal.map(Path::to_owned), _lock: lock };
        create_directory(&directory.log())?;
        Ok(directory)
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("member/state")
    }

    pub fn log(&self) -> PathBuf {
        self.wal.clone().unwrap_or_else(|| self.root.join("member/wal"))
    }

    /// `None` in a directory that has never been part of a cluster.
    pub fn identity(&self) -> anyhow::Result<Option<MemberIdentity>> {
        let path = self.identity_path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let file: IdentityFile = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
        if file.version > IDENTITY_VERSION {
            bail!(
                "{} is of version {}, this release knows versions up to {IDENTITY_VERSION}",
                path.display(),
                file.version
            );
        }
        let id =
            |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("read an id of {}", path.display()));
        let (cluster_id, member_id) = (id(&file.cluster_id)?, id(&file.member_id)?);
        Ok(Some(MemberIdentity { cluster_id, member_id, name: file.name }))
    }

    /// Durable on return.
    pub fn save_identity(&self, identity: &MemberIdentity) -> anyhow::Result<()> {
        let file = IdentityFile {
            version: IDENTITY_VERSION,
            cluster_id: format!("{:x}", identity.cluster_id),
            member_id: format!("{:x}", identity.member_id),
            name: identity.name.clone(),
        };
        let (path, fresh) = (self.identity_path(), self.root.join("member/identity.new"));
        let write = || -> std::io::Result<()> {
            let mut out = OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&fresh)?;
            out.write_all(&serde_json::to_vec_pretty(&file)?)?;
            out.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(self.root.join("member"))?.sync_all()
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join("member/identity")
    }
}

fn create_directory(path: &Path) -> anyhow::Result<()> {
    let context = || format!("create the directory {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).with_context(context)?;
    // A directory entry lasts only once its parent is on disk.
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(context)
}

#[allow(unsafe_code, reason = "flock is a plain system call on a descriptor that is open for the whole call")]
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    // SAFETY: `file` owns the descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error)
            .with_context(|| format!("lock {}: another process uses this data directory", path.display()));
    }
    Ok(file)
}
