//! Apply: the one place that writes the state.
//!
//! ```text
//!   openraft's state machine task ──groups of entries──▶ apply ─▶ publish effects ─▶ answer who proposed
//!                                                          │
//!                          between two groups:  a bounded step of compaction
//! ```
//!
//! On a thread of its own, because the engine may block where openraft's core must not; groups are handed over whole, so a
//! wake-up is paid for many entries at once. A small group is applied where it arises while the thread has nothing to do and
//! the engine takes writes: it goes into memory in microseconds, and two wake-ups would cost a multiple of that.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use quorate_store::{Answer, Effects, Entry, InstallError, Installed, LogPosition, Payload, ReceivedSnapshot, Store};
use tokio::sync::{Notify, oneshot, watch};

use super::log::OnFault;

/// Log bytes applied and not yet flushed; beyond it the state is flushed, so that a restart has no more to replay.
pub(crate) const REPLAY_BYTES_MAX: u64 = 64 << 20;

/// A group of up to this many bytes is applied in place.
const IN_PLACE_BYTES_MAX: usize = 32 << 10;

/// Called with what a group changed, on the apply thread, after it is visible and before anybody is answered.
pub(crate) type Publish = Arc<dyn Fn(&Effects) + Send + Sync>;

/// Told how many entries were applied in how long; for metrics.
pub(crate) type OnApplied = Arc<dyn Fn(usize, Duration) + Send + Sync>;

/// Told the term of the last entry of a group that was applied and answered.
pub(crate) type OnTerm = Box<dyn FnMut(u64) + Send>;

/// Told what was installed, after it is visible and before anything else is applied.
pub(crate) type OnInstalled = Arc<dyn Fn(&Installed) + Send + Sync>;

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
    state: Arc<Mutex<Apply>>,
}

impl Applier {
    pub(crate) fn start(
        store: Store,
        publish: Publish,
        on_applied: OnApplied,
        on_term: OnTerm,
        on_installed: OnInstalled,
        on_fault: OnFault,
        pace: CompactionPace,
    ) -> std::io::Result<(Self, Progress)> {
        let (groups, queue) = channel();
        let (applied, applied_seen) = watch::channel(store.applied());
        let progress = Progress { applied: applied_seen, compaction: Arc::default(), flush_due: Arc::default() };
        let (compaction, flush_due) = (progress.compaction.clone(), progress.flush_due.clone());
        let state = Apply {
            store,
            publish,
            on_applied,
            on_term,
            on_installed,
            on_fault,
            applied,
            compaction,
            flush_due,
            replay_bytes: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let thread = state.clone();
        std::thread::Builder::new().name("apply".into()).spawn(move || run(&thread, &queue, pace))?;
        Ok((Self { groups, state }, progress))
    }

    /// Returns when the group, of `bytes` in all, is applied; an error means that the thread is gone, and the member with
    /// it. One group at a time.
    pub(crate) async fn apply(&self, tasks: Vec<Task>, bytes: usize) -> std::io::Result<()> {
        let Err(tasks) = self.apply_in_place(tasks, bytes) else { return Ok(()) };
        let (done, applied) = oneshot::channel();
        let gone = || std::io::Error::other("the apply thread has ended");
        self.groups.send(Group { tasks, done }).map_err(|_| gone())?;
        applied.await.map_err(|_| gone())
    }

    /// Puts another member's state in place of the own one. Between two groups, like all that changes the state.
    pub(crate) async fn install(&self, received: ReceivedSnapshot) -> std::io::Result<()> {
        let state = self.state.clone();
        let install = move || state.lock().unwrap_or_else(PoisonError::into_inner).install(received);
        tokio::task::spawn_blocking(install).await.map_err(std::io::Error::other)?
    }

    /// Gives the group back where it has to go to the thread.
    fn apply_in_place(&self, tasks: Vec<Task>, bytes: usize) -> Result<(), Vec<Task>> {
        if bytes > IN_PLACE_BYTES_MAX {
            return Err(tasks);
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            // A step of compaction is under way.
            Err(TryLockError::WouldBlock) => return Err(tasks),
        };
        // Compaction goes on between groups on the thread, which is woken by groups.
        if !state.store.compaction_done() || state.store.is_stalled() {
            return Err(tasks);
        }
        state.apply(tasks);
        if state.store.compaction_done() { Ok(()) } else { self.wake() }
    }

    /// An empty group, which lets the thread look at what there is to do.
    fn wake(&self) -> Result<(), Vec<Task>> {
        let (done, _) = oneshot::channel();
        let _ = self.groups.send(Group { tasks: Vec::new(), done });
        Ok(())
    }
}

struct Apply {
    store: Store,
    publish: Publish,
    on_applied: OnApplied,
    on_term: OnTerm,
    on_installed: OnInstalled,
    on_fault: OnFault,
    applied: watch::Sender<LogPosition>,
    compaction: Arc<Notify>,
    flush_due: Arc<Notify>,
    replay_bytes: u64,
}

fn run(state: &Mutex<Apply>, queue: &Receiver<Group>, pace: CompactionPace) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next_step = Instant::now();
    loop {
        let compaction_done = lock().store.compaction_done();
        let group = if compaction_done {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(next_step.saturating_duration_since(Instant::now()))
        };
        match group {
            Ok(Group { tasks, done }) => {
                lock().apply(tasks);
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let mut state = lock();
        if !state.store.compaction_done() && Instant::now() >= next_step {
            state.compact(pace);
            next_step = Instant::now() + pace.pause;
        }
    }
}

impl Apply {
    fn apply(&mut self, tasks: Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        let started = Instant::now();
        let (entries, responds): (Vec<_>, Vec<_>) = tasks.into_iter().map(|task| (task.entry, task.respond)).unzip();
        let applied = match self.store.apply(&entries) {
            Ok(applied) => applied,
            Err(fault) => return (self.on_fault)(&format!("failed to apply committed entries: {fault}")),
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
        (self.on_applied)(entries.len(), started.elapsed());
        self.count_replay(&entries);
    }

    fn install(&mut self, received: ReceivedSnapshot) -> std::io::Result<()> {
        match self.store.install(received) {
            Ok(installed) => {
                tracing::info!(
                    index = installed.position.index,
                    revision_before = installed.revision_before,
                    revision = installed.revision,
                    "installed a snapshot"
                );
                (self.on_installed)(&installed);
                self.applied.send_replace(installed.position);
                self.replay_bytes = 0;
                Ok(())
            }
            Err(InstallError::Old { .. }) => Ok(()),
            Err(error) => {
                (self.on_fault)(&format!("failed to install a snapshot: {error}"));
                Err(std::io::Error::other(error))
            }
        }
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
            Err(fault) => (self.on_fault)(&format!("failed to drop compacted revisions: {fault}")),
        }
    }
}
