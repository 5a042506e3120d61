//! What happened: latencies in a histogram, failures by their text.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::failure::Failure;

/// Latencies between these are kept to three digits; others count as the nearest of the two.
const NANOSECONDS_MIN: u64 = 1_000;
const NANOSECONDS_MAX: u64 = 600_000_000_000;
const DIGITS: u8 = 3;
/// So many different texts of failures are kept; the rest is counted as "others".
const TEXTS_MAX: usize = 20;

/// Shared by all clients. They run on one thread, so the lock is never waited for.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Recorded>);

#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) latency: Histogram<u64>,
    /// Of these, several may share one latency: events of one message.
    pub(crate) operations: u64,
    pub(crate) failures: Failures,
    /// What a row counts beside its operations.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Failures {
    /// Operations that were not done: refused, or no answer.
    pub(crate) failed: u64,
    /// Operations with an answer that is not what it must be.
    pub(crate) checks_failed: u64,
    pub(crate) by_text: BTreeMap<String, u64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let latency =
            Histogram::new_with_bounds(NANOSECONDS_MIN, NANOSECONDS_MAX, DIGITS).expect("the bounds are in order");
        Self(Mutex::new(Recorded { latency, operations: 0, failures: Failures::default(), counts: BTreeMap::new() }))
    }

    pub(crate) fn done(&self, latency: Duration) {
        self.done_many(latency, 1);
    }

    /// `operations` that were done together, each with this latency.
    pub(crate) fn done_many(&self, latency: Duration, operations: u64) {
        let mut recorded = self.lock();
        recorded.operations += operations;
        recorded.latency.saturating_record_n(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), operations);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let failures = &mut self.lock().failures;
        match failure {
            Failure::Transport(_) | Failure::Status { .. } => failures.failed += 1,
            Failure::Wrong(_) => failures.checks_failed += 1,
        }
        let text = failure.to_string();
        let known = failures.by_text.contains_key(&text) || failures.by_text.len() < TEXTS_MAX;
        *failures.by_text.entry(if known { text } else { "others".to_owned() }).or_default() += 1;
    }

    pub(crate) fn count(&self, what: &'static str, more: u64) {
        *self.lock().counts.entry(what).or_default() += more;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Forgets what was measured so far, and keeps what failed.
    pub(crate) fn restart(&self) {
        let mut recorded = self.lock();
        recorded.latency.reset();
        recorded.operations = 0;
        recorded.counts.clear();
    }

    pub(crate) fn so_far(&self) -> Recorded {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_forgets_latencies_and_keeps_failures() {
        let recorder = Recorder::new();
        recorder.done(Duration::from_secs(3));
        recorder.failed(&Failure::Transport("gone".to_owned()));
        recorder.restart();
        recorder.done_many(Duration::from_millis(1), 5);
        recorder.failed(&Failure::wrong("one key, not two"));
        let recorded = recorder.so_far();
        assert_eq!((recorded.operations, recorded.latency.len()), (5, 5));
        assert!(recorded.latency.max() < 1_100_000);
        assert_eq!((recorded.failures.failed, recorded.failures.checks_failed), (1, 1));
        assert_eq!(recorded.failures.by_text.len(), 2);
    }

    #[test]
    fn texts_without_end_do_not_fill_memory() {
        let recorder = Recorder::new();
        for number in 0..1000 {
            recorder.failed(&Failure::Transport(format!("broken {number}")));
        }
        let failures = recorder.so_far().failures;
        assert_eq!(failures.by_text.len(), TEXTS_MAX + 1);
        assert_eq!(failures.by_text.values().sum::<u64>(), 1000);
    }
}
