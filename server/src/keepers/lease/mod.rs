//! When leases end: known to the leader alone, by its monotonic clock, and never told to apply as a time.
//!
//! ```text
//!   effects ─▶ granted: due in TTL        revoked: forgotten
//!   renew   ─▶ proof of leadership ─▶ due in TTL, if the proof is fresh
//!   loop    ─▶ what is due ─▶ LeaseExpire{own term} ─▶ the log ─▶ effects
//! ```
//!
//! Never early: a lease is due no sooner than its TTL after the last answer that a client may have seen. A new leader
//! starts all leases afresh and adds an election time-out, once it has applied what earlier leaders left, their
//! expiries among it. A renewal that was confirmed longer ago than that time-out is confirmed again, so no answer of an
//! old leader promises more. While an expiry is under way its lease is neither renewed nor declared dead: a keep-alive
//! waits for the outcome, and where the outcome is unknown, for that of a later expiry, which the log orders behind it.
//! An expiry of a leader that has lost its place is rejected by apply, which compares the terms.
//!
//! A keep-alive of a lease that is there does not wait for apply, which may be behind under load (etcd's
//! FastLeaseKeepAlive); only that there is none is said of an applied state.
//!
//! Of long leases the leader writes down now and then what is left (gate `LeaseCheckpoint`), and a later leader starts from that
//! instead of from the whole TTL. Such a checkpoint must not outlive a renewal: a keep-alive waits for one that is under way and
//! takes back what stands in the log before it is answered, and apply rejects one of another term than its own.

mod seat;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{LeaseExpire, LeaseRemaining, proposal::Command};
use quorate_store::{Effects, Fault, LeaseEffect, LeaseRecord, Reader};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::node::RequestError;
use table::{Checkpoint, Due, Table};

pub use seat::{Seat, Standing};

/// Leases in one expiry, at most: one entry of the log, applied in one go.
const EXPIRE_BATCH_MAX: usize = 1_000;
/// Between two checkpoints of a lease, and the shortest one that is checkpointed (etcd's number).
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Leases in one checkpoint, at most (etcd's number).
const CHECKPOINT_BATCH_MAX: usize = 1_000;
/// After an expiry that failed, and between two looks when nothing is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two attempts to prove that a new leader leads.
const PROVE_INTERVAL: Duration = Duration::from_millis(50);
/// What a keep-alive waits at most for the outcome of an expiry; then its client is told to ask again.
const RENEW_PATIENCE: Duration = Duration::from_secs(5);

/// A cheap handle.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Something is due sooner than it was.
    changed: Notify,
    /// An expiry has ended, or leadership has begun or ended: whoever waits for a lease may look again.
    settled: Notify,
    election_timeout: Duration,
    /// Whose clock is asked, also from threads that are not its own: in tests it stands still.
    runtime: Handle,
}

#[derive(Default)]
struct State {
    table: Table,
    renewed: u64,
    expired: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    pub granted_secs: i64,
    pub remaining_secs: i64,
}

enum Renewal {
    Done(i64),
    NoLease,
    /// The confirmation of leadership took too long to rely on.
    Stale,
    /// Its checkpoint has to be taken back in the log first: a later leader would start from it.
    Checkpointed,
    /// What becomes of it is not known yet.
    Undecided,
}

impl Leases {
    /// Takes over the leases of the state as it stands; from then on [`Leases::follow`] must be told of every group.
    /// Called on a runtime, whose clock is the one that counts.
    pub fn load(reader: &Reader, election_timeout: Duration) -> Result<Self, Fault> {
        let mut table = Table::default();
        for (id, record) in reader.view()?.leases()? {
            table.load(id, record);
        }
        Ok(Self::new(table, election_timeout))
    }

    fn new(table: Table, election_timeout: Duration) -> Self {
        let state = Mutex::new(State { table, ..State::default() });
        let (changed, settled, runtime) = (Notify::new(), Notify::new(), Handle::current());
        Self(Arc::new(Inner { state, changed, settled, election_timeout, runtime }))
    }

    /// From now on, what is left of long leases is checkpointed so often.
    pub fn checkpoint_every(&self, interval: Duration) {
        self.state().table.checkpoint_every = Some(interval);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        let _clock = self.0.runtime.enter();
        Instant::now()
    }

    /// Called on the apply thread, in order.
    pub fn follow(&self, effects: &Effects) {
        if effects.leases.is_empty() {
            return;
        }
        let now = self.now();
        let mut state = self.state();
        for effect in &effects.leases {
            match *effect {
                LeaseEffect::Granted { id, ttl_secs } => state.table.granted(id, ttl_secs, now),
                LeaseEffect::Revoked { id } => state.table.revoked(id),
                LeaseEffect::Checkpointed { id, remaining_ttl_secs } => {
                    state.table.checkpointed(id, remaining_ttl_secs, now);
                }
            }
        }
        drop(state);
        self.0.changed.notify_one();
        self.0.settled.notify_waiters();
    }

    /// A snapshot was installed, and these are all the leases there are now. Called on the apply thread, in order with
    /// [`Leases::follow`]. Whoever waits for the outcome of an expiry finds it in them.
    ///
    /// A member that leads is not sent snapshots; one that does not know yet that it was replaced may be. Leases then
    /// start afresh, as for a new leader: later than they could be due, never earlier.
    pub fn installed(&self, leases: &[(i64, LeaseRecord)]) {
        let now = self.now();
        self.state().table.replace(leases, now, self.0.election_timeout);
        self.0.changed.notify_one();
        self.0.settled.notify_waiters();
    }

    /// Renews a lease and answers its TTL in seconds; `None` when there is no such lease.
    pub async fn renew(&self, seat: &impl Seat, id: i64) -> Result<Option<i64>, RequestError> {
        let give_up = self.now() + RENEW_PATIENCE;
        let mut proved = false;
        loop {
            // Whoever still believes to lead after a stall may have been replaced: the quorum is asked, together with
            // all who ask at the same time.
            let asked = self.now();
            seat.confirm().await?;
            let settled = self.0.settled.notified();
            match self.try_renew(id, asked) {
                Renewal::Done(ttl_secs) => return Ok(Some(ttl_secs)),
                Renewal::NoLease if proved => return Ok(None),
                Renewal::NoLease => {
                    seat.prove().await?;
                    proved = true;
                }
                Renewal::Stale => {}
                Renewal::Checkpointed => {
                    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl: 0 }];
                    seat.propose(Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })).await?;
                }
                Renewal::Undecided if !seat.standing().leads => return Err(RequestError::NotLeader),
                Renewal::Undecided => {
                    let _ = tokio::time::timeout(LOOK_INTERVAL, settled).await;
                }
            }
            if self.now() > give_up {
                return Err(RequestError::TimedOut);
            }
        }
    }

    /// `asked`: the confirmation of leadership is no older.
    fn try_renew(&self, id: i64, asked: Instant) -> Renewal {
        let now = self.now();
        let mut state = self.state();
        let Some(lease) = state.table.get(id).copied() else { return Renewal::NoLease };
        if now - asked > self.0.election_timeout {
            return Renewal::Stale;
        }
        if !state.table.leads() || lease.expiring || lease.checkpoint == Checkpoint::UnderWay {
            return Renewal::Undecided;
        }
        if lease.remaining_secs > 0 || lease.checkpoint == Checkpoint::InDoubt {
            return Renewal::Checkpointed;
        }
        state.table.start(id, now, Duration::ZERO);
        state.renewed += 1;
        Renewal::Done(lease.granted_secs)
    }

    /// `None` when there is no such lease.
    pub fn time_to_live(&self, id: i64) -> Option<TimeToLive> {
        let now = self.now();
        self.state().table.time_to_live(id, now)
    }

    /// Soonest first (etcd's order).
    pub fn by_expiry(&self) -> Vec<i64> {
        self.state().table.by_expiry()
    }

    pub fn len(&self) -> usize {
        self.state().table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Renewals since the start.
    pub fn renewed(&self) -> u64 {
        self.state().renewed
    }

    /// Leases found due by this member and ended by it, since the start.
    pub fn expired(&self) -> u64 {
        self.state().expired
    }

    /// Takes part while this member leads. Returns when the member stops.
    pub async fn keep(self, seat: impl Seat) {
        let mut standing = seat.standing();
        loop {
            tokio::select! {
                biased;
                next = seat.standing_changed(standing) => {
                    // Leadership that was lost and won again in between starts all leases afresh, too.
                    self.stand_down();
                    let Some(next) = next else { return };
                    standing = next;
                }
                () = self.look_after(&seat, standing) => {}
            }
        }
    }

    /// One turn of the loop; given up when the standing changes, and with it whatever was under way.
    async fn look_after(&self, seat: &impl Seat, standing: Standing) {
        if standing.leads && !self.state().table.leads() {
            if let Err(error) = seat.prove().await {
                tracing::debug!(%error, "not leading yet");
                return tokio::time::sleep(PROVE_INTERVAL).await;
            }
            self.lead();
        }
        if standing.leads {
            self.expire(seat, standing.term).await;
            self.checkpoint(seat, standing.term).await;
        }
        let looked = self.now() + LOOK_INTERVAL;
        let due = self.state().table.first_due().map_or(looked, |due| due.min(looked));
        tokio::select! {
            biased;
            () = self.0.changed.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }

    fn lead(&self) {
        let now = self.now();
        self.state().table.lead(now, self.0.election_timeout);
        self.0.settled.notify_waiters();
    }

    fn stand_down(&self) {
        self.state().table.stand_down();
        self.0.settled.notify_waiters();
    }

    async fn expire(&self, seat: &impl Seat, leader_term: u64) {
        loop {
            let now = self.now();
            let due = self.state().table.take_due(now, EXPIRE_BATCH_MAX);
            if due.is_empty() {
                return;
            }
            // One in doubt is not named twice: its id may have been granted again between the two. The entry without it
            // settles what became of the one before.
            let ids = due.iter().filter(|lease| !lease.in_doubt).map(|lease| lease.id).collect();
            let outcome = seat.propose(Command::LeaseExpire(LeaseExpire { leader_term, ids })).await;
            self.ended(&due, &outcome);
            if let Err(error) = outcome {
                tracing::warn!(%error, leases = due.len(), "failed to expire leases; trying again");
                return;
            }
        }
    }

    async fn checkpoint(&self, seat: &impl Seat, leader_term: u64) {
        loop {
            let now = self.now();
            let left = self.state().table.take_checkpoints(now, CHECKPOINT_BATCH_MAX);
            if left.is_empty() {
                return;
            }
            let of = |(id, remaining_ttl): &(i64, i64)| pb::LeaseCheckpoint { id: *id, remaining_ttl: *remaining_ttl };
            let checkpoints = left.iter().map(of).collect();
            let outcome = seat.propose(Command::LeaseRemaining(LeaseRemaining { leader_term, checkpoints })).await;
            let ended = self.now();
            let mut state = self.state();
            for (id, left_secs) in &left {
                match &outcome {
                    Ok(()) => state.table.checkpoint_done(*id),
                    Err(error) => {
                        state.table.checkpoint_failed(*id, *left_secs, ended, error.may_have_been_executed());
                    }
                }
            }
            drop(state);
            self.0.settled.notify_waiters();
            if let Err(error) = outcome {
                tracing::warn!(%error, leases = left.len(), "failed to checkpoint leases; they would start from their whole TTL");
                return;
            }
        }
    }

    fn ended(&self, due: &[Due], outcome: &Result<(), RequestError>) {
        let next = self.now() + LOOK_INTERVAL;
        let mut state = self.state();
        if outcome.is_ok() {
            state.expired += due.iter().filter(|lease| !lease.in_doubt).count() as u64;
        }
        for Due { id, in_doubt } in due {
            let in_doubt = match outcome {
                // Applied, and with it everything that this leader had proposed before.
                Ok(()) | Err(RequestError::Rejected(_)) => false,
                Err(error) if error.may_have_been_executed() => true,
                Err(_) => *in_doubt,
            };
            state.table.survived(*id, next, in_doubt);
        }
        drop(state);
        self.0.settled.notify_waiters();
    }
}
