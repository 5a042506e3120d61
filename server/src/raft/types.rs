//! The types that openraft is made of here, and how they become bytes and words of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log as wire;
use quorate_store::{Answer, LogPosition};

pub(crate) type Term = u64;
pub(crate) type MemberId = u64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Request;
    type R = Vec<Answer>;
    type NodeId = MemberId;
    type Node = Peer;
    type Term = Term;
    /// One leader a term, as in the Raft paper and in etcd: a term number alone orders log entries.
    type LeaderId = leader_id_std::LeaderId<Term, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Request, MemberId, Peer>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<MemberId, Peer>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Who proposed a batch, and the number by which it knows it again; zeros for nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) member: MemberId,
    pub(crate) sequence: u64,
}

/// An encoded [`wire::Batch`]: what every member applies, byte for byte.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) origin: Origin,
    pub(crate) batch: Bytes,
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Request({} bytes)", self.batch.len())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

/// What Raft knows of a member beside its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) peer_urls: Vec<String>,
    /// A voter to all who ask, and a learner to Raft until it has the log: see [`super::members::let_vote`]. Stays set
    /// when it votes, as openraft takes no change of who votes together with one of what is known of a member.
    pub(crate) will_vote: bool,
}

/// Who waits for openraft: closures, called where the answer arises.
pub(crate) struct Reply<T> {
    /// Called once the entry is committed.
    pub(crate) on_commit: Option<Box<dyn FnOnce() + Send>>,
    pub(crate) on_complete: Box<dyn FnOnce(T) + Send>,
}

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Reply<T> {
    fn on_commit(&mut self, _: LogId) {
        if let Some(on_commit) = self.on_commit.take() {
            on_commit();
        }
    }

    fn on_complete(self, result: T) {
        (self.on_complete)(result);
    }
}

/// openraft counts log entries from 0; the store, like the Raft paper, from 1, so that 0 can mean "none yet". The two
/// meet here and nowhere else.
pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new_term_index(position.term, position.index - 1)
}

/// `None` before the first entry.
pub(crate) fn log_id_or_none(position: LogPosition) -> Option<LogId> {
    (position.index > 0).then(|| log_id(position))
}

pub(crate) fn position(log_id: &LogId) -> LogPosition {
    LogPosition { index: log_id.index() + 1, term: log_id.committed_leader_id().term }
}

pub(crate) fn encode(at: LogPosition, membership: &Membership) -> wire::RaftMembership {
    let configs = membership.get_joint_config().iter();
    wire::RaftMembership {
        term: at.term,
        index: at.index,
        configs: configs.map(|ids| wire::RaftVoters { ids: ids.iter().copied().collect() }).collect(),
        nodes: membership
            .nodes()
            .map(|(id, peer)| wire::RaftNode { id: *id, peer_urls: peer.peer_urls.clone(), will_vote: peer.will_vote })
            .collect(),
    }
}

pub(crate) fn decode(wire: wire::RaftMembership) -> Result<Membership, String> {
    let configs: Vec<BTreeSet<MemberId>> =
        wire.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<MemberId, Peer> = wire
        .nodes
        .into_iter()
        .map(|node| (node.id, Peer { peer_urls: node.peer_urls, will_vote: node.will_vote }))
        .collect();
    Membership::new(configs, nodes).map_err(|error| format!("a membership that cannot be: {error}"))
}

/// Empty bytes are the membership of a member that has none yet.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<StoredMembership, String> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let wire = wire::RaftMembership::decode(bytes).map_err(|error| format!("a membership record: {error}"))?;
    let at = LogPosition { index: wire.index, term: wire.term };
    Ok(StoredMembership::new(log_id_or_none(at), decode(wire)?))
}

/// A membership entry as the store takes it.
pub(crate) fn store_membership(at: LogPosition, membership: &Membership) -> quorate_store::Membership {
    let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
    let members = membership.nodes().map(|(id, peer)| pb::Member {
        id: *id,
        peer_urls: peer.peer_urls.clone(),
        is_learner: !voters.contains(id) && !peer.will_vote,
        ..Default::default()
    });
    quorate_store::Membership { encoded: encode(at, membership).encode_to_vec().into(), members: members.collect() }
}
