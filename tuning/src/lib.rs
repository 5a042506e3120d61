//! How often a leader should be heard, and how long its silence may last: worked out from what was measured, by one
//! function that the server (`--heartbeat-interval auto`), `quoratectl tune` and the tests share.
//!
//! ```text
//!   round trips of each peer ─┐
//!   syncs of each log ────────┼─▶ advise ─▶ heartbeat interval, election time-out, and why ─▶ steady ─▶ what is set
//!   bounds ───────────────────┘
//! ```
//!
//! A leader has one heartbeat on its way to a peer at a time, and the answer may wait for the sync of what the peer's log
//! is writing just then. So a heartbeat takes up to a round trip and a sync; two round trips leave room for one that is
//! slower than the rest. An election time-out of ten heartbeats is what etcd has by default; five are the least it takes.
//!
//! Floor 1: no input or output, no clock, no other crate of this workspace.

mod metrics;
mod steady;

use std::fmt;
use std::time::Duration;

pub use metrics::{Figures, Histogram};
pub use steady::{Recent, steady};

/// etcd's default, and what is advised where nothing was measured.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(100);
/// etcd's default.
pub const ELECTION_DEFAULT: Duration = Duration::from_millis(1_000);
/// etcd's limit.
pub const ELECTION_MAX: Duration = Duration::from_millis(50_000);
/// etcd refuses an election time-out of fewer heartbeats than these.
pub const HEARTBEATS_PER_ELECTION_MIN: u32 = 5;
/// What is advised.
const HEARTBEATS_PER_ELECTION: u32 = 10;
/// More heartbeats than these within an election time-out find nothing that fewer would not.
const HEARTBEATS_PER_ELECTION_MAX: u32 = 20;
const ROUND_TRIPS_PER_HEARTBEAT: u32 = 2;
/// The unit of the flags, and of every answer.
const UNIT: Duration = Duration::from_millis(1);

/// `--heartbeat-interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Fixed(Duration),
    /// Follows what is measured, within these.
    Auto {
        min: Duration,
        max: Duration,
    },
}

impl Interval {
    /// `auto` without bounds of its own: between a twentieth and a fifth of the election time-out.
    pub fn auto(election: Duration) -> Self {
        let max = part(election, HEARTBEATS_PER_ELECTION_MIN);
        Self::Auto { min: part(election, HEARTBEATS_PER_ELECTION_MAX), max }
    }
}

/// Something that was measured, and at what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The member: an ID or an endpoint, to be shown.
    pub of: String,
    /// What few measurements are above: the 99th percentile of many, or [`Recent::high`].
    pub high: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Of small messages, to each peer and back.
    pub round_trips: Vec<Figure>,
    /// Of each member's log.
    pub syncs: Vec<Figure>,
}

/// Within these an answer stays, whatever was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    heartbeat_min: Duration,
    heartbeat_max: Duration,
    election_min: Duration,
    election_max: Duration,
}

impl Bounds {
    /// Whatever etcd's flags can say, with no shorter election time-out than the default: shorter ones are for machines
    /// that nothing else runs on.
    pub fn open() -> Self {
        let election_max = ELECTION_MAX;
        Self {
            heartbeat_min: ELECTION_DEFAULT / HEARTBEATS_PER_ELECTION_MAX,
            heartbeat_max: election_max / HEARTBEATS_PER_ELECTION_MIN,
            election_min: ELECTION_DEFAULT,
            election_max,
        }
    }

    /// The election time-out stands; the heartbeat interval is from `min` to `max`, and at most a fifth of it.
    pub fn of_election(election: Duration, min: Duration, max: Duration) -> Self {
        let election = election.clamp(UNIT * HEARTBEATS_PER_ELECTION_MIN, ELECTION_MAX);
        let heartbeat_max = max.clamp(UNIT, part(election, HEARTBEATS_PER_ELECTION_MIN));
        Self {
            heartbeat_min: min.clamp(UNIT, heartbeat_max),
            heartbeat_max,
            election_min: election,
            election_max: election,
        }
    }

    pub fn clamp_heartbeat(&self, heartbeat: Duration) -> Duration {
        heartbeat.clamp(self.heartbeat_min, self.heartbeat_max)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub heartbeat: Duration,
    pub heartbeat_reason: Reason,
    /// At least five heartbeats, at most 50 s.
    pub election: Duration,
    pub election_reason: Reason,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NothingMeasured,
    /// Two round trips to this peer.
    RoundTrip(Figure),
    /// A round trip to the one and a sync of the other.
    Disk {
        round_trip: Figure,
        sync: Figure,
    },
    Heartbeats,
    /// Less would do.
    LowerBound,
    /// More would be needed: `wanted`.
    UpperBound {
        wanted: Duration,
    },
}

/// The heartbeat interval and election time-out for what was measured.
pub fn advise(measured: &Measured, bounds: &Bounds) -> Advice {
    let (wanted, because) = wanted(measured);
    let (heartbeat, heartbeat_reason) = within(wanted, because, bounds.heartbeat_min, bounds.heartbeat_max);
    // Of what is wanted, not of what is had: a cluster whose heartbeats are held back by a bound still needs the time.
    let longest = wanted.max(heartbeat).saturating_mul(HEARTBEATS_PER_ELECTION);
    let (election, election_reason) = within(longest, Reason::Heartbeats, bounds.election_min, bounds.election_max);
    Advice { heartbeat, heartbeat_reason, election, election_reason }
}

fn wanted(measured: &Measured) -> (Duration, Reason) {
    let slowest = |figures: &[Figure]| figures.iter().max_by_key(|figure| figure.high).cloned();
    let Some(round_trip) = slowest(&measured.round_trips) else { return (HEARTBEAT_DEFAULT, Reason::NothingMeasured) };
    let trips = whole(round_trip.high.saturating_mul(ROUND_TRIPS_PER_HEARTBEAT));
    match slowest(&measured.syncs) {
        Some(sync) if whole(round_trip.high.saturating_add(sync.high)) > trips => {
            (whole(round_trip.high.saturating_add(sync.high)), Reason::Disk { round_trip, sync })
        }
        Some(_) | None => (trips, Reason::RoundTrip(round_trip)),
    }
}

/// Rounded down, so that as many as `of` fit; at least a millisecond.
fn part(election: Duration, of: u32) -> Duration {
    let millis = (election / of).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).max(UNIT)
}

/// Rounded up: what is cut off would be missing.
fn whole(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(UNIT.as_nanos());
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn within(wanted: Duration, because: Reason, min: Duration, max: Duration) -> (Duration, Reason) {
    if wanted < min {
        (min, Reason::LowerBound)
    } else if wanted > max {
        (max, Reason::UpperBound { wanted })
    } else {
        (wanted, because)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingMeasured => out.write_str("no round trip was measured"),
            Self::RoundTrip(trip) => write!(out, "two round trips to {} ({:.1?})", trip.of, trip.high),
            Self::Disk { round_trip, sync } => write!(
                out,
                "a round trip to {} ({:.1?}) and a sync of the log of {} ({:.1?})",
                round_trip.of, round_trip.high, sync.of, sync.high
            ),
            Self::Heartbeats => write!(out, "{HEARTBEATS_PER_ELECTION} heartbeats"),
            Self::LowerBound => out.write_str("the lower bound: less would do"),
            Self::UpperBound { wanted } => write!(out, "the upper bound: {wanted:.0?} would be needed"),
        }
    }
}

#[cfg(test)]
mod tests;
