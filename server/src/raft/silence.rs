//! A leader that no quorum answers keeps silent now and then, so that whoever still hears it may elect another one.
//!
//! ```text
//!   last answer of a quorum ──lease──▶ silent for a period ▶ sends for a period ▶ silent ...      until a quorum answers
//! ```
//!
//! openraft does so with its heartbeats alone (`quorum_loss_probe_interval`, "CheckQuorum" in its documentation). But what is left
//! to replicate is sent again and again as well, and keeps a leader in office that hears nobody. Here it holds for all that a
//! leader sends to its followers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Silence(AtomicBool);

impl Silence {
    pub(super) fn is_kept(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// No quorum has answered for so long; `None` for one that does not need any, or does not lead.
    pub(super) fn unanswered(&self, silence: Option<Duration>, lease: Duration, period: Duration) {
        let due = silence.is_some_and(|silence| is_due(silence, lease, period));
        if self.0.swap(due, Ordering::Relaxed) != due && due {
            tracing::warn!("no majority answers: keeping silent for {period:?}, so that others may elect a leader");
        }
    }
}

fn is_due(silence: Duration, lease: Duration, period: Duration) -> bool {
    let Some(beyond) = silence.checked_sub(lease) else { return false };
    (beyond.as_nanos() / period.as_nanos().max(1)).is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_and_sending_periods_take_turns_once_the_lease_is_over() {
        let ms = Duration::from_millis;
        let due = |silence| is_due(ms(silence), ms(500), ms(1000));
        assert_eq!([0, 499, 500, 1499].map(due), [false, false, true, true]);
        assert_eq!([1500, 2499, 2500, 3500].map(due), [false, false, true, false]);
    }

    #[test]
    fn who_needs_nobody_is_never_silent() {
        let kept = Silence::default();
        kept.unanswered(Some(Duration::from_secs(1)), Duration::from_millis(500), Duration::from_secs(1));
        assert!(kept.is_kept());
        kept.unanswered(None, Duration::from_millis(500), Duration::from_secs(1));
        assert!(!kept.is_kept());
    }
}
