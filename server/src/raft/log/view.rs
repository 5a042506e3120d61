//! The log as its users see it: ahead of the disk by what is queued.
//!
//! ```text
//!            purged                written            last
//!  ───────────┤├─ on disk: index ────┤                 │
//!                       ├─ tail cache: chunks ─────────┤
//! ```
//!
//! A chunk is what one `append` encoded; it stays cached at least until it is written. The checks that make a wrong
//! caller stop (holes, terms that go back) live here, because here is the newest state.
//! Left out: files (see `index`), the queue (see `shared`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{Carry, RawLeader, RawLogId};
use super::index::{LogIndex, Stored};

/// Encoded entries with consecutive indexes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) first: u64,
    /// Payloads of entry records, one behind the other.
    pub(super) bytes: Bytes,
    /// Where each payload ends.
    pub(super) ends: Vec<u32>,
    pub(super) last: RawLogId,
}

impl Chunk {
    pub(super) fn range(&self, entry: usize) -> Range<usize> {
        let start = if entry == 0 { 0 } else { self.ends[entry - 1] };
        start as usize..self.ends[entry] as usize
    }

    pub(super) fn payload(&self, entry: usize) -> &[u8] {
        &self.bytes[self.range(entry)]
    }
}

struct Cached {
    chunk: Arc<Chunk>,
    /// A truncation may cut a chunk.
    len: usize,
    /// Number of the operation that wrote it, for knowing when it may go.
    op: u64,
}

/// Leaders of the entries by the index they begin at: few, however long the log.
#[derive(Default)]
pub(super) struct Runs(VecDeque<(u64, RawLeader)>);

impl Runs {
    pub(super) fn push(&mut self, id: &RawLogId) {
        if self.0.back().is_none_or(|(_, leader)| *leader != id.leader) {
            self.0.push_back((id.index, id.leader));
        }
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        while self.0.back().is_some_and(|(first, _)| *first >= index) {
            self.0.pop_back();
        }
    }

    pub(super) fn purge_upto(&mut self, upto: u64, last: u64) {
        if upto >= last {
            self.0.clear();
        }
        while self.0.get(1).is_some_and(|(first, _)| *first <= upto + 1) {
            self.0.pop_front();
        }
    }

    pub(super) fn leader_of(&self, index: u64) -> Option<RawLeader> {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|run| self.0[run].1)
    }

    /// The last id of each leader within `range`.
    pub(super) fn last_ids(&self, range: std::ops::RangeInclusive<u64>) -> Vec<RawLogId> {
        let mut ids = Vec::new();
        for (run, (first, leader)) in self.0.iter().enumerate() {
            let last = self.0.get(run + 1).map_or(u64::MAX, |(next, _)| next - 1).min(*range.end());
            if *first.max(range.start()) <= last {
                ids.push(RawLogId { leader: *leader, index: last });
            }
        }
        ids
    }
}

/// Part of the answer to a read.
pub(super) enum Piece {
    Cached { chunk: Arc<Chunk>, entries: Range<usize> },
    Stored(Stored),
}

#[derive(Default)]
pub(super) struct View {
    pub(super) carry: Carry,
    pub(super) runs: Runs,
    pub(super) index: LogIndex,
    tail: VecDeque<Cached>,
    tail_bytes: usize,
}

impl View {
    pub(super) fn new(carry: Carry, runs: Runs, index: LogIndex) -> Self {
        Self { carry, runs, index, tail: VecDeque::new(), tail_bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.carry.is_empty()
    }

    /// Why these entries must not be appended.
    pub(super) fn refuse_append(&self, first: &RawLogId, any_first_index: bool) -> Option<String> {
        let next = self.carry.next_index();
        let never_used = self.carry.last.is_none() && self.carry.purged.is_none();
        if first.index != next && !(never_used && any_first_index) {
            return Some(format!("append of {first} would leave a hole: the next index is {next}"));
        }
        let last = self.carry.last?;
        (first.leader < last.leader).then(|| format!("append of {first} goes back behind {last}"))
    }

    /// `leaders`: the first entry of the chunk and each that has another leader than the one before.
    pub(super) fn append(&mut self, chunk: Arc<Chunk>, leaders: &[RawLogId], op: u64) {
        self.carry.append(chunk.first, chunk.last);
        for id in leaders {
            self.runs.push(id);
        }
        self.tail_bytes += chunk.bytes.len();
        self.tail.push_back(Cached { len: chunk.ends.len(), chunk, op });
    }

    /// Why the log must not be cut there; `Ok(false)` if there is nothing to cut.
    pub(super) fn refuse_truncate(&self, after: Option<&RawLogId>) -> Result<bool, String> {
        let Some(last) = self.carry.last else { return Ok(false) };
        let next = after.map_or(0, |after| after.index + 1);
        if next > last.index {
            return Ok(false);
        }
        let held = after.filter(|after| after.index >= self.carry.first).and_then(|id| self.runs.leader_of(id.index));
        let wrong = held.filter(|held| after.is_some_and(|after| after.leader != *held));
        let after = after.map_or_else(|| "the start".to_owned(), ToString::to_string);
        if let Some(held) = wrong {
            return Err(format!("truncate after {after}, but the entry there is of T{}-N{}", held.term, held.node));
        }
        if let Some(purged) = self.carry.purged.filter(|purged| purged.index >= next) {
            return Err(format!("truncate after {after} reaches into what is purged up to {purged}"));
        }
        if let Some(committed) = self.carry.committed.filter(|committed| committed.index >= next) {
            return Err(format!("truncate after {after} reaches into what is committed up to {committed}"));
        }
        Ok(true)
    }

    pub(super) fn truncate(&mut self, after: Option<RawLogId>) {
        let next = after.map_or(0, |after| after.index + 1);
        self.carry.truncate(after);
        self.runs.truncate_from(next);
        while let Some(back) = self.tail.back_mut() {
            let keep = next.saturating_sub(back.chunk.first).min(back.len as u64);
            back.len = usize::try_from(keep).expect("no more than the length of a Vec");
            if back.len > 0 {
                break;
            }
            self.tail_bytes -= back.chunk.bytes.len();
            self.tail.pop_back();
        }
    }

    /// Why the log must not be purged to there; `Ok(false)` if it already is.
    pub(super) fn refuse_purge(&self, upto: &RawLogId) -> Result<bool, String> {
        if let Some(purged) = self.carry.purged
            && upto.index <= purged.index
        {
            return Ok(false);
        }
        let inside = !self.is_empty()
            && upto.index >= self.carry.first
            && self.carry.last.is_some_and(|last| upto.index <= last.index);
        match self.runs.leader_of(upto.index) {
            Some(leader) if inside && leader != upto.leader => {
                Err(format!("purge up to {upto}, but the entry there is of T{}-N{}", leader.term, leader.node))
            }
            _ => Ok(true),
        }
    }

    pub(super) fn purge(&mut self, upto: RawLogId) {
        let last = self.carry.last.map_or(0, |last| last.index);
        self.runs.purge_upto(upto.index, last);
        self.carry.purge(upto);
        while let Some(front) = self.tail.front()
            && front.chunk.first + front.len as u64 <= upto.index + 1
        {
            self.tail_bytes -= front.chunk.bytes.len();
            self.tail.pop_front();
        }
    }

    /// Lets go of the oldest chunks that are written up to operation `op`.
    pub(super) fn evict(&mut self, op: u64, bytes_max: usize) {
        while self.tail_bytes > bytes_max
            && let Some(front) = self.tail.front()
            && front.op <= op
        {
            self.tail_bytes -= front.chunk.bytes.len();
            self.tail.pop_front();
        }
    }

    pub(super) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// The entries of `range` that the log holds, or the first of them up to `bytes_max`, but at least one.
    pub(super) fn pieces(&self, range: Range<u64>, bytes_max: usize) -> Vec<Piece> {
        let (mut at, end) = (range.start.max(self.carry.first), range.end.min(self.carry.next_index()));
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while at < end && (bytes == 0 || bytes < bytes_max) {
            if let Some(found) = self.cached(at) {
                let from = usize::try_from(at - found.chunk.first).expect("within a chunk");
                let mut to = from;
                while to < found.len && at < end && (bytes == 0 || bytes < bytes_max) {
                    bytes += found.chunk.range(to).len();
                    to += 1;
                    at += 1;
                }
                pieces.push(Piece::Cached { chunk: Arc::clone(&found.chunk), entries: from..to });
                continue;
            }
            let cached_from = self.tail.front().map_or(end, |front| front.chunk.first.max(at).min(end));
            let stored = self
                .index
                .stored(at, cached_from, bytes_max.saturating_sub(bytes))
                .expect("an entry that is not cached is written");
            at += stored.offsets.len() as u64;
            bytes += (stored.end - stored.offsets[0]) as usize;
            pieces.push(Piece::Stored(stored));
        }
        pieces
    }

    fn cached(&self, index: u64) -> Option<&Cached> {
        let after = self.tail.partition_point(|cached| cached.chunk.first <= index);
        let found = &self.tail[after.checked_sub(1)?];
        (index < found.chunk.first + found.len as u64).then_some(found)
    }
}
