//! When a leader's heartbeats are sent, and how often: what openraft, whose intervals stand from its start on, is told from
//! outside.
//!
//! ```text
//!   measure ─▶ tuning::advise ─▶ steady ─▶ current ─▶ keep: trigger().heartbeat(), sleep, again
//!      once a second (follow)                          while this member leads
//! ```
//!
//! openraft's own ticks send none ([`super::RaftSettings::config`]). A heartbeat that is due while the one before is still on
//! its way to a peer is sent to it after that. The election time-out stays what the flag says in every mode: it is made into
//! leases that other members rely on, and openraft would have to be started anew to change it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_tuning::{Advice, Bounds, HEARTBEAT_DEFAULT, Interval, Reason, advise, steady};
use tokio::time::Instant;

use super::Inner;
use super::log::SyncStats;
use super::measure::{Measures, OnRoundTrip};
use super::settings::Times;
use super::types::MemberId;

/// A leader that never pauses would do nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Between two looks at what was measured.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    /// `None`: the interval is fixed.
    bounds: Option<Bounds>,
    interval_micros: AtomicU64,
    measures: Arc<Measures>,
    /// It was said that the election time-out is too short for what is measured.
    said_too_short: AtomicBool,
}

impl Pace {
    pub(super) fn new(interval: Interval, election_timeout: Duration, on_round_trip: OnRoundTrip) -> Self {
        let (bounds, first) = match interval {
            Interval::Fixed(interval) => (None, interval.max(INTERVAL_MIN)),
            Interval::Auto { min, max } => {
                let bounds = Bounds::of_election(election_timeout, min, max);
                (Some(bounds), bounds.clamp_heartbeat(HEARTBEAT_DEFAULT))
            }
        };
        let pace = Self {
            bounds,
            interval_micros: AtomicU64::default(),
            measures: Arc::new(Measures::new(on_round_trip)),
            said_too_short: AtomicBool::new(false),
        };
        pace.set(first);
        pace
    }

    /// Between two heartbeats.
    pub(super) fn current(&self) -> Duration {
        Duration::from_micros(self.interval_micros.load(Ordering::Relaxed))
    }

    fn set(&self, interval: Duration) {
        self.interval_micros.store(u64::try_from(interval.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Measures each sync, and passes it on.
    pub(super) fn watch_syncs(
        &self,
        on_sync: Arc<dyn Fn(&SyncStats) + Send + Sync>,
    ) -> Arc<dyn Fn(&SyncStats) + Send + Sync> {
        let measures = self.measures.clone();
        Arc::new(move |stats| {
            // Zero where the disk is not waited for.
            if !stats.sync.is_zero() {
                measures.synced(stats.sync);
            }
            on_sync(stats);
        })
    }

    /// Sets the interval to what the last measurements ask for.
    fn look(&self, own: MemberId) {
        let Some(bounds) = &self.bounds else { return };
        let measured = self.measures.measured(own);
        let advice = advise(&measured, bounds);
        // Nobody answers, or nobody else is there: nothing is known that would be better than what is.
        if advice.heartbeat_reason == Reason::NothingMeasured {
            return;
        }
        let current = self.current();
        let next = steady(current, advice.heartbeat, bounds);
        if next != current {
            self.set(next);
            let (from_ms, to_ms, reason) = (current.as_millis(), next.as_millis(), &advice.heartbeat_reason);
            tracing::info!(from_ms = %from_ms, to_ms = %to_ms, %reason, "the heartbeat interval changed");
        }
        self.say_whether_too_short(&advice, || advise(&measured, &Bounds::open()));
    }

    fn say_whether_too_short(&self, advice: &Advice, enough: impl FnOnce() -> Advice) {
        let Reason::UpperBound { wanted } = &advice.heartbeat_reason else {
            self.said_too_short.store(false, Ordering::Relaxed);
            return;
        };
        if !self.said_too_short.swap(true, Ordering::Relaxed) {
            let enough = enough();
            tracing::warn!(
                wanted_ms = %wanted.as_millis(),
                given_ms = %advice.heartbeat.as_millis(),
                election_timeout_ms = %enough.election.as_millis(),
                "heartbeats need more time than their bound allows: a higher bound or --election-timeout would give it"
            );
        }
    }
}

/// Sends heartbeats while this member leads.
pub(super) async fn keep(raft: Weak<Inner>) {
    let Some(mut metrics) = raft.upgrade().map(|raft| raft.core.server_metrics()) else { return };
    loop {
        let leads = metrics.borrow_watched().state == ServerState::Leader;
        let Some(strong) = raft.upgrade() else { return };
        let Times { election_max_ms, probe_ms, .. } = Times::of(strong.election_timeout);
        let (lease, period) = (Duration::from_millis(election_max_ms), Duration::from_millis(probe_ms));
        strong.links.silence().unanswered(strong.unanswered(), lease, period);
        if !leads {
            drop(strong);
            if metrics.changed().await.is_err() {
                return;
            }
            continue;
        }
        let next = Instant::now() + strong.pace.current();
        if strong.core.trigger().heartbeat().await.is_err() {
            return;
        }
        drop(strong);
        tokio::time::sleep_until(next).await;
    }
}

/// Lets the interval follow what is measured, where it may.
pub(super) async fn follow(raft: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(raft) = raft.upgrade() else { return };
        if raft.pace.bounds.is_none() {
            return;
        }
        raft.pace.look(raft.id);
    }
}

impl super::Raft {
    /// What the syncs of this member's log took lately, but for single stalls.
    pub(super) fn recent_sync(&self) -> Option<Duration> {
        self.0.pace.measures.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MemberId = 1;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn auto(min_ms: u64, max_ms: u64) -> Pace {
        let interval = Interval::Auto { min: ms(min_ms), max: ms(max_ms) };
        Pace::new(interval, ms(1_000), Arc::new(|_, _| {}))
    }

    /// For longer than what is remembered.
    async fn for_a_while(pace: &Pace, round_trip: Duration, sync: Option<Duration>, check: impl Fn(Duration)) {
        for _ in 0..60 {
            tokio::time::advance(ms(500)).await;
            pace.measures.answered(2, ms(1), None);
            pace.measures.answered(3, round_trip, sync);
            pace.look(OWN);
            check(pace.current());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_slowest_peer_up_and_down_and_never_leaves_its_bounds() {
        let pace = auto(20, 150);
        assert_eq!(pace.current(), HEARTBEAT_DEFAULT);
        let bounded = |current: Duration| assert!((ms(20)..=ms(150)).contains(&current), "{current:?}");
        for_a_while(&pace, Duration::from_micros(100), None, bounded).await;
        assert_eq!(pace.current(), ms(20));
        for_a_while(&pace, ms(30), None, bounded).await;
        assert_eq!(pace.current(), ms(60));
        for_a_while(&pace, ms(200), None, bounded).await;
        assert_eq!(pace.current(), ms(150));
        for_a_while(&pace, Duration::from_micros(100), None, bounded).await;
        assert_eq!(pace.current(), ms(20));
    }

    #[tokio::test(start_paused = true)]
    async fn never_goes_below_what_disks_hold_wherever_they_are() {
        let pace = auto(10, 200);
        for_a_while(&pace, ms(5), Some(ms(60)), |_| {}).await;
        assert_eq!(pace.current(), ms(65), "a peer's disk");
        for_a_while(&pace, ms(5), None, |_| {}).await;
        assert_eq!(pace.current(), ms(10));
        let count = Arc::new(AtomicU64::default());
        let counted = count.clone();
        let on_sync = pace.watch_syncs(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        for _ in 0..40 {
            tokio::time::advance(ms(500)).await;
            on_sync(&SyncStats { sync: ms(60), ..SyncStats::default() });
        }
        pace.measures.answered(2, ms(5), None);
        pace.look(OWN);
        assert_eq!((pace.current(), count.load(Ordering::Relaxed)), (ms(65), 40), "the own one");
    }

    #[tokio::test(start_paused = true)]
    async fn stays_what_it_is_when_nobody_answers_any_more() {
        let pace = auto(10, 200);
        for_a_while(&pace, ms(30), None, |_| {}).await;
        tokio::time::advance(ms(60_000)).await;
        pace.look(OWN);
        assert_eq!(pace.current(), ms(60));
        let fixed = Pace::new(Interval::Fixed(ms(77)), ms(1_000), Arc::new(|_, _| {}));
        fixed.measures.answered(2, ms(30), None);
        fixed.look(OWN);
        assert_eq!(fixed.current(), ms(77), "a fixed one follows nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noise_changes_nothing() {
        let pace = auto(10, 200);
        for_a_while(&pace, ms(30), None, |_| {}).await;
        for round in 0..100 {
            tokio::time::advance(ms(500)).await;
            // One stall in forty half seconds, and a tenth up and down.
            let round_trip = if round % 40 == 7 { 150 } else { 28 + round % 6 };
            pace.measures.answered(2, ms(round_trip), None);
            pace.look(OWN);
            assert_eq!(pace.current(), ms(60), "round {round}");
        }
    }
}
