//! The changes of one revision in the form in which they leave: bytes of `mvccpb.Event`, made once for all watchers.
//!
//! ```text
//!   bytes   │type│ kv                    │ prev_kv       │type│ kv           │ prev_kv │ ...
//!           └── a watcher without prev ──┘
//!           └── a watcher with prev ─────────────────────┘      one allocation per revision
//!                  └key┘
//! ```
//!
//! The copy is wanted: a value is a slice of whatever buffer it arrived in, and would keep all of it alive.
//! Left out: watch ids, headers and fragments; those differ per watcher and are written around these bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{self, encoded_len_varint};
use quorate_proto::mvccpb;
use quorate_store::{Event, EventKind, RevisionEvents};

/// `mvccpb.Event`: what `proto/api/kv.proto` says, written by hand to know where the parts lie.
const EVENT_KV: u32 = 2;
const EVENT_PREV_KV: u32 = 3;
const EVENT_IS_DELETE: [u8; 2] = [1 << 3, 1];

/// What a record costs beside its bytes, about.
const RECORD_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub struct Record {
    revision: i64,
    bytes: Bytes,
    changes: Box<[Change]>,
}

#[derive(Debug)]
struct Change {
    kind: EventKind,
    key: Range<usize>,
    start: usize,
    /// Where the event ends for those who did not ask for prev_kv.
    split: usize,
    end: usize,
}

impl Record {
    pub(super) fn new(revision: &RevisionEvents) -> Arc<Self> {
        let size = revision.events.iter().map(event_len).sum();
        let mut bytes = BytesMut::with_capacity(size);
        let changes = revision.events.iter().map(|event| write_event(event, &mut bytes)).collect();
        Arc::new(Self { revision: revision.revision, bytes: bytes.freeze(), changes })
    }

    /// The same changes beside nothing.
    pub(super) fn without_prev_kv(&self) -> Arc<Self> {
        let change = |change: &Change| Change { end: change.split, key: change.key.clone(), ..*change };
        let changes = self.changes.iter().map(change).collect();
        Arc::new(Self { revision: self.revision, bytes: self.bytes.clone(), changes })
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many keys this revision changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn key(&self, change: usize) -> &[u8] {
        &self.bytes[self.changes[change].key.clone()]
    }

    pub fn kind(&self, change: usize) -> EventKind {
        self.changes[change].kind
    }

    /// An encoded `mvccpb.Event`, without tag and length.
    pub fn event_bytes(&self, change: usize, prev_kv: bool) -> &[u8] {
        &self.bytes[self.extent(change, prev_kv)]
    }

    /// The same bytes, shared with everybody else who has them.
    pub fn event_shared(&self, change: usize, prev_kv: bool) -> Bytes {
        self.bytes.slice(self.extent(change, prev_kv))
    }

    /// For those who need a message and not bytes.
    pub fn event(&self, change: usize, prev_kv: bool) -> mvccpb::Event {
        mvccpb::Event::decode(self.event_shared(change, prev_kv)).expect("encoded by this file")
    }

    pub(super) fn cost_bytes(&self) -> usize {
        self.bytes.len() + self.changes.len() * size_of::<Change>() + RECORD_OVERHEAD_BYTES
    }

    fn extent(&self, change: usize, prev_kv: bool) -> Range<usize> {
        let change = &self.changes[change];
        change.start..if prev_kv { change.end } else { change.split }
    }
}

fn event_len(event: &Event) -> usize {
    let kind = match event.kind {
        EventKind::Put => 0,
        EventKind::Delete => EVENT_IS_DELETE.len(),
    };
    let prev = event.prev_kv.as_ref().map_or(0, |kv| encoding::message::encoded_len(EVENT_PREV_KV, kv));
    kind + encoding::message::encoded_len(EVENT_KV, &event.kv) + prev
}

fn write_event(event: &Event, bytes: &mut BytesMut) -> Change {
    let start = bytes.len();
    match event.kind {
        EventKind::Put => {}
        EventKind::Delete => bytes.extend_from_slice(&EVENT_IS_DELETE),
    }
    // In front of the key stand the tag and length of kv, and its own: it is the first field and never empty.
    let key_at = bytes.len()
        + (1 + encoded_len_varint(event.kv.encoded_len() as u64))
        + (1 + encoded_len_varint(event.kv.key.len() as u64));
    encoding::message::encode(EVENT_KV, &event.kv, bytes);
    let key = key_at..key_at + event.kv.key.len();
    debug_assert_eq!(&bytes[key.clone()], event.kv.key.as_ref());
    let split = bytes.len();
    if let Some(prev) = &event.prev_kv {
        encoding::message::encode(EVENT_PREV_KV, prev, bytes);
    }
    Change { kind: event.kind, key, start, split, end: bytes.len() }
}
