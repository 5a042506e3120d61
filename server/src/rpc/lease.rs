//! Lease: grant, revoke, keep alive, time to live, list.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::{LEASE_TTL_SECS_MAX, Rejection, Response as Applied};
use rand::RngExt;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::error::status;
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};

/// Keep-alives of one stream that are answered and not yet read by the client, at most.
const KEEP_ALIVES_QUEUED_MAX: usize = 64;

pub(super) struct LeaseService(pub(super) Services);

impl Services {
    /// Grants a lease; id 0 picks one, and a time to live below what an election may take is raised to it.
    pub(super) async fn grant_lease(&self, id: i64, ttl_secs: i64) -> Result<pb::LeaseGrantResponse, RequestError> {
        if ttl_secs > LEASE_TTL_SECS_MAX {
            return Err(Rejection::LeaseTtlTooLarge.into());
        }
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
        self.0.grant_lease(id, ttl).await.map(Response::new).map_err(status)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let command = Command::LeaseRevoke(request.into_inner());
        let applied = self.0.node.propose(&Identity::default(), command).await.map_err(status)?;
        let Applied::LeaseRevoke(mut response) = applied else { return Err(status(RequestError::Stopped)) };
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(KEEP_ALIVES_QUEUED_MAX);
        let services = self.0.clone();
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
                let answer = match services.leases.renew(&services.node, request.id).await {
                    Ok(ttl) => Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl: ttl.unwrap_or(0) }),
                    Err(error) => Err(status(error)),
                };
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
        let view = self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let header = Some(self.0.node.header(view.revision()));
        let response = match self.0.leases.time_to_live(id) {
            Some(left) => {
                let keys = if keys { view.lease_keys(id).map_err(status)? } else { Vec::new() };
                let (ttl, granted_ttl) = (left.remaining_secs, left.granted_secs);
                pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }
            }
            None => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let view = self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let leases = self.0.leases.by_expiry().into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(self.0.node.header(view.revision())), leases }))
    }
}
