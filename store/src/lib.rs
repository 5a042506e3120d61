//! The replicated state of a member: keyspace, leases, users, members, alarms.
//!
//! Synchronous and deterministic: there is no clock, no randomness, no network and no thread in here. Whatever differs
//! between members stays outside; the same entries give the same bytes everywhere.
//!
//! ```text
//!   entries ──▶ Store::apply ──▶ overlay ──▶ one atomic batch ──▶ Engine
//!                   │                                               │
//!                   └──▶ Applied: answers and effects               └──▶ Reader::view: frozen, consistent reads
//!
//!   Reader::snapshot ─chunks─▶ (another member) Reader::receive ─▶ Store::install: a new engine in the place of the old
//! ```

mod alarm;
mod apply;
pub mod auth;
mod cluster;
mod effects;
pub mod engine;
pub mod keys;
mod lease;
pub mod mvcc;
pub mod overlay;
mod quota;
mod reader;
pub mod snapshot;
mod state;
mod types;

pub use apply::{
    Answer, Applied, Entry, Membership, Payload, Response, Store, validate_delete, validate_put, validate_txn,
};
pub use effects::{Effects, Event, EventKind, LeaseEffect, RevisionEvents};
pub use keys::LeaseRecord;
pub use mvcc::{EventPage, KeyRange, KeyspaceHash, validate_range};
pub use quota::{COST_LEASE_GRANT_BYTES, cost_put, cost_txn};
pub use reader::{FlushedMembership, RangePiece, Reader, StoreView};
pub use snapshot::{
    InstallError, Installed, ReceivedSnapshot, SnapshotChunks, SnapshotHead, SnapshotSink, TransferError,
};
pub use types::{Failure, Fault, LEASE_TTL_SECS_MAX, LogPosition, REVISION_FIRST, Rejection, Revision};
