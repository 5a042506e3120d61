//! Wakes streams for the apply thread.
//!
//! ```text
//!   publish ─▶ wakers of 1,000 streams ─▶ │ list │ ─▶ herald, woken once ─▶ their tasks, from inside the runtime
//! ```
//!
//! Waking a task from a foreign thread costs a lock or even a system call. The apply thread pays for one, and clients
//! have their answers sooner. Without a herald (tests, a runtime that is going down) publish wakes them itself.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::hub::Hub;
use super::lock;

/// So few are woken directly: one hop less for them.
const WAKERS_DIRECT_MAX: usize = 2;
/// Woken in one poll; then other tasks have their turn.
const WAKERS_PER_POLL: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Errands(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    wakers: Vec<Waker>,
    /// Heralds there are.
    heralds: usize,
    herald: Option<Waker>,
}

impl Errands {
    pub(super) fn wake(&self, wakers: Vec<Waker>) {
        if wakers.len() > WAKERS_DIRECT_MAX {
            let mut list = lock(&self.0);
            if list.heralds > 0 {
                list.wakers.extend(wakers);
                let herald = list.herald.take();
                drop(list);
                return herald.into_iter().for_each(Waker::wake);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A future that never ends. Whoever spawns it aborts it.
#[derive(Debug)]
pub struct Herald(Hub);

impl Herald {
    pub(super) fn new(hub: Hub) -> Self {
        lock(&hub.core().errands.0).heralds += 1;
        Self(hub)
    }
}

impl Future for Herald {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut list = lock(&self.0.core().errands.0);
        let some = list.wakers.len().min(WAKERS_PER_POLL);
        let wakers: Vec<_> = list.wakers.drain(..some).collect();
        let more = !list.wakers.is_empty();
        list.herald = Some(cx.waker().clone());
        drop(list);
        wakers.into_iter().for_each(Waker::wake);
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        let mut list = lock(&self.0.core().errands.0);
        list.heralds -= 1;
        let (wakers, herald) = (std::mem::take(&mut list.wakers), list.herald.take());
        drop(list);
        wakers.into_iter().chain(herald).for_each(Waker::wake);
    }
}
