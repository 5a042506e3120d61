//! A state on its way to another member: chunks out of a frozen view, and into an engine beside the one that serves.
//!
//! ```text
//!   SnapshotChunks (an iterator over a view)                 SnapshotSink
//!     head ─▶ rows ─▶ rows ─▶ … ─▶ end      ── peers ──▶       push, push, … ─▶ finish ─▶ ReceivedSnapshot
//!     one chunk is made when it is asked for                   one batch of rows is written for each chunk
//!                                                                             Store::install ─▶ Installed
//! ```
//!
//! Both ends hold one chunk and one row, whatever there is to send. Nobody hurries them: a chunk that is not asked for is
//! not made, one that is not pushed is not read, so the slower end and the network set the pace. The sender pins its
//! view and no file; the receiver serves its old state until the install, and after a crash at any point before it.
//!
//! Everything that can go wrong on the way has a name ([`TransferError`]), and costs nothing but the transfer. What was
//! received is loaded, and compared with what its head says, before it may be installed.
//!
//! ```text
//!   chunk    kind:1 (1 head, 2 rows, 3 end) | number:8, from 0 | before:4 | crc:4 | payload: the rest
//!   head     "QUORXFER" | format:4 | state format:8 | index:8 term:8 | revision:8 | compacted:8 | bytes:8 | membership: the rest
//!   rows     family:1 | key length:4 | key | value length:4 | value … without regard for chunks: a row goes on in the next
//!   end      families:1 | (family:1 | rows:8) of each, in order | bytes of rows:8 | SHA-256:32
//! ```
//!
//! Integers are little-endian. `crc` is CRC32C of all of the chunk but itself, `before` is that of the chunk before it
//! (0 for the head), so that chunks of two transfers cannot be mixed. The SHA-256 is of the head's payload and of all
//! rows. Families are in order, and keys within each. Pinned: another meaning takes another `format`.
//!
//! Left out: who sends when, how often to try again, and the file that clients save (a container of its own, which says
//! nothing of positions in a log). A transfer that broke off is begun afresh: its view is gone.

mod chunk;
mod install;
pub mod rows;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use crate::types::{Fault, LogPosition};

pub use chunk::{CHUNK_OVERHEAD_BYTES, SnapshotHead};
pub use install::{InstallError, Installed, ReceivedSnapshot};
pub use sink::SnapshotSink;
pub use source::SnapshotChunks;

/// Of rows in one chunk; all but the last have exactly so many.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Why a snapshot was not received. What is being served is untouched by all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("chunk {chunk} is cut short: it has {bytes} bytes, {CHUNK_OVERHEAD_BYTES} at least were due")]
    Short { chunk: u64, bytes: usize },
    #[error("chunk {chunk} is damaged: its checksum does not match")]
    Damaged { chunk: u64 },
    #[error("chunk {got} came where chunk {due} was due: it came before, or out of order")]
    Repeated { due: u64, got: u64 },
    #[error("chunk {got} came where chunk {due} was due: what is between is missing, or comes out of order")]
    Missing { due: u64, got: u64 },
    #[error("chunk {chunk} does not continue the one before it: it is of another transfer")]
    Foreign { chunk: u64 },
    #[error("chunk {chunk} came after the end of the snapshot")]
    AfterEnd { chunk: u64 },
    #[error("the snapshot ends after {chunks} chunks, without its end")]
    Cut { chunks: u64 },
    #[error("chunk {chunk} is of kind {kind}, which this release does not expect there")]
    Kind { chunk: u64, kind: u8 },
    #[error("not a snapshot of Quorate")]
    Magic,
    #[error("a snapshot of format {0}; this release knows formats up to {known}", known = chunk::FORMAT_VERSION)]
    Format(u32),
    #[error("a snapshot of a state of format {0}; this release knows formats up to {known}", known = crate::keys::FORMAT_VERSION)]
    StateFormat(u64),
    #[error("chunk {chunk}: {reason}")]
    Contents { chunk: u64, reason: String },
    #[error("the snapshot does not match its end: {what} sent, {received} received")]
    Totals { what: String, received: u64 },
    #[error("the snapshot does not match the SHA-256 of its end")]
    Digest,
    #[error("the snapshot does not hold the state that its head announces: {0}")]
    Announced(String),
    /// Nothing in it is new.
    #[error("the snapshot is of entry {offered}, and entry {applied} is applied already", offered = offered.index, applied = applied.index)]
    Old { offered: LogPosition, applied: LogPosition },
    /// This member could not write it down: its disk is full, or worse. It says nothing about the state that is served.
    #[error("write the snapshot: {0}")]
    Write(String),
}

impl TransferError {
    fn write(fault: &Fault) -> Self {
        Self::Write(fault.to_string())
    }
}
