//! Log entries as bytes: one byte for the kind, then the payload as it is. A batch is not looked into.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::alias::CommittedLeaderIdOf;
use openraft::entry::RaftEntry;
use prost::Message;
use quorate_proto::log as wire;
use quorate_store::LogPosition;

use super::log::{EntryCodec, RawLeader};
use super::types::{Entry, LogId, Request, TypeConfig, decode, encode};

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(crate) struct Codec;

impl EntryCodec<TypeConfig> for Codec {
    fn encode(entry: &Entry, out: &mut BytesMut) {
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(BLANK),
            EntryPayload::Normal(request) => {
                out.reserve(1 + request.0.len());
                out.put_u8(BATCH);
                out.put_slice(&request.0);
            }
            EntryPayload::Membership(membership) => {
                out.put_u8(MEMBERSHIP);
                // The entry's own id says where it stands.
                encode(LogPosition::default(), membership).encode(out).expect("a BytesMut grows as needed");
            }
        }
    }

    fn decode(id: LogId, mut body: Bytes) -> io::Result<Entry> {
        if body.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("log entry {id} has no kind")));
        }
        let payload = match body.get_u8() {
            BLANK => EntryPayload::Blank,
            BATCH => EntryPayload::Normal(Request(body)),
            MEMBERSHIP => {
                let wire = wire::RaftMembership::decode(body).map_err(io::Error::other)?;
                EntryPayload::Membership(decode(wire).map_err(io::Error::other)?)
            }
            kind => {
                let reason = format!("log entry {id} is of kind {kind}, which this release does not know");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        };
        Ok(Entry::new(id, payload))
    }

    fn leader_to_raw(leader: &CommittedLeaderIdOf<TypeConfig>) -> RawLeader {
        RawLeader { term: leader.term, node: 0 }
    }

    fn leader_from_raw(raw: RawLeader) -> CommittedLeaderIdOf<TypeConfig> {
        raw.term.into()
    }
}
