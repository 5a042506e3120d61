//! What heartbeats depend on, as it was lately: how long a small message takes to each peer and back, and how long logs take
//! to sync.
//!
//! ```text
//!   ping ══ control connection ══▶ peer: answered at once, with what its log's syncs took ─┐
//!   the own log: each sync ────────────────────────────────────────────────────────────────┴─▶ Measures ─▶ pace
//! ```
//!
//! Every member measures, so that whoever comes to lead knows already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quorate_proto::peer as pb;
use quorate_tuning::{Figure, Measured, Recent};
use tokio::time::Instant;

use super::Inner;
use super::peers::within;
use super::types::MemberId;

/// Between two pings of a peer.
const PING_INTERVAL: Duration = Duration::from_millis(500);

pub(super) type OnRoundTrip = Arc<dyn Fn(MemberId, Duration) + Send + Sync>;

pub(super) struct Measures {
    begun: Instant,
    on_round_trip: OnRoundTrip,
    recent: Mutex<Measurements>,
}

#[derive(Default)]
struct Measurements {
    syncs: Recent,
    peers: BTreeMap<MemberId, Peer>,
}

#[derive(Default)]
struct Peer {
    round_trips: Recent,
    /// By its own word.
    sync: Option<Duration>,
}

impl Measures {
    pub(super) fn new(on_round_trip: OnRoundTrip) -> Self {
        Self { begun: Instant::now(), on_round_trip, recent: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Measurements> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn synced(&self, took: Duration) {
        self.lock().syncs.record(self.begun.elapsed(), took);
    }

    /// Of the own log; none when it has not synced lately.
    pub(super) fn sync(&self) -> Option<Duration> {
        self.lock().syncs.high(self.begun.elapsed())
    }

    /// `sync`: what the peer says of its own log.
    pub(super) fn answered(&self, peer: MemberId, took: Duration, sync: Option<Duration>) {
        (self.on_round_trip)(peer, took);
        let mut recent = self.lock();
        let peer = recent.peers.entry(peer).or_default();
        peer.round_trips.record(self.begun.elapsed(), took);
        peer.sync = sync;
    }

    /// Of all members that answered lately.
    pub(super) fn measured(&self, own: MemberId) -> Measured {
        let now = self.begun.elapsed();
        let mut recent = self.lock();
        let figure = |of: MemberId| move |high| Figure { of: format!("{of:x}"), high };
        let mut measured = Measured::default();
        measured.syncs.extend(recent.syncs.high(now).map(figure(own)));
        recent.peers.retain(|id, peer| {
            let round_trip = peer.round_trips.high(now).map(figure(*id));
            if round_trip.is_some() {
                measured.syncs.extend(peer.sync.map(figure(*id)));
            }
            let answers = round_trip.is_some();
            measured.round_trips.extend(round_trip);
            answers
        });
        measured
    }
}

/// Measures the way to a peer for as long as its process is there.
pub(super) async fn ping(raft: Weak<Inner>, id: MemberId, urls: Vec<String>) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        let Some(strong) = raft.upgrade() else { return };
        let (link, patience) = (strong.links.to(id, &urls), strong.election_timeout);
        drop(strong);
        if !link.is_present() {
            continue;
        }
        let asked = Instant::now();
        let answer = within(patience, link.control().ping(pb::PingRequest {})).await;
        // Who does not answer is not slow but gone, or of a release that does not know the question.
        let (Ok(answer), Some(strong)) = (answer, raft.upgrade()) else { continue };
        let sync = Duration::from_micros(answer.sync_high_micros);
        strong.pace.measures().answered(id, asked.elapsed(), (!sync.is_zero()).then_some(sync));
    }
}
