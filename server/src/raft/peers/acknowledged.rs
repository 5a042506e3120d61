//! What a peer is known to have, and must not come back without.
//!
//! A member that acknowledged an entry was counted for it. Comes it back without, an old copy of its directory in place of the
//! newer one, then an entry that everybody was promised may have no majority any more, and its vote may count twice. Raft takes it
//! for impossible; openraft sends such a member the same entries for ever. So whoever has led remembers up to where each peer has
//! acknowledged *committed* entries (others may be replaced by those of a later leader), and refuses a peer that shows less.
//!
//! What nobody remembers, because every leader that knew was started again since, is not seen.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use openraft::raft::StreamAppendError;
use tonic::Status;

use super::network::Answer;
use crate::raft::types::{self, LogId, MemberId};

/// How the refusal begins that such a member meets. It stops when it reads it.
pub(crate) const LOST: &str = "the member has lost entries that it acknowledged";

/// Of one peer. Indexes are of entries, from 1; 0 for none.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    member: MemberId,
    /// What the leader that this member is, or was, last knew as committed.
    committed: AtomicU64,
    upto: AtomicU64,
    /// Whether it came back with less.
    lost: AtomicBool,
}

impl Acknowledged {
    pub(crate) fn by(member: MemberId) -> Self {
        Self { member, committed: AtomicU64::new(0), upto: AtomicU64::new(0), lost: AtomicBool::new(false) }
    }

    pub(crate) fn upto(&self) -> u64 {
        self.upto.load(Ordering::Relaxed)
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A request that goes to the peer says that this is committed.
    pub(crate) fn committed(&self, id: Option<&LogId>) {
        self.committed.fetch_max(index(id), Ordering::Relaxed);
    }

    /// The peer has answered with `answer`.
    pub(crate) fn answered(&self, answer: &Answer) -> Result<(), Status> {
        match answer {
            Ok(upto) => {
                let safe = index(upto.as_ref()).min(self.committed.load(Ordering::Relaxed));
                self.upto.fetch_max(safe, Ordering::Relaxed);
                Ok(())
            }
            // It lacks this entry, or has another one in its place.
            Err(StreamAppendError::Conflict(at)) => self.ends_before(index(Some(at))),
            Err(StreamAppendError::HigherVote(_)) => Ok(()),
        }
    }

    /// The peer says that its log ends with `last`.
    pub(crate) fn ends_with(&self, last: Option<&LogId>) -> Result<(), Status> {
        self.ends_before(index(last) + 1)
    }

    fn ends_before(&self, missing: u64) -> Result<(), Status> {
        if missing > self.upto() {
            return Ok(());
        }
        let reason = format!("{LOST}: its log ends with entry {}, and it had all up to {}", missing - 1, self.upto());
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!(member = format!("{:x}", self.member), reason, "refused a member: {}", advice(self.member));
        }
        // Not the code of a refusal that this member met itself, on which it would stop.
        Err(Status::data_loss(reason))
    }
}

fn index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| types::position(id).index)
}

/// What a member says that was refused for it, or sees it by itself.
pub(crate) fn advice(member_id: u64) -> String {
    format!(
        "was an older copy of the data directory put in place of the newest? Remove the member (`member remove {member_id:x}`), add \
         it anew (`member add`), and start it with an empty directory and --initial-cluster-state=existing"
    )
}

#[cfg(test)]
mod tests {
    use quorate_store::LogPosition;

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        types::log_id(LogPosition { index, term })
    }

    #[test]
    fn what_was_committed_and_acknowledged_must_stay() {
        let peer = Acknowledged::by(7);
        peer.answered(&Ok(Some(id(1, 9)))).unwrap();
        peer.answered(&Err(StreamAppendError::Conflict(id(1, 3)))).expect("nothing was known to be committed");
        peer.committed(Some(&id(1, 7)));
        peer.answered(&Ok(Some(id(1, 9)))).unwrap();
        assert_eq!(peer.upto(), 7);
        peer.answered(&Err(StreamAppendError::Conflict(id(2, 8))))
            .expect("8 was not committed: a later leader may replace it");
        peer.ends_with(Some(&id(1, 7))).unwrap();
        assert!(!peer.has_lost());
        let refused = peer.answered(&Err(StreamAppendError::Conflict(id(2, 7)))).unwrap_err();
        assert_eq!(refused.message(), format!("{LOST}: its log ends with entry 6, and it had all up to 7"));
        assert!(peer.has_lost());
    }

    #[test]
    fn a_shorter_log_and_an_empty_one_are_noticed() {
        let peer = Acknowledged::by(7);
        peer.ends_with(None).unwrap();
        peer.committed(Some(&id(1, 2)));
        peer.answered(&Ok(Some(id(1, 2)))).unwrap();
        peer.ends_with(Some(&id(1, 2))).unwrap();
        peer.ends_with(Some(&id(3, 1))).unwrap_err();
        peer.ends_with(None).unwrap_err();
    }
}
