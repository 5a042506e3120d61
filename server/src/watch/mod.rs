//! Watches: every change of the keyspace to everybody who asked for it, in order, once, and without holding up anybody.
//!
//! ```text
//!  apply thread                                        │ a stream's own polls
//!                                                      │
//!  publish(effects) ─▶ Record: bytes made once         │
//!        │  ┌──────────────────────┐                   │
//!        ├─▶│ Ring   newest 64 MiB │◀── a little behind ── cursors ──── far behind ──▶ History (store), by an Executor
//!        │  └──────────────────────┘                   │    ▲  │
//!        │  ┌──────────────────────┐  (revision, weak) │    │  │ caught up          compacted ──▶ canceled
//!        └─▶│ Index key ─▶ watcher │──▶ queue ─────────┼─▶ live ──▶ Output ──▶ wire.rs ──▶ one DATA frame for many
//!           └──────────────────────┘      │            │    ▲
//!                                     full: closed ────┼────┘  dropped, and read again from the first that was in it
//! ```
//!
//! - The hub knows the last revision it *published*, and compares a new watcher with that, never with the store. A
//!   watcher below reads history up to it; from there on, its stream's queue has been filling since it was created.
//! - `publish` puts a reference into the queue of each stream that has a matching watcher. It takes short locks and
//!   waits for nobody; a queue that is full is emptied and its stream becomes a number: the revision to read from.
//! - Events are not queued per watcher but per stream, and spread to its watchers when the client has room for them.
//! - A stream is a value that is polled. There is no task and no timer per watcher.
//!
//! Left out: permissions, headers and gRPC (rpc/watch.rs); what is in the store and for how long (store).

mod catchup;
mod herald;
mod history;
mod hub;
mod index;
mod interval;
mod limits;
mod output;
mod reads;
mod record;
mod registry;
mod ring;
mod state;
mod stream;
mod turn;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use herald::Herald;
pub use history::{Executor, History, HistoryError, HistoryPage, Inline, Job, KeySet};
pub use hub::{Hub, HubStats};
pub use limits::Limits;
pub use output::{Chosen, Delivery, Filters, Output, Part, Parts, WATCH_ID_NONE};
pub use record::Record;
pub use stream::{End, WatchCreate, WatchHandle, WatchStream};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whoever panicked under a lock took the member down with it, or was a test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
