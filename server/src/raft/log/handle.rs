//! The handle: every call changes the view, queues, and returns; the disk is met on the log's own threads.
//!
//! ```text
//! RaftLog (cheap clone) ──queue──> raft-log        write, sync, acks
//!                       ──jobs───> raft-log-read   entries that are no longer in memory
//!                                  raft-log-files  next segment, removals (owned by the writer)
//! LogThreads: the owner; closing or dropping it writes what is queued, then joins them
//! ```
//!
//! Left out: openraft's types (see `store`).

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::format::{Position, RawLogId, RawVote, SEGMENT_HEADER_BYTES, encode_log_id};
use super::fs::Fs;
use super::options::{Driver, ENTRY_BYTES_MAX, LogOptions, OpenError, OpenReport};
use super::prepare::{Helper, create_segment};
use super::read::{RawEntry, is_cached, resolve};
use super::recover::{Recovered, recover};
use super::replay::Replay;
use super::shared::{Done, Op, Shared, Taken};
use super::view::{Chunk, Piece, View};
use super::writer::Writer;

/// Entries to append, encoded as they come.
#[derive(Debug, Default)]
pub struct EntryBatch {
    bytes: BytesMut,
    ends: Vec<u32>,
    /// The first entry and each with another leader than the one before.
    leaders: Vec<RawLogId>,
    last: Option<RawLogId>,
    wrong: Option<String>,
}

impl EntryBatch {
    /// `encode` appends the body.
    pub fn push(&mut self, id: RawLogId, encode: impl FnOnce(&mut BytesMut)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&encode_log_id(&id));
        encode(&mut self.bytes);
        if self.bytes.len() - start > ENTRY_BYTES_MAX {
            self.wrong =
                Some(format!("entry {id} has {} bytes, more than {ENTRY_BYTES_MAX}", self.bytes.len() - start));
        }
        match self.last {
            Some(last) if id.index != last.index + 1 || id.leader < last.leader => {
                self.wrong = Some(format!("entry {id} follows {last} in one append"));
            }
            Some(last) if id.leader == last.leader => {}
            _ => self.leaders.push(id),
        }
        match u32::try_from(self.bytes.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => self.wrong = Some("one append of more than 4 GiB".to_owned()),
        }
        self.last = Some(id);
    }

    fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}

/// The ids of the log as submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogIds {
    pub vote: Option<RawVote>,
    pub committed: Option<RawLogId>,
    pub purged: Option<RawLogId>,
    /// The last entry, or `purged` where there is none.
    pub last: Option<RawLogId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogStats {
    pub segments: usize,
    /// What the files take, written or not.
    pub disk_bytes: u64,
    pub tail_cache_bytes: usize,
    pub queue_bytes: usize,
}

struct ReadJob {
    pieces: Vec<Piece>,
    reply: oneshot::Sender<Result<Vec<RawEntry>, String>>,
}

struct Core {
    options: Arc<LogOptions>,
    shared: Arc<Shared>,
    /// Without threads the calls run the writer.
    inline: Option<Mutex<Writer>>,
    reads: Arc<Reads>,
}

/// None: there is no reader thread (any more).
type Reads = Mutex<Option<Sender<ReadJob>>>;

#[derive(Clone)]
pub struct RaftLog {
    core: Arc<Core>,
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").field("dir", &self.core.options.dir).finish_non_exhaustive()
    }
}

impl RaftLog {
    /// Recovers and starts. Blocks on files: not for an async task.
    pub fn open(fs: Arc<dyn Fs>, options: LogOptions) -> Result<(Self, LogThreads, OpenReport), OpenError> {
        let options = Arc::new(options);
        let mut recovered = match recover(&*fs, &options)? {
            Some(recovered) => recovered,
            None => first_segment(&*fs, &options)?,
        };
        let replay = &mut recovered.replay;
        let (runs, index) = (std::mem::take(&mut replay.runs), std::mem::take(&mut replay.index));
        let shared = Arc::new(Shared::new(View::new(replay.carry, runs, index), Arc::clone(&options.on_fault)));
        let threaded = options.driver == Driver::Threads;
        let helper = Helper::new(Arc::clone(&fs), options.dir.clone(), &shared, threaded);
        let mut writer = Writer::new(fs, Arc::clone(&options), Arc::clone(&shared), helper, &recovered);
        writer.start().map_err(|fault| {
            let file = options.dir.clone();
            OpenError::Io { context: "begin the log in", file, source: io::Error::other(fault.0) }
        })?;
        let reads = Arc::new(Reads::default());
        let mut threads = LogThreads { shared: Arc::clone(&shared), reads: Arc::clone(&reads), joins: Vec::new() };
        let inline = if threaded {
            threads.start(writer, Arc::clone(&options));
            None
        } else {
            Some(Mutex::new(writer))
        };
        Ok((Self { core: Arc::new(Core { options, shared, inline, reads }) }, threads, recovered.report))
    }

    /// `done` is told once the entries are durable, in the order of the calls; the entries are readable on return.
    /// As every callback here it runs on the log's thread: it must be short and not call the log.
    pub fn append(&self, batch: EntryBatch, done: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let done = Done::new(done);
        let shared = &self.core.shared;
        let mut state = shared.live()?;
        if let Some(wrong) = batch.wrong {
            return Err(shared.violated(state, wrong));
        }
        if batch.is_empty() {
            shared.submit(state, Op::Barrier { done });
            return self.after_submit();
        }
        let first = batch.leaders[0];
        if let Some(wrong) = state.view.refuse_append(&first, self.core.options.any_first_index) {
            return Err(shared.violated(state, wrong));
        }
        let last = batch.last.expect("the batch is not empty");
        let chunk = Arc::new(Chunk { first: first.index, bytes: batch.bytes.freeze(), ends: batch.ends, last });
        state.appends += 1;
        let number = state.appends;
        state.view.append(Arc::clone(&chunk), &batch.leaders, number);
        shared.submit(state, Op::Append { chunk, number, done });
        self.after_submit()
    }

    /// `done` is told once the vote is durable.
    pub fn save_vote(&self, vote: RawVote, done: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let done = Done::new(done);
        let mut state = self.core.shared.live()?;
        state.view.carry.vote = Some(vote);
        self.core.shared.submit(state, Op::Vote { vote, done });
        self.after_submit()
    }

    /// Reaches the disk with a later batch: a committed id is a hint, losing it loses nothing.
    pub fn save_committed(&self, committed: Option<RawLogId>) -> io::Result<()> {
        let mut state = self.core.shared.live()?;
        state.view.carry.committed = committed;
        self.core.shared.committed_changed(state);
        Ok(())
    }

    /// Durable before anything that is appended behind it.
    pub fn truncate_after(&self, after: Option<RawLogId>) -> io::Result<()> {
        let shared = &self.core.shared;
        let mut state = shared.live()?;
        match state.view.refuse_truncate(after.as_ref()) {
            Err(wrong) => return Err(shared.violated(state, wrong)),
            Ok(false) => return Ok(()),
            Ok(true) => {}
        }
        state.view.truncate(after);
        shared.submit(state, Op::Truncate { after });
        self.after_submit()
    }

    /// Hides the entries at once; the disk follows as far as [`Self::set_flushed`] allows.
    pub fn purge(&self, upto: RawLogId) -> io::Result<()> {
        let shared = &self.core.shared;
        let mut state = shared.live()?;
        match state.view.refuse_purge(&upto) {
            Err(wrong) => return Err(shared.violated(state, wrong)),
            Ok(false) => return Ok(()),
            Ok(true) => {}
        }
        let past_the_end = state.view.carry.next_index() <= upto.index;
        if past_the_end && state.flushed.is_none_or(|flushed| flushed < upto.index) {
            let flushed = state.flushed;
            let wrong = format!("purge up to {upto}, past the end, but the state is durable up to {flushed:?} only");
            return Err(shared.violated(state, wrong));
        }
        state.view.purge(upto);
        shared.submit(state, Op::Purge { upto });
        self.after_submit()
    }

    /// The state machine is durable up to here, so the log need not be.
    pub fn set_flushed(&self, upto: RawLogId) -> io::Result<()> {
        let mut state = self.core.shared.live()?;
        if state.flushed.is_some_and(|flushed| flushed >= upto.index) {
            return Ok(());
        }
        state.flushed = Some(upto.index);
        self.core.shared.submit(state, Op::Flushed { upto });
        self.after_submit()
    }

    /// `done` is told once all that was submitted before is durable.
    pub fn barrier(&self, done: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let done = Done::new(done);
        let state = self.core.shared.live()?;
        self.core.shared.submit(state, Op::Barrier { done });
        self.after_submit()
    }

    pub fn ids(&self) -> io::Result<LogIds> {
        let carry = self.core.shared.live()?.view.carry;
        Ok(LogIds { vote: carry.vote, committed: carry.committed, purged: carry.purged, last: carry.last })
    }

    /// The last id of each leader within the range.
    pub fn last_ids(&self, range: std::ops::RangeInclusive<u64>) -> io::Result<Vec<RawLogId>> {
        Ok(self.core.shared.live()?.view.runs.last_ids(range))
    }

    /// The number of the batch that the disk is at; `None` while it has nothing to do. One that stays the same for long is a disk
    /// that does not answer.
    pub fn write_under_way(&self) -> Option<u64> {
        self.core.shared.write_under_way()
    }

    pub fn stats(&self) -> LogStats {
        let state = self.core.shared.lock();
        let segments = &state.view.index.segments;
        LogStats {
            segments: segments.len(),
            disk_bytes: segments.iter().map(|index| index.segment.capacity).sum(),
            tail_cache_bytes: state.view.tail_bytes(),
            queue_bytes: state.queue_bytes,
        }
    }

    /// What one limited read returns at most.
    pub fn read_bytes_max(&self) -> usize {
        self.core.options.read_bytes_max
    }

    /// The entries of `range` that the log holds; the first of them if they are more than `bytes_max`, at least one.
    pub async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RawEntry>> {
        let pieces = self.core.shared.live()?.view.pieces(range, bytes_max);
        let resolved = if self.core.inline.is_some() || is_cached(&pieces) {
            resolve(pieces)
        } else {
            let closed = || io::Error::other("the raft log is closed");
            let (reply, answer) = oneshot::channel();
            let reads = self.core.reads.lock().expect("nobody panics under it").clone().ok_or_else(closed)?;
            reads.send(ReadJob { pieces, reply }).map_err(|_| closed())?;
            drop(reads);
            answer.await.map_err(|_| closed())?
        };
        resolved.map_err(|reason| {
            drop(self.core.shared.kill(&reason));
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })
    }

    /// Waits until the queue is within its bound.
    pub async fn wait_for_room(&self) -> io::Result<()> {
        loop {
            let room = self.core.shared.room.notified();
            if self.core.inline.is_some() || self.core.shared.live()?.queue_bytes <= self.core.options.queue_bytes_max {
                return Ok(());
            }
            room.await;
        }
    }

    /// For whoever knows a law that the log does not: what the caller did cannot be right, so the log stops.
    pub(super) fn violated(&self, law: String) -> io::Error {
        self.core.shared.violated(self.core.shared.lock(), law)
    }

    fn after_submit(&self) -> io::Result<()> {
        if self.core.options.driver == Driver::Inline {
            self.pump();
        }
        Ok(())
    }

    /// Without threads: writes what is queued as one batch.
    pub fn pump(&self) {
        if let Some(writer) = &self.core.inline {
            let mut writer = writer.lock().expect("see Shared::lock");
            match self.core.shared.take_now() {
                Taken::Idle { .. } | Taken::Closed { .. } => {}
                taken @ (Taken::Ops { .. } | Taken::Dead) => drop(writer.run(taken)),
            }
        }
    }

    /// Without threads: what the log does when nothing has come for `marker_delay`.
    pub fn tick(&self) {
        self.pump();
        if let Some(writer) = &self.core.inline {
            writer.lock().expect("see Shared::lock").run(self.core.shared.take_now());
        }
    }
}

fn first_segment(fs: &dyn Fs, options: &LogOptions) -> Result<Recovered, OpenError> {
    let capacity = u64::from(options.segment_bytes);
    let active = create_segment(fs, &options.dir, 1, capacity).map_err(|error| OpenError::Io {
        context: error.context,
        file: error.path,
        source: error.source,
    })?;
    let mut replay = Replay::default();
    replay.index.open_segment(active.clone(), SEGMENT_HEADER_BYTES);
    let offset = SEGMENT_HEADER_BYTES;
    let durable = Position { segment: 1, offset };
    let report = OpenReport { segments: 1, ..OpenReport::default() };
    Ok(Recovered { replay, active, offset, durable, high_water_turn: 0, report })
}

/// The owner of the threads.
pub struct LogThreads {
    shared: Arc<Shared>,
    reads: Arc<Reads>,
    joins: Vec<JoinHandle<()>>,
}

impl fmt::Debug for LogThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogThreads").finish_non_exhaustive()
    }
}

/// A log whose writer panicked is as dead as one whose disk failed.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.kill("the log thread panicked"));
        }
    }
}

impl LogThreads {
    fn start(&mut self, mut writer: Writer, options: Arc<LogOptions>) {
        let obituary = Obituary(Arc::clone(&self.shared));
        self.spawn("raft-log", move || {
            loop {
                let taken = obituary.0.take(writer.marker_due(), options.marker_delay);
                let closing = matches!(taken, Taken::Closed { .. });
                if !writer.run(taken) || closing {
                    break;
                }
            }
        });
        let (reads, jobs) = channel::<ReadJob>();
        *self.reads.lock().expect("nobody panics under it") = Some(reads);
        self.spawn("raft-log-read", move || {
            for job in jobs {
                // The asker may have gone away.
                let _ = job.reply.send(resolve(job.pieces));
            }
        });
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.joins.push(spawned.expect("the process may start a thread"));
    }

    /// Writes what is queued and joins the threads; later calls of handles fail.
    pub fn close(self) {}
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        self.shared.close();
        drop(self.reads.lock().expect("nobody panics under it").take());
        for thread in self.joins.drain(..) {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}
