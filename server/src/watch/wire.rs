//! Outputs as `etcdserverpb.WatchResponse` in gRPC frames, with as few copies and writes as there can be.
//!
//! ```text
//!   Output ─▶ │0│length│ header │ watch_id │ events │ events │ ─┐
//!   Output ─▶ │0│length│ header │ watch_id │ events │          ├─▶ one chunk, one DATA frame
//!   Output ─▶ │0│length│ header │ watch_id │ tag, length │    ─┘
//!                                                        └────▶ a large event: a chunk of its own, shared by all who get it
//! ```
//!
//! An event is encoded once (record.rs). Here only what differs between watchers is written.
//! Left out: whose header it is.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use quorate_proto::etcdserverpb as pb;

use super::output::{Delivery, Output, WATCH_ID_NONE};
use super::record::Record;

/// From this size on an event is not copied next to others: a stalled client then holds no copy of its own.
const SHARED_BYTES_MIN: usize = 8 << 10;

/// A gRPC message starts with a flag (not compressed) and its length.
const PREFIX_BYTES: usize = 5;

/// Field numbers of `WatchResponse`.
const HEADER: u32 = 1;
const WATCH_ID: u32 = 2;
const FRAGMENT: u32 = 7;
const EVENTS: u32 = 11;

const VARINT: u64 = 0;
const LEN: u64 = 2;

/// Writes outputs into chunks.
#[derive(Debug, Default)]
pub struct Frames {
    open: BytesMut,
    chunks: VecDeque<Bytes>,
    /// The encoded header of the last revision: it is the same for all watchers that see an event.
    header: Option<(i64, Vec<u8>)>,
}

impl Frames {
    /// `header` makes the header for a revision; a delivery with fragments is split at `fragment_bytes`.
    pub fn push(&mut self, output: &Output, header: &dyn Fn(i64) -> pb::ResponseHeader, fragment_bytes: usize) {
        match output {
            Output::Events(delivery) => self.events(delivery, header, fragment_bytes),
            Output::Created { .. }
            | Output::Refused { .. }
            | Output::Canceled { .. }
            | Output::Compacted { .. }
            | Output::Progress { .. } => self.message(&control(output, header)),
        }
    }

    /// Everything pushed so far may go out.
    pub fn flush(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.open).freeze());
        }
        // A term may change while the revision does not.
        self.header = None;
    }

    pub fn next_chunk(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front();
        if chunk.is_none() {
            self.chunks = VecDeque::new();
        }
        chunk
    }

    fn message(&mut self, response: &pb::WatchResponse) {
        self.prefix(response.encoded_len());
        response.encode_raw(&mut self.open);
    }

    fn prefix(&mut self, len: usize) {
        self.open.reserve(PREFIX_BYTES + len.min(SHARED_BYTES_MIN));
        self.open.put_u8(0);
        self.open.put_u32(u32::try_from(len).expect("a response is smaller than 4 GiB"));
    }

    fn events(&mut self, delivery: &Delivery, header: &dyn Fn(i64) -> pb::ResponseHeader, fragment_bytes: usize) {
        let (revision, header) = match self.header.take() {
            Some((revision, header)) if revision == delivery.revision => (revision, header),
            Some(_) | None => (delivery.revision, header(delivery.revision).encode_to_vec()),
        };
        let base = base_len(&header, delivery.watch_id);
        let events: Vec<_> = delivery.events().collect();
        let pieces = split(delivery, &events, base, fragment_bytes);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.into_iter().enumerate() {
            let more = number < last;
            let piece = &events[piece];
            let size: usize = piece.iter().map(|event| field_len(event, delivery.prev_kv)).sum();
            self.prefix(base + if more { 2 } else { 0 } + size);
            self.head(&header, delivery.watch_id, more);
            for (record, change) in piece {
                self.event(record, *change, delivery.prev_kv);
            }
        }
        self.header = Some((revision, header));
    }

    fn head(&mut self, header: &[u8], watch_id: i64, more: bool) {
        put_key(HEADER, LEN, &mut self.open);
        encode_varint(header.len() as u64, &mut self.open);
        self.open.put_slice(header);
        if watch_id != 0 {
            put_key(WATCH_ID, VARINT, &mut self.open);
            encode_varint(watch_id as u64, &mut self.open);
        }
        if more {
            put_key(FRAGMENT, VARINT, &mut self.open);
            self.open.put_u8(1);
        }
    }

    fn event(&mut self, record: &Record, change: usize, prev_kv: bool) {
        let bytes = record.event_bytes(change, prev_kv);
        put_key(EVENTS, LEN, &mut self.open);
        encode_varint(bytes.len() as u64, &mut self.open);
        if bytes.len() < SHARED_BYTES_MIN {
            self.open.put_slice(bytes);
        } else {
            self.chunks.push_back(std::mem::take(&mut self.open).freeze());
            self.chunks.push_back(record.event_shared(change, prev_kv));
        }
    }
}

/// The same as messages, for whoever does not speak gRPC (the JSON gateway).
pub fn messages(
    output: &Output,
    header: &dyn Fn(i64) -> pb::ResponseHeader,
    fragment_bytes: usize,
) -> Vec<pb::WatchResponse> {
    let Output::Events(delivery) = output else { return vec![control(output, header)] };
    let header = header(delivery.revision);
    let base = base_len(&header.encode_to_vec(), delivery.watch_id);
    let events: Vec<_> = delivery.events().collect();
    let pieces = split(delivery, &events, base, fragment_bytes);
    let last = pieces.len() - 1;
    let message = |(number, piece): (usize, Range<usize>)| pb::WatchResponse {
        header: Some(header),
        watch_id: delivery.watch_id,
        fragment: number < last,
        events: events[piece].iter().map(|(record, change)| record.event(*change, delivery.prev_kv)).collect(),
        ..Default::default()
    };
    pieces.into_iter().enumerate().map(message).collect()
}

fn control(output: &Output, header: &dyn Fn(i64) -> pb::ResponseHeader) -> pb::WatchResponse {
    let mut response = pb::WatchResponse::default();
    let (watch_id, revision) = match output {
        Output::Created { watch_id, revision } => {
            response.created = true;
            (*watch_id, *revision)
        }
        Output::Refused { reason, revision } => {
            (response.created, response.canceled) = (true, true);
            response.cancel_reason.clone_from(reason);
            (WATCH_ID_NONE, *revision)
        }
        Output::Canceled { watch_id, revision } => {
            response.canceled = true;
            (*watch_id, *revision)
        }
        Output::Compacted { watch_id, compact_revision } => {
            response.canceled = true;
            response.compact_revision = *compact_revision;
            // etcd's own answer has no revision here.
            (*watch_id, 0)
        }
        Output::Progress { watch_id, revision } => (*watch_id, *revision),
        Output::Events(_) => unreachable!("events are written by themselves"),
    };
    response.header = Some(header(revision));
    response.watch_id = watch_id;
    response
}

/// Which events go into which message: all into one, unless the watcher takes fragments and there are too many. A
/// message stays below the limit unless a single event is larger (etcd's rule).
fn split(delivery: &Delivery, events: &[(&Record, usize)], base: usize, fragment_bytes: usize) -> Vec<Range<usize>> {
    let whole = 0..events.len();
    let size = base + events.iter().map(|event| field_len(event, delivery.prev_kv)).sum::<usize>();
    if !delivery.fragment || size < fragment_bytes || events.len() < 2 {
        return vec![whole];
    }
    let base = base + 2;
    let mut pieces = Vec::new();
    let (mut start, mut size) = (0, base);
    for (number, event) in events.iter().enumerate() {
        let len = field_len(event, delivery.prev_kv);
        if number > start && size + len >= fragment_bytes {
            pieces.push(start..number);
            (start, size) = (number, base);
        }
        size += len;
    }
    pieces.push(start..events.len());
    pieces
}

fn base_len(header: &[u8], watch_id: i64) -> usize {
    let id = if watch_id == 0 { 0 } else { 1 + encoded_len_varint(watch_id as u64) };
    1 + encoded_len_varint(header.len() as u64) + header.len() + id
}

fn field_len((record, change): &(&Record, usize), prev_kv: bool) -> usize {
    let len = record.event_bytes(*change, prev_kv).len();
    1 + encoded_len_varint(len as u64) + len
}

/// All field numbers here are below 16: one byte.
fn put_key(field: u32, kind: u64, out: &mut BytesMut) {
    out.put_u8((field << 3) as u8 | kind as u8);
}
