//! A snapshot as `Maintenance.Snapshot` streams it: every row of one frozen state, in our own container.
//!
//! ```text
//!   file     magic:8 "QUORSNAP" | version:4 | crc:4 | block... | end block | zeros up to a multiple of 512 | SHA-256:32
//!   block    kind:1 (1 rows, 2 end) | length:4 | crc:4 | payload of that length
//!   rows     family:1 | key length:4 | key | value length:4 | value     ... until there are 32 KiB, one at least
//!   end      (family:1 | rows:8) of every family, in order
//! ```
//!
//! Integers are little-endian. A crc is CRC32C of whatever stands before it in the file or the block, and of the payload
//! behind it. The SHA-256 is of all that precedes it and goes out as a message of its own: etcd's clients expect that, and
//! write it to their file like the rest. Not a bbolt file: `etcdutl` cannot read it.
//!
//! Clients are told the size beforehand, so the rows are walked twice over the same view; the first walk adds up lengths.
//! The other way, a copy on disk, would need room for the whole state a second time and write all of it, to save what a
//! second read costs. A client that stops reading pins the view, and with it space: it has [`PATIENCE`], and only
//! [`SENDING_MAX`] may read at a time.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use quorate_proto::etcdserverpb as pb;
use quorate_store::engine::Family;
use quorate_store::snapshot::rows;
use quorate_store::{Fault, StoreView};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::error::status;
use crate::config::ETCD_STORAGE_VERSION;
use crate::node::RequestError;

const MAGIC: &[u8; 8] = b"QUORSNAP";
/// A higher number is refused by readers.
const FORMAT_VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
/// Payload of a block of rows at which it is closed.
const BLOCK_BYTES: usize = 32 << 10;
/// Of one message (etcd's number).
const MESSAGE_BYTES: usize = 32 << 10;
/// Messages that wait for a slow client, at most.
const MESSAGES_QUEUED_MAX: usize = 4;
/// etcd's clients check that the file without its checksum is a multiple of this.
const SECTOR_BYTES: usize = 512;
const CHECKSUM_BYTES: usize = 32;

const KIND_ROWS: u8 = 1;
const KIND_END: u8 = 2;
const BLOCK_HEAD_BYTES: usize = 1 + 4 + 4;

/// Snapshots being sent at the same time, at most; others wait. Each takes a thread and pins a view.
const SENDING_MAX: usize = 4;
/// How long a client may leave a message unread.
const PATIENCE: Duration = Duration::from_secs(300);

/// For the process, as its threads are.
static SENDING: Semaphore = Semaphore::const_new(SENDING_MAX);

type Message = Result<pb::SnapshotResponse, Status>;

/// The right to send a snapshot. To be had before a view is taken, so that waiting pins nothing.
pub(super) async fn turn(shutdown: &CancellationToken) -> Result<SemaphorePermit<'static>, Status> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(status(RequestError::Stopped)),
        turn = SENDING.acquire() => turn.map_err(|_| status(RequestError::Stopped)),
    }
}

/// Streams `view`. Ends early when the client goes.
pub(super) fn stream(
    view: Arc<StoreView>,
    turn: SemaphorePermit<'static>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Message> + Send {
    let (out, messages) = mpsc::channel(MESSAGES_QUEUED_MAX);
    // Apart from the messages: there is room for it when there is none for them.
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let sending = Sending { out, shutdown, runtime };
        let sent = sending.send(&view);
        drop(view);
        let _ = end.send(sent);
    });
    let failure = stream::once(ended).filter_map(|ended| async {
        match ended {
            Ok(Ok(()) | Err(Stop::Gone)) => None,
            Ok(Err(stop)) => Some(Err(stop.into_status())),
            Err(_) => Some(Err(status(RequestError::Stopped))),
        }
    });
    ReceiverStream::new(messages).chain(failure)
}

/// Why a snapshot ends before its end.
#[derive(Debug)]
enum Stop {
    Fault(Fault),
    Gone,
    Stalled,
    Shutdown,
}

impl Stop {
    fn into_status(self) -> Status {
        match self {
            Self::Fault(fault) => status(fault),
            Self::Gone | Self::Shutdown => status(RequestError::Stopped),
            Self::Stalled => Status::deadline_exceeded("the snapshot was not read for too long"),
        }
    }
}

struct Sending {
    out: mpsc::Sender<Message>,
    shutdown: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl Sending {
    fn send(&self, view: &StoreView) -> Result<(), Stop> {
        let mut total = 0;
        write(view, &mut |bytes| {
            total += bytes.len();
            self.wanted()
        })?;
        tracing::info!(bytes = total, "sending a snapshot to a client");
        let (mut pending, mut sent, mut hash) = (BytesMut::new(), 0, Sha256::new());
        let mut message = |blob: Bytes| {
            sent += blob.len();
            hash.update(&blob);
            self.message(blob, total - sent)
        };
        write(view, &mut |bytes| {
            pending.extend_from_slice(bytes);
            while pending.len() >= MESSAGE_BYTES {
                message(pending.split_to(MESSAGE_BYTES).freeze())?;
            }
            Ok(())
        })?;
        if !pending.is_empty() {
            message(pending.freeze())?;
        }
        self.message(Bytes::copy_from_slice(&hash.finalize()), 0)?;
        tracing::info!(bytes = total, "sent a snapshot to a client");
        Ok(())
    }

    fn wanted(&self) -> Result<(), Stop> {
        if self.shutdown.is_cancelled() {
            return Err(Stop::Shutdown);
        }
        if self.out.is_closed() { Err(Stop::Gone) } else { Ok(()) }
    }

    fn message(&self, blob: Bytes, remaining: usize) -> Result<(), Stop> {
        let version = ETCD_STORAGE_VERSION.into();
        let message = pb::SnapshotResponse { header: None, remaining_bytes: remaining as u64, blob, version };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Err(Stop::Shutdown),
                sent = self.out.send(Ok(message)) => sent.map_err(|_| Stop::Gone),
                () = tokio::time::sleep(PATIENCE) => {
                    tracing::warn!(patience = ?PATIENCE, "gave up sending a snapshot: the client does not read it");
                    Err(Stop::Stalled)
                }
            }
        })
    }
}

/// Takes the file piece by piece.
type Sink<'s> = dyn FnMut(&[u8]) -> Result<(), Stop> + 's;

/// Gives the file, without its checksum, to `sink`.
fn write(view: &StoreView, sink: &mut Sink<'_>) -> Result<(), Stop> {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_slice(MAGIC);
    head.put_u32_le(FORMAT_VERSION);
    head.put_u32_le(crc32c::crc32c(&head));
    sink(&head)?;
    let mut writer = Writer { sink, bytes: HEAD_BYTES, block: BytesMut::with_capacity(2 * BLOCK_BYTES) };
    let mut rows = [0; Family::ALL.len()];
    for (place, family) in Family::ALL.into_iter().enumerate() {
        for row in view.rows(family) {
            let (key, value) = row.map_err(Stop::Fault)?;
            writer.row(family, &key, &value)?;
            rows[place] += 1;
        }
    }
    if !writer.block.is_empty() {
        writer.close_block(KIND_ROWS)?;
    }
    writer.block = end_of(rows);
    writer.close_block(KIND_END)?;
    let padding = padding(writer.bytes);
    sink(&[0; SECTOR_BYTES][..padding])
}

/// The payload of the end block.
fn end_of(rows: [u64; Family::ALL.len()]) -> BytesMut {
    let mut end = BytesMut::new();
    for (family, rows) in Family::ALL.into_iter().zip(rows) {
        end.put_u8(family as u8);
        end.put_u64_le(rows);
    }
    end
}

fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(SECTOR_BYTES) - bytes
}

struct Writer<'w, 's> {
    sink: &'w mut Sink<'s>,
    /// Of the file, up to the block at hand.
    bytes: usize,
    block: BytesMut,
}

impl Writer<'_, '_> {
    fn row(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        rows::put(&mut self.block, family, key, value);
        if self.block.len() >= BLOCK_BYTES { self.close_block(KIND_ROWS) } else { Ok(()) }
    }

    fn close_block(&mut self, kind: u8) -> Result<(), Stop> {
        let mut head = BytesMut::with_capacity(BLOCK_HEAD_BYTES);
        head.put_u8(kind);
        head.put_u32_le(self.block.len() as u32);
        head.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&head), &self.block));
        (self.sink)(&head)?;
        (self.sink)(&self.block)?;
        self.bytes += head.len() + self.block.len();
        self.block.clear();
        Ok(())
    }
}

/// Why a snapshot file was refused. Places are bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("read the snapshot: {0}")]
    Io(#[from] std::io::Error),
    #[error("not a snapshot of Quorate")]
    Magic,
    #[error("a snapshot of format {0}; this release reads formats up to {FORMAT_VERSION}")]
    Version(u32),
    #[error("the snapshot is cut short at byte {0}")]
    Cut(u64),
    #[error("the snapshot is damaged at byte {0}")]
    Damaged(u64),
    #[error("the snapshot does not match its checksum")]
    Checksum,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub family: Family,
    pub key: Bytes,
    pub value: Bytes,
}

/// Reads a file as etcd's clients save it, checksum and all. The rows come in the order of families and keys; they are
/// worth something only once the last of them has come without an error behind it.
pub fn read_snapshot<R: Read>(input: R) -> Result<SnapshotReader<R>, SnapshotError> {
    let mut reader =
        SnapshotReader { input, hash: Sha256::new(), at: 0, block: Bytes::new(), rows: [0; _], done: false };
    let head = match reader.pull(HEAD_BYTES) {
        Ok(head) if head.starts_with(MAGIC) => head,
        Ok(_) | Err(SnapshotError::Cut(_)) => return Err(SnapshotError::Magic),
        Err(error) => return Err(error),
    };
    let (covered, mut crc) = head.split_at(HEAD_BYTES - 4);
    if crc32c::crc32c(covered) != crc.get_u32_le() {
        return Err(SnapshotError::Damaged(0));
    }
    let version = (&covered[MAGIC.len()..]).get_u32_le();
    if version > FORMAT_VERSION { Err(SnapshotError::Version(version)) } else { Ok(reader) }
}

/// See [`read_snapshot`]. Holds one block at a time.
pub struct SnapshotReader<R> {
    input: R,
    hash: Sha256,
    at: u64,
    /// Rows that have been read and not yet given.
    block: Bytes,
    rows: [u64; Family::ALL.len()],
    done: bool,
}

impl<R: Read> Iterator for SnapshotReader<R> {
    type Item = Result<SnapshotRow, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.row().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

impl<R: Read> SnapshotReader<R> {
    fn row(&mut self) -> Result<Option<SnapshotRow>, SnapshotError> {
        let start = self.at;
        while self.block.is_empty() {
            if !self.read_block()? {
                return Ok(None);
            }
        }
        let damaged = || SnapshotError::Damaged(start);
        let row = rows::take(&mut self.block).ok_or_else(damaged)?;
        let place = Family::ALL.iter().position(|known| *known as u8 == row.family).ok_or_else(damaged)?;
        self.rows[place] += 1;
        Ok(Some(SnapshotRow { family: Family::ALL[place], key: row.key, value: row.value }))
    }

    /// Whether there was another one; the end of the file has been checked if not.
    fn read_block(&mut self) -> Result<bool, SnapshotError> {
        let start = self.at;
        let head = self.pull(BLOCK_HEAD_BYTES)?;
        let (mut fields, mut crc) = head.split_at(BLOCK_HEAD_BYTES - 4);
        let covered = crc32c::crc32c(fields);
        let (kind, length) = (fields.get_u8(), fields.get_u32_le() as usize);
        let payload = self.pull(length)?;
        if crc32c::crc32c_append(covered, &payload) != crc.get_u32_le() {
            return Err(SnapshotError::Damaged(start));
        }
        match kind {
            KIND_ROWS => {
                self.block = payload;
                Ok(true)
            }
            KIND_END if payload == end_of(self.rows) => self.finish().map(|()| false),
            _ => Err(SnapshotError::Damaged(start)),
        }
    }

    fn finish(&mut self) -> Result<(), SnapshotError> {
        let start = self.at;
        if self.pull(padding(start as usize))?.iter().any(|byte| *byte != 0) {
            return Err(SnapshotError::Damaged(start));
        }
        let expected = self.hash.clone().finalize();
        if self.pull(CHECKSUM_BYTES)?[..] != expected[..] {
            return Err(SnapshotError::Checksum);
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(SnapshotError::Damaged(self.at)),
        }
    }

    /// Memory grows with what is there, not with what a damaged length says.
    fn pull(&mut self, length: usize) -> Result<Bytes, SnapshotError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(length as u64).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if bytes.len() < length {
            return Err(SnapshotError::Cut(self.at));
        }
        self.hash.update(&bytes);
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::log::{Batch, Proposal, proposal::Command};
    use quorate_store::engine::MemoryEngine;
    use quorate_store::{Entry, LogPosition, Payload, Store};

    use super::*;

    /// Rows of several blocks, one of them larger than a block.
    fn view() -> StoreView {
        let mut store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
        let put = |n: u32| Proposal {
            command: Some(Command::Put(pb::PutRequest {
                key: format!("key-{n}").into(),
                value: vec![n as u8; if n == 7 { 100_000 } else { 700 }].into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let batch = Batch { proposals: (0..100).map(put).collect() }.encode_to_vec();
        let entry = Entry { position: LogPosition { index: 1, term: 1 }, payload: Payload::Batch(batch.into()) };
        store.apply(&[entry]).unwrap();
        store.reader().view().unwrap()
    }

    fn rows(view: &StoreView) -> Vec<SnapshotRow> {
        let of =
            |family| view.rows(family).map(Result::unwrap).map(move |(key, value)| SnapshotRow { family, key, value });
        Family::ALL.into_iter().flat_map(of).collect()
    }

    fn read(file: &[u8]) -> Result<Vec<SnapshotRow>, SnapshotError> {
        read_snapshot(file)?.collect()
    }

    async fn sent(view: StoreView, shutdown: &CancellationToken) -> Vec<Message> {
        stream(Arc::new(view), turn(shutdown).await.unwrap(), shutdown.clone()).collect().await
    }

    async fn file() -> Vec<u8> {
        sent(view(), &CancellationToken::new()).await.into_iter().flat_map(|message| message.unwrap().blob).collect()
    }

    #[tokio::test]
    async fn every_row_comes_back() {
        let file = file().await;
        assert_eq!(file.len() % SECTOR_BYTES, CHECKSUM_BYTES);
        assert_eq!(read(&file).unwrap(), rows(&view()));
    }

    #[tokio::test]
    async fn a_file_cut_anywhere_is_refused() {
        let file = file().await;
        let ends = (0..file.len()).step_by(97).chain(file.len() - 2 * SECTOR_BYTES..file.len());
        for end in ends {
            assert!(matches!(read(&file[..end]), Err(SnapshotError::Cut(_) | SnapshotError::Magic)), "cut at {end}");
        }
        assert!(matches!(read(&[&file[..], b"\0"].concat()), Err(SnapshotError::Damaged(_))), "more than a file");
    }

    #[tokio::test]
    async fn a_flipped_bit_is_found() {
        let mut file = file().await;
        let places = (0..file.len()).step_by(613).chain(0..64).chain(file.len() - 2 * SECTOR_BYTES..file.len());
        for at in places {
            file[at] ^= 1 << (at % 8);
            assert!(read(&file).is_err(), "bit of byte {at}");
            file[at] ^= 1 << (at % 8);
        }
        read(&file).unwrap();
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_by_its_number() {
        let mut file = file().await;
        file[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let crc = crc32c::crc32c(&file[..12]);
        file[12..16].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(read(&file), Err(SnapshotError::Version(2))));
    }

    #[tokio::test]
    async fn the_stream_counts_down_and_ends_with_the_checksum() {
        let messages = sent(view(), &CancellationToken::new()).await.into_iter().map(Result::unwrap);
        let messages: Vec<_> = messages.collect();
        let (checksum, blobs) = messages.split_last().unwrap();
        let bytes: Vec<u8> = blobs.iter().flat_map(|message| message.blob.to_vec()).collect();
        let mut left = bytes.len();
        for message in blobs {
            left -= message.blob.len();
            assert!(message.blob.len() <= MESSAGE_BYTES && message.version == ETCD_STORAGE_VERSION);
            assert_eq!(message.remaining_bytes as usize, left);
        }
        assert_eq!(left, 0);
        assert_eq!(checksum.blob[..], Sha256::digest(&bytes)[..]);
    }

    #[tokio::test]
    async fn a_client_that_goes_frees_its_turn_and_a_member_that_stops_says_so() {
        let shutdown = CancellationToken::new();
        for _ in 0..2 * SENDING_MAX {
            let mut messages = Box::pin(stream(Arc::new(view()), turn(&shutdown).await.unwrap(), shutdown.clone()));
            messages.next().await.unwrap().unwrap();
        }
        let mut messages = Box::pin(stream(Arc::new(view()), turn(&shutdown).await.unwrap(), shutdown.clone()));
        messages.next().await.unwrap().unwrap();
        shutdown.cancel();
        let last = messages.collect::<Vec<_>>().await.pop();
        assert!(matches!(last, Some(Err(_))), "{last:?}");
    }
}
