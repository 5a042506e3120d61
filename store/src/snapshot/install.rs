//! What was received, and how it takes the place of the state.

use std::fmt::Debug;

use super::{SnapshotHead, TransferError};
use crate::engine::Sealed;
use crate::keys::LeaseRecord;
use crate::lease;
use crate::state::{Published, State};
use crate::types::{Fault, LogPosition};

/// A snapshot that is whole, durable, and of no account before [`crate::Store::install`]. Dropped, it is gone.
pub struct ReceivedSnapshot {
    sealed: Box<dyn Sealed>,
    head: SnapshotHead,
    state: State,
    leases: Vec<(i64, LeaseRecord)>,
}

/// What an installed snapshot changed, all at once and without events: for those who follow [`crate::Effects`].
/// Everything else of the state may have changed too (alarms, users, members) and is found with a [`crate::Reader`].
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// The last entry that the state is the state after.
    pub position: LogPosition,
    /// As of that entry; see [`crate::Membership::encoded`].
    pub membership: bytes::Bytes,
    /// The newest main revision before, and now. Watchers have to read what lies between.
    pub revision_before: i64,
    pub revision: i64,
    /// -1 before the first compaction. Watchers that have to read from below it have lost events.
    pub compacted: i64,
    /// Every lease there is now; all others are gone.
    pub leases: Vec<(i64, LeaseRecord)>,
}

/// Why a received snapshot was not installed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing in it is new: the log has gone on in the meantime. Nothing has changed.
    #[error("the snapshot is of entry {offered}, and entry {applied} is applied already", offered = offered.index, applied = applied.index)]
    Old { offered: LogPosition, applied: LogPosition },
    /// It is not a later state of the same log: one of the two members is not what it seems. Nothing has changed.
    #[error("the snapshot cannot follow what is applied here: its {what} is {offered}, and here it is {here}")]
    Contradiction { what: &'static str, offered: String, here: String },
    /// It is unknown which state the disk holds: the end of this member.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl ReceivedSnapshot {
    pub(super) fn load(sealed: Box<dyn Sealed>, head: SnapshotHead) -> Result<Self, TransferError> {
        let view = sealed.view();
        let announced = |fault: Fault| TransferError::Announced(fault.to_string());
        let state = State::load(&*view).map_err(announced)?;
        let leases = lease::all(&*view).map_err(announced)?;
        same("applied position", &head.position, &state.applied)?;
        same("membership", &head.membership, &state.cluster.membership)?;
        same("revision", &head.revision, &state.tracks.revision)?;
        same("compacted revision", &head.compacted, &state.tracks.compacted)?;
        Ok(Self { sealed, head, state, leases })
    }

    /// What the snapshot is of.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Whether this can be a later state than `state`, of the same log.
    pub(crate) fn may_follow(&self, state: &State) -> Result<(), InstallError> {
        let (offered, applied) = (self.state.applied, state.applied);
        if offered.index <= applied.index {
            return Err(InstallError::Old { offered, applied });
        }
        later("term", offered.term, applied.term)?;
        later("revision", self.state.tracks.revision, state.tracks.revision)?;
        later("compacted revision", self.state.tracks.compacted, state.tracks.compacted)
    }

    pub(crate) fn commit(self, revision_before: i64) -> Result<(Published, Installed), Fault> {
        let Self { sealed, head, state, leases } = self;
        let SnapshotHead { position, membership, revision, compacted, .. } = head;
        let engine = sealed.commit()?;
        let installed = Installed { position, membership, revision_before, revision, compacted, leases };
        Ok((Published { engine, state }, installed))
    }
}

fn same<T: PartialEq + Debug>(what: &str, announced: &T, found: &T) -> Result<(), TransferError> {
    if announced == found {
        return Ok(());
    }
    Err(TransferError::Announced(format!("its {what} is {found:?}, announced was {announced:?}")))
}

fn later<T: Ord + ToString>(what: &'static str, offered: T, here: T) -> Result<(), InstallError> {
    if offered >= here {
        return Ok(());
    }
    Err(InstallError::Contradiction { what, offered: offered.to_string(), here: here.to_string() })
}
