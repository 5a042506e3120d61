//! What a member's `/metrics` says of round trips and syncs, for who is not inside of it. Works on real etcd's, too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Figure, Measured};

const ROUND_TRIP: &str = "etcd_network_peer_round_trip_time_seconds_bucket";
const SYNC: &str = "etcd_disk_wal_fsync_duration_seconds_bucket";
const HEARTBEAT: &str = "quorate_raft_heartbeat_interval_seconds";
const ELECTION: &str = "quorate_raft_election_timeout_seconds";
const SERVER_ID: &str = "etcd_server_id";
/// Of all measurements, this part is not above what counts as their high end.
const HIGH: f64 = 0.99;

/// Counts by bucket, each with those of all buckets below, as Prometheus text has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending, the last one infinite; and how many were not above.
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }

    /// Evenly spread within a bucket, as Prometheus takes it; what is above the last bound counts as that bound. None for
    /// an empty histogram.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = part * self.count() as f64;
        let found = self.buckets.iter().position(|(_, count)| *count > 0 && *count as f64 >= rank)?;
        let (upper, upto) = self.buckets[found];
        let (lower, below) = found.checked_sub(1).map_or((0.0, 0), |before| self.buckets[before]);
        let seconds = if upper.is_finite() {
            lower + (upper - lower) * (rank - below as f64) / (upto - below) as f64
        } else {
            lower
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What was counted after `earlier`. A member that has started anew meanwhile has counted all of it after.
    fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets.clone();
        if self.count() >= earlier.count() && self.buckets.len() == earlier.buckets.len() {
            for ((_, count), (_, before)) in buckets.iter_mut().zip(&earlier.buckets) {
                *count = count.saturating_sub(*before);
            }
        }
        Self { buckets }
    }

    fn push(&mut self, upper: &str, count: f64) {
        // Counts are whole; Prometheus text has them as floating point numbers.
        let upper = if upper == "+Inf" { f64::INFINITY } else { upper.parse().unwrap_or(f64::NAN) };
        if !upper.is_nan() && count >= 0.0 {
            self.buckets.push((upper, count as u64));
        }
    }
}

/// Of one member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Where it was asked.
    pub endpoint: String,
    /// In hexadecimal; empty where it does not say.
    pub id: String,
    /// By the peer's ID, in hexadecimal.
    pub round_trips: BTreeMap<String, Histogram>,
    pub sync: Histogram,
    /// What is in force; real etcd does not tell.
    pub heartbeat: Option<Duration>,
    pub election: Option<Duration>,
}

impl Figures {
    /// From Prometheus text; what is not understood is passed over.
    pub fn read(endpoint: &str, text: &str) -> Self {
        let mut figures = Self { endpoint: endpoint.to_owned(), ..Self::default() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let seconds = || Duration::try_from_secs_f64(value).ok();
            match name {
                ROUND_TRIP => {
                    let peer = figures.round_trips.entry(label(labels, "To").to_owned()).or_default();
                    peer.push(label(labels, "le"), value);
                }
                SYNC => figures.sync.push(label(labels, "le"), value),
                HEARTBEAT => figures.heartbeat = seconds(),
                ELECTION => figures.election = seconds(),
                SERVER_ID => figures.id = label(labels, "server_id").to_owned(),
                _ => {}
            }
        }
        figures
    }

    /// What was counted after `earlier`, of the same member.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (peer, histogram) in &mut self.round_trips {
            if let Some(before) = earlier.round_trips.get(peer) {
                *histogram = histogram.since(before);
            }
        }
        self.sync = self.sync.since(&earlier.sync);
        self
    }

    /// Of all members together.
    pub fn measured(of: &[Self]) -> Measured {
        let mut measured = Measured::default();
        for member in of {
            let name = if member.id.is_empty() { &member.endpoint } else { &member.id };
            for (peer, histogram) in &member.round_trips {
                let high = histogram.quantile(HIGH);
                measured.round_trips.extend(high.map(|high| Figure { of: peer.clone(), high }));
            }
            measured.syncs.extend(member.sync.quantile(HIGH).map(|high| Figure { of: name.clone(), high }));
        }
        measured
    }
}

/// Empty where it is not there. IDs and bounds have no quotes in them.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let mut pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim_matches('"'))
}
