//! The one who writes: turns queued operations into batches, each one write and one sync, and acknowledges in order.
//!
//! ```text
//! put ... put ─> batch bytes ─ flush: write_at, sync_data ─> index and cache move on ─> acks
//!         └ no room: flush, roll to the prepared segment (head, carry), go on
//! ```
//!
//! A fault ends it: what is not acknowledged then is told so when it is dropped. Left out: when to run (see `handle`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::format::{
    Carry, HEAD_BYTES, Kind, Position, RECORD_HEADER_BYTES, RawLogId, RawVote, SEGMENT_HEADER_BYTES, encode_head,
    encode_high_water, encode_log_id_option, encode_vote, push_record,
};
use super::fs::Fs;
use super::index::SegmentFile;
use super::options::{LogOptions, SyncStats};
use super::prepare::{Helper, create_segment};
use super::recover::Recovered;
use super::shared::{Done, Op, Shared, Taken};
use super::view::Chunk;

/// More than the largest carry takes, with the headers of head and carry.
const OPENING_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

/// A change of the index that a written record brings.
enum Change {
    Entry { index: u64, offset: u32 },
    Truncate(Option<u64>),
    Purge(u64),
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    acks: Vec<Done>,
    entries: usize,
    /// Number of the last append that is whole in it.
    append: Option<u64>,
    purges: bool,
}

pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    options: Arc<LogOptions>,
    shared: Arc<Shared>,
    helper: Helper,
    /// As of the last record put, so behind the view by what is queued.
    carry: Carry,
    chain: u32,
    active: SegmentFile,
    /// Where the batch will be written.
    offset: u32,
    durable: Position,
    high_water_turn: u64,
    batch: Batch,
    /// Encoding space of small records.
    scratch: Vec<u8>,
    marker_due: bool,
    purge_wanted: Option<RawLogId>,
    flushed: Option<RawLogId>,
}

impl Writer {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        options: Arc<LogOptions>,
        shared: Arc<Shared>,
        helper: Helper,
        recovered: &Recovered,
    ) -> Self {
        Self {
            fs,
            options,
            shared,
            helper,
            carry: recovered.replay.carry,
            chain: recovered.replay.chain.unwrap_or(0),
            active: recovered.active.clone(),
            offset: recovered.offset,
            durable: recovered.durable,
            high_water_turn: recovered.high_water_turn,
            batch: Batch::default(),
            scratch: Vec::new(),
            // What recovery made durable is told to the disk soon.
            marker_due: true,
            purge_wanted: None,
            flushed: None,
        }
    }

    /// Opens the first segment if there is none, and asks for the next.
    pub(super) fn start(&mut self) -> Result<(), Fault> {
        if self.offset == SEGMENT_HEADER_BYTES {
            self.begin_segment();
            self.flush()?;
        }
        self.prepare_next();
        Ok(())
    }

    pub(super) fn marker_due(&self) -> bool {
        self.marker_due
    }

    /// False: the log is dead.
    pub(super) fn run(&mut self, taken: Taken) -> bool {
        let mut ops = Vec::new().into_iter();
        let result = match taken {
            Taken::Dead => return false,
            Taken::Ops { ops: taken, committed } => {
                ops = taken.into_iter();
                self.work(&mut ops, committed)
            }
            Taken::Idle { committed } | Taken::Closed { committed } => self.rest(committed),
        };
        if let Err(Fault(reason)) = &result {
            let waiting = self.shared.kill(reason);
            // Only now, and in order: who is told of the failure must find the log dead.
            self.batch.acks.clear();
            drop(ops);
            drop(waiting);
        }
        result.is_ok()
    }

    fn work(&mut self, ops: &mut std::vec::IntoIter<Op>, committed: Option<RawLogId>) -> Result<(), Fault> {
        for op in ops {
            match op {
                Op::Append { chunk, number, done } => {
                    self.put_entries(&chunk)?;
                    self.batch.append = Some(number);
                    self.batch.acks.push(done);
                }
                Op::Vote { vote, done } => {
                    self.put_vote(vote)?;
                    self.batch.acks.push(done);
                }
                Op::Truncate { after } => self.put_truncate(after)?,
                // At once where it may be: an append behind a purge past the end continues from there.
                Op::Purge { upto } => {
                    self.purge_wanted = Some(upto);
                    self.put_purge()?;
                }
                Op::Flushed { upto } => {
                    self.flushed = Some(upto);
                    self.put_purge()?;
                }
                Op::Barrier { done } => self.batch.acks.push(done),
            }
        }
        self.put_committed(committed)?;
        self.flush()
    }

    /// Nothing has come for a while: what is known only in memory goes to the disk.
    fn rest(&mut self, committed: Option<RawLogId>) -> Result<(), Fault> {
        self.put_committed(committed)?;
        if self.batch.bytes.is_empty() && !self.marker_due {
            return Ok(());
        }
        if self.options.fsync && self.marker_due {
            let (offset, slot) = encode_high_water(self.high_water_turn, self.durable, self.active.seed);
            self.high_water_turn += 1;
            self.active.file.write_at(&slot, offset).map_err(|error| self.fault("write", offset, &error))?;
            self.reserve(0)?;
        }
        self.flush()?;
        // A marker needs no marker: it carries nothing that could be lost.
        self.marker_due = false;
        Ok(())
    }

    fn put_entries(&mut self, chunk: &Chunk) -> Result<(), Fault> {
        for entry in 0..chunk.ends.len() {
            let index = chunk.first + entry as u64;
            let offset = self.put(Kind::Entry, chunk.payload(entry))?;
            self.batch.changes.push(Change::Entry { index, offset });
            self.batch.entries += 1;
            // A batch may end within a chunk, and a carry may be written between: the last id must be exact.
            let id = super::format::decode_entry_id(chunk.payload(entry)).expect("the handle encoded an id");
            self.carry.append(index, id);
        }
        Ok(())
    }

    fn put_vote(&mut self, vote: RawVote) -> Result<(), Fault> {
        self.put_small(Kind::Vote, |out| encode_vote(&vote, out))?;
        self.carry.vote = Some(vote);
        Ok(())
    }

    fn put_truncate(&mut self, after: Option<RawLogId>) -> Result<(), Fault> {
        self.put_small(Kind::Truncate, |out| encode_log_id_option(after.as_ref(), out))?;
        self.carry.truncate(after);
        self.batch.changes.push(Change::Truncate(after.map(|after| after.index)));
        Ok(())
    }

    fn put_committed(&mut self, committed: Option<RawLogId>) -> Result<(), Fault> {
        if committed != self.carry.committed {
            self.put_small(Kind::Committed, |out| encode_log_id_option(committed.as_ref(), out))?;
            self.carry.committed = committed;
        }
        Ok(())
    }

    /// As far as the state machine's flush allows.
    fn put_purge(&mut self) -> Result<(), Fault> {
        let (Some(wanted), Some(flushed)) = (self.purge_wanted, self.flushed) else { return Ok(()) };
        let upto = if wanted.index <= flushed.index { wanted } else { flushed };
        if wanted.index <= flushed.index {
            self.purge_wanted = None;
        }
        if self.carry.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.put_small(Kind::Purge, |out| encode_log_id_option(Some(&upto), out))?;
        self.carry.purge(upto);
        self.batch.changes.push(Change::Purge(upto.index));
        self.batch.purges = true;
        Ok(())
    }

    fn put_small(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Fault> {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode(&mut payload);
        let put = self.put(kind, &payload);
        self.scratch = payload;
        put.map(drop)
    }

    /// Offset in the file at which the record will stand.
    fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<u32, Fault> {
        if self.batch.bytes.len() >= self.options.batch_bytes_max {
            self.flush()?;
        }
        self.reserve(RECORD_HEADER_BYTES + payload.len())?;
        let offset = self.offset + self.batch.bytes.len() as u32;
        push_record(&mut self.batch.bytes, self.active.seed, &mut self.chain, kind, payload);
        Ok(offset)
    }

    /// Makes sure that a batch is begun and that `bytes` more fit into its segment.
    fn reserve(&mut self, bytes: usize) -> Result<(), Fault> {
        let head = if self.batch.bytes.is_empty() { RECORD_HEADER_BYTES + HEAD_BYTES } else { 0 };
        let end = self.offset as u64 + (self.batch.bytes.len() + head + bytes) as u64;
        if end > self.active.capacity {
            self.flush()?;
            self.roll(bytes)?;
        } else if head > 0 {
            self.begin_batch();
        }
        Ok(())
    }

    fn begin_batch(&mut self) {
        let at = Position { segment: self.active.number, offset: self.offset };
        let head = encode_head(at, self.durable);
        push_record(&mut self.batch.bytes, self.active.seed, &mut self.chain, Kind::Head, &head);
    }

    fn begin_segment(&mut self) {
        self.begin_batch();
        let mut carry = Vec::new();
        self.carry.encode(&mut carry);
        push_record(&mut self.batch.bytes, self.active.seed, &mut self.chain, Kind::Carry, &carry);
    }

    fn roll(&mut self, bytes: usize) -> Result<(), Fault> {
        let number = self.active.number + 1;
        let needed = (SEGMENT_HEADER_BYTES as usize + OPENING_BYTES_MAX + bytes) as u64;
        let prepared = match self.helper.take_prepared() {
            Some(Ok(segment)) if segment.capacity >= needed => Some(segment),
            Some(Err(error)) if !error.may_try_again => return Err(Fault(error.to_string())),
            // Too small, or no space at that time: this write decides.
            Some(Ok(_) | Err(_)) | None => None,
        };
        let segment = match prepared {
            Some(segment) => segment,
            None => {
                let capacity = needed.max(u64::from(self.options.segment_bytes));
                create_segment(&*self.fs, &self.options.dir, number, capacity)
                    .map_err(|error| Fault(error.to_string()))?
            }
        };
        assert_eq!(segment.number, number, "segments are prepared in order");
        self.active = segment.clone();
        self.offset = SEGMENT_HEADER_BYTES;
        self.shared.lock().view.index.open_segment(segment, SEGMENT_HEADER_BYTES);
        self.begin_segment();
        self.prepare_next();
        Ok(())
    }

    fn prepare_next(&mut self) {
        self.helper.prepare(self.active.number + 1, u64::from(self.options.segment_bytes));
    }

    fn flush(&mut self) -> Result<(), Fault> {
        if !self.batch.bytes.is_empty() {
            self.write_batch()?;
        }
        self.settle_batch();
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), Fault> {
        let (began, offset) = (self.fs.now(), u64::from(self.offset));
        self.shared.write_begins();
        let written = self.active.file.write_at(&self.batch.bytes, offset);
        written.map_err(|error| self.fault("write", offset, &error))?;
        let wrote = self.fs.now();
        self.offset += self.batch.bytes.len() as u32;
        if self.options.fsync {
            self.active.file.sync_data().map_err(|error| self.fault("sync", offset, &error))?;
            self.durable = Position { segment: self.active.number, offset: self.offset };
            self.marker_due = true;
        }
        self.shared.write_is_done();
        let sync = if self.options.fsync { self.fs.now().saturating_sub(wrote) } else { Duration::ZERO };
        let (bytes, entries) = (self.batch.bytes.len(), self.batch.entries);
        (self.options.on_sync)(&SyncStats { bytes, entries, write: wrote.saturating_sub(began), sync });
        Ok(())
    }

    /// The batch is on disk: the index learns it, the cache may forget it, the waiting are told.
    fn settle_batch(&mut self) {
        let batch = &mut self.batch;
        let mut state = self.shared.lock();
        let view = &mut state.view;
        view.index.written_upto(self.offset);
        for change in batch.changes.drain(..) {
            match change {
                Change::Entry { index, offset } => view.index.entry(index, offset),
                Change::Truncate(last) => view.index.truncate_after(last),
                Change::Purge(upto) => view.index.purge_upto(upto),
            }
        }
        if let Some(append) = batch.append.take() {
            view.evict(append, self.options.tail_cache_bytes_max);
        }
        let removable = if std::mem::take(&mut batch.purges) { view.index.take_empty() } else { Vec::new() };
        drop(state);
        batch.bytes.clear();
        batch.entries = 0;
        self.helper.remove(removable);
        if self.shared.is_dead() {
            // The helper or a reader met damage meanwhile: nothing more is acknowledged.
            batch.acks.clear();
        }
        for done in batch.acks.drain(..) {
            done.ok();
        }
        self.shared.room.notify_waiters();
    }

    fn fault(&self, verb: &str, offset: u64, error: &io::Error) -> Fault {
        Fault(format!("{verb} {} at offset {offset}: {error}", self.active.path.display()))
    }
}
