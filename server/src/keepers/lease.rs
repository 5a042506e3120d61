//! When leases end: known to the leader alone, by its monotonic clock, and never told to apply as a time.
//!
//! ```text
//!   effects ─▶ granted: due in TTL        revoked: forgotten
//!   renew   ─▶ proof of leadership ─▶ due in TTL from before the proof's answer was known
//!   loop    ─▶ what is due ─▶ LeaseExpire{own term} ─▶ the log ─▶ effects
//! ```
//!
//! Never early: a lease is due no sooner than its TTL after the last answer that a client may have seen. A new leader
//! starts all leases afresh and adds an election time-out. While an expiry is under way its lease is neither renewed
//! nor declared dead: a keep-alive waits for the outcome. An expiry of a leader that has lost its place is rejected by
//! apply, which compares the terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_proto::log::{LeaseExpire, proposal::Command};
use quorate_store::{Effects, Fault, LeaseEffect, LeaseRecord, Reader};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::node::{Consistency, Node, RequestError};

/// Leases in one expiry, at most: one entry of the log, applied in one go.
const EXPIRE_BATCH_MAX: usize = 1_000;
/// After an expiry that failed, and between two looks when nothing is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A cheap handle.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Something is due sooner than it was, or an expiry has ended.
    changed: Notify,
    /// An expiry has ended: whoever waits for its lease may look again.
    settled: Notify,
    election_timeout: Duration,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<i64, Lease>,
    /// (when, id) of every lease that is not being expired. Empty while another member leads.
    due: BTreeSet<(Instant, i64)>,
    expiring: BTreeSet<i64>,
    leads: bool,
    renewed: u64,
}

#[derive(Clone, Copy)]
struct Lease {
    granted_secs: i64,
    /// What a checkpoint last said is left; 0 for none. Where a new leader starts from.
    remaining_secs: i64,
    /// `None` when it lies further ahead than the clock can say, or another member leads.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    pub granted_secs: i64,
    pub remaining_secs: i64,
}

impl Leases {
    /// Takes over the leases of the state as it stands; from then on [`Leases::follow`] must be told of every group.
    pub fn load(reader: &Reader, election_timeout: Duration) -> Result<Self, Fault> {
        let mut state = State::default();
        for (id, LeaseRecord { ttl_secs, remaining_ttl_secs }) in reader.view()?.leases()? {
            state.leases.insert(id, Lease { granted_secs: ttl_secs, remaining_secs: remaining_ttl_secs, due: None });
        }
        let inner = Inner { state: Mutex::new(state), changed: Notify::new(), settled: Notify::new(), election_timeout };
        Ok(Self(Arc::new(inner)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the apply thread, in order.
    pub fn follow(&self, effects: &Effects) {
        if effects.leases.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.state();
        for effect in &effects.leases {
            match *effect {
                LeaseEffect::Granted { id, ttl_secs } => {
                    state.leases.insert(id, Lease { granted_secs: ttl_secs, remaining_secs: 0, due: None });
                    if state.leads {
                        state.set_due(id, now, Duration::ZERO);
                    }
                }
                LeaseEffect::Revoked { id } => state.forget(id),
                LeaseEffect::Checkpointed { id, remaining_ttl_secs } => {
                    if let Some(lease) = state.leases.get_mut(&id) {
                        lease.remaining_secs = remaining_ttl_secs;
                    }
                }
            }
        }
        drop(state);
        self.0.changed.notify_one();
        self.0.settled.notify_waiters();
    }

    /// Renews a lease and answers its TTL in seconds; `None` when there is no such lease.
    pub async fn renew(&self, node: &Node, id: i64) -> Result<Option<i64>, RequestError> {
        loop {
            // Whoever still believes to lead after a stall may have been replaced: the quorum is asked, together with
            // all who ask at the same time.
            node.read_view(Consistency::Linearizable).await?;
            let settled = self.0.settled.notified();
            {
                let mut state = self.state();
                if !state.leads {
                    return Err(RequestError::NotLeader);
                }
                if !state.leases.contains_key(&id) {
                    return Ok(None);
                }
                if !state.expiring.contains(&id) {
                    state.set_due(id, Instant::now(), Duration::ZERO);
                    state.renewed += 1;
                    let lease = state.leases.get_mut(&id).expect("it was there, and the lock is still held");
                    lease.remaining_secs = 0;
                    return Ok(Some(lease.granted_secs));
                }
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, settled).await;
        }
    }

    /// `None` when there is no such lease.
    pub fn time_to_live(&self, id: i64) -> Option<TimeToLive> {
        let state = self.state();
        let lease = state.leases.get(&id)?;
        let now = Instant::now();
        let remaining = match lease.due {
            Some(due) => due.saturating_duration_since(now).as_secs() as i64,
            None if state.expiring.contains(&id) => 0,
            None => lease.granted_secs,
        };
        Some(TimeToLive { granted_secs: lease.granted_secs, remaining_secs: remaining })
    }

    /// Soonest first (etcd's order).
    pub fn by_expiry(&self) -> Vec<i64> {
        let state = self.state();
        let mut ids: Vec<_> = state.leases.iter().map(|(id, lease)| (lease.due, *id)).collect();
        ids.sort_by_key(|(due, id)| (due.is_none(), *due, *id));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    pub fn len(&self) -> usize {
        self.state().leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Renewals since the start.
    pub fn renewed(&self) -> u64 {
        self.state().renewed
    }

    /// Takes part while this member leads. Ends with the task that it runs in.
    pub async fn keep(self, node: Node) {
        let mut status = node.status();
        loop {
            self.lead(status.is_leader);
            let looked = Instant::now() + LOOK_INTERVAL;
            let due = self.state().due.first().map_or(looked, |(due, _)| (*due).min(looked));
            tokio::select! {
                biased;
                next = node.raft().status_changed(status) => {
                    // Leadership that was lost and won again in between starts all leases afresh, too.
                    if next.term != status.term {
                        self.lead(false);
                    }
                    status = next;
                }
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
            if status.is_leader {
                self.expire(&node, status.term).await;
            }
        }
    }

    fn lead(&self, leads: bool) {
        let mut state = self.state();
        if state.leads == leads {
            return;
        }
        state.leads = leads;
        let now = Instant::now();
        for id in state.leases.keys().copied().collect::<Vec<_>>() {
            if leads {
                state.set_due(id, now, self.0.election_timeout);
            } else {
                state.clear_due(id);
            }
        }
    }

    async fn expire(&self, node: &Node, leader_term: u64) {
        loop {
            let ids = self.state().take_due(Instant::now());
            if ids.is_empty() {
                return;
            }
            let command = Command::LeaseExpire(LeaseExpire { leader_term, ids: ids.clone() });
            let outcome = node.propose_system(command).await;
            let mut state = self.state();
            for id in ids {
                state.expiring.remove(&id);
                if state.leases.contains_key(&id) {
                    // It still is there: the expiry was rejected, or its outcome is unknown. Not sooner than in a while.
                    state.set_due_at(id, Instant::now() + LOOK_INTERVAL);
                }
            }
            drop(state);
            self.0.settled.notify_waiters();
            if let Err(error) = outcome {
                tracing::warn!(%error, "failed to expire leases; trying again");
                return;
            }
        }
    }
}

impl State {
    fn set_due(&mut self, id: i64, now: Instant, extra: Duration) {
        let Some(lease) = self.leases.get(&id) else { return };
        let secs = if lease.remaining_secs > 0 { lease.remaining_secs } else { lease.granted_secs };
        let due = now.checked_add(Duration::from_secs(secs.unsigned_abs()) + extra);
        match due {
            Some(due) => self.set_due_at(id, due),
            None => self.clear_due(id),
        }
    }

    fn set_due_at(&mut self, id: i64, due: Instant) {
        self.clear_due(id);
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.due = Some(due);
            self.due.insert((due, id));
        }
    }

    fn clear_due(&mut self, id: i64) {
        if let Some(due) = self.leases.get_mut(&id).and_then(|lease| lease.due.take()) {
            self.due.remove(&(due, id));
        }
    }

    fn forget(&mut self, id: i64) {
        self.clear_due(id);
        self.leases.remove(&id);
        self.expiring.remove(&id);
    }

    fn take_due(&mut self, now: Instant) -> Vec<i64> {
        let ids: Vec<i64> =
            self.due.iter().take_while(|(due, _)| *due <= now).take(EXPIRE_BATCH_MAX).map(|(_, id)| *id).collect();
        for id in &ids {
            self.clear_due(*id);
            self.expiring.insert(*id);
        }
        ids
    }
}
