//! Proposals on their way into the log: whatever waits becomes one entry.
//!
//! The loop never waits for an entry to be committed before it makes the next one, so entries follow each other as
//! fast as raft takes them; how much goes into one is decided by how much came meanwhile.

use std::sync::Arc;

use prost::Message;
use quorate_proto::log;
use quorate_store::{Answer, Response};
use tokio::sync::{mpsc, oneshot};

use super::RequestError;
use super::limits::{Admission, Admitted, ENTRY_BYTES_MAX, PROPOSALS_PER_ENTRY_MAX, REQUEST_BYTES_MAX, Urgency};
use crate::raft::{Raft, WriteFailure};

struct Waiting {
    proposal: log::Proposal,
    bytes: usize,
    reply: oneshot::Sender<Result<Response, RequestError>>,
    admitted: Admitted,
}

pub(super) struct Proposals {
    queue: mpsc::UnboundedSender<Waiting>,
    admission: Arc<Admission>,
}

impl Proposals {
    pub(super) fn start(raft: Raft) -> Self {
        // Bounded by the admission in front of it.
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(gather(raft, waiting));
        Self { queue, admission: Arc::default() }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.admission.in_flight()
    }

    /// Puts a proposal into the queue. The receiver fails only when the member stops.
    pub(super) fn submit(
        &self,
        proposal: log::Proposal,
        request_bytes_max: usize,
        urgency: Urgency,
    ) -> Result<oneshot::Receiver<Result<Response, RequestError>>, RequestError> {
        let bytes = proposal.encoded_len();
        if bytes > request_bytes_max.min(REQUEST_BYTES_MAX) {
            return Err(RequestError::TooLarge);
        }
        let admitted = self.admission.enter(bytes, urgency)?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { proposal, bytes, reply, admitted };
        self.queue.send(waiting).map_err(|_| RequestError::Stopped)?;
        Ok(answer)
    }
}

async fn gather(raft: Raft, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    let mut waiting = Vec::with_capacity(PROPOSALS_PER_ENTRY_MAX);
    while queue.recv_many(&mut waiting, PROPOSALS_PER_ENTRY_MAX).await > 0 {
        // Who has stopped waiting is not served any more, least of all after a stall.
        let mut rest = waiting.drain(..).filter(|waiting| !waiting.reply.is_closed()).peekable();
        while let Some(first) = rest.next() {
            let (mut bytes, mut group) = (first.bytes, vec![first]);
            while let Some(next) = rest.next_if(|next| bytes + next.bytes <= ENTRY_BYTES_MAX) {
                bytes += next.bytes;
                group.push(next);
            }
            propose(&raft, group).await;
        }
    }
}

async fn propose(raft: &Raft, group: Vec<Waiting>) {
    let mut proposals = Vec::with_capacity(group.len());
    let mut replies = Vec::with_capacity(group.len());
    for Waiting { proposal, reply, admitted, .. } in group {
        proposals.push(proposal);
        replies.push((reply, admitted));
    }
    let entry = log::Batch { proposals }.encode_to_vec().into();
    raft.submit(entry, move |outcome| answer(replies, outcome)).await;
}

type Reply = (oneshot::Sender<Result<Response, RequestError>>, Admitted);

/// Runs on the apply thread: hands over, and nothing else. Who has stopped waiting is not missed.
fn answer(replies: Vec<Reply>, outcome: Result<Vec<Answer>, WriteFailure>) {
    match outcome {
        Ok(answers) => {
            for ((reply, _admitted), answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(answer.map_err(RequestError::from));
            }
        }
        Err(failure) => {
            let error = match failure {
                WriteFailure::NotLeader { leader: None } => RequestError::NoLeader,
                WriteFailure::NotLeader { leader: Some(_) } => RequestError::NotLeader,
                WriteFailure::Unknown => RequestError::LeaderChanged,
                WriteFailure::Stopped => RequestError::Stopped,
            };
            for (reply, _admitted) in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
