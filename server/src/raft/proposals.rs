//! Proposals on their way: each is known again when it is applied here, wherever it was appended.
//!
//! ```text
//!   begin(term) ─▶ the leader of that term appends ─▶ ... ─▶ applied here: answered with what came of it
//!                          │ refuses                 └▶ an entry of a later term applied first: lost for good
//!                          ▼                                          │
//!                     not appended ───────────▶ proposed anew ◀───────┘
//! ```
//!
//! A proposal is for the leader of one term only. Terms never fall along the log, so once an entry of a later term is applied,
//! nothing of the earlier one can follow: what was not applied by then never will be, and may be proposed anew without any
//! danger that it happens twice. That is what makes a change of leader invisible to most requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_store::Answer;
use tokio::time::Instant;

use super::WriteFailure;
use super::types::{MemberId, Origin, Request};

pub(super) type Reply = Box<dyn FnOnce(Result<Vec<Answer>, WriteFailure>) + Send>;

/// What somebody wants to have in the log, and waits for.
pub(super) struct Proposal {
    pub(super) batch: Bytes,
    pub(super) reply: Reply,
    /// Given up at this time if no leader has taken it; whoever waits has gone by then.
    pub(super) deadline: Instant,
}

struct Waiting {
    proposal: Proposal,
    term: u64,
}

struct State {
    next_sequence: u64,
    /// The highest term of an entry applied here.
    applied_term: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Clone)]
pub(super) struct Pending {
    member: MemberId,
    state: Arc<Mutex<State>>,
}

impl Pending {
    /// `first_sequence` must not be one that an earlier life of this member used: entries of then may be applied now.
    pub(super) fn new(member: MemberId, first_sequence: u64) -> Self {
        let state = State { next_sequence: first_sequence, applied_term: 0, waiting: HashMap::new() };
        Self { member, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before it is sent to the leader of `term`.
    pub(super) fn begin(&self, proposal: Proposal, term: u64) -> Request {
        let batch = proposal.batch.clone();
        let mut state = self.state();
        let sequence = state.next_sequence;
        state.next_sequence = sequence.wrapping_add(1);
        state.waiting.insert(sequence, Waiting { proposal, term });
        Request { origin: Origin { member: self.member, sequence }, batch }
    }

    /// The entry is about to be applied: who waits for its answer.
    pub(super) fn applied(&self, origin: Origin) -> Option<Reply> {
        if origin.member != self.member {
            return None;
        }
        self.state().waiting.remove(&origin.sequence).map(|waiting| waiting.proposal.reply)
    }

    /// It was not appended, and will not be.
    pub(super) fn give_back(&self, origin: Origin) -> Option<Proposal> {
        self.state().waiting.remove(&origin.sequence).map(|waiting| waiting.proposal)
    }

    /// The leader was not heard to have taken it. Given back if that is decided by now; otherwise what is applied tells.
    pub(super) fn unheard(&self, origin: Origin) -> Option<Proposal> {
        let mut state = self.state();
        let decided = state.waiting.get(&origin.sequence).is_some_and(|waiting| waiting.term < state.applied_term);
        if decided { state.waiting.remove(&origin.sequence).map(|waiting| waiting.proposal) } else { None }
    }

    /// Entries up to one of `term` are applied: what was lost with earlier terms.
    pub(super) fn settle(&self, term: u64) -> Vec<Proposal> {
        let mut state = self.state();
        if term <= state.applied_term {
            return Vec::new();
        }
        state.applied_term = term;
        let lost: Vec<u64> =
            state.waiting.iter().filter(|(_, waiting)| waiting.term < term).map(|(sequence, _)| *sequence).collect();
        let mut lost: Vec<(u64, Proposal)> = lost
            .into_iter()
            .filter_map(|sequence| Some((sequence, state.waiting.remove(&sequence)?.proposal)))
            .collect();
        lost.sort_unstable_by_key(|(sequence, _)| *sequence);
        lost.into_iter().map(|(_, proposal)| proposal).collect()
    }

    /// Takes out those for whom nobody waits any more, and, with `all`, the others as well: a snapshot has jumped over
    /// what would have told.
    pub(super) fn give_up(&self, all: bool) {
        let now = Instant::now();
        let mut state = self.state();
        let gone: Vec<u64> = state
            .waiting
            .iter()
            .filter(|(_, waiting)| all || waiting.proposal.deadline <= now)
            .map(|(sequence, _)| *sequence)
            .collect();
        let gone: Vec<_> = gone.into_iter().filter_map(|sequence| state.waiting.remove(&sequence)).collect();
        drop(state);
        for waiting in gone {
            (waiting.proposal.reply)(Err(WriteFailure::Unknown));
        }
    }
}

/// How often [`Pending::give_up`] looks for what nobody waits for.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(name: &'static str) -> (Proposal, std::sync::mpsc::Receiver<Result<Vec<Answer>, WriteFailure>>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let reply = Box::new(move |answer| drop(sender.send(answer)));
        let deadline = Instant::now() + Duration::from_secs(5);
        (Proposal { batch: Bytes::from_static(name.as_bytes()), reply, deadline }, receiver)
    }

    #[test]
    fn what_is_applied_is_answered_once() {
        let pending = Pending::new(7, u64::MAX);
        let (a, answer) = proposal("a");
        let request = pending.begin(a, 3);
        assert!(pending.applied(Origin { member: 8, ..request.origin }).is_none(), "another member's");
        let reply = pending.applied(request.origin).expect("it waits");
        reply(Ok(Vec::new()));
        assert!(answer.recv().unwrap().is_ok());
        assert!(pending.applied(request.origin).is_none());
    }

    #[test]
    fn only_what_a_later_term_has_overtaken_is_lost() {
        let pending = Pending::new(7, 1);
        let (early, _) = proposal("early");
        let (late, _) = proposal("late");
        let early = pending.begin(early, 3);
        let late = pending.begin(late, 5);
        assert!(pending.settle(3).is_empty(), "entries of its own term may still hold it");
        assert!(pending.unheard(early.origin).is_none(), "not decided yet");
        let lost = pending.settle(5);
        assert_eq!(lost.iter().map(|lost| &lost.batch[..]).collect::<Vec<_>>(), [b"early"]);
        assert!(pending.settle(5).is_empty());
        let (stale, _) = proposal("stale");
        let stale = pending.begin(stale, 4);
        assert!(pending.unheard(stale.origin).is_some(), "a term that is over decides at once");
        assert!(pending.give_back(late.origin).is_some());
    }

    #[test]
    fn a_snapshot_leaves_the_outcome_open() {
        let pending = Pending::new(7, 1);
        let (a, answer) = proposal("a");
        pending.begin(a, 3);
        pending.give_up(false);
        assert!(answer.try_recv().is_err());
        pending.give_up(true);
        assert_eq!(answer.recv().unwrap().unwrap_err(), WriteFailure::Unknown);
    }
}
