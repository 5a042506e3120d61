//! A snapshot as `Maintenance.Snapshot` streams it: every row of one frozen state, in our own container.
//!
//! ```text
//!   file     magic:8 "QUORSNAP" | version:4 | 0:4 | block... | end block | zeros up to a multiple of 512
//!   block    kind:1 (1 rows, 2 end) | length:4 | crc32c of the payload:4 | payload
//!   rows     family:1 | key length:4 | key | value length:4 | value     ... as many as fit 32 KiB, one at least
//!   end      rows in all:8
//! ```
//!
//! Integers are little-endian. After the file comes one message of 32 bytes, its SHA-256, which etcd's clients expect and
//! append. They are told the size beforehand, so the rows are walked twice, over the same view: the first walk only
//! adds up lengths, and costs less than keeping a copy on disk. Not a bbolt file: `etcdutl` cannot read it.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_store::engine::Family;
use quorate_store::{Fault, StoreView};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::ETCD_STORAGE_VERSION;
use super::error::status;

pub const MAGIC: &[u8; 8] = b"QUORSNAP";
/// A higher number is refused by readers.
pub const SNAPSHOT_VERSION: u32 = 1;
/// Payload of a block of rows, where rows allow it.
const BLOCK_BYTES: usize = 32 << 10;
/// Of one message (etcd's number).
const MESSAGE_BYTES: usize = 32 << 10;
/// Messages that wait for a slow client, at most.
const MESSAGES_QUEUED_MAX: usize = 4;
/// etcd's clients check that the file without its checksum is a multiple of this.
const SECTOR_BYTES: usize = 512;

const KIND_ROWS: u8 = 1;
const KIND_END: u8 = 2;
const BLOCK_HEAD_BYTES: usize = 1 + 4 + 4;

type Message = Result<pb::SnapshotResponse, Status>;

/// Streams `view`. Ends early when the client goes.
pub(super) fn stream(view: Arc<StoreView>) -> impl Stream<Item = Message> + Send {
    let (out, messages) = tokio::sync::mpsc::channel(MESSAGES_QUEUED_MAX);
    tokio::task::spawn_blocking(move || {
        if let Err(fault) = send(&view, &out) {
            let _ = out.blocking_send(Err(status(fault)));
        }
    });
    ReceiverStream::new(messages)
}

fn send(view: &StoreView, out: &Sender<Message>) -> Result<(), Fault> {
    let mut total = 0;
    write(view, &mut |bytes| {
        total += bytes.len();
        true
    })?;
    let (mut pending, mut sent, mut hash) = (BytesMut::new(), 0, Sha256::new());
    let mut message = |blob: Bytes| {
        sent += blob.len();
        hash.update(&blob);
        let version = ETCD_STORAGE_VERSION.into();
        let message = pb::SnapshotResponse { header: None, remaining_bytes: (total - sent) as u64, blob, version };
        out.blocking_send(Ok(message)).is_ok()
    };
    let mut whole = true;
    write(view, &mut |bytes| {
        pending.extend_from_slice(bytes);
        while whole && pending.len() >= MESSAGE_BYTES {
            whole = message(pending.split_to(MESSAGE_BYTES).freeze());
        }
        whole
    })?;
    if whole && !pending.is_empty() {
        whole = message(pending.freeze());
    }
    if whole {
        let blob = Bytes::copy_from_slice(&hash.finalize());
        let version = ETCD_STORAGE_VERSION.into();
        let checksum = pb::SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
        let _ = out.blocking_send(Ok(checksum));
    }
    Ok(())
}

/// Gives the file to `sink`, piece by piece, until that has enough.
fn write(view: &StoreView, sink: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Fault> {
    let mut head = BytesMut::with_capacity(16);
    head.put_slice(MAGIC);
    head.put_u32_le(SNAPSHOT_VERSION);
    head.put_u32_le(0);
    let (mut bytes, mut rows) = (head.len(), 0_u64);
    if !sink(&head) {
        return Ok(());
    }
    let mut block = BytesMut::with_capacity(BLOCK_BYTES * 2);
    let mut flush = |block: &mut BytesMut, kind: u8| {
        let mut head = BytesMut::with_capacity(BLOCK_HEAD_BYTES);
        head.put_u8(kind);
        head.put_u32_le(block.len() as u32);
        head.put_u32_le(crc32c::crc32c(block));
        bytes += head.len() + block.len();
        let more = sink(&head) && sink(block);
        block.clear();
        more
    };
    for family in Family::ALL {
        for row in view.rows(family) {
            let (key, value) = row?;
            block.put_u8(family as u8);
            block.put_u32_le(key.len() as u32);
            block.put_slice(&key);
            block.put_u32_le(value.len() as u32);
            block.put_slice(&value);
            rows += 1;
            if block.len() >= BLOCK_BYTES && !flush(&mut block, KIND_ROWS) {
                return Ok(());
            }
        }
    }
    if !block.is_empty() && !flush(&mut block, KIND_ROWS) {
        return Ok(());
    }
    block.put_u64_le(rows);
    if flush(&mut block, KIND_END) {
        sink(&vec![0; bytes.next_multiple_of(SECTOR_BYTES) - bytes]);
    }
    Ok(())
}

/// Why a snapshot file was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("not a snapshot of Quorate")]
    Magic,
    #[error("a snapshot of version {0}; this release reads versions up to {SNAPSHOT_VERSION}")]
    Version(u32),
    #[error("the snapshot is cut short at byte {0}")]
    Cut(usize),
    #[error("the block at byte {0} is damaged")]
    Damaged(usize),
    #[error("the snapshot holds {found} rows, its end says {expected}")]
    Rows { found: u64, expected: u64 },
}

/// Reads a whole file, without the checksum that clients append, and gives each row to `each`: family, key, value.
pub fn read(file: &[u8], each: &mut dyn FnMut(u8, &[u8], &[u8])) -> Result<u64, SnapshotError> {
    let mut rest = file;
    let at = |rest: &[u8]| file.len() - rest.len();
    if rest.len() < 16 || &rest[..8] != MAGIC {
        return Err(SnapshotError::Magic);
    }
    rest.advance(8);
    let version = rest.get_u32_le();
    if version > SNAPSHOT_VERSION {
        return Err(SnapshotError::Version(version));
    }
    rest.advance(4);
    let mut found = 0;
    loop {
        let start = at(rest);
        if rest.len() < BLOCK_HEAD_BYTES {
            return Err(SnapshotError::Cut(start));
        }
        let (kind, length, crc) = (rest.get_u8(), rest.get_u32_le() as usize, rest.get_u32_le());
        if rest.len() < length {
            return Err(SnapshotError::Cut(start));
        }
        let (block, after) = rest.split_at(length);
        rest = after;
        if crc32c::crc32c(block) != crc {
            return Err(SnapshotError::Damaged(start));
        }
        match kind {
            KIND_ROWS => found += read_rows(block, each).ok_or(SnapshotError::Damaged(start))?,
            KIND_END if block.len() == 8 => {
                let expected = (&block[..]).get_u64_le();
                return if found == expected { Ok(found) } else { Err(SnapshotError::Rows { found, expected }) };
            }
            _ => return Err(SnapshotError::Damaged(start)),
        }
    }
}

fn read_rows(mut block: &[u8], each: &mut dyn FnMut(u8, &[u8], &[u8])) -> Option<u64> {
    let mut rows = 0;
    while !block.is_empty() {
        let family = block.get_u8();
        let key = take(&mut block)?;
        let value = take(&mut block)?;
        each(family, key, value);
        rows += 1;
    }
    Some(rows)
}

fn take<'b>(block: &mut &'b [u8]) -> Option<&'b [u8]> {
    if block.len() < 4 {
        return None;
    }
    let length = block.get_u32_le() as usize;
    if block.len() < length {
        return None;
    }
    let (taken, rest) = block.split_at(length);
    *block = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;
    use quorate_proto::log::{Batch, Proposal, proposal::Command};
    use quorate_store::engine::MemoryEngine;
    use quorate_store::{Entry, LogPosition, Payload, Store};

    use super::*;

    fn view() -> StoreView {
        let mut store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
        let put = |n: u32| Proposal {
            command: Some(Command::Put(pb::PutRequest {
                key: format!("key-{n}").into(),
                value: vec![n as u8; 700].into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let batch = Batch { proposals: (0..200).map(put).collect() }.encode_to_vec();
        let entry = Entry { position: LogPosition { index: 1, term: 1 }, payload: Payload::Batch(batch.into()) };
        store.apply(&[entry]).unwrap();
        store.reader().view().unwrap()
    }

    fn file(view: &StoreView) -> Vec<u8> {
        let mut file = Vec::new();
        write(view, &mut |bytes| {
            file.extend_from_slice(bytes);
            true
        })
        .unwrap();
        file
    }

    #[test]
    fn every_row_comes_back() {
        let view = view();
        let (mut rows, mut wanted) = (Vec::new(), Vec::new());
        let file = file(&view);
        read(&file, &mut |family, key, value| rows.push((family, key.to_vec(), value.to_vec()))).unwrap();
        for family in Family::ALL {
            wanted.extend(view.rows(family).map(|row| {
                let (key, value) = row.unwrap();
                (family as u8, key.to_vec(), value.to_vec())
            }));
        }
        assert_eq!(rows, wanted);
        assert_eq!(file.len() % SECTOR_BYTES, 0);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let file = file(&view());
        // The last sector may be padding, which a reader does not need.
        for end in (0..file.len() - SECTOR_BYTES).step_by(97) {
            assert!(read(&file[..end], &mut |_, _, _| {}).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let file = file(&view());
        for at in (0..file.len() - SECTOR_BYTES).step_by(61).filter(|at| !(8..16).contains(at)) {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(read(&damaged, &mut |_, _, _| {}).is_err(), "bit of byte {at}");
        }
    }

    #[tokio::test]
    async fn the_stream_counts_down_and_ends_with_the_checksum() {
        use futures::StreamExt;
        let messages: Vec<_> = stream(Arc::new(view())).map(Result::unwrap).collect().await;
        let (checksum, blobs) = messages.split_last().unwrap();
        let bytes: Vec<u8> = blobs.iter().flat_map(|message| message.blob.to_vec()).collect();
        assert_eq!(blobs[0].remaining_bytes as usize, bytes.len() - blobs[0].blob.len());
        assert_eq!(blobs.last().unwrap().remaining_bytes, 0);
        assert_eq!(checksum.blob, Bytes::copy_from_slice(&Sha256::digest(&bytes)));
        read(&bytes, &mut |_, _, _| {}).unwrap();
    }
}
