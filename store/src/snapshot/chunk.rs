//! Chunks and their order: what is read here is whole, undamaged, and follows the chunk before it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TransferError;
use crate::engine::Family;
use crate::keys;
use crate::types::LogPosition;

const MAGIC: &[u8; 8] = b"QUORXFER";
/// A higher number is refused.
pub(super) const FORMAT_VERSION: u32 = 1;

/// What a chunk costs beside its payload.
pub const CHUNK_OVERHEAD_BYTES: usize = CRC_AT + 4;
const CRC_AT: usize = 1 + 8 + 4;
const SHA256_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Rows = 2,
    End = 3,
}

/// A place in a sequence of chunks: both ends count along.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    /// Of the next chunk.
    pub number: u64,
    /// The crc of the last one.
    before: u32,
}

impl Chain {
    pub(super) fn close(&mut self, kind: Kind, payload: &[u8]) -> Bytes {
        let mut chunk = BytesMut::with_capacity(CHUNK_OVERHEAD_BYTES + payload.len());
        chunk.put_u8(kind as u8);
        chunk.put_u64_le(self.number);
        chunk.put_u32_le(self.before);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&chunk), payload);
        chunk.put_u32_le(crc);
        chunk.put_slice(payload);
        *self = Self { number: self.number + 1, before: crc };
        chunk.freeze()
    }

    pub(super) fn open(&mut self, chunk: &Bytes) -> Result<(Kind, Bytes), TransferError> {
        let due = self.number;
        if chunk.len() < CHUNK_OVERHEAD_BYTES {
            return Err(TransferError::Short { chunk: due, bytes: chunk.len() });
        }
        let (mut fields, rest) = chunk.split_at(CRC_AT);
        let (mut crc, payload) = rest.split_at(4);
        let crc = crc.get_u32_le();
        if crc32c::crc32c_append(crc32c::crc32c(fields), payload) != crc {
            return Err(TransferError::Damaged { chunk: due });
        }
        let (kind, got, before) = (fields.get_u8(), fields.get_u64_le(), fields.get_u32_le());
        match got.cmp(&due) {
            std::cmp::Ordering::Less => return Err(TransferError::Repeated { due, got }),
            std::cmp::Ordering::Greater => return Err(TransferError::Missing { due, got }),
            std::cmp::Ordering::Equal if before != self.before => return Err(TransferError::Foreign { chunk: due }),
            std::cmp::Ordering::Equal => {}
        }
        let kind = match (kind, due) {
            (1, 0) => Kind::Head,
            (2, 1..) => Kind::Rows,
            (3, 1..) => Kind::End,
            (kind, chunk) => return Err(TransferError::Kind { chunk, kind }),
        };
        *self = Self { number: due + 1, before: crc };
        Ok((kind, chunk.slice(CHUNK_OVERHEAD_BYTES..)))
    }
}

/// What a snapshot is a snapshot of, taken from inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last entry applied.
    pub position: LogPosition,
    /// As of that entry; see [`crate::Membership::encoded`].
    pub membership: Bytes,
    pub revision: i64,
    /// -1 before the first compaction.
    pub compacted: i64,
    /// What the sender's engine takes on its disk, roughly.
    pub bytes_estimated: u64,
}

impl SnapshotHead {
    /// Reads the first chunk of a snapshot.
    pub fn decode(chunk: &Bytes) -> Result<Self, TransferError> {
        let (_, payload) = Chain::default().open(chunk)?;
        Self::parse(payload)
    }

    pub(super) fn payload(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(keys::FORMAT_VERSION);
        out.put_u64_le(self.position.index);
        out.put_u64_le(self.position.term);
        out.put_i64_le(self.revision);
        out.put_i64_le(self.compacted);
        out.put_u64_le(self.bytes_estimated);
        out.put_slice(&self.membership);
        out.freeze()
    }

    pub(super) fn parse(mut payload: Bytes) -> Result<Self, TransferError> {
        const VERSIONS_BYTES: usize = 8 + 4;
        const NUMBERS_BYTES: usize = 6 * 8;
        if !payload.starts_with(MAGIC) || payload.len() < VERSIONS_BYTES {
            return Err(TransferError::Magic);
        }
        payload.advance(MAGIC.len());
        let format = payload.get_u32_le();
        if format > FORMAT_VERSION {
            return Err(TransferError::Format(format));
        }
        if payload.len() < NUMBERS_BYTES {
            return Err(TransferError::Contents { chunk: 0, reason: format!("a head of {} bytes", payload.len()) });
        }
        let state_format = payload.get_u64_le();
        if state_format > keys::FORMAT_VERSION {
            return Err(TransferError::StateFormat(state_format));
        }
        Ok(Self {
            position: LogPosition { index: payload.get_u64_le(), term: payload.get_u64_le() },
            revision: payload.get_i64_le(),
            compacted: payload.get_i64_le(),
            bytes_estimated: payload.get_u64_le(),
            membership: payload,
        })
    }
}

/// What the end says, and what both ends have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// By family, in order.
    pub rows: [u64; Family::ALL.len()],
    pub bytes: u64,
}

impl Totals {
    pub(super) fn end(&self, sha256: &[u8; SHA256_BYTES]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(Family::ALL.len() as u8);
        for (family, rows) in Family::ALL.into_iter().zip(self.rows) {
            out.put_u8(family as u8);
            out.put_u64_le(rows);
        }
        out.put_u64_le(self.bytes);
        out.put_slice(sha256);
        out.freeze()
    }

    /// Whether the end says the same as these.
    pub(super) fn check(&self, chunk: u64, mut end: Bytes, sha256: &[u8; SHA256_BYTES]) -> Result<(), TransferError> {
        if end.len() != self.end(sha256).len() || usize::from(end.get_u8()) != Family::ALL.len() {
            let reason = "an end that this release does not know".into();
            return Err(TransferError::Contents { chunk, reason });
        }
        for (family, received) in Family::ALL.into_iter().zip(self.rows) {
            let (number, sent) = (end.get_u8(), end.get_u64_le());
            if (number, sent) != (family as u8, received) {
                let what = format!("{sent} rows of family {number}");
                return Err(TransferError::Totals { what, received });
            }
        }
        let sent = end.get_u64_le();
        if sent != self.bytes {
            return Err(TransferError::Totals { what: format!("{sent} bytes"), received: self.bytes });
        }
        if end[..] == sha256[..] { Ok(()) } else { Err(TransferError::Digest) }
    }
}
