//! Rows as bytes: `family:1 | key length:4 | key | value length:4 | value`, one behind the other, integers little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::engine::Family;

/// A row, of a family of whatever number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub family: u8,
    pub key: Bytes,
    pub value: Bytes,
}

impl Row {
    /// `None` for one that this release does not know.
    pub fn family(&self) -> Option<Family> {
        Family::ALL.into_iter().find(|known| *known as u8 == self.family)
    }
}

pub fn put(out: &mut BytesMut, family: Family, key: &[u8], value: &[u8]) {
    out.put_u8(family as u8);
    for part in [key, value] {
        out.put_u32_le(
            u32::try_from(part.len()).expect("keys and values are below the request limit, far below 4 GiB"),
        );
        out.put_slice(part);
    }
}

/// The first row of `bytes`, which goes from there; nothing if it is not there as a whole.
pub fn take(bytes: &mut Bytes) -> Option<Row> {
    let row_bytes = first_bytes(bytes)?;
    let mut row = bytes.split_to(row_bytes);
    let family = row.get_u8();
    let key_bytes = row.get_u32_le() as usize;
    let key = row.split_to(key_bytes);
    row.advance(4);
    Some(Row { family, key, value: row })
}

/// Bytes of the first row of `bytes`, if it is there as a whole. Looks at lengths only.
pub fn first_bytes(bytes: &[u8]) -> Option<usize> {
    let length_at = |at: usize| {
        let length = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(length.try_into().expect("four bytes were asked for")) as usize)
    };
    let value_length_at = 1 + 4 + length_at(1)?;
    let end = value_length_at + 4 + length_at(value_length_at)?;
    (end <= bytes.len()).then_some(end)
}
