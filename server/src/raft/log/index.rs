//! Where written entries lie: per segment one run of indexes and the offset of each (4 bytes an entry).
//!
//! ```text
//! segments  [3: 100.. | offsets]  [4: 180.. | offsets]  [5: (none yet)]
//! ```
//!
//! The runs follow each other without a hole: a truncation cuts from the back, a purge past the end empties all.
//! Left out: terms (see `view::Runs`) and lengths (a record has its own).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::fs::FsFile;

#[derive(Clone)]
pub(super) struct SegmentFile {
    pub(super) number: u32,
    pub(super) path: Arc<PathBuf>,
    pub(super) file: Arc<dyn FsFile>,
    pub(super) seed: u32,
    pub(super) capacity: u64,
}

pub(super) struct SegmentIndex {
    pub(super) segment: SegmentFile,
    pub(super) first: u64,
    pub(super) offsets: Vec<u32>,
    /// Where the written part of the file ends.
    pub(super) end: u32,
}

impl SegmentIndex {
    fn next(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

#[derive(Default)]
pub(super) struct LogIndex {
    pub(super) segments: VecDeque<SegmentIndex>,
}

/// Entries of one file that stand next to each other in the log.
pub(super) struct Stored {
    pub(super) segment: SegmentFile,
    pub(super) first: u64,
    pub(super) offsets: Vec<u32>,
    /// No byte at or after it belongs to these entries.
    pub(super) end: u32,
}

impl LogIndex {
    pub(super) fn open_segment(&mut self, segment: SegmentFile, end: u32) {
        self.segments.push_back(SegmentIndex { segment, first: 0, offsets: Vec::new(), end });
    }

    fn active(&mut self) -> &mut SegmentIndex {
        self.segments.back_mut().expect("a segment is opened before anything is written")
    }

    pub(super) fn written_upto(&mut self, end: u32) {
        self.active().end = end;
    }

    pub(super) fn entry(&mut self, index: u64, offset: u32) {
        let active = self.active();
        if active.offsets.is_empty() {
            active.first = index;
        }
        assert_eq!(active.next(), index, "the written log has no hole");
        active.offsets.push(offset);
    }

    /// Forgets entries after `last`; None forgets all.
    pub(super) fn truncate_after(&mut self, last: Option<u64>) {
        let next = last.map_or(0, |last| last + 1);
        for segment in self.segments.iter_mut().rev() {
            let keep = next.saturating_sub(segment.first).min(segment.offsets.len() as u64);
            segment.offsets.truncate(usize::try_from(keep).expect("no more than the length of a Vec"));
        }
    }

    /// Forgets entries up to `upto` in segments that hold nothing else.
    pub(super) fn purge_upto(&mut self, upto: u64) {
        for segment in &mut self.segments {
            if !segment.offsets.is_empty() && segment.next() <= upto + 1 {
                segment.offsets = Vec::new();
            }
        }
    }

    /// The oldest segments that hold no entry, never the one being written.
    pub(super) fn take_empty(&mut self) -> Vec<SegmentFile> {
        let mut taken = Vec::new();
        while self.segments.len() > 1 && self.segments[0].offsets.is_empty() {
            taken.extend(self.segments.pop_front().map(|index| index.segment));
        }
        taken
    }

    /// Index of the oldest entry on disk.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.iter().find(|segment| !segment.offsets.is_empty()).map(|segment| segment.first)
    }

    /// Whether the entries on disk reach from the first to the last without a hole.
    pub(super) fn is_contiguous(&self) -> bool {
        let full = || self.segments.iter().filter(|segment| !segment.offsets.is_empty());
        full().zip(full().skip(1)).all(|(older, newer)| older.next() == newer.first)
    }

    /// The entries from `index` on that lie in one segment, `end` excluded, until their bytes exceed `bytes_max`.
    pub(super) fn stored(&self, index: u64, end: u64, bytes_max: usize) -> Option<Stored> {
        let found = self
            .segments
            .iter()
            .rev()
            .find(|segment| !segment.offsets.is_empty() && segment.first <= index && index < segment.next())?;
        let from = usize::try_from(index - found.first).ok()?;
        let to = usize::try_from(end.min(found.next()) - found.first).ok()?;
        let start = found.offsets[from];
        let mut upto = from + 1;
        while upto < to && (found.offsets[upto] - start) as usize <= bytes_max {
            upto += 1;
        }
        let end = found.offsets.get(upto).copied().unwrap_or(found.end);
        Some(Stored { segment: found.segment.clone(), first: index, offsets: found.offsets[from..upto].to_vec(), end })
    }
}
