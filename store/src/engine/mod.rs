//! The engine: ordered families of bytes with atomic batches, frozen views and an explicit flush.
//!
//! ```text
//!   apply ──write(batch)──▶ memtables ──flush()──▶ disk      one batch is seen whole or not at all
//!                               │                            a crash loses exactly what no flush has covered,
//!   readers ◀──view()───────────┘                            always whole batches, always the newest ones
//! ```
//!
//! A replacement is an engine beside this one that is filled while this one goes on, and takes its place in one step that
//! a crash leaves done or not done:
//!
//! ```text
//!   replacement() ─▶ write … ─▶ seal: durable, and of no account yet ─▶ commit ─▶ the new engine; views of the old one
//!                       └── dropped: gone ──┘                                     stay as they are ─▶ reclaim()
//! ```
//!
//! There is no write-ahead log here: the Raft log is the one there is. Two engines keep this contract:
//! [`rocks`](self::RocksEngine) for members, [`memory`](self::MemoryEngine) for the simulator and the model tests.
//! Left out on purpose: compare-and-set, merge operators, timestamps. The one writer decides everything.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::Fault;

mod memory;
mod rocks;
#[cfg(test)]
pub(crate) mod steps;

pub use memory::MemoryEngine;
pub use rocks::{RocksEngine, RocksSettings, RocksStats};

/// A family of keys with an order of its own. The number is on disk (as the family's name): pinned, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Single values: format version, applied position, revisions, counters. See [`crate::keys::meta`].
    Meta = 0,
    /// User key -> newest version of it.
    Heads = 1,
    /// Revision -> the change made at it. Append-only in revision order.
    Revisions = 2,
    /// (User key, revision) of every version that a newer one has replaced.
    History = 3,
    /// Revision -> key created or deleted at it, for counts at old revisions.
    Tallies = 4,
    /// First key of a bucket of neighbouring keys -> how many of them are alive.
    Buckets = 5,
    /// Lease id -> lease.
    Leases = 6,
    /// (Lease id, user key) of every attachment.
    LeaseKeys = 7,
    /// Users, roles and the auth store's own state.
    Auth = 8,
    /// Members, present and removed, and alarms.
    Cluster = 9,
}

impl Family {
    pub const ALL: [Family; 10] = [
        Family::Meta,
        Family::Heads,
        Family::Revisions,
        Family::History,
        Family::Tallies,
        Family::Buckets,
        Family::Leases,
        Family::LeaseKeys,
        Family::Auth,
        Family::Cluster,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Family::Meta => "meta",
            Family::Heads => "heads",
            Family::Revisions => "revisions",
            Family::History => "history",
            Family::Tallies => "tallies",
            Family::Buckets => "buckets",
            Family::Leases => "leases",
            Family::LeaseKeys => "lease_keys",
            Family::Auth => "auth",
            Family::Cluster => "cluster",
        }
    }
}

/// One change of a batch. Later changes of the same key win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put { family: Family, key: Bytes, value: Bytes },
    Delete { family: Family, key: Bytes },
}

/// Changes that become visible, and durable, together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
}

impl Batch {
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push(Change::Put { family, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.changes.push(Change::Delete { family, key: key.into() });
    }
}

/// Which way a scan walks its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Part of a family: keys between two bounds, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Bound<Bytes>,
    pub until: Bound<Bytes>,
}

impl Span {
    /// Every key of the family.
    pub const fn all() -> Self {
        Self { from: Bound::Unbounded, until: Bound::Unbounded }
    }

    /// `[from, until)`; empty when `from >= until`.
    pub fn half_open(from: impl Into<Bytes>, until: impl Into<Bytes>) -> Self {
        Self { from: Bound::Included(from.into()), until: Bound::Excluded(until.into()) }
    }

    /// `[from, end of the family)`.
    pub fn at_least(from: impl Into<Bytes>) -> Self {
        Self { from: Bound::Included(from.into()), until: Bound::Unbounded }
    }
}

/// What a scan yields, in order.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), Fault>> + Send + 'a>;

/// Something that can be read: a frozen view, or a view with changes laid over it ([`crate::overlay::Overlay`]).
pub trait Read {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The rows of `span`. A span whose bounds cross is empty, never an error.
    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_>;
}

/// A frozen state of all families. Owned: it may outlive the call that made it, but it pins space while it lives.
pub trait View: Read + Send + Sync {
    /// As a scan forward, for whoever reads everything once: caches keep what others look for.
    fn pass(&self, family: Family, span: Span) -> Rows<'_> {
        self.scan(family, span, Direction::Forward)
    }
}

pub trait Engine: Send + Sync + 'static {
    /// A frozen view of everything written so far.
    fn view(&self) -> Box<dyn View>;

    /// The newest value, without the cost of a view. Consistent on its own only.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Makes `batch` visible, atomically. Durable only after [`Engine::flush`].
    fn write(&self, batch: Batch) -> Result<(), Fault>;

    /// Whether a write would have to wait now: for a flush that lags behind, say.
    fn is_stalled(&self) -> bool {
        false
    }

    /// Returns when everything written before the call is durable, in all families together.
    fn flush(&self) -> Result<(), Fault>;

    /// The value as the last flush left it on disk: what a crash at this moment would leave.
    fn get_flushed(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Flushes, then makes an independent copy of the state in `directory`, which must not exist yet.
    fn checkpoint(&self, directory: &Path) -> Result<(), Fault>;

    /// Bytes on disk and in memtables, roughly; for metrics, never for decisions in apply.
    fn physical_bytes(&self) -> u64;

    /// An empty engine beside this one, that may take its place. `bytes_expected` is about what will be written to it:
    /// refused when there is no room for that.
    fn replacement(&self, bytes_expected: u64) -> Result<Box<dyn Replacement>, Fault>;

    /// Closes what was replaced and is no longer read by anybody, and gives its space back; that may take seconds.
    /// Returns how many are still being read.
    fn reclaim(&self) -> Result<usize, Fault>;
}

/// An engine being filled. Dropped, it is gone; a fault in it says nothing about the engine that it was to replace.
pub trait Replacement: Send + 'static {
    /// In any order of keys, but in ascending order it is cheapest. Memory does not grow with what was written.
    fn write(&mut self, batch: Batch) -> Result<(), Fault>;

    /// Makes all of it durable. A crash still comes back to the engine that is to be replaced.
    fn seal(self: Box<Self>) -> Result<Box<dyn Sealed>, Fault>;
}

/// A replacement that is whole and durable. Dropped, it is gone.
pub trait Sealed: Send + 'static {
    fn view(&self) -> Box<dyn View>;

    /// The step that counts: a crash comes back to the engine replaced before it, to the new one after it. Nothing may be
    /// written to the replaced one any more. After a fault it is unknown which of the two the disk holds.
    fn commit(self: Box<Self>) -> Result<Arc<dyn Engine>, Fault>;
}
