//! Log entries as bytes: one byte for the kind, then, for a batch, who proposed it (member and number, big-endian), then
//! the payload as it is. A batch is not looked into.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::alias::CommittedLeaderIdOf;
use openraft::entry::RaftEntry;
use prost::Message;
use quorate_proto::log as wire;
use quorate_store::LogPosition;

use super::log::{EntryCodec, RawLeader};
use super::types::{Entry, LogId, Origin, Request, TypeConfig, decode, encode};

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;
const PROPOSED_BATCH: u8 = 3;
const ORIGIN_BYTES: usize = 16;

pub(crate) struct Codec;

impl EntryCodec<TypeConfig> for Codec {
    fn encode(entry: &Entry, out: &mut BytesMut) {
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(BLANK),
            EntryPayload::Normal(Request { origin, batch }) => {
                out.reserve(1 + ORIGIN_BYTES + batch.len());
                out.put_u8(PROPOSED_BATCH);
                out.put_u64(origin.member);
                out.put_u64(origin.sequence);
                out.put_slice(batch);
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
            // As written before there were several members.
            BATCH => EntryPayload::Normal(Request { origin: Origin::default(), batch: body }),
            PROPOSED_BATCH if body.len() >= ORIGIN_BYTES => {
                let origin = Origin { member: body.get_u64(), sequence: body.get_u64() };
                EntryPayload::Normal(Request { origin, batch: body })
            }
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
