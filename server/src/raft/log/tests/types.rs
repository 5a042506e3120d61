//! A type config, a codec and a state machine in memory, for openraft's suite only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use openraft::alias::{CommittedLeaderIdOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{EntryPayload, Membership, OptionalSend, RaftSnapshotBuilder};

use super::super::{EntryCodec, RawLeader};

openraft::declare_raft_types!(
    pub(super) Types:
        D = String,
        R = (),
        NodeId = u64,
        Node = (),
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// A membership as JSON: openraft's own type has no such form without its `serde` feature.
#[derive(serde::Serialize, serde::Deserialize)]
struct Wire {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
}

impl Wire {
    fn of(membership: &Membership<u64, ()>) -> Self {
        let nodes = membership.nodes().map(|(id, ())| *id).collect();
        Self { configs: membership.get_joint_config().clone(), nodes }
    }

    fn membership(self) -> Membership<u64, ()> {
        let nodes: BTreeMap<u64, ()> = self.nodes.into_iter().map(|id| (id, ())).collect();
        Membership::new(self.configs, nodes).unwrap()
    }
}

pub(super) struct Codec;

impl EntryCodec<Types> for Codec {
    fn encode(entry: &openraft::alias::EntryOf<Types>, out: &mut BytesMut) {
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(0),
            EntryPayload::Normal(data) => {
                out.put_u8(1);
                out.put_slice(data.as_bytes());
            }
            EntryPayload::Membership(membership) => {
                out.put_u8(2);
                out.put_slice(&serde_json::to_vec(&Wire::of(membership)).unwrap());
            }
        }
    }

    fn decode(id: LogIdOf<Types>, mut body: Bytes) -> io::Result<openraft::alias::EntryOf<Types>> {
        let payload = match body.get_u8() {
            0 => EntryPayload::Blank,
            1 => EntryPayload::Normal(String::from_utf8(body.to_vec()).map_err(io::Error::other)?),
            2 => EntryPayload::Membership(serde_json::from_slice::<Wire>(&body)?.membership()),
            kind => return Err(io::Error::other(format!("payload of kind {kind}"))),
        };
        Ok(RaftEntry::new(id, payload))
    }

    fn leader_to_raw(leader: &CommittedLeaderIdOf<Types>) -> RawLeader {
        RawLeader { term: leader.term, node: 0 }
    }

    fn leader_from_raw(raw: RawLeader) -> CommittedLeaderIdOf<Types> {
        raw.term.into()
    }
}

type Applied = (Option<LogIdOf<Types>>, StoredMembershipOf<Types>);

#[derive(Clone, Default)]
pub(super) struct Machine {
    applied: Applied,
    snapshot: Option<Applied>,
}

/// Shares nothing with the machine: the suite builds a snapshot and asks the machine for it.
type Shared = std::sync::Arc<std::sync::Mutex<Machine>>;

#[derive(Clone, Default)]
pub(super) struct MemoryMachine(Shared);

fn snapshot_of((last_log_id, last_membership): Applied) -> SnapshotOf<Types, ()> {
    let meta = SnapshotMeta { last_log_id, last_membership };
    Snapshot { meta, snapshot: () }
}

impl RaftSnapshotBuilder<Types> for MemoryMachine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, ()>> {
        let mut machine = self.0.lock().unwrap();
        machine.snapshot = Some(machine.applied.clone());
        Ok(snapshot_of(machine.applied.clone()))
    }
}

impl RaftStateMachine<Types> for MemoryMachine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<Applied> {
        Ok(self.0.lock().unwrap().applied.clone())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut machine = self.0.lock().unwrap();
            machine.applied.0 = Some(entry.log_id());
            if let Some(membership) = entry.get_membership() {
                machine.applied.1 = StoredMembershipOf::<Types>::new(Some(entry.log_id()), membership);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, _: ()) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        machine.applied = (meta.last_log_id, meta.last_membership.clone());
        machine.snapshot = Some(machine.applied.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, ()>>> {
        Ok(self.0.lock().unwrap().snapshot.clone().map(snapshot_of))
    }
}
