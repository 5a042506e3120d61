//! The table of leases and when each is due. Pure: whoever calls brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_store::LeaseRecord;
use tokio::time::Instant;

use super::TimeToLive;

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub granted_secs: i64,
    /// What a checkpoint last said is left; 0 for none. Where a new leader starts from.
    pub remaining_secs: i64,
    /// `None` when it lies further ahead than the clock can say, or another member leads.
    pub due: Option<Instant>,
    /// An expiry was proposed and may still be applied: neither alive nor dead.
    pub expiring: bool,
    /// When what is left of it is to be checkpointed next.
    checkpoint_at: Option<Instant>,
    pub checkpoint: Checkpoint,
}

/// A checkpoint of this leader on its way into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Checkpoint {
    #[default]
    None,
    UnderWay,
    /// What became of it is not known; it may still be applied.
    InDoubt,
}

impl Lease {
    fn new(granted_secs: i64, remaining_secs: i64) -> Self {
        let (due, checkpoint_at, checkpoint) = (None, None, Checkpoint::None);
        Self { granted_secs, remaining_secs, due, expiring: false, checkpoint_at, checkpoint }
    }
}

/// A lease found due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub id: i64,
    /// What became of an earlier expiry of it is not known.
    pub in_doubt: bool,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    leases: BTreeMap<i64, Lease>,
    /// (when, id) of every lease that the loop has to look at; none while another member leads.
    queue: BTreeSet<(Instant, i64)>,
    leads: bool,
    /// Between two checkpoints of a lease; `None` where none are made.
    pub checkpoint_every: Option<Duration>,
    /// (when, id) of every lease that is to be checkpointed.
    checkpoints: BTreeSet<(Instant, i64)>,
}

impl Table {
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    pub(super) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn first_due(&self) -> Option<Instant> {
        self.queue.first().into_iter().chain(self.checkpoints.first()).map(|(due, _)| *due).min()
    }

    pub(super) fn load(&mut self, id: i64, record: LeaseRecord) {
        let LeaseRecord { ttl_secs: granted_secs, remaining_ttl_secs: remaining_secs } = record;
        self.leases.insert(id, Lease::new(granted_secs, remaining_secs));
    }

    /// Other leases in the place of all there were. What was under expiry and is still there is still undecided.
    pub(super) fn replace(&mut self, leases: &[(i64, LeaseRecord)], now: Instant, slack: Duration) {
        self.queue.clear();
        self.checkpoints.clear();
        let before = std::mem::take(&mut self.leases);
        for (id, record) in leases {
            self.load(*id, *record);
            if before.get(id).is_some_and(|lease| lease.expiring) {
                self.leases.entry(*id).and_modify(|lease| lease.expiring = true);
            } else if self.leads {
                self.start(*id, now, slack);
            }
        }
    }

    pub(super) fn granted(&mut self, id: i64, granted_secs: i64, now: Instant) {
        self.revoked(id);
        self.leases.insert(id, Lease::new(granted_secs, 0));
        if self.leads {
            self.start(id, now, Duration::ZERO);
        }
    }

    pub(super) fn revoked(&mut self, id: i64) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(due) = lease.due {
            self.queue.remove(&(due, id));
        }
        if let Some(at) = lease.checkpoint_at {
            self.checkpoints.remove(&(at, id));
        }
    }

    pub(super) fn checkpointed(&mut self, id: i64, remaining_secs: i64, now: Instant) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.remaining_secs = remaining_secs;
        if remaining_secs == 0 && lease.checkpoint == Checkpoint::InDoubt {
            // It stands before this one in the log, if anywhere.
            lease.checkpoint = Checkpoint::None;
        }
        if self.leads {
            self.plan_checkpoint(id, remaining_secs, now);
        }
    }

    /// Short leases need none: a new leader gives them little.
    fn plan_checkpoint(&mut self, id: i64, left_secs: i64, now: Instant) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(before) = lease.checkpoint_at.take() {
            self.checkpoints.remove(&(before, id));
        }
        if let Some(every) = self.checkpoint_every
            && Duration::from_secs(left_secs.unsigned_abs()) > every
        {
            lease.checkpoint_at = Some(now + every);
            self.checkpoints.insert((now + every, id));
        }
    }

    /// Takes what is to be checkpointed at `now`, with what is left of each in seconds, rounded up.
    pub(super) fn take_checkpoints(&mut self, now: Instant, most: usize) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        while found.len() < most
            && let Some((at, id)) = self.checkpoints.first().copied().filter(|(at, _)| *at <= now)
        {
            self.checkpoints.remove(&(at, id));
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            lease.checkpoint_at = None;
            let Some(due) = lease.due.filter(|due| *due > now && !lease.expiring) else { continue };
            let left = due - now;
            let left_secs = left.as_secs() as i64 + i64::from(left.subsec_nanos() > 0);
            // The slack of a new leader may make it longer than it ever was.
            if left_secs < lease.granted_secs {
                lease.checkpoint = Checkpoint::UnderWay;
                found.push((id, left_secs));
            }
        }
        found
    }

    pub(super) fn checkpoint_done(&mut self, id: i64) {
        self.end_checkpoint(id, Checkpoint::None);
    }

    /// It was refused for good, or nobody knows.
    pub(super) fn checkpoint_failed(&mut self, id: i64, left_secs: i64, now: Instant, in_doubt: bool) {
        let ended = if in_doubt { Checkpoint::InDoubt } else { Checkpoint::None };
        if self.end_checkpoint(id, ended) && self.leads {
            self.plan_checkpoint(id, left_secs, now);
        }
    }

    /// Whether there was one.
    fn end_checkpoint(&mut self, id: i64, ended: Checkpoint) -> bool {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.checkpoint == Checkpoint::UnderWay);
        lease.map(|lease| lease.checkpoint = ended).is_some()
    }

    /// Whoever begins to lead knows nothing of renewals elsewhere: all leases start afresh, with `slack` on top.
    pub(super) fn lead(&mut self, now: Instant, slack: Duration) {
        self.leads = true;
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            self.start(id, now, slack);
        }
    }

    pub(super) fn stand_down(&mut self) {
        self.leads = false;
        self.queue.clear();
        self.checkpoints.clear();
        for lease in self.leases.values_mut() {
            *lease = Lease::new(lease.granted_secs, lease.remaining_secs);
        }
    }

    /// Due in what is left of its time to live.
    pub(super) fn start(&mut self, id: i64, now: Instant, slack: Duration) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.expiring = false;
        let secs = if lease.remaining_secs > 0 { lease.remaining_secs } else { lease.granted_secs };
        self.plan_checkpoint(id, secs, now);
        match now.checked_add(Duration::from_secs(secs.unsigned_abs()) + slack) {
            Some(due) => self.look_at(id, due),
            None => {
                if let Some(due) = self.leases.get_mut(&id).and_then(|lease| lease.due.take()) {
                    self.queue.remove(&(due, id));
                }
            }
        }
    }

    fn look_at(&mut self, id: i64, due: Instant) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(before) = lease.due.replace(due) {
            self.queue.remove(&(before, id));
        }
        self.queue.insert((due, id));
    }

    /// Takes what is due at `now` out of the queue, to be expired.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<Due> {
        let mut found = Vec::new();
        while found.len() < most
            && let Some((due, id)) = self.queue.first().copied().filter(|(due, _)| *due <= now)
        {
            self.queue.remove(&(due, id));
            if let Some(lease) = self.leases.get_mut(&id) {
                found.push(Due { id, in_doubt: lease.expiring });
                lease.expiring = true;
            }
        }
        found
    }

    /// An expiry ended and the lease is still there, to be looked at again at `next`; in the meantime it is as good as
    /// any other, unless it is `in_doubt`.
    pub(super) fn survived(&mut self, id: i64, next: Instant, in_doubt: bool) {
        if self.leads
            && let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.expiring)
        {
            lease.expiring = in_doubt;
            self.look_at(id, next);
        }
    }

    pub(super) fn time_to_live(&self, id: i64, now: Instant) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        let remaining_secs = match lease.due {
            _ if lease.expiring => 0,
            Some(due) => due.saturating_duration_since(now).as_secs() as i64,
            None => lease.granted_secs,
        };
        Some(TimeToLive { granted_secs: lease.granted_secs, remaining_secs })
    }

    pub(super) fn by_expiry(&self) -> Vec<i64> {
        let mut ids: Vec<_> = self.leases.iter().map(|(id, lease)| (lease.due.is_none(), lease.due, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, _, id)| id).collect()
    }
}
