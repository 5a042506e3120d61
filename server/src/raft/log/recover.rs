//! Opening: which bytes still count. Hears all witnesses, then either refuses or repairs.
//!
//! ```text
//!   records that continue the chain          X   what lies behind: zeros, a torn batch, old or damaged bytes
//!  ───────────────────────────┤──────────────┤──────────────────
//!                  highest durable_upto      └ above it: cut here, zero the rest
//!                  of all witnesses            below it (X left of it): refuse
//! ```
//!
//! Witnesses are the heads that were read, heads found behind X, and the slots in the segment headers. The bytes
//! between the highest testimony and X are written and synced again: after a sync that failed they may exist in the
//! page cache only. Left out: any attempt to mend damage; a member that lost its log is replaced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    FORMAT_VERSION, HEAD_BYTES, HeaderError, Position, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
    decode_high_water, seed_of, testimony, written_len,
};
use super::fs::{Fs, FsFile};
use super::index::SegmentFile;
use super::options::{LogOptions, OpenError, OpenReport};
use super::prepare::{is_temporary, remove_segment, segment_name, segment_number};
use super::replay::{End, Replay};

/// Where the first record after head and carry begins at the earliest; a segment that ends before holds no carry.
const CARRY_OFFSET: usize = SEGMENT_HEADER_BYTES as usize + RECORD_HEADER_BYTES + HEAD_BYTES;
/// Step of writing a stretch of file anew.
const COPY_BYTES: usize = 1 << 20;

pub(super) struct Recovered {
    pub(super) replay: Replay,
    pub(super) active: SegmentFile,
    pub(super) offset: u32,
    pub(super) durable: Position,
    pub(super) high_water_turn: u64,
    pub(super) report: OpenReport,
}

struct Kept {
    file: SegmentFile,
    /// Where the records that count end.
    end: usize,
    /// Where the zeros that were never written begin.
    written: usize,
}

/// None: there is no log yet.
pub(super) fn recover(fs: &dyn Fs, options: &LogOptions) -> Result<Option<Recovered>, OpenError> {
    let dir = &options.dir;
    fs.create_dir(dir).map_err(OpenError::io("create", dir))?;
    let mut scan = Scan::default();
    for (number, path) in list_segments(fs, options)? {
        scan.segment(fs, number, path)?;
    }
    let Some(last) = scan.kept.last() else {
        return scan.nothing_kept(fs, options).map(|()| None);
    };
    let (active, end) = (last.file.clone(), last.end);
    scan.refuse_damage(&active, end)?;
    scan.refuse_missing_entries()?;
    scan.remove_unused(fs, options)?;
    let rewritten_bytes = scan.settle(options)?;
    let offset = u32::try_from(end).expect("a segment is smaller than 4 GiB");
    let at = Position { segment: active.number, offset };
    let report = OpenReport {
        segments: scan.kept.len(),
        entries: scan.replay.entries,
        cut: scan.broken.map(|reason| (active.path.to_path_buf(), end as u64, reason)),
        rewritten_bytes,
    };
    // Without syncs nothing new is known to be durable; what was, still is.
    let durable = if options.fsync { at } else { scan.witness };
    let high_water_turn = scan.high_water_turn + 1;
    Ok(Some(Recovered { replay: scan.replay, active, offset, durable, high_water_turn, report }))
}

/// Names and numbers, oldest first, without a gap; leftovers of a preparation are removed.
fn list_segments(fs: &dyn Fs, options: &LogOptions) -> Result<Vec<(u32, PathBuf)>, OpenError> {
    let dir = &options.dir;
    let mut segments = Vec::new();
    for name in fs.list(dir).map_err(OpenError::io("list", dir))? {
        let path = dir.join(&name);
        if let Some(number) = segment_number(&name) {
            segments.push((number, path));
        } else if is_temporary(&name) {
            remove_segment(fs, dir, &path).map_err(OpenError::io("remove", path))?;
        }
    }
    segments.sort();
    for pair in segments.windows(2) {
        if pair[1].0 != pair[0].0 + 1 {
            let reason = format!("{} is there, so is {}", segment_name(pair[0].0), segment_name(pair[1].0));
            return Err(OpenError::Missing { file: dir.join(segment_name(pair[0].0 + 1)), reason });
        }
    }
    Ok(segments)
}

#[derive(Default)]
struct Scan {
    replay: Replay,
    kept: Vec<Kept>,
    /// Segments behind the end: never used, or cut.
    unused: Vec<SegmentFile>,
    stopped: bool,
    broken: Option<&'static str>,
    witness: Position,
    high_water_turn: u64,
}

impl Scan {
    fn segment(&mut self, fs: &dyn Fs, number: u32, path: PathBuf) -> Result<(), OpenError> {
        let (segment, bytes) = read_segment(fs, number, &path)?;
        if let Some((turn, durable_upto)) = decode_high_water(&bytes, segment.seed) {
            self.witness = self.witness.max(durable_upto);
            self.high_water_turn = self.high_water_turn.max(turn);
        }
        let unread = if self.stopped { SEGMENT_HEADER_BYTES as usize } else { self.replay(&segment, &bytes)? };
        if self.stopped {
            self.witness = self.witness.max(testimony(&bytes, unread, number, segment.seed).unwrap_or_default());
        }
        if self.kept.last().is_none_or(|kept| kept.file.number != number) {
            self.unused.push(segment);
        }
        Ok(())
    }

    /// Where reading ended.
    fn replay(&mut self, segment: &SegmentFile, bytes: &[u8]) -> Result<usize, OpenError> {
        let chain = self.replay.chain;
        let End { offset, broken } = self.replay.segment(segment, bytes).map_err(|impossible| {
            let (file, offset) = (segment.path.to_path_buf(), impossible.offset as u64);
            OpenError::Damaged { file, offset, reason: impossible.reason }
        })?;
        self.witness = self.witness.max(self.replay.durable_upto);
        if offset <= CARRY_OFFSET {
            // A head without its carry: the log still ends in the segment before.
            self.replay.index.segments.pop_back();
            self.replay.chain = chain;
            self.stopped = true;
            self.broken = broken;
            return Ok(SEGMENT_HEADER_BYTES as usize);
        }
        self.kept.push(Kept { file: segment.clone(), end: offset, written: written_len(bytes) });
        self.stopped = broken.is_some();
        self.broken = broken;
        Ok(offset)
    }

    fn refuse_damage(&self, active: &SegmentFile, end: usize) -> Result<(), OpenError> {
        let at = Position { segment: active.number, offset: end as u32 };
        if self.witness <= at {
            return Ok(());
        }
        let reason =
            format!("{}, but the log was durable up to {}", self.broken.unwrap_or("nothing is there"), self.witness);
        Err(OpenError::Damaged { file: active.path.to_path_buf(), offset: end as u64, reason })
    }

    /// Entries that are neither purged nor there were in segments that someone removed.
    fn refuse_missing_entries(&self) -> Result<(), OpenError> {
        let (carry, index) = (&self.replay.carry, &self.replay.index);
        let complete =
            carry.is_empty() || index.first().is_some_and(|first| first <= carry.first) && index.is_contiguous();
        if complete {
            return Ok(());
        }
        let oldest = &self.kept[0].file;
        let reason = format!(
            "entries from index {} on are not purged, but the log begins with {}",
            carry.first,
            index.first().map_or_else(|| "none".to_owned(), |first| format!("index {first}")),
        );
        let before = oldest.number.saturating_sub(1);
        Err(OpenError::Missing { file: oldest.path.with_file_name(segment_name(before)), reason })
    }

    /// No segment has a carry: a first start that did not get far, unless something says otherwise.
    fn nothing_kept(&mut self, fs: &dyn Fs, options: &LogOptions) -> Result<(), OpenError> {
        let Some(oldest) = self.unused.first().cloned() else { return Ok(()) };
        if oldest.number != 1 {
            let reason = "the oldest segment has no carry and is not the first of the log".to_owned();
            let (file, offset) = (oldest.path.to_path_buf(), u64::from(SEGMENT_HEADER_BYTES));
            return Err(OpenError::Damaged { file, offset, reason });
        }
        self.refuse_damage(&oldest, SEGMENT_HEADER_BYTES as usize)?;
        self.remove_unused(fs, options)
    }

    /// Newest first, so that a crash in between leaves no gap.
    fn remove_unused(&mut self, fs: &dyn Fs, options: &LogOptions) -> Result<(), OpenError> {
        for segment in self.unused.drain(..).rev() {
            let path = &*segment.path;
            remove_segment(fs, &options.dir, path).map_err(OpenError::io("remove", path))?;
        }
        Ok(())
    }

    /// Zeroes what is behind the end, writes anew what nobody testifies for, syncs both.
    fn settle(&self, options: &LogOptions) -> Result<u64, OpenError> {
        let mut rewritten = 0;
        for (place, kept) in self.kept.iter().enumerate() {
            let last = place + 1 == self.kept.len();
            let from = match kept.file.number.cmp(&self.witness.segment) {
                std::cmp::Ordering::Less => kept.end,
                std::cmp::Ordering::Equal => (self.witness.offset as usize).max(SEGMENT_HEADER_BYTES as usize),
                std::cmp::Ordering::Greater => SEGMENT_HEADER_BYTES as usize,
            };
            let mut touched = false;
            if last && self.broken.is_some() {
                touched = true;
                zero(&kept.file, kept.end, kept.written)?;
            }
            if options.fsync && from < kept.end {
                touched = true;
                rewrite(&kept.file, from, kept.end)?;
                rewritten += (kept.end - from) as u64;
            }
            if touched && options.fsync {
                kept.file.file.sync_data().map_err(OpenError::io("sync", &*kept.file.path))?;
            }
        }
        Ok(rewritten)
    }
}

fn read_segment(fs: &dyn Fs, number: u32, path: &Path) -> Result<(SegmentFile, Vec<u8>), OpenError> {
    let damaged = |offset, reason: String| OpenError::Damaged { file: path.to_path_buf(), offset, reason };
    let file = fs.open(path).map_err(OpenError::io("open", path))?;
    let size = file.size_bytes().map_err(OpenError::io("stat", path))?;
    if size < u64::from(SEGMENT_HEADER_BYTES) || size > u64::from(u32::MAX) {
        return Err(damaged(size, format!("{size} bytes are no size of a segment")));
    }
    let bytes = read_data(&*file, size).map_err(OpenError::io("read", path))?;
    let header = SegmentHeader::decode(&bytes[..SEGMENT_HEADER_BYTES as usize]).map_err(|error| match error {
        HeaderError::Damaged(reason) => damaged(0, reason.to_owned()),
        HeaderError::Version(found) => {
            OpenError::Version { file: path.to_path_buf(), found, supported: FORMAT_VERSION }
        }
    })?;
    if header.segment != number {
        return Err(damaged(0, format!("the header is that of segment {}", header.segment)));
    }
    if header.capacity != size {
        return Err(damaged(size, format!("the file has {size} bytes and was given {}", header.capacity)));
    }
    let path = Arc::new(path.to_path_buf());
    Ok((SegmentFile { number, path, file, seed: seed_of(header.salt), capacity: header.capacity }, bytes))
}

/// A segment just begun is reserved space without data: reading that would cost more than all else at a start.
fn read_data(file: &dyn FsFile, size: u64) -> io::Result<Vec<u8>> {
    // Zeroed by the allocator: pages that stay untouched cost nothing.
    let mut bytes = vec![0; usize::try_from(size).expect("a segment is smaller than 4 GiB")];
    let mut at = 0;
    while let Some(data) = file.data_from(at)? {
        let (start, end) = (data.start.min(size), data.end.min(size));
        if start == end {
            break;
        }
        file.read_at(&mut bytes[start as usize..end as usize], start)?;
        at = end;
    }
    Ok(bytes)
}

fn zero(segment: &SegmentFile, from: usize, end: usize) -> Result<(), OpenError> {
    let zeros = vec![0; COPY_BYTES.min(end.saturating_sub(from))];
    for at in (from..end).step_by(COPY_BYTES) {
        let step = &zeros[..COPY_BYTES.min(end - at)];
        segment.file.write_at(step, at as u64).map_err(OpenError::io("zero the tail of", &*segment.path))?;
    }
    Ok(())
}

fn rewrite(segment: &SegmentFile, from: usize, end: usize) -> Result<(), OpenError> {
    let mut buffer = vec![0; COPY_BYTES.min(end - from)];
    for at in (from..end).step_by(COPY_BYTES) {
        let step = &mut buffer[..COPY_BYTES.min(end - at)];
        segment.file.read_at(step, at as u64).map_err(OpenError::io("read", &*segment.path))?;
        segment.file.write_at(step, at as u64).map_err(OpenError::io("rewrite", &*segment.path))?;
    }
    Ok(())
}
