//! Lease: grant, revoke, keep alive, time to live, list.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::Response as Applied;
use rand::RngExt;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::error::status;
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};
use crate::raft::PeerChannel;
use pb::lease_client::LeaseClient;

/// Keep-alives of one stream that are answered and not yet read by the client, at most.
const KEEP_ALIVES_QUEUED_MAX: usize = 64;

pub(super) struct LeaseService {
    pub(super) services: Services,
    /// Asks the leader what only it can say. False on the peer port, where members ask each other: two that each take the
    /// other for the leader must not go on asking.
    pub(super) forwards: bool,
}

/// Before the leader is asked anew.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Of a client's answer: not from the leader's mouth, so that it may be asked again.
fn is_of_the_way(status: &Status) -> bool {
    !status.message().starts_with("etcdserver: ")
        || [RequestError::NotLeader, RequestError::NoLeader, RequestError::LeaderChanged, RequestError::Stopped]
            .iter()
            .any(|error| status.message() == error.to_string())
}

impl Services {
    /// Asks whoever leads, until somebody who does has answered: by `here` where this member does, by `there` elsewhere.
    async fn of_leader<T, Here, There>(
        &self,
        forwards: bool,
        here: impl Fn() -> Here,
        there: impl Fn(LeaseClient<PeerChannel>) -> There,
    ) -> Result<T, Status>
    where
        Here: Future<Output = Result<T, RequestError>>,
        There: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.node.settings().request_timeout;
        loop {
            let answer = match self.node.raft().leader_channel().filter(|_| forwards) {
                Some(channel) => {
                    let asked = tokio::time::timeout_at(deadline, there(LeaseClient::new(channel)));
                    asked.await.unwrap_or_else(|_| Err(status(RequestError::TimedOut)))
                }
                None => here().await.map_err(status),
            };
            match answer {
                Err(failure) if forwards && is_of_the_way(&failure) => {
                    if Instant::now() + RETRY_PAUSE >= deadline {
                        return Err(status(RequestError::TimedOut));
                    }
                }
                answered => return answered,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The lease's TTL in seconds, renewed; 0 when there is no such lease.
    async fn renew_lease(&self, forwards: bool, id: i64) -> Result<i64, Status> {
        let there = |mut leader: LeaseClient<PeerChannel>| async move {
            let request = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let answer = leader.lease_keep_alive(request).await?.into_inner().message().await?;
            answer.map(|answer| answer.ttl).ok_or_else(|| status(RequestError::NotLeader))
        };
        let here = || async { Ok(self.leases.renew(&self.node, id).await?.unwrap_or(0)) };
        self.of_leader(forwards, here, there).await
    }

    async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, RequestError> {
        let view = self.node.read_view(Consistency::Linearizable).await?;
        if !self.node.status().is_leader {
            return Err(RequestError::NotLeader);
        }
        let header = Some(self.node.header(view.revision()));
        let Some(left) = self.leases.time_to_live(id) else {
            return Ok(pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
        };
        let keys = if keys { view.lease_keys(id)? } else { Vec::new() };
        let (ttl, granted_ttl) = (left.remaining_secs, left.granted_secs);
        Ok(pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys })
    }
}

impl Services {
    /// Grants a lease; id 0 picks one, and a time to live below what an election may take is raised to it. One that is too
    /// large is refused in apply, where an alarm comes first.
    pub(super) async fn grant_lease(&self, id: i64, ttl_secs: i64) -> Result<pb::LeaseGrantResponse, RequestError> {
        let election_ms = self.node.settings().election_timeout.as_millis() as u64;
        let ttl = ttl_secs.max((election_ms * 3).div_ceil(2 * 1_000) as i64);
        let id = if id == 0 { rand::rng().random_range(1..=i64::MAX) } else { id };
        let command = Command::LeaseGrant(pb::LeaseGrantRequest { ttl, id });
        match self.node.propose(&Identity::default(), command).await? {
            Applied::LeaseGrant(mut response) => {
                self.node.fill(&mut response.header);
                Ok(response)
            }
            _ => Err(RequestError::Stopped),
        }
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        self.services.grant_lease(id, ttl).await.map(Response::new).map_err(status)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let command = Command::LeaseRevoke(request.into_inner());
        let applied = self.services.node.propose(&Identity::default(), command).await.map_err(status)?;
        let Applied::LeaseRevoke(mut response) = applied else { return Err(status(RequestError::Stopped)) };
        self.services.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(KEEP_ALIVES_QUEUED_MAX);
        let (services, forwards) = (self.services.clone(), self.forwards);
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    biased;
                    () = services.shutdown.cancelled() => return,
                    () = sender.closed() => return,
                    request = requests.next() => request,
                };
                let Some(Ok(request)) = request else { return };
                // The revision is taken before the lease is renewed, so that an answer never claims that a lease lived
                // at a revision by which it was revoked.
                let header = Some(services.node.header(services.node.reader().revision()));
                let renewed = services.renew_lease(forwards, request.id).await;
                let answer = renewed.map(|ttl| pb::LeaseKeepAliveResponse { header, id: request.id, ttl });
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let services = &self.services;
        let there = |mut leader: LeaseClient<PeerChannel>| async move {
            let request = pb::LeaseTimeToLiveRequest { id, keys };
            leader.lease_time_to_live(request).await.map(Response::into_inner)
        };
        let mut response = services.of_leader(self.forwards, || services.lease_time_to_live(id, keys), there).await?;
        if let Some(header) = &mut response.header {
            *header = services.node.header(header.revision);
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let view = self.services.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let leases = self.services.leases.by_expiry().into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(self.services.node.header(view.revision())), leases }))
    }
}
