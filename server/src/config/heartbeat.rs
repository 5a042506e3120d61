//! `--heartbeat-interval`: milliseconds as in etcd, or `auto`, with bounds of one's own as `auto:MIN-MAX`.

use std::time::Duration;

use quorate_tuning::Interval;

use super::go;

const AUTO: &str = "auto";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    Millis(u64),
    Auto,
    Between { min_ms: u64, max_ms: u64 },
}

impl Heartbeat {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(bounds) = text.strip_prefix(AUTO) else {
            return Ok(Self::Millis(go::parse_uint(text).map_err(|error| error.in_flag().to_owned())?));
        };
        if bounds.is_empty() {
            return Ok(Self::Auto);
        }
        let pair = bounds.strip_prefix(':').and_then(|bounds| bounds.split_once('-'));
        match pair.map(|(min, max)| (go::parse_uint(min), go::parse_uint(max))) {
            Some((Ok(min_ms), Ok(max_ms))) => Ok(Self::Between { min_ms, max_ms }),
            _ => Err("expected milliseconds, auto or auto:MIN-MAX".into()),
        }
    }

    /// What the election time-out is held against; of `auto` alone nothing, as its bounds are made from that time-out.
    pub(super) fn longest_ms(self) -> Result<u64, String> {
        match self {
            Self::Millis(0) => Err("--heartbeat-interval must be >0 (set to 0ms)".into()),
            Self::Millis(millis) => Ok(millis),
            // Whatever the time-out, at least one millisecond.
            Self::Auto => Ok(1),
            Self::Between { min_ms, max_ms } if min_ms == 0 || min_ms > max_ms => {
                Err(format!("--heartbeat-interval=auto needs 0 < MIN <= MAX (set to {min_ms}-{max_ms})"))
            }
            Self::Between { max_ms, .. } => Ok(max_ms),
        }
    }

    pub(super) fn interval(self, election: Duration) -> Interval {
        match self {
            Self::Millis(millis) => Interval::Fixed(Duration::from_millis(millis)),
            Self::Auto => Interval::auto(election),
            Self::Between { min_ms, max_ms } => {
                Interval::Auto { min: Duration::from_millis(min_ms), max: Duration::from_millis(max_ms) }
            }
        }
    }
}
