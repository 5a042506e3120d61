//! The records of one segment after the other, applied to the ids and the index: what the log was when it was written.
//!
//! Stops at the first record that does not continue the chain and says where and why; whether that is a torn tail or
//! damage is decided by `recover`, which also hears later witnesses. A record that proves itself and yet makes no
//! sense (a hole, an unknown layout) is never cut: that is refused here.

use super::format::{
    Carry, HEAD_BYTES, Kind, Parsed, Position, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, decode_entry_id,
    decode_head, decode_log_id_option, decode_vote, is_zero, parse_record,
};
use super::index::{LogIndex, SegmentFile};
use super::view::Runs;

#[derive(Default)]
pub(super) struct Replay {
    pub(super) carry: Carry,
    pub(super) runs: Runs,
    pub(super) index: LogIndex,
    /// None before the first record of the oldest segment, which continues a chain that is gone.
    pub(super) chain: Option<u32>,
    /// Highest `durable_upto` heard from a head.
    pub(super) durable_upto: Position,
    pub(super) entries: u64,
}

/// Where the records of a segment end.
pub(super) struct End {
    pub(super) offset: usize,
    /// Why there, if not because nothing was written behind it.
    pub(super) broken: Option<&'static str>,
}

/// A record that is intact and impossible.
#[derive(Debug)]
pub(super) struct Impossible {
    pub(super) offset: usize,
    pub(super) reason: String,
}

impl Replay {
    pub(super) fn segment(&mut self, segment: &SegmentFile, bytes: &[u8]) -> Result<End, Impossible> {
        let start = SEGMENT_HEADER_BYTES as usize;
        self.index.open_segment(segment.clone(), SEGMENT_HEADER_BYTES);
        let mut offset = start;
        loop {
            let record = match parse_record(&bytes[offset..], segment.seed) {
                Parsed::Record(record) => record,
                Parsed::Zero => {
                    let broken = (!is_zero(&bytes[offset..])).then_some("records after a gap");
                    return Ok(End { offset, broken });
                }
                Parsed::Bad(reason) => return Ok(End { offset, broken: Some(reason) }),
            };
            if self.chain.is_some_and(|chain| chain != record.prev) {
                return Ok(End { offset, broken: Some("record does not continue the chain") });
            }
            let at = Position { segment: segment.number, offset: offset as u32 };
            let opening = offset == start + RECORD_HEADER_BYTES + HEAD_BYTES;
            self.record(&record, at, opening).map_err(|reason| Impossible { offset, reason })?;
            self.chain = Some(record.crc);
            offset += record.bytes;
            self.index.written_upto(offset as u32);
        }
    }

    fn record(&mut self, record: &Record<'_>, at: Position, opening: bool) -> Result<(), String> {
        let layout = || format!("{:?} record of unknown layout", record.kind);
        if (record.kind == Kind::Carry) != opening || (at.offset == SEGMENT_HEADER_BYTES && record.kind != Kind::Head) {
            return Err("a segment opens with a head and a carry, and has no other carry".to_owned());
        }
        match record.kind {
            Kind::Head => {
                let (stands_at, durable_upto) = decode_head(record.payload).ok_or_else(layout)?;
                if stands_at != at {
                    return Err(format!("head written for {stands_at}"));
                }
                self.durable_upto = self.durable_upto.max(durable_upto);
            }
            Kind::Carry => {
                let carry = Carry::decode(record.payload).ok_or_else(layout)?;
                self.begin(carry)?;
            }
            Kind::Entry => {
                let id = decode_entry_id(record.payload).ok_or_else(layout)?;
                let next = self.carry.next_index();
                let free = self.carry.last.is_none() && self.carry.purged.is_none();
                if id.index != next && !free {
                    return Err(format!("entry {id} where index {next} is due"));
                }
                self.carry.append(id.index, id);
                self.runs.push(&id);
                self.index.entry(id.index, at.offset);
                self.entries += 1;
            }
            Kind::Vote => self.carry.vote = Some(decode_vote(record.payload).ok_or_else(layout)?),
            Kind::Committed => self.carry.committed = decode_log_id_option(record.payload).ok_or_else(layout)?,
            Kind::Truncate => {
                let after = decode_log_id_option(record.payload).ok_or_else(layout)?;
                if after.is_some_and(|after| after.index >= self.carry.next_index()) {
                    return Err(format!("truncate after {after:?}, behind the end {:?}", self.carry.last));
                }
                self.carry.truncate(after);
                self.runs.truncate_from(after.map_or(0, |after| after.index + 1));
                self.index.truncate_after(after.map(|after| after.index));
            }
            Kind::Purge => {
                let upto = decode_log_id_option(record.payload).flatten().ok_or_else(layout)?;
                let last = self.carry.last.map_or(0, |last| last.index);
                self.runs.purge_upto(upto.index, last);
                self.carry.purge(upto);
                self.index.purge_upto(upto.index);
            }
        }
        Ok(())
    }

    /// The oldest segment tells what was before it; the others must agree with what was read.
    fn begin(&mut self, carry: Carry) -> Result<(), String> {
        let oldest = self.index.segments.len() == 1;
        if !oldest && carry != self.carry {
            return Err(format!("the carry says {carry:?}, the segments before it {:?}", self.carry));
        }
        self.carry = carry;
        Ok(())
    }
}
