//! The Raft log on disk: our own segments of CRC32C-chained records, one thread that writes, handles that never block.
//!
//! ```text
//!  raft core ── append, save_vote, truncate, purge ──> State { view, queue }   one short std lock, never over a file call
//!  readers  ── read ──> view: tail cache, else file and offset ──> read thread
//!                                       │ queue: everything that waits becomes one batch
//!                                       v
//!  log thread: Writer ── one write, one fdatasync ──> acks, in order       helper thread: next segment, removals
//!
//!  directory  00000003.qlog  00000004.qlog  00000005.qlog (prepared: header only)  next.tmp (being prepared)
//!
//!  segment    ┌ 4 KiB header: magic, version, number, capacity, salt, CRC; two slots with durable_upto ┐
//!             ├ batch: [head: at, durable_upto][carry: vote, committed, purged, last, first index][record]... ┤
//!             ├ batch: [head: at, durable_upto][entry][entry][vote][entry]...                                 ┤
//!             ├ batch: [head] alone, 50 ms after the last: the marker                                         ┤
//!             └ zeros to the capacity                                                                         ┘
//! ```
//!
//! Laws
//! 1. One stream: votes, entries, truncations and purges are records of one order; a record is durable only if all
//!    before it are. What recovery finds is therefore a prefix of what was submitted, never less than what was acked.
//! 2. A torn tail is told from damage by testimony: every head says up to where the log was synced when it was
//!    written. Bad bytes below the highest testimony refuse the start and name file and offset; above, they are cut,
//!    zeroed, and what is kept above it is written and synced again before it counts as durable.
//! 3. No retry after a failed write or sync: the log is dead, every later call fails, `on_fault` is told (and is
//!    expected to end the process). A sync that fails may have dropped the bytes; one that then succeeds proves nothing.
//! 4. Purge removes whole segments, oldest first, and only behind `set_flushed`. Every segment opens with a carry, so
//!    removing those before it loses neither vote nor ids.
//! 5. There are no holes. A log may be purged past its end (the state was flushed ahead of it): then last = purged.
//!
//! The stated exception of law 2: bytes after the last marker. Damage there that looks like a write that never
//! happened is cut. Left out: recycling of files, encryption, several logs in a directory, a lock on it.

mod format;
mod fs;
mod handle;
mod index;
mod options;
mod prepare;
mod read;
mod recover;
mod replay;
mod shared;
mod store;
mod view;
mod writer;

pub mod sim;

pub use format::{FORMAT_VERSION, RawLeader, RawLogId, RawVote};
pub use fs::{Fs, FsFile, StdFs};
pub use handle::{EntryBatch, LogIds, LogStats, LogThreads, RaftLog};
pub use options::{
    BATCH_BYTES_MAX, Driver, ENTRY_BYTES_MAX, LogOptions, MARKER_DELAY, OnFault, OnSync, OpenError, OpenReport,
    QUEUE_BYTES_MAX, READ_BYTES_MAX, SEGMENT_BYTES, SyncStats, TAIL_CACHE_BYTES_MAX,
};
pub use store::{EntryCodec, LogStore};

#[cfg(test)]
mod tests;
