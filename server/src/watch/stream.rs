//! A watch stream from outside: requests go in by a handle, outputs come out by polling.
//!
//! ```text
//!   reader task ── WatchHandle: create, cancel, progress ──▶ State ◀── Hub
//!                                                              │
//!   response body ◀─── WatchStream::poll_outputs ◀─────────────┘
//! ```
//!
//! Pulled, not pushed: a stream whose client does not read is not polled, and then nothing is read for it either.
//! Left out: gRPC.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quorate_store::KeyRange;
use tokio::sync::Notify;

use super::hub::Hub;
use super::lock;
use super::output::{Filters, Output};
use super::state::State;
use super::turn::Step;

#[derive(Clone, Debug)]
pub struct WatchCreate {
    /// 0: the stream picks one.
    pub watch_id: i64,
    pub range: KeyRange,
    /// 0: whatever comes next. Never negative.
    pub start_revision: i64,
    pub filters: Filters,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub fragment: bool,
}

/// Why a stream has nothing more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By its owner.
    Closed,
    /// History cannot be read.
    Fault(String),
}

#[derive(Debug)]
pub(super) struct Shared {
    pub number: u32,
    pub state: Mutex<State>,
    /// Answers have gone out since the reader of requests stopped for their number.
    room: Notify,
}

impl Shared {
    pub(super) fn new(number: u32, state: State) -> Self {
        Self { number, state: Mutex::new(state), room: Notify::new() }
    }
}

/// Puts requests to a stream.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    hub: Hub,
    stream: Arc<Shared>,
}

/// Owns a stream: when it is dropped, its watchers are gone.
#[derive(Debug)]
pub struct WatchStream(WatchHandle);

impl WatchHandle {
    /// Answered by `Created` or `Refused`.
    pub fn create(&self, request: &WatchCreate) {
        self.hub.create(&self.stream, request);
    }

    /// Answers a request that never came as far as the hub.
    pub fn refuse(&self, reason: String) {
        let revision = self.hub.published();
        let mut state = lock(&self.stream.state);
        state.controls.push_back(Output::Refused { reason, revision });
        let waker = state.waker();
        drop(state);
        waker.into_iter().for_each(std::task::Waker::wake);
    }

    pub fn cancel(&self, watch_id: i64) {
        self.hub.cancel(&self.stream, watch_id);
    }

    /// Asks for one `Progress` of the whole stream. Asking again before it has come changes nothing.
    pub fn progress(&self) {
        let published = self.hub.published();
        let mut state = lock(&self.stream.state);
        state.progress.asked.get_or_insert(published);
        let waker = state.waker();
        drop(state);
        waker.into_iter().for_each(std::task::Waker::wake);
    }

    /// Nothing more will be said.
    pub fn finish(&self, end: End) {
        let waker = lock(&self.stream.state).finish(end);
        waker.into_iter().for_each(std::task::Waker::wake);
    }

    /// Returns when few enough answers wait for the client that more requests may be read.
    pub async fn room(&self) {
        while lock(&self.stream.state).controls.len() >= self.hub.core().limits.controls {
            self.stream.room.notified().await;
        }
    }
}

impl WatchStream {
    pub(super) fn new(hub: Hub, stream: Arc<Shared>) -> Self {
        Self(WatchHandle { hub, stream })
    }

    pub fn handle(&self) -> &WatchHandle {
        &self.0
    }

    /// Counts the streams of a member; for whoever wants to spread something over them.
    pub fn number(&self) -> u32 {
        self.0.stream.number
    }

    /// The interval for progress without asking is over.
    pub fn tick(&mut self) {
        lock(&self.0.stream.state).tick();
    }

    /// Whether a watcher wants to be ticked for.
    pub fn wants_ticks(&self) -> bool {
        !lock(&self.0.stream.state).progress.notified.is_empty()
    }

    /// What there is to say now; ready with at least one output.
    pub fn poll_outputs(&mut self, cx: &mut Context<'_>, out: &mut Vec<Output>) -> Poll<Result<(), End>> {
        let WatchHandle { hub, stream } = &self.0;
        let limits = &hub.core().limits;
        for _ in 0..limits.poll_pages.max(1) {
            let now = hub.now();
            let mut state = lock(&stream.state);
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            let Step { read, retired, wake_at } = state.turn(now, limits, out);
            let roomy = state.controls.len() < limits.controls;
            let reads = read.is_some();
            if out.is_empty() && !reads {
                state.wait(cx.waker());
            }
            drop(state);
            if roomy {
                stream.room.notify_one();
            }
            hub.forget(stream, retired);
            if let Some(plan) = read {
                self.wait_and_read(cx, plan);
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let again = wake_at.is_some_and(|revision| hub.wake_at(stream, revision));
            if !reads && !again {
                return Poll::Pending;
            }
            if lock(&stream.state).reading {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The waker has to be there before the page can be.
    fn wait_and_read(&self, cx: &Context<'_>, plan: super::catchup::Plan) {
        lock(&self.0.stream.state).wait(cx.waker());
        self.0.hub.read(&self.0.stream, plan);
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.0.hub.remove(&self.0.stream);
    }
}
