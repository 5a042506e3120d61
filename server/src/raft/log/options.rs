//! What a log is opened with, what opening it tells, and why it may refuse.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A segment is preallocated whole; a roll costs a prepared file, so larger is rarer.
pub const SEGMENT_BYTES: u32 = 64 << 20;
/// One write; more that waits goes into the next one, behind a sync of its own.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Encoded entries kept in memory for apply and replication; older ones are read from their segments.
pub const TAIL_CACHE_BYTES_MAX: usize = 4 << 20;
/// What one call of `limited_get_log_entries` returns at most, save that it returns at least one entry.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Entries submitted and not yet written; beyond it `append` waits (asynchronously) for the disk.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// One entry; larger ones are a fault of the caller, whose own limits are far below.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;
/// How long the proof of the last sync may stay in memory only.
pub const MARKER_DELAY: Duration = Duration::from_millis(50);

pub type OnFault = Arc<dyn Fn(&str) + Send + Sync>;
pub type OnSync = Arc<dyn Fn(&SyncStats) + Send + Sync>;

/// Who runs the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// Threads of the log's own: production.
    Threads,
    /// Each call of the handle runs the writer to the end before it returns: a simulator on one thread.
    Inline,
    /// Only [`super::RaftLog::pump`] and [`super::RaftLog::tick`] run it: tests that choose what shares a batch.
    Manual,
}

#[derive(Clone)]
pub struct LogOptions {
    pub dir: PathBuf,
    pub segment_bytes: u32,
    pub batch_bytes_max: usize,
    pub tail_cache_bytes_max: usize,
    pub read_bytes_max: usize,
    pub queue_bytes_max: usize,
    pub marker_delay: Duration,
    /// False is `--unsafe-no-fsync`: records are not synced nor claimed to be, and a power cut may lose any tail.
    pub fsync: bool,
    /// True lets the first entry of an empty log have any index, as openraft's test suite wants; production says false.
    pub any_first_index: bool,
    pub driver: Driver,
    /// Told once, with the reason, when the log dies. The server logs it and exits.
    pub on_fault: OnFault,
    /// Told after every batch; runs on the log thread, so it must be short.
    pub on_sync: OnSync,
}

impl LogOptions {
    pub fn new(dir: impl Into<PathBuf>, on_fault: OnFault) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES,
            batch_bytes_max: BATCH_BYTES_MAX,
            tail_cache_bytes_max: TAIL_CACHE_BYTES_MAX,
            read_bytes_max: READ_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            marker_delay: MARKER_DELAY,
            fsync: true,
            any_first_index: false,
            driver: Driver::Threads,
            on_fault,
            on_sync: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// One batch that reached the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncStats {
    pub bytes: usize,
    pub entries: usize,
    pub write: Duration,
    /// Zero where `fsync` is off.
    pub sync: Duration,
}

/// What opening found; the caller logs it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenReport {
    pub segments: usize,
    pub entries: u64,
    /// File, offset and reason where a tail was cut.
    pub cut: Option<(PathBuf, u64, &'static str)>,
    /// Bytes that were not known to be durable and were written again.
    pub rewritten_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is damaged at offset {offset}: {reason}", file.display())]
    Damaged { file: PathBuf, offset: u64, reason: String },
    #[error("{} has log format version {found}, this build reads version {supported}", file.display())]
    Version { file: PathBuf, found: u32, supported: u32 },
    #[error("{} is missing: {reason}", file.display())]
    Missing { file: PathBuf, reason: String },
    #[error("{context} {}: {source}", file.display())]
    Io { context: &'static str, file: PathBuf, source: io::Error },
}

impl OpenError {
    pub(super) fn io(context: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { context, file, source }
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Io { source, .. } => source.kind(),
            OpenError::Damaged { .. } | OpenError::Version { .. } | OpenError::Missing { .. } => {
                io::ErrorKind::InvalidData
            }
        };
        Self::new(kind, error)
    }
}
