//! The apply thread: the one place that writes the state.
//!
//! ```text
//!   openraft's state machine task ──groups of entries──▶ apply ─▶ publish effects ─▶ answer who proposed
//!                                                          │
//!                          between two groups:  a bounded step of compaction
//! ```
//!
//! A thread of its own, because the engine may block where openraft's core must not. Groups are handed over whole, so
//! a wake-up is paid for many entries at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use quorate_store::{Answer, Effects, Entry, LogPosition, Payload, Store};
use tokio::sync::{Notify, oneshot, watch};

use crate::fault;

/// Log bytes applied and not yet flushed; beyond it the state is flushed, so that a restart has no more to replay.
pub(crate) const REPLAY_BYTES_MAX: u64 = 64 << 20;

/// Called with what a group changed, on the apply thread, after it is visible and before anybody is answered.
pub(crate) type Publish = Arc<dyn Fn(&Effects) + Send + Sync>;

/// Told how many entries were applied in how long; for metrics.
pub(crate) type OnApplied = Arc<dyn Fn(usize, Duration) + Send + Sync>;

/// Told the term of the last entry of a group that was applied and answered.
pub(crate) type OnTerm = Box<dyn FnMut(u64) + Send>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactionPace {
    /// `--compaction-batch-limit`: log entries looked at in one step.
    pub entries_per_step: usize,
    /// `--compaction-sleep-interval`: pause between two steps.
    pub pause: Duration,
}

/// One entry, and who waits for what comes of it.
pub(crate) struct Task {
    pub entry: Entry,
    pub respond: Option<Box<dyn FnOnce(Vec<Answer>) + Send>>,
}

struct Group {
    tasks: Vec<Task>,
    done: oneshot::Sender<()>,
}

/// Signals from the apply thread to whoever waits.
#[derive(Clone)]
pub(crate) struct Progress {
    /// Index of the last entry applied.
    pub applied: watch::Receiver<LogPosition>,
    /// Notified after every step of compaction.
    pub compaction: Arc<Notify>,
    /// Notified when more than [`REPLAY_BYTES_MAX`] would have to be replayed after a crash.
    pub flush_due: Arc<Notify>,
}

/// Hands groups to the thread; the thread ends when this is dropped.
pub(crate) struct Applier {
    groups: Sender<Group>,
}

impl Applier {
    pub(crate) fn start(
        store: Store,
        publish: Publish,
        on_applied: OnApplied,
        on_term: OnTerm,
        pace: CompactionPace,
    ) -> std::io::Result<(Self, Progress)> {
        let (groups, queue) = channel();
        let (applied, applied_seen) = watch::channel(store.applied());
        let progress = Progress { applied: applied_seen, compaction: Arc::default(), flush_due: Arc::default() };
        let (compaction, flush_due) = (progress.compaction.clone(), progress.flush_due.clone());
        let thread = Thread { store, publish, on_applied, on_term, applied, compaction, flush_due, replay_bytes: 0 };
        std::thread::Builder::new().name("apply".into()).spawn(move || thread.run(&queue, pace))?;
        Ok((Self { groups }, progress))
    }

    /// Returns when the group is applied; an error means that the thread is gone, and the member with it.
    pub(crate) async fn apply(&self, tasks: Vec<Task>) -> std::io::Result<()> {
        let (done, applied) = oneshot::channel();
        let gone = || std::io::Error::other("the apply thread has ended");
        self.groups.send(Group { tasks, done }).map_err(|_| gone())?;
        applied.await.map_err(|_| gone())
    }
}

struct Thread {
    store: Store,
    publish: Publish,
    on_applied: OnApplied,
    on_term: OnTerm,
    applied: watch::Sender<LogPosition>,
    compaction: Arc<Notify>,
    flush_due: Arc<Notify>,
    replay_bytes: u64,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Group>, pace: CompactionPace) {
        let mut next_step = Instant::now();
        loop {
            let group = if self.store.compaction_done() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(next_step.saturating_duration_since(Instant::now()))
            };
            match group {
                Ok(group) => self.apply(group),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !self.store.compaction_done() && Instant::now() >= next_step {
                self.compact(pace);
                next_step = Instant::now() + pace.pause;
            }
        }
    }

    fn apply(&mut self, group: Group) {
        let started = Instant::now();
        let (entries, responds): (Vec<_>, Vec<_>) =
            group.tasks.into_iter().map(|task| (task.entry, task.respond)).unzip();
        let applied = match self.store.apply(&entries) {
            Ok(applied) => applied,
            Err(fault) => return fault::stop(&format!("failed to apply committed entries: {fault}")),
        };
        (self.publish)(&applied.effects);
        self.applied.send_replace(self.store.applied());
        for (respond, answers) in responds.into_iter().zip(applied.answers) {
            if let Some(respond) = respond {
                respond(answers);
            }
        }
        // After those that are answered: what is left of earlier terms by now is lost.
        (self.on_term)(self.store.applied().term);
        let _ = group.done.send(());
        (self.on_applied)(entries.len(), started.elapsed());
        self.count_replay(&entries);
    }

    fn count_replay(&mut self, entries: &[Entry]) {
        self.replay_bytes += entries
            .iter()
            .map(|entry| match &entry.payload {
                Payload::Batch(bytes) => bytes.len() as u64,
                Payload::Blank | Payload::Membership(_) => 0,
            })
            .sum::<u64>();
        if self.replay_bytes > REPLAY_BYTES_MAX {
            self.replay_bytes = 0;
            self.flush_due.notify_one();
        }
    }

    fn compact(&mut self, pace: CompactionPace) {
        match self.store.compact_step(pace.entries_per_step) {
            Ok(_) => self.compaction.notify_waiters(),
            Err(fault) => fault::stop(&format!("failed to drop compacted revisions: {fault}")),
        }
    }
}
