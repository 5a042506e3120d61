//! ReadIndex: how far everything was committed at the time of asking, by a quorum's word.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use quorate_proto::peer as pb;
use tokio::time::Instant;

use super::peers::within;
use super::types::{self, MemberId};
use super::{Raft, ReadFailure};

/// Before a question that failed is asked anew, of whoever leads then.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

impl Raft {
    /// Confirms with a quorum that this member leads. Answers the index of the last entry committed before, or of the
    /// leader's first own one.
    pub async fn confirm_leadership(&self) -> Result<u64, ReadFailure> {
        let linearizer = match self.0.core.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(ReadFailure::NotLeader { leader: forward.leader_id });
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => return Err(ReadFailure::NoQuorum),
            Err(RaftError::Fatal(_)) => return Err(ReadFailure::Stopped),
        };
        Ok(types::position(linearizer.read_log_id().log_id()).index)
    }

    /// Waits until everything is applied here that was committed when this was called, wherever the leader is. Every
    /// attempt is a new question: an answer to an old one would prove nothing for now.
    pub async fn read_index(&self) -> Result<(), ReadFailure> {
        let deadline = Instant::now() + self.0.request_timeout;
        loop {
            let failure = match self.wait_for_leader(deadline).await {
                None => return Err(ReadFailure::NotLeader { leader: None }),
                Some((leader, _)) => match self.ask_index(leader).await {
                    Ok(wanted) => return self.wait_applied(wanted, deadline).await,
                    Err(failure) => failure,
                },
            };
            if failure == ReadFailure::Stopped || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask_index(&self, leader: MemberId) -> Result<u64, ReadFailure> {
        use pb::read_index_answer::Outcome;
        if leader == self.0.id {
            return self.confirm_leadership().await;
        }
        let link = self.link_to(leader).ok_or(ReadFailure::NotLeader { leader: None })?;
        let answer = within(self.0.election_timeout, link.control().read_index(pb::ReadIndexRequest {})).await;
        match answer.ok().and_then(|answer| answer.outcome) {
            Some(Outcome::Index(index)) => Ok(index),
            Some(Outcome::NotLeader(pb::NotLeader { leader })) => {
                Err(ReadFailure::NotLeader { leader: (leader != 0).then_some(leader) })
            }
            Some(Outcome::NoQuorum(_)) | None => Err(ReadFailure::NoQuorum),
        }
    }

    /// Waits until everything up to entry `wanted` is applied here.
    pub async fn wait_applied(&self, wanted: u64, deadline: Instant) -> Result<(), ReadFailure> {
        let mut applied = self.0.progress.applied.clone();
        match tokio::time::timeout_at(deadline, applied.wait_for(|applied| applied.index >= wanted)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadFailure::Stopped),
            Err(_) => Err(ReadFailure::NoQuorum),
        }
    }
}
