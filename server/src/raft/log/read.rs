//! Reading entries: the pieces the view named, from memory or from their files, each record checked again.
//!
//! Neighbours in a file are read with one call of at most `COLD_READ_BYTES` (or one entry, if that is larger).
//! Left out: read-ahead and a cache of cold entries; whoever reads old entries reads them once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::format::{ENTRY_ID_BYTES, Kind, Parsed, RECORD_HEADER_BYTES, RawLogId, decode_entry_id, parse_record};
use super::index::Stored;
use super::view::{Chunk, Piece};

const COLD_READ_BYTES: usize = 1 << 20;

/// An entry as the codec wrote it.
pub(super) type RawEntry = (RawLogId, Bytes);

pub(super) fn is_cached(pieces: &[Piece]) -> bool {
    pieces.iter().all(|piece| matches!(piece, Piece::Cached { .. }))
}

/// The error names file and offset.
pub(super) fn resolve(pieces: Vec<Piece>) -> Result<Vec<RawEntry>, String> {
    let mut entries = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Cached { chunk, entries: range } => entries.extend(range.map(|entry| cached(&chunk, entry))),
            Piece::Stored(stored) => read_stored(&stored, &mut entries)?,
        }
    }
    Ok(entries)
}

fn cached(chunk: &Arc<Chunk>, entry: usize) -> RawEntry {
    let payload = chunk.bytes.slice(chunk.range(entry));
    let id = decode_entry_id(&payload).expect("the handle encoded an id");
    (id, payload.slice(ENTRY_ID_BYTES..))
}

fn read_stored(stored: &Stored, entries: &mut Vec<RawEntry>) -> Result<(), String> {
    let mut at = 0;
    while at < stored.offsets.len() {
        let start = stored.offsets[at];
        let end_of = |entry: usize| stored.offsets.get(entry + 1).copied().unwrap_or(stored.end);
        let mut last = at;
        while last + 1 < stored.offsets.len() && (end_of(last + 1) - start) as usize <= COLD_READ_BYTES {
            last += 1;
        }
        read_run(stored, at..last + 1, end_of(last), entries)?;
        at = last + 1;
    }
    Ok(())
}

fn read_run(stored: &Stored, run: std::ops::Range<usize>, end: u32, entries: &mut Vec<RawEntry>) -> Result<(), String> {
    let start = stored.offsets[run.start];
    let mut buffer = BytesMut::zeroed((end - start) as usize);
    let failed =
        |offset: u32, reason: &str| format!("read {} at offset {offset}: {reason}", stored.segment.path.display());
    let read = stored.segment.file.read_at(&mut buffer, u64::from(start));
    read.map_err(|error| failed(start, &error.to_string()))?;
    let buffer = buffer.freeze();
    for entry in run {
        let offset = stored.offsets[entry];
        let from = (offset - start) as usize;
        let record = match parse_record(&buffer[from..], stored.segment.seed) {
            Parsed::Record(record) if record.kind == Kind::Entry => record,
            Parsed::Record(_) => return Err(failed(offset, "another kind of record is there")),
            Parsed::Zero => return Err(failed(offset, "nothing is there")),
            Parsed::Bad(reason) => return Err(failed(offset, reason)),
        };
        let id = decode_entry_id(record.payload).filter(|id| id.index == stored.first + entry as u64);
        let id = id.ok_or_else(|| failed(offset, "another entry is there"))?;
        let body = from + RECORD_HEADER_BYTES + ENTRY_ID_BYTES..from + record.bytes;
        entries.push((id, buffer.slice(body)));
    }
    Ok(())
}
