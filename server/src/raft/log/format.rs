//! The bytes of a segment: the header block, the records, the chain. Pure: no file is touched here.
//!
//! ```text
//! record (little endian)                                  head (first record of every batch)
//!  0 crc   u32  crc32c, seeded by the salt, of the rest    0 at           u64  where this record stands
//!  4 prev  u32  crc of the record before: the chain        8 durable_upto u64  synced for certain when written
//!  8 len   u32  bytes of payload                          entry
//! 12 kind  u8, 3 x zero                                    0 term u64, node u64, index u64
//! 16 payload                                              24 body, as the codec wrote it
//! ```
//!
//! The CRC of a record covers `prev`, so a record proves itself alone (a cold read needs no neighbours) and the
//! order of all records proves itself by the chain. Left out: compression, encryption, a footer.

use std::fmt;

use crc32c::{crc32c, crc32c_append};

/// The only format this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;
pub(super) const MAGIC: [u8; 8] = *b"QRLOGSEG";
/// The header has a block of its own, so that no write of a batch touches a sector of it.
pub(super) const SEGMENT_HEADER_BYTES: u32 = 4096;
pub(super) const RECORD_HEADER_BYTES: usize = 16;
pub(super) const HEAD_BYTES: usize = 16;
/// Term, node and index, before the body of an entry.
pub(super) const ENTRY_ID_BYTES: usize = 24;
/// A record that claims more is damaged; it also bounds what a damaged length can make us look at.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;

const BIRTH_BYTES: usize = 36;
/// Two slots, written in turn, so that a torn write leaves the older one.
const HIGH_WATER_OFFSETS: [usize; 2] = [512, 1024];
const HIGH_WATER_BYTES: usize = 20;

/// Where a byte stands in the log: positions grow with every record and across segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Position {
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    pub(super) fn from_u64(raw: u64) -> Self {
        Self { segment: (raw >> 32) as u32, offset: raw as u32 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

/// Who led when an entry was proposed; `node` is zero where a term alone names the leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct RawLeader {
    pub term: u64,
    pub node: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawLogId {
    pub leader: RawLeader,
    pub index: u64,
}

impl fmt::Display for RawLogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}.{}", self.leader.term, self.leader.node, self.index)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawVote {
    pub leader: RawLeader,
    pub committed: bool,
}

/// Pinned numbers, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Head = 1,
    Carry = 2,
    Entry = 3,
    Vote = 4,
    Committed = 5,
    Truncate = 6,
    Purge = 7,
}

impl Kind {
    fn from_u8(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Head,
            2 => Self::Carry,
            3 => Self::Entry,
            4 => Self::Vote,
            5 => Self::Committed,
            6 => Self::Truncate,
            7 => Self::Purge,
            _ => return None,
        })
    }
}

/// All that is known without the entries. It opens every segment, so a segment never needs the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carry {
    pub(super) vote: Option<RawVote>,
    pub(super) committed: Option<RawLogId>,
    pub(super) purged: Option<RawLogId>,
    pub(super) last: Option<RawLogId>,
    /// Index of the first entry that is not purged.
    pub(super) first: u64,
}

impl Carry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_le_bytes());
        match &self.vote {
            None => out.push(0),
            Some(vote) => {
                out.push(1);
                encode_vote(vote, out);
            }
        }
        for id in [&self.committed, &self.purged, &self.last] {
            encode_log_id_option(id.as_ref(), out);
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut read = Reader(payload);
        let first = read.u64()?;
        let vote = match read.u8()? {
            0 => None,
            1 => Some(read.vote()?),
            _ => return None,
        };
        let carry = Self {
            first,
            vote,
            committed: read.log_id_option()?,
            purged: read.log_id_option()?,
            last: read.log_id_option()?,
        };
        read.done(carry)
    }

    pub(super) fn next_index(&self) -> u64 {
        self.last.map_or(self.first, |last| last.index + 1)
    }

    /// Without an entry; there may be ids of purged ones.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none_or(|last| last.index < self.first)
    }

    // What the records do to the ids: one place for the view, the writer and the replay.

    pub(super) fn append(&mut self, first: u64, last: RawLogId) {
        if self.is_empty() {
            self.first = first;
        }
        self.last = Some(last);
    }

    pub(super) fn truncate(&mut self, after: Option<RawLogId>) {
        self.last = after;
        if after.is_none() {
            self.first = 0;
        }
    }

    pub(super) fn purge(&mut self, upto: RawLogId) {
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        self.purged = Some(upto);
        self.first = self.first.max(upto.index + 1);
    }
}

pub(super) fn encode_vote(vote: &RawVote, out: &mut Vec<u8>) {
    out.extend_from_slice(&vote.leader.term.to_le_bytes());
    out.extend_from_slice(&vote.leader.node.to_le_bytes());
    out.push(u8::from(vote.committed));
}

pub(super) fn encode_log_id_option(id: Option<&RawLogId>, out: &mut Vec<u8>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        out.extend_from_slice(&encode_log_id(id));
    }
}

pub(super) fn encode_log_id(id: &RawLogId) -> [u8; ENTRY_ID_BYTES] {
    let mut raw = [0; ENTRY_ID_BYTES];
    raw[..8].copy_from_slice(&id.leader.term.to_le_bytes());
    raw[8..16].copy_from_slice(&id.leader.node.to_le_bytes());
    raw[16..].copy_from_slice(&id.index.to_le_bytes());
    raw
}

pub(super) fn decode_vote(payload: &[u8]) -> Option<RawVote> {
    let mut read = Reader(payload);
    let vote = read.vote()?;
    read.done(vote)
}

pub(super) fn decode_log_id_option(payload: &[u8]) -> Option<Option<RawLogId>> {
    let mut read = Reader(payload);
    let id = read.log_id_option()?;
    read.done(id)
}

/// The id at the front of an entry; the body follows at [`ENTRY_ID_BYTES`].
pub(super) fn decode_entry_id(payload: &[u8]) -> Option<RawLogId> {
    Reader(payload).log_id()
}

pub(super) fn encode_head(at: Position, durable_upto: Position) -> [u8; HEAD_BYTES] {
    let mut raw = [0; HEAD_BYTES];
    raw[..8].copy_from_slice(&at.to_u64().to_le_bytes());
    raw[8..].copy_from_slice(&durable_upto.to_u64().to_le_bytes());
    raw
}

/// (at, durable_upto)
pub(super) fn decode_head(payload: &[u8]) -> Option<(Position, Position)> {
    let mut read = Reader(payload);
    let head = (Position::from_u64(read.u64()?), Position::from_u64(read.u64()?));
    read.done(head)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        let (raw, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*raw))
    }

    fn vote(&mut self) -> Option<RawVote> {
        let leader = RawLeader { term: self.u64()?, node: self.u64()? };
        match self.u8()? {
            0 => Some(RawVote { leader, committed: false }),
            1 => Some(RawVote { leader, committed: true }),
            _ => None,
        }
    }

    fn log_id(&mut self) -> Option<RawLogId> {
        Some(RawLogId { leader: RawLeader { term: self.u64()?, node: self.u64()? }, index: self.u64()? })
    }

    fn log_id_option(&mut self) -> Option<Option<RawLogId>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(self.log_id()?)),
            _ => None,
        }
    }

    /// Bytes left over mean that this is not what we wrote.
    fn done<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// The salt makes bytes that merely look like ours (a log file stored as a value, an older file) fail the check.
pub(super) fn seed_of(salt: u64) -> u32 {
    crc32c(&salt.to_le_bytes())
}

/// Appends one record to `out`; `chain` moves on to it.
pub(super) fn push_record(out: &mut Vec<u8>, seed: u32, chain: &mut u32, kind: Kind, payload: &[u8]) {
    let start = out.len();
    let len = u32::try_from(payload.len()).expect("the caller bounds a record by RECORD_BYTES_MAX");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&chain.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    out.extend_from_slice(payload);
    *chain = crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&chain.to_le_bytes());
}

#[derive(Debug)]
pub(super) enum Parsed<'a> {
    /// Nothing was ever written here (or what was written is gone).
    Zero,
    Bad(&'static str),
    Record(Record<'a>),
}

#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) prev: u32,
    pub(super) crc: u32,
    pub(super) payload: &'a [u8],
    /// Bytes of header and payload.
    pub(super) bytes: usize,
}

pub(super) fn parse_record(bytes: &[u8], seed: u32) -> Parsed<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        // Less than a header is left of the segment: the writer leaves such a rest zero.
        return if is_zero(bytes) { Parsed::Zero } else { Parsed::Bad("bytes where no record fits") };
    };
    if *header == [0; RECORD_HEADER_BYTES] {
        return Parsed::Zero;
    }
    let len = u32_at(header, 8) as usize;
    if len > rest.len() || len > RECORD_BYTES_MAX {
        return Parsed::Bad("record is longer than what is left");
    }
    let crc = u32_at(header, 0);
    if crc32c_append(seed, &bytes[4..RECORD_HEADER_BYTES + len]) != crc {
        return Parsed::Bad("checksum mismatch");
    }
    let Some(kind) = Kind::from_u8(header[12]) else {
        return Parsed::Bad("unknown kind of record");
    };
    let payload = &rest[..len];
    Parsed::Record(Record { kind, prev: u32_at(header, 4), crc, payload, bytes: RECORD_HEADER_BYTES + len })
}

/// The highest `durable_upto` that a head at or after `from` testifies, whatever lies broken between them.
pub(super) fn testimony(bytes: &[u8], from: usize, segment: u32, seed: u32) -> Option<Position> {
    const HEAD_RECORD_BYTES: usize = RECORD_HEADER_BYTES + HEAD_BYTES;
    let mut highest = None;
    // A head never ends in the zeros behind the last write by more than itself: they need no walk.
    let end = (written_len(bytes) + HEAD_RECORD_BYTES).min(bytes.len());
    for offset in from..end.saturating_sub(HEAD_RECORD_BYTES - 1) {
        let candidate = &bytes[offset..offset + HEAD_RECORD_BYTES];
        // Cheap tests first: this walks every byte of a damaged segment.
        if candidate[12] != Kind::Head as u8 || u32_at(candidate, 8) as usize != HEAD_BYTES {
            continue;
        }
        let Parsed::Record(record) = parse_record(candidate, seed) else { continue };
        let Some((at, durable_upto)) = decode_head(record.payload) else { continue };
        if at.segment == segment && at.offset as usize == offset {
            highest = highest.max(Some(durable_upto));
        }
    }
    highest
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    written_len(bytes) == 0
}

/// Length without the zeros at the end, rounded up to a word: most of a fresh segment is zeros, so this must be quick.
pub(super) fn written_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<16>();
    if rest.iter().any(|byte| *byte != 0) {
        return bytes.len();
    }
    words.iter().rposition(|word| u128::from_ne_bytes(*word) != 0).map_or(0, |word| (word + 1) * 16)
}

/// Written once, synced before the file gets its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) segment: u32,
    /// Bytes the file was given before use: a shorter file was cut by someone, never by a power cut.
    pub(super) capacity: u64,
    pub(super) salt: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged(&'static str),
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        block.extend_from_slice(&self.segment.to_le_bytes());
        block.extend_from_slice(&self.capacity.to_le_bytes());
        block.extend_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(block.len(), BIRTH_BYTES);
        block.resize(SEGMENT_HEADER_BYTES as usize, 0);
        block
    }

    pub(super) fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() < BIRTH_BYTES || block[..8] != MAGIC {
            return Err(HeaderError::Damaged("no segment header"));
        }
        let version = u32_at(block, 8);
        let intact = crc32c(&block[..BIRTH_BYTES - 4]) == u32_at(block, BIRTH_BYTES - 4);
        // A newer format may check itself in another way, so its version counts even where our check fails.
        if version != FORMAT_VERSION && (intact || version > FORMAT_VERSION) {
            return Err(HeaderError::Version(version));
        }
        if !intact {
            return Err(HeaderError::Damaged("checksum mismatch in the segment header"));
        }
        let mut read = Reader(&block[16..]);
        let (Some(capacity), Some(salt)) = (read.u64(), read.u64()) else {
            return Err(HeaderError::Damaged("short segment header"));
        };
        Ok(Self { segment: u32_at(block, 12), capacity, salt })
    }
}

/// A second witness of what is durable, away from the tail that it speaks of: (offset in the file, bytes).
pub(super) fn encode_high_water(turn: u64, durable_upto: Position, seed: u32) -> (u64, [u8; HIGH_WATER_BYTES]) {
    let mut raw = [0; HIGH_WATER_BYTES];
    raw[..8].copy_from_slice(&turn.to_le_bytes());
    raw[8..16].copy_from_slice(&durable_upto.to_u64().to_le_bytes());
    let crc = crc32c_append(seed, &raw[..16]);
    raw[16..].copy_from_slice(&crc.to_le_bytes());
    (HIGH_WATER_OFFSETS[(turn % 2) as usize] as u64, raw)
}

/// (turn, durable_upto) of the newer slot.
pub(super) fn decode_high_water(block: &[u8], seed: u32) -> Option<(u64, Position)> {
    let slots = HIGH_WATER_OFFSETS.iter().filter_map(|offset| {
        let raw = block.get(*offset..*offset + HIGH_WATER_BYTES)?;
        let intact = crc32c_append(seed, &raw[..16]) == u32_at(raw, 16);
        let mut read = Reader(raw);
        let slot = (read.u64()?, Position::from_u64(read.u64()?));
        intact.then_some(slot)
    });
    slots.max()
}
