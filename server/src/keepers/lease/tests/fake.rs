//! A seat whose leadership, confirmations and log are in the hands of the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_proto::log::proposal::Command;
use quorate_store::{Effects, LeaseEffect, LeaseRecord, Rejection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::table::Table;
use super::super::{Leases, Seat, Standing};
use crate::node::RequestError;

pub(super) const ELECTION: Duration = Duration::from_secs(1);

/// Something that was put into the log, and waits for its outcome.
pub(super) struct Proposed {
    pub at: Instant,
    pub command: Command,
    outcome: oneshot::Sender<Result<(), RequestError>>,
}

impl Proposed {
    pub(super) fn expired(&self) -> (u64, Vec<i64>) {
        match &self.command {
            Command::LeaseExpire(expire) => (expire.leader_term, expire.ids.clone()),
            other => panic!("not an expiry: {other:?}"),
        }
    }

    pub(super) fn end(self, outcome: Result<(), RequestError>) {
        let _ = self.outcome.send(outcome);
    }
}

#[derive(Clone)]
pub(super) struct FakeSeat(Arc<Inner>);

struct Inner {
    standing: watch::Sender<Option<Standing>>,
    proposed: mpsc::UnboundedSender<Proposed>,
    /// Of the next confirmations: how long each takes.
    confirm_delays: Mutex<Vec<Duration>>,
    confirmations: Mutex<usize>,
    provable: watch::Sender<bool>,
}

impl Seat for FakeSeat {
    fn standing(&self) -> Standing {
        self.0.standing.borrow().unwrap_or_default()
    }

    async fn standing_changed(&self, since: Standing) -> Option<Standing> {
        let mut standing = self.0.standing.subscribe();
        *standing.wait_for(|now| *now != Some(since)).await.unwrap()
    }

    async fn confirm(&self) -> Result<(), RequestError> {
        *self.0.confirmations.lock().unwrap() += 1;
        let leads = self.standing().leads;
        let delay = self.0.confirm_delays.lock().unwrap().pop();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if leads { Ok(()) } else { Err(RequestError::NotLeader) }
    }

    async fn prove(&self) -> Result<(), RequestError> {
        self.confirm().await?;
        self.0.provable.subscribe().wait_for(|provable| *provable).await.unwrap();
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<(), RequestError> {
        let (outcome, ended) = oneshot::channel();
        let _ = self.0.proposed.send(Proposed { at: Instant::now(), command, outcome });
        ended.await.unwrap_or(Err(RequestError::Stopped))
    }
}

/// A keeper at work, its seat, and what it has proposed.
pub(super) struct Stage {
    pub leases: Leases,
    pub seat: FakeSeat,
    pub proposed: mpsc::UnboundedReceiver<Proposed>,
    pub keeper: JoinHandle<()>,
}

impl Stage {
    /// Leading in term 1, with these leases (id, TTL, what a checkpoint says is left).
    pub(super) async fn leading(leases: &[(i64, i64, i64)]) -> Self {
        let stage = Self::following(leases);
        stage.stands(1, true);
        stage.settle().await;
        stage
    }

    pub(super) fn following(leases: &[(i64, i64, i64)]) -> Self {
        let mut table = Table::default();
        for (id, ttl_secs, remaining_ttl_secs) in leases.iter().copied() {
            table.load(id, LeaseRecord { ttl_secs, remaining_ttl_secs });
        }
        let leases = Leases::new(table, ELECTION);
        let (sender, proposed) = mpsc::unbounded_channel();
        let seat = FakeSeat(Arc::new(Inner {
            standing: watch::channel(Some(Standing::default())).0,
            proposed: sender,
            confirm_delays: Mutex::default(),
            confirmations: Mutex::default(),
            provable: watch::channel(true).0,
        }));
        let keeper = tokio::spawn(leases.clone().keep(seat.clone()));
        Self { leases, seat, proposed, keeper }
    }

    pub(super) fn stands(&self, term: u64, leads: bool) {
        self.seat.0.standing.send_replace(Some(Standing { term, leads }));
    }

    pub(super) fn stop(&self) {
        self.seat.0.standing.send_replace(None);
    }

    pub(super) fn may_prove(&self, provable: bool) {
        self.seat.0.provable.send_replace(provable);
    }

    /// The next confirmation takes so long.
    pub(super) fn delay_confirmation(&self, delay: Duration) {
        self.seat.0.confirm_delays.lock().unwrap().push(delay);
    }

    pub(super) fn confirmations(&self) -> usize {
        *self.seat.0.confirmations.lock().unwrap()
    }

    /// Lets every task go as far as it can without time passing.
    pub(super) async fn settle(&self) {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn follow(&self, leases: Vec<LeaseEffect>) {
        self.leases.follow(&Effects { leases, ..Effects::default() });
    }

    pub(super) fn grant(&self, id: i64, ttl_secs: i64) {
        self.follow(vec![LeaseEffect::Granted { id, ttl_secs }]);
    }

    /// The expiry is applied: its leases are gone, and then its proposer hears of it.
    pub(super) fn apply(&self, expiry: Proposed) {
        let (_, ids) = expiry.expired();
        self.follow(ids.into_iter().map(|id| LeaseEffect::Revoked { id }).collect());
        expiry.end(Ok(()));
    }

    pub(super) async fn renew(&self, id: i64) -> Result<Option<i64>, RequestError> {
        self.leases.renew(&self.seat, id).await
    }

    pub(super) fn renewing(&self, id: i64) -> JoinHandle<Result<Option<i64>, RequestError>> {
        let (leases, seat) = (self.leases.clone(), self.seat.clone());
        tokio::spawn(async move { leases.renew(&seat, id).await })
    }

    pub(super) fn left(&self, id: i64) -> i64 {
        self.leases.time_to_live(id).unwrap().remaining_secs
    }

    pub(super) async fn next_expiry(&mut self) -> Proposed {
        self.proposed.recv().await.unwrap()
    }
}

pub(super) fn rejected() -> Result<(), RequestError> {
    Err(RequestError::Rejected(Rejection::NotLeader))
}

pub(super) async fn advance(secs: f64) {
    tokio::time::advance(Duration::from_secs_f64(secs)).await;
}
