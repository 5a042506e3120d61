//! Entries on their way to whoever leads: appended here, or sent to the leader; tried again where that is safe.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use quorate_proto::peer as pb;
use quorate_store::Answer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::peers::within;
use super::proposals::{Proposal, SWEEP_INTERVAL};
use super::types::{MemberId, Origin, Reply, Request, TypeConfig};
use super::{Inner, Raft, WriteFailure};

/// Before a leader that did not take an entry is asked again, if no other has come up meanwhile.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks for a leader when nothing is reported.
const LEADER_LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Raft {
    /// Brings an encoded batch into the log, through whoever leads. `reply` is called once, on the apply thread or where
    /// the batch was given up. Nothing is applied twice.
    pub async fn submit(&self, batch: Bytes, reply: impl FnOnce(Result<Vec<Answer>, WriteFailure>) + Send + 'static) {
        let deadline = Instant::now() + self.0.request_timeout;
        let proposal = Proposal { batch, reply: Box::new(reply), deadline };
        match self.leader_and_term() {
            Some((leader, term)) if leader == self.0.id => self.append(proposal, term).await,
            Some(_) | None => {
                tokio::spawn(self.clone().deliver(proposal));
            }
        }
    }

    pub(super) fn leader_and_term(&self) -> Option<(MemberId, u64)> {
        let metrics = self.0.core.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|leader| *leader == self.0.id || self.is_led());
        leader.map(|leader| (leader, metrics.vote.leader_id.term))
    }

    /// Waits for somebody to lead; `None` when nobody does by `deadline`.
    pub(super) async fn wait_for_leader(&self, deadline: Instant) -> Option<(MemberId, u64)> {
        let mut metrics = self.0.core.server_metrics();
        loop {
            if let Some(found) = self.leader_and_term() {
                return Some(found);
            }
            // A leader that was silent for a while may also be heard again, which changes nothing that is reported.
            let changed = tokio::time::timeout(LEADER_LOOK_INTERVAL, metrics.changed()).await;
            if matches!(changed, Ok(Err(_))) || Instant::now() >= deadline {
                return None;
            }
        }
    }

    async fn append(&self, proposal: Proposal, term: u64) {
        let request = self.0.pending.begin(proposal, term);
        let origin = request.origin;
        let raft = self.clone();
        let on_complete = Box::new(move |result: ClientWriteResult<TypeConfig>| {
            // Discarded is not lost: somebody else may have it, and what is applied here tells.
            if let Err(ClientWriteError::ForwardToLeader(_)) = result
                && let Some(proposal) = raft.0.pending.give_back(origin)
            {
                raft.try_again(proposal);
            }
        });
        let responder = Reply { on_commit: None, on_complete };
        if self.0.core.write(request).with_leader(term).responder(responder).await.is_err()
            && let Some(proposal) = self.0.pending.give_back(origin)
        {
            (proposal.reply)(Err(WriteFailure::Stopped));
        }
    }

    fn try_again(&self, proposal: Proposal) {
        // Nobody is there to take it only when the member stops.
        let _ = self.0.retries.send(proposal);
    }

    /// To whoever leads, or will within the time that is left.
    async fn deliver(self, mut proposal: Proposal) {
        loop {
            let Some((leader, term)) = self.wait_for_leader(proposal.deadline).await else {
                return (proposal.reply)(Err(WriteFailure::NotLeader { leader: None }));
            };
            if proposal.deadline <= Instant::now() {
                return (proposal.reply)(Err(WriteFailure::NotLeader { leader: Some(leader) }));
            }
            if leader == self.0.id {
                return self.append(proposal, term).await;
            }
            match self.send(proposal, leader, term).await {
                None => return,
                Some(given_back) => proposal = given_back,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Given back when the leader of `term` has not taken it, and will not.
    async fn send(&self, proposal: Proposal, leader: MemberId, term: u64) -> Option<Proposal> {
        let Some(link) = self.link_to(leader) else { return Some(proposal) };
        let deadline = proposal.deadline;
        let Request { origin, batch } = self.0.pending.begin(proposal, term);
        let request = pb::ProposeRequest { term, proposer: origin.member, sequence: origin.sequence, batch };
        let patience = deadline.saturating_duration_since(Instant::now());
        match within(patience, link.control().propose(request)).await {
            Ok(pb::ProposeAnswer { not_leader: None }) => None,
            Ok(pb::ProposeAnswer { not_leader: Some(_) }) => self.0.pending.give_back(origin),
            Err(status) => {
                tracing::debug!(%status, member = format!("{leader:x}"), "a leader was not heard to take a proposal");
                self.0.pending.unheard(origin)
            }
        }
    }

    /// Appends for another member, as the leader of the term that it names. Returns when the entry is committed.
    pub(super) async fn append_for(&self, request: pb::ProposeRequest) -> Result<(), WriteFailure> {
        let (committed, outcome) = oneshot::channel();
        let (term, leader) = (request.term, self.leader_and_term().map(|(leader, _)| leader));
        let origin = Origin { member: request.proposer, sequence: request.sequence };
        let committed = std::sync::Arc::new(std::sync::Mutex::new(Some(committed)));
        let say = move |outcome| {
            let sender = committed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(sender) = sender {
                let _ = sender.send(outcome);
            }
        };
        let on_commit = say.clone();
        let responder = Reply {
            on_commit: Some(Box::new(move || on_commit(Ok(())))),
            on_complete: Box::new(move |result: ClientWriteResult<TypeConfig>| {
                say(match result {
                    Ok(_) => Ok(()),
                    Err(ClientWriteError::ForwardToLeader(_)) => Err(WriteFailure::NotLeader { leader }),
                    Err(_) => Err(WriteFailure::Unknown),
                });
            }),
        };
        let request = Request { origin, batch: request.batch };
        let written = self.0.core.write(request).with_leader(term).responder(responder).await;
        written.map_err(|_| WriteFailure::Stopped)?;
        outcome.await.unwrap_or(Err(WriteFailure::Unknown))
    }
}

/// Proposes anew what was lost with its leader, or was not taken by one that no longer led.
pub(super) async fn resubmit(raft: Weak<Inner>, mut again: mpsc::UnboundedReceiver<Proposal>) {
    while let Some(proposal) = again.recv().await {
        let Some(raft) = raft.upgrade().map(Raft) else { return };
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_PAUSE).await;
            raft.deliver(proposal).await;
        });
    }
}

pub(super) async fn sweep(raft: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(raft) = raft.upgrade() else { return };
        raft.pending.give_up(false);
    }
}
