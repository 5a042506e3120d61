//! When the next operation is due.
//!
//! ```text
//!  closed loop   due when a client is free: the server sets the pace
//!  open loop     the n-th is due at start + n / rate, whether a client is free or not: latency counts from there
//! ```
//!
//! In an open loop a server that stalls for a second has a second's worth of operations waiting, and each of them waited for its
//! part; a closed loop would count one slow operation (coordinated omission). The timer is the kernel's: tokio's rounds to
//! milliseconds, which is more than most answers take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;

/// The due times of an open loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    per_second: f64,
}

impl Schedule {
    pub(crate) fn new(per_second: f64) -> Self {
        Self { per_second }
    }

    /// When the operation of this number (from 0) is due, after the start.
    pub(crate) fn due(&self, number: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^53 operations")]
        Duration::from_secs_f64(number as f64 / self.per_second)
    }

    /// How many are due `elapsed` after the start.
    pub(crate) fn due_by(&self, elapsed: Duration) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of operations")]
        let mut count = (elapsed.as_secs_f64() * self.per_second) as u64;
        // Division and multiplication round differently: settle what is due by `due` alone.
        while self.due(count) <= elapsed {
            count += 1;
        }
        while count > 0 && self.due(count - 1) > elapsed {
            count -= 1;
        }
        count
    }
}

/// Hands out operations to clients, one at a time.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    schedule: Option<Schedule>,
    total: u64,
    taken: AtomicU64,
    stopped: AtomicBool,
    /// One permit for each operation that is due and not taken; unused in a closed loop.
    due: Semaphore,
}

impl Pace {
    pub(crate) fn new(rate: Option<f64>, total: Option<u64>) -> Self {
        Self {
            start: Instant::now(),
            schedule: rate.map(Schedule::new),
            total: total.unwrap_or(u64::MAX),
            taken: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            due: Semaphore::new(0),
        }
    }

    /// When the next operation was due, at once or in time; `None` when there is none any more.
    pub(crate) async fn next(&self) -> Option<Instant> {
        if self.schedule.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number >= self.total {
            return None;
        }
        Some(self.schedule.map_or_else(Instant::now, |schedule| self.start + schedule.due(number)))
    }

    /// Releases what falls due until all are; never returns before. Nothing to do in a closed loop.
    pub(crate) async fn run(&self) -> Result<()> {
        let Some(schedule) = self.schedule else { return std::future::pending().await };
        let mut timer = Timer::new()?;
        let mut released = 0;
        loop {
            let due = schedule.due_by(self.start.elapsed());
            self.due.add_permits(usize::try_from(due - released).expect("due within one wait"));
            released = due;
            timer.wait(schedule.due(released).saturating_sub(self.start.elapsed())).await?;
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.due.close();
    }
}

/// A timer that wakes within tens of microseconds: a file of the kernel's that can be read when the time has come.
struct Timer(Receiver);

impl Timer {
    fn new() -> Result<Self> {
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)
            .context("create the timer of the open loop")?;
        // The one safe way into tokio's reactor for a file that can be read and is no pipe.
        Ok(Self(Receiver::from_owned_fd_unchecked(timer).context("register the timer of the open loop")?))
    }

    async fn wait(&mut self, time: Duration) -> Result<()> {
        // All zero would switch it off.
        let value = Timespec::try_from(time.max(Duration::from_nanos(1))).context("wait that long")?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).context("set the timer")?;
        // Longer than the count of eight bytes, so that a short read says that there is no more.
        let mut expirations = [0; 16];
        self.0.read(&mut expirations).await.context("read the timer").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_equal_distances() {
        let schedule = Schedule::new(1000.0);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_millis(1));
        assert_eq!(schedule.due(3_600_000), Duration::from_secs(3600));
    }

    #[test]
    fn what_is_due_is_what_has_a_due_time_in_the_past() {
        for rate in [0.3, 1.0, 7.0, 999.0, 1000.0, 12_345.6] {
            let schedule = Schedule::new(rate);
            for elapsed in
                [0, 1, 999_999, 1_000_000, 1_000_001, 333_333_333, 86_400_000_000_000].map(Duration::from_nanos)
            {
                let due = schedule.due_by(elapsed);
                assert!(due == 0 || schedule.due(due - 1) <= elapsed, "{rate}/s after {elapsed:?}: {due}");
                assert!(schedule.due(due) > elapsed, "{rate}/s after {elapsed:?}: {due}");
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_told_when_it_should_have_begun() {
        const STALL: Duration = Duration::from_millis(40);
        let pace = Pace::new(Some(1000.0), Some(20));
        let work = async {
            let mut waited = Vec::new();
            while let Some(due) = pace.next().await {
                // Only the first stalls; the other 19 fall due meanwhile, one each millisecond.
                if waited.is_empty() {
                    std::thread::sleep(STALL);
                }
                waited.push(due.elapsed());
            }
            waited
        };
        let waited = tokio::select! {
            biased;
            error = pace.run() => panic!("{error:?}"),
            waited = work => waited,
        };
        assert_eq!(waited.len(), 20);
        for (number, waited) in waited.iter().enumerate() {
            let at_least = STALL.saturating_sub(Duration::from_millis(u64::try_from(number).unwrap()));
            assert!(*waited >= at_least, "operation {number} waited {waited:?}, at least {at_least:?} by the schedule");
        }
    }

    #[tokio::test]
    async fn a_closed_loop_ends_with_its_total() {
        let pace = Pace::new(None, Some(3));
        for _ in 0..3 {
            assert!(pace.next().await.is_some());
        }
        assert!(pace.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stopped_pace_wakes_whoever_waits() {
        let pace = Pace::new(Some(0.001), None);
        let (first, ()) = tokio::join!(pace.next(), async { pace.stop() });
        assert!(first.is_none());
    }
}
