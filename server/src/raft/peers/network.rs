//! openraft's sending side: each call becomes one of [`super::link`]'s.

use std::future::Future;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use quorate_proto::peer as pb;
use tonic::{Code, Status, Streaming};

use super::link::{Link, Links, within};
use super::wire;
use crate::raft::machine::SnapshotSource;
use crate::raft::transfer;
use crate::raft::types::{MemberId, Peer, TypeConfig};

type Failure = RPCError<TypeConfig>;
pub(super) type Answer = StreamAppendResult<TypeConfig>;

/// Between two attempts to reach a peer that is not there: doubled from the first up to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_millis(200);

pub(crate) struct Peers {
    pub(crate) links: Links,
    pub(crate) member_id: MemberId,
    /// A peer that owes an answer for longer is taken for lost, and the stream begun anew.
    pub(crate) stall: Duration,
}

pub(crate) struct Network {
    links: Links,
    link: Arc<Link>,
    from: MemberId,
    stall: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Network;

    async fn new_client(&mut self, target: MemberId, node: &Peer) -> Network {
        Network {
            links: self.links.clone(),
            link: self.links.to(target, &node.peer_urls),
            from: self.member_id,
            stall: self.stall,
        }
    }
}

impl Network {
    fn failure(&self, action: RPCTypes, patience: Duration, status: &Status) -> Failure {
        self.links.heard(status);
        failure(self.from, self.link.id, action, patience, status)
    }

    async fn probe(&self, request: AppendEntriesRequest<TypeConfig>, patience: Duration) -> Result<Answer, Failure> {
        self.check_silence(patience)?;
        self.link.acknowledged.committed(request.leader_commit.as_ref());
        let answer = within(patience, self.link.control().probe(wire::append(request))).await;
        answer
            .and_then(|answer| self.read(answer))
            .map_err(|status| self.failure(RPCTypes::AppendEntries, patience, &status))
    }

    fn check_silence(&self, patience: Duration) -> Result<(), Failure> {
        let status = || Status::unavailable("no majority answers, and others may want to elect a leader");
        let failed = || failure(self.from, self.link.id, RPCTypes::AppendEntries, patience, &status());
        if self.links.silence().is_kept() { Err(failed()) } else { Ok(()) }
    }

    /// An answer of a peer that has lost what it acknowledged is none.
    fn read(&self, answer: pb::AppendAnswer) -> Result<Answer, Status> {
        let answer = wire::read_answer(answer)?;
        self.link.acknowledged.answered(&answer).map(|()| answer)
    }

    /// Entries as they come, answers in order.
    async fn session<'s, S>(&'s self, input: S) -> Result<BoxStream<'s, Result<Answer, Failure>>, Failure>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        self.check_silence(self.stall)?;
        let links = self.links.clone();
        let input = input.take_while(move |_| std::future::ready(!links.silence().is_kept()));
        let sent = Arc::new(AtomicU64::new(0));
        let (count, acknowledged) = (sent.clone(), self.link.acknowledged.clone());
        let requests = input.map(move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            acknowledged.committed(request.leader_commit.as_ref());
            wire::append(request)
        });
        let mut client = self.link.bulk();
        let answers = within(self.stall, client.append(requests)).await;
        let answers = answers.map_err(|status| self.failure(RPCTypes::AppendEntries, self.stall, &status))?;
        let session = Session { answers, sent, answered: 0, network: self };
        Ok(stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(None) => None,
                Ok(Some(answer)) => {
                    let goes_on = answer.is_ok();
                    Some((Ok(answer), goes_on.then_some(session)))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

struct Session<'s> {
    answers: Streaming<pb::AppendAnswer>,
    sent: Arc<AtomicU64>,
    answered: u64,
    network: &'s Network,
}

impl Session<'_> {
    async fn next(&mut self) -> Result<Option<Answer>, Failure> {
        let (network, stall) = (self.network, self.network.stall);
        let failure = |status| network.failure(RPCTypes::AppendEntries, stall, &status);
        loop {
            let owed = self.sent.load(Ordering::Relaxed) > self.answered;
            match tokio::time::timeout(stall, self.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    self.answered += 1;
                    return network.read(answer).map(Some).map_err(failure);
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(status)) => return Err(failure(status)),
                // An answer that was owed all the time; with nothing to answer silence is what is expected.
                Err(_) if owed => return Err(failure(Status::deadline_exceeded("entries are not answered"))),
                Err(_) => {}
            }
        }
    }
}

fn failure(from: MemberId, target: MemberId, action: RPCTypes, patience: Duration, status: &Status) -> Failure {
    match status.code() {
        Code::DeadlineExceeded => Timeout { action, id: from, target, timeout: patience }.into(),
        Code::Unavailable | Code::FailedPrecondition | Code::PermissionDenied | Code::DataLoss => {
            Unreachable::new(status).into()
        }
        _ => NetworkError::new(status).into(),
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotSource;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        self.probe(request, option.soft_ttl()).await.map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<Answer, Failure>>, Failure>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move {
            let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
            if !first.entries.is_empty() {
                return self.session(stream::iter([first]).chain(input)).await;
            }
            // A heartbeat is a stream of one such request. A replication begins with one, too, while it looks for the
            // place where the logs meet.
            let answer = self.probe(first, option.soft_ttl()).await?;
            if answer.is_err() {
                return Ok(stream::iter([Ok(answer)]).boxed());
            }
            let network = &*self;
            let rest = async move {
                match input.next().await {
                    None => stream::empty().boxed(),
                    Some(next) => match network.session(stream::iter([next]).chain(input)).await {
                        Ok(session) => session,
                        Err(error) => stream::iter([Err(error)]).boxed(),
                    },
                }
            };
            Ok(stream::iter([Ok(answer)]).chain(rest.flatten_stream()).boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask_for_vote(&request, false, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask_for_vote(&request, true, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotSource>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let patience = option.soft_ttl();
        let failed = |status| StreamingError::from(self.failure(RPCTypes::InstallSnapshot, patience, &status));
        let parts = transfer::parts(&vote, snapshot.snapshot).map_err(failed)?;
        let mut client = self.link.bulk();
        let sending = within(patience, client.snapshot(parts));
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = sending => answer,
        };
        let vote = answer.and_then(|answer| wire::read_vote(answer.vote)).map_err(failed)?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let patience = option.soft_ttl();
        let answer = within(patience, self.link.control().transfer_leader(wire::transfer(&request))).await;
        let answer = answer.map_err(|status| self.failure(RPCTypes::TransferLeader, patience, &status))?;
        if answer.refused.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(member = format!("{:x}", self.link.id), reason = answer.refused, "leadership was not taken");
        let expected = request.last_log_id().copied();
        Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual: None }))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(iter::successors(Some(BACKOFF_FIRST), |last| Some((*last * 2).min(BACKOFF_LAST)))))
    }
}

impl Network {
    async fn ask_for_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
        patience: Duration,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let answer = within(patience, self.link.control().vote(wire::vote_request(request, pre_vote))).await;
        let answer = answer
            .and_then(wire::read_vote_answer)
            .and_then(|answer| self.link.acknowledged.ends_with(answer.last_log_id.as_ref()).map(|()| answer));
        answer.map_err(|status| self.failure(RPCTypes::Vote, patience, &status))
    }
}
