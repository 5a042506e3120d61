//! What handles and the log thread share: one lock over the view and the queue, so that the order of the queue is the
//! order in which the view changed.
//!
//! The lock is held for memory only, never over a file call or an await. Every acknowledgement is a [`Done`], which
//! tells failure when it is dropped: nobody waits for ever for a log that died. Left out: who drains (see `handle`).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::format::{RawLogId, RawVote};
use super::options::OnFault;
use super::view::{Chunk, View};

type Callback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Told exactly once.
pub(super) struct Done(Option<Callback>);

impl Done {
    pub(super) fn new(callback: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Self(Some(Box::new(callback)))
    }

    pub(super) fn ok(mut self) {
        if let Some(callback) = self.0.take() {
            callback(Ok(()));
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(Err(io::Error::other("the raft log is dead or closed: not durable")));
        }
    }
}

pub(super) enum Op {
    Append { chunk: Arc<Chunk>, number: u64, done: Done },
    Vote { vote: RawVote, done: Done },
    Truncate { after: Option<RawLogId> },
    Purge { upto: RawLogId },
    Flushed { upto: RawLogId },
    Barrier { done: Done },
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { chunk, .. } => chunk.bytes.len(),
            Self::Vote { .. }
            | Self::Truncate { .. }
            | Self::Purge { .. }
            | Self::Flushed { .. }
            | Self::Barrier { .. } => 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// Wakes by itself to write the marker.
    Timed,
    Untimed,
}

pub(super) struct State {
    pub(super) view: View,
    pub(super) queue: Vec<Op>,
    pub(super) queue_bytes: usize,
    pub(super) appends: u64,
    /// Index up to which the state machine is durable.
    pub(super) flushed: Option<u64>,
    pub(super) committed_unwritten: bool,
    dead: Option<Arc<str>>,
    closed: bool,
    sleep: Sleep,
}

pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// The queue has become shorter.
    pub(super) room: Notify,
    on_fault: OnFault,
    /// Batches that the disk was given, and those that it has taken.
    begun: AtomicU64,
    done: AtomicU64,
}

pub(super) enum Taken {
    Ops { ops: Vec<Op>, committed: Option<RawLogId> },
    Idle { committed: Option<RawLogId> },
    Closed { committed: Option<RawLogId> },
    Dead,
}

impl Shared {
    pub(super) fn new(view: View, on_fault: OnFault) -> Self {
        let state = State {
            view,
            queue: Vec::new(),
            queue_bytes: 0,
            appends: 0,
            flushed: None,
            committed_unwritten: false,
            dead: None,
            closed: false,
            sleep: Sleep::Awake,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            room: Notify::new(),
            on_fault,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    pub(super) fn write_begins(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write_is_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the batch that the disk is at, if it is at one.
    pub(super) fn write_under_way(&self) -> Option<u64> {
        let (done, begun) = (self.done.load(Ordering::Relaxed), self.begun.load(Ordering::Relaxed));
        (begun > done).then_some(begun)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whoever panics under this lock has found the log wrong: nobody may go on")
    }

    /// The state, if the log lives.
    pub(super) fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.dead {
            Some(reason) => Err(io::Error::other(format!("the raft log is dead: {reason}"))),
            None if state.closed => Err(io::Error::other("the raft log is closed")),
            None => Ok(state),
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead.is_some()
    }

    pub(super) fn submit(&self, mut state: MutexGuard<'_, State>, op: Op) {
        state.queue_bytes += op.bytes();
        state.queue.push(op);
        let asleep = state.sleep != Sleep::Awake;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// A committed id may wait for the next batch, but not for ever.
    pub(super) fn committed_changed(&self, mut state: MutexGuard<'_, State>) {
        state.committed_unwritten = true;
        let asleep = state.sleep == Sleep::Untimed;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Ends the log: no later call succeeds. Whoever waits is told when what is returned is dropped.
    pub(super) fn kill(&self, reason: &str) -> Vec<Op> {
        let waiting = {
            let mut state = self.lock();
            if state.dead.is_some() {
                return Vec::new();
            }
            state.dead = Some(reason.into());
            state.queue_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        (self.on_fault)(reason);
        self.wake.notify_all();
        self.room.notify_waiters();
        waiting
    }

    /// What the caller did cannot be right, and going on could lose data: the log stops.
    pub(super) fn violated(&self, state: MutexGuard<'_, State>, law: String) -> io::Error {
        drop(state);
        drop(self.kill(&law));
        io::Error::new(io::ErrorKind::InvalidInput, law)
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// What is queued now; never waits.
    pub(super) fn take_now(&self) -> Taken {
        let mut state = self.lock();
        if state.dead.is_some() {
            return Taken::Dead;
        }
        self.take_locked(&mut state)
    }

    fn take_locked(&self, state: &mut State) -> Taken {
        let committed = state.view.carry.committed;
        state.committed_unwritten = false;
        if state.queue.is_empty() {
            return if state.closed { Taken::Closed { committed } } else { Taken::Idle { committed } };
        }
        state.queue_bytes = 0;
        Taken::Ops { ops: std::mem::take(&mut state.queue), committed }
    }

    /// Waits for something to do; `marker_due` limits the wait to `delay`.
    pub(super) fn take(&self, marker_due: bool, delay: Duration) -> Taken {
        let mut state = self.lock();
        let mut waited_out = false;
        loop {
            if state.dead.is_some() {
                return Taken::Dead;
            }
            if waited_out || state.closed || !state.queue.is_empty() {
                return self.take_locked(&mut state);
            }
            let timed = marker_due || state.committed_unwritten;
            state.sleep = if timed { Sleep::Timed } else { Sleep::Untimed };
            state = if timed {
                let (state, timeout) = self.wake.wait_timeout(state, delay).expect("see lock");
                waited_out = timeout.timed_out();
                state
            } else {
                self.wake.wait(state).expect("see lock")
            };
            state.sleep = Sleep::Awake;
        }
    }
}
