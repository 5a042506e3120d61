//! The receiving side: what other members ask of this one.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use quorate_proto::peer as pb;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::acknowledged::LOST;
use super::link::{CLUSTER_KEY, CLUSTER_MISMATCH, FROM_KEY, MESSAGE_BYTES_MAX, REMOVED, TO_KEY};
use super::wire;
use crate::raft::{Raft, ReadFailure, WriteFailure};

/// Between two looks whether somebody was removed.
const REMOVAL_LOOK_INTERVAL: Duration = Duration::from_millis(500);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) struct PeerService {
    pub(crate) raft: Raft,
    /// Ends what stays open when the member stops.
    pub(crate) stop: CancellationToken,
}

/// The service with its door: calls of another cluster, for another member or of a removed one are refused.
pub(crate) fn guarded<S>(raft: &Raft, server: S) -> tonic::service::interceptor::InterceptedService<S, Door> {
    tonic::service::interceptor::InterceptedService::new(server, Door(raft.clone()))
}

impl PeerService {
    pub(crate) fn into_server(self) -> pb::peer_server::PeerServer<Self> {
        pb::peer_server::PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Who may come in on the peer port.
#[derive(Clone)]
pub struct Door(Raft);

impl tonic::service::Interceptor for Door {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let named = |key: &str| named(request.metadata(), key);
        let (Some(cluster), Some(from), Some(to)) = (named(CLUSTER_KEY), named(FROM_KEY), named(TO_KEY)) else {
            return Err(Status::invalid_argument(format!(
                "a call between members needs {CLUSTER_KEY}, {FROM_KEY}, {TO_KEY}"
            )));
        };
        // 0: one that does not know yet, and only asks who we are.
        let (own_cluster, own) = self.0.ids();
        if cluster != own_cluster && cluster != 0 {
            self.0.stranger(from, cluster);
            return Err(Status::failed_precondition(format!(
                "{CLUSTER_MISMATCH}: this member is of cluster {own_cluster:x}, the call of {from:x} is for cluster {cluster:x}"
            )));
        }
        if to != own && to != 0 {
            return Err(Status::failed_precondition(format!("this is member {own:x}, the call is for {to:x}")));
        }
        if self.0.was_removed(from) {
            return Err(Status::permission_denied(REMOVED));
        }
        if let Some(upto) = self.0.0.links.has_lost(from) {
            return Err(Status::permission_denied(format!("{LOST}: it had all up to entry {upto}")));
        }
        Ok(request)
    }
}

fn named(metadata: &MetadataMap, key: &str) -> Option<u64> {
    u64::from_str_radix(metadata.get(key)?.to_str().ok()?, 16).ok()
}

fn not_leader(leader: Option<u64>) -> pb::NotLeader {
    pb::NotLeader { leader: leader.unwrap_or(0) }
}

fn stopped() -> Status {
    Status::unavailable("the member stops")
}

#[tonic::async_trait]
impl pb::peer_server::Peer for PeerService {
    type AppendStream = Answers<pb::AppendAnswer>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        // What cannot be read ends the stream, and with it the leader's session: it begins another one.
        let raft = self.raft.clone();
        let requests =
            request.into_inner().map(|request| request.and_then(wire::read_append)).filter_map(move |read| {
                std::future::ready(match read {
                    Ok(request) => {
                        raft.leader_heard();
                        Some(Some(request))
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the stream of a leader ended");
                        Some(None)
                    }
                })
            });
        let requests = requests.take_while(|read| std::future::ready(read.is_some())).filter_map(std::future::ready);
        let answers = self.raft.core().stream_append(requests);
        let answers = answers.map(|answer| answer.map(wire::answer).map_err(|_| stopped()));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn probe(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendAnswer>, Status> {
        let request = wire::read_append(request.into_inner())?;
        self.raft.leader_heard();
        let mut answers = Box::pin(self.raft.core().stream_append(stream::iter([request])));
        let answer = answers.next().await.ok_or_else(stopped)?.map_err(|_| stopped())?;
        Ok(Response::new(wire::answer(answer)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteAnswer>, Status> {
        let request = request.into_inner();
        let pre_vote = request.pre_vote;
        let request = wire::read_vote_request(request)?;
        let core = self.raft.core();
        let answer = if pre_vote { core.pre_vote(request).await } else { core.vote(request).await };
        Ok(Response::new(wire::vote_answer(&answer.map_err(|_| stopped())?)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderAnswer>, Status> {
        let request = wire::read_transfer(request.into_inner())?;
        let taken = self.raft.core().handle_transfer_leader(request).await.map_err(|_| stopped())?;
        let refused = taken.err().map_or_else(String::new, |error| error.to_string());
        Ok(Response::new(pb::TransferLeaderAnswer { refused }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotAnswer>, Status> {
        let vote = self.raft.receive_snapshot(request.into_inner()).await?;
        Ok(Response::new(pb::SnapshotAnswer { vote: Some(vote) }))
    }

    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Result<Response<pb::ReadIndexAnswer>, Status> {
        use pb::read_index_answer::Outcome;
        let outcome = match self.raft.confirm_leadership().await {
            Ok(index) => Outcome::Index(index),
            Err(ReadFailure::NotLeader { leader }) => Outcome::NotLeader(not_leader(leader)),
            Err(ReadFailure::NoQuorum) => Outcome::NoQuorum(pb::NoQuorum {}),
            Err(ReadFailure::Stopped) => return Err(stopped()),
        };
        Ok(Response::new(pb::ReadIndexAnswer { outcome: Some(outcome) }))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeAnswer>, Status> {
        let not_leader = match self.raft.append_for(request.into_inner()).await {
            // Appended: what becomes of it is seen by the proposer when it applies it, or another's first entry.
            Ok(()) | Err(WriteFailure::Unknown) => None,
            Err(WriteFailure::NotLeader { leader }) => Some(not_leader(leader)),
            Err(WriteFailure::Stopped) => return Err(stopped()),
        };
        Ok(Response::new(pb::ProposeAnswer { not_leader }))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersAnswer>, Status> {
        let change = request.into_inner().change.ok_or_else(|| Status::invalid_argument("no change"))?;
        let answer = self.raft.change_members_here(change).await;
        Ok(Response::new(pb::ChangeMembersAnswer { outcome: answer }))
    }

    type PresenceStream = Answers<pb::PresenceBeat>;

    async fn presence(&self, request: Request<pb::PresenceRequest>) -> Result<Response<Self::PresenceStream>, Status> {
        let (stop, raft, from) = (self.stop.clone(), self.raft.clone(), named(request.metadata(), FROM_KEY));
        // Says one word, so that the other side knows that it is heard, and then nothing until the end. A member that is
        // removed meanwhile is let go, so that it calls again and is told.
        let first = stream::iter([Ok(pb::PresenceBeat {})]);
        let end = stream::once(async move {
            while !from.is_some_and(|from| raft.was_removed(from)) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(REMOVAL_LOOK_INTERVAL) => {}
                }
            }
        });
        let end = end.filter_map(|()| std::future::ready(None));
        Ok(Response::new(Box::pin(first.chain(end))))
    }

    async fn ping(&self, _: Request<pb::PingRequest>) -> Result<Response<pb::PingAnswer>, Status> {
        let sync = self.raft.recent_sync().unwrap_or_default();
        Ok(Response::new(pb::PingAnswer { sync_high_micros: u64::try_from(sync.as_micros()).unwrap_or(u64::MAX) }))
    }

    async fn cluster(&self, request: Request<pb::ClusterRequest>) -> Result<Response<pb::ClusterAnswer>, Status> {
        let caller = named(request.metadata(), FROM_KEY).and_then(|from| self.raft.0.links.acknowledged_by(from));
        let (cluster, member) = self.raft.ids();
        let status = self.raft.status();
        let members = self.raft.members();
        Ok(Response::new(pb::ClusterAnswer {
            cluster,
            member,
            leader: status.leader.unwrap_or(0),
            term: status.term,
            members: members
                .into_iter()
                .map(|known| pb::KnownMember {
                    id: known.id,
                    name: known.name,
                    peer_urls: known.peer_urls,
                    is_learner: known.is_learner,
                })
                .collect(),
            removed: self.raft.removed_ids(),
            acknowledged: caller.map_or(0, |caller| caller.upto()),
        }))
    }
}
