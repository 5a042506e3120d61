//! From measurements that jump to a value that stands still.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Bounds;

/// The longest of each slot is kept.
const SLOT: Duration = Duration::from_millis(500);
/// What is older is forgotten.
const WINDOW_SLOTS: u64 = 40;
/// Of a full window these many may be longer than what is taken for its high end: single stalls say nothing of the network.
const OUTLIERS: usize = 2;
/// A change is worth it from a quarter on.
const CHANGE_MIN_DIVISOR: u32 = 4;

/// The longest measurements of the last twenty seconds, in half seconds. The clock is the caller's.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// Number of the half second, and the longest of it; ascending, no two alike.
    slots: VecDeque<(u64, Duration)>,
}

impl Recent {
    /// `now`: since any moment that stays the same.
    pub fn record(&mut self, now: Duration, took: Duration) {
        let slot = slot(now);
        match self.slots.back_mut() {
            Some((last, longest)) if *last >= slot => *longest = took.max(*longest),
            Some(_) | None => self.slots.push_back((slot, took)),
        }
        self.forget(slot);
    }

    /// What few of the window's half seconds are above; none without a measurement. While there are few, the longest counts.
    pub fn high(&mut self, now: Duration) -> Option<Duration> {
        self.forget(slot(now));
        let mut longest: Vec<Duration> = self.slots.iter().map(|(_, longest)| *longest).collect();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        let passed_over = OUTLIERS * longest.len() / WINDOW_SLOTS as usize;
        longest.get(passed_over).copied()
    }

    fn forget(&mut self, now: u64) {
        while self.slots.front().is_some_and(|(slot, _)| slot + WINDOW_SLOTS <= now) {
            self.slots.pop_front();
        }
    }
}

fn slot(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX)
}

/// The heartbeat interval that was `wanted` by [`crate::advise`], or the `current` one where the two are so near that a change
/// would only be restless. The bounds are reached however near they are.
pub fn steady(current: Duration, wanted: Duration, bounds: &Bounds) -> Duration {
    let (min, max) = (bounds.heartbeat_min, bounds.heartbeat_max);
    let near = current.abs_diff(wanted) < current / CHANGE_MIN_DIVISOR;
    let at_an_end = wanted <= min || wanted >= max;
    if near && !at_an_end && (min..=max).contains(&current) { current } else { wanted }
}
