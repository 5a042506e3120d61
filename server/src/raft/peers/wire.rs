//! Messages between openraft's words and those on the wire.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::alias::VoteOf;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::RaftVote;
use prost::Message;
use quorate_proto::log as log_pb;
use quorate_proto::peer as pb;
use quorate_store::LogPosition;
use tonic::Status;

use crate::raft::types::{self, Entry, LogId, Origin, Request, TypeConfig};
use pb::append_answer::Outcome;
use pb::entry::Payload;

type Vote = VoteOf<TypeConfig>;

pub(crate) fn vote(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, member: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn read_vote(vote: Option<pb::Vote>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    Ok(Vote::from_leader_id(LeaderId { term: vote.term, voted_for: vote.member }, vote.committed))
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("a message of a peer without its {what}"))
}

pub(crate) fn log_id(id: Option<&LogId>) -> Option<pb::LogId> {
    id.map(|id| {
        let LogPosition { index, term } = types::position(id);
        pb::LogId { term, index }
    })
}

pub(crate) fn read_log_id(id: Option<pb::LogId>) -> Option<LogId> {
    id.and_then(|id| types::log_id_or_none(LogPosition { index: id.index, term: id.term }))
}

pub(crate) fn append(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote(&request.vote)),
        previous: log_id(request.prev_log_id.as_ref()),
        entries: request.entries.into_iter().map(entry).collect(),
        committed: log_id(request.leader_commit.as_ref()),
    }
}

pub(crate) fn read_append(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    Ok(AppendEntriesRequest {
        vote: read_vote(request.vote)?,
        prev_log_id: read_log_id(request.previous),
        entries: request.entries.into_iter().map(read_entry).collect::<Result<_, _>>()?,
        leader_commit: read_log_id(request.committed),
    })
}

fn entry(entry: Entry) -> pb::Entry {
    let LogPosition { index, term } = types::position(&entry.log_id);
    let (payload, origin) = match entry.payload {
        EntryPayload::Blank => (Payload::Blank(pb::Blank {}), Origin::default()),
        EntryPayload::Normal(Request { origin, batch }) => (Payload::Batch(batch), origin),
        EntryPayload::Membership(membership) => {
            let encoded = types::encode(LogPosition::default(), &membership).encode_to_vec();
            (Payload::Membership(encoded.into()), Origin::default())
        }
    };
    pb::Entry { term, index, payload: Some(payload), proposer: origin.member, sequence: origin.sequence }
}

fn read_entry(entry: pb::Entry) -> Result<Entry, Status> {
    if entry.index == 0 {
        return Err(Status::invalid_argument("an entry of a peer at index 0"));
    }
    let id = types::log_id(LogPosition { index: entry.index, term: entry.term });
    let payload = match entry.payload {
        Some(Payload::Blank(_)) => EntryPayload::Blank,
        Some(Payload::Batch(batch)) => {
            let origin = Origin { member: entry.proposer, sequence: entry.sequence };
            EntryPayload::Normal(Request { origin, batch })
        }
        Some(Payload::Membership(encoded)) => EntryPayload::Membership(read_membership(encoded)?.0),
        None => return Err(missing("payload, which only a newer release knows")),
    };
    Ok(Entry::new(id, payload))
}

/// And the entry that set it.
pub(crate) fn read_membership(encoded: Bytes) -> Result<(types::Membership, LogPosition), Status> {
    let wire = log_pb::RaftMembership::decode(encoded)
        .map_err(|error| Status::invalid_argument(format!("a membership of a peer: {error}")))?;
    let at = LogPosition { index: wire.index, term: wire.term };
    types::decode(wire).map(|membership| (membership, at)).map_err(Status::invalid_argument)
}

pub(crate) fn answer(result: StreamAppendResult<TypeConfig>) -> pb::AppendAnswer {
    let outcome = match result {
        Ok(upto) => Outcome::Matched(pb::Matched { upto: log_id(upto.as_ref()) }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(log_id(Some(&at)).expect("it was given one")),
        Err(StreamAppendError::HigherVote(higher)) => Outcome::HigherVote(vote(&higher)),
    };
    pb::AppendAnswer { outcome: Some(outcome) }
}

pub(crate) fn read_answer(answer: pb::AppendAnswer) -> Result<StreamAppendResult<TypeConfig>, Status> {
    Ok(match answer.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Matched(matched) => Ok(read_log_id(matched.upto)),
        Outcome::Conflict(at) => {
            Err(StreamAppendError::Conflict(read_log_id(Some(at)).ok_or_else(|| missing("place of conflict"))?))
        }
        Outcome::HigherVote(higher) => Err(StreamAppendError::HigherVote(read_vote(Some(higher))?)),
    })
}

pub(crate) fn vote_request(request: &VoteRequest<TypeConfig>, pre_vote: bool) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote(&request.vote)),
        last: log_id(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(crate) fn read_vote_request(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut read = VoteRequest::new(read_vote(request.vote)?, read_log_id(request.last));
    read.leadership_transfer = request.leadership_transfer;
    Ok(read)
}

pub(crate) fn vote_answer(answer: &VoteResponse<TypeConfig>) -> pb::VoteAnswer {
    pb::VoteAnswer {
        vote: Some(vote(&answer.vote)),
        granted: answer.vote_granted,
        last: log_id(answer.last_log_id.as_ref()),
    }
}

pub(crate) fn read_vote_answer(answer: pb::VoteAnswer) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse::new(read_vote(answer.vote)?, read_log_id(answer.last), answer.granted))
}

pub(crate) fn transfer(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from: Some(vote(request.from_leader())),
        to: *request.to_node_id(),
        last: log_id(request.last_log_id()),
    }
}

pub(crate) fn read_transfer(request: pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    Ok(TransferLeaderRequest::new(read_vote(request.from)?, request.to, read_log_id(request.last)))
}
