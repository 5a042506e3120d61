//! Election (`v3electionpb`): the oldest key under `<name>/` leads, and its value is what the leader proclaims.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::v3electionpb as election;
use quorate_store::KeyRange;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Services;
use super::concurrency::{Followed, Waiting, created_at, op, prefix_of};
use crate::watch::Filters;
use pb::request_op::Request as Op;

/// Leaders that an observer has not read yet, at most.
const LEADERS_QUEUED_MAX: usize = 16;

#[derive(Clone)]
pub(super) struct ElectionService(pub(super) Services);

type Observed = Result<election::LeaderResponse, Status>;

impl ElectionService {
    /// Writes or deletes the leader's key, if it still is the one that won.
    async fn as_leader(&self, leader: &election::LeaderKey, then: Op) -> Result<Option<pb::ResponseHeader>, Status> {
        let compare = vec![created_at(&leader.key, leader.rev)];
        let txn = pb::TxnRequest { compare, success: vec![op(then)], failure: Vec::new() };
        let response = self.0.recipe_txn(txn).await?;
        if response.succeeded { Ok(response.header) } else { Err(Status::unknown("election: not leader")) }
    }

    async fn leader_of(&self, name: &[u8]) -> Result<pb::RangeResponse, Status> {
        let prefix = prefix_of(name);
        self.0
            .recipe_range(pb::RangeRequest {
                range_end: super::concurrency::prefix_end(&prefix),
                key: prefix,
                limit: 1,
                sort_order: pb::range_request::SortOrder::Ascend.into(),
                sort_target: pb::range_request::SortTarget::Create.into(),
                ..Default::default()
            })
            .await
    }

    /// Sends the leader, then each of its proclamations, then the next leader, until the caller goes.
    async fn observe_into(&self, name: Vec<u8>, out: &Sender<Observed>) -> Result<(), Status> {
        loop {
            let leader = self.leader_of(&name).await?;
            let header = leader.header.clone();
            let revision = header.as_ref().map_or(0, |header| header.revision);
            let Some(kv) = leader.kvs.into_iter().next() else {
                self.wait_for_any(&name, revision + 1, out).await?;
                if out.is_closed() {
                    return Ok(());
                }
                continue;
            };
            let mut watch = self.0.follow(KeyRange::One(kv.key.clone()), revision + 1, Filters::default());
            if out.send(Ok(election::LeaderResponse { header, kv: Some(kv) })).await.is_err() {
                return Ok(());
            }
            'leads: loop {
                let followed = tokio::select! {
                    () = out.closed() => return Ok(()),
                    followed = watch.next() => followed?,
                };
                let Followed::Events(events) = followed else { break };
                for (deleted, kv) in events {
                    if deleted {
                        break 'leads;
                    }
                    let header = Some(self.0.node.header(kv.mod_revision));
                    if out.send(Ok(election::LeaderResponse { header, kv: Some(kv) })).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn wait_for_any(&self, name: &[u8], from: i64, out: &Sender<Observed>) -> Result<(), Status> {
        let prefix = prefix_of(name);
        let range = KeyRange::new(&prefix, &super::concurrency::prefix_end(&prefix));
        let mut watch = self.0.follow(range, from, Filters { no_put: false, no_delete: true });
        tokio::select! {
            () = out.closed() => Ok(()),
            followed = watch.next() => followed.map(|_| ()),
        }
    }
}

fn required(leader: Option<election::LeaderKey>) -> Result<election::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl election::election_server::Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        let election::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = self.0.session(lease).await?;
        let entry = self.0.enter(&name, lease, value.clone()).await?;
        let waiting = Waiting::new(&self.0, &entry);
        let (key, rev) = (entry.key.clone(), entry.create_revision);
        let leader = election::LeaderKey { name, key: key.clone(), rev, lease: entry.lease };
        let mut header = entry.header.clone();
        // Who campaigns again under the same lease may bring another value.
        if entry.found.as_ref().is_some_and(|kv| kv.value != value) {
            let put = pb::PutRequest { key, value, lease, ..Default::default() };
            header = self.as_leader(&leader, Op::RequestPut(put)).await?;
        }
        self.0.wait_for_older(&entry).await?;
        waiting.done();
        Ok(Response::new(election::CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        let election::ProclaimRequest { leader, value } = request.into_inner();
        let leader = required(leader)?;
        let put = pb::PutRequest { key: leader.key.clone(), value, lease: leader.lease, ..Default::default() };
        let header = self.as_leader(&leader, Op::RequestPut(put)).await?;
        Ok(Response::new(election::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let leader = self.leader_of(&request.into_inner().name).await?;
        match leader.kvs.into_iter().next() {
            Some(kv) => Ok(Response::new(election::LeaderResponse { header: leader.header, kv: Some(kv) })),
            None => Err(Status::unknown("election: no leader")),
        }
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Observed> + Send>>;

    async fn observe(&self, request: Request<election::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (out, leaders) = tokio::sync::mpsc::channel(LEADERS_QUEUED_MAX);
        let (service, name) = (self.clone(), request.into_inner().name.to_vec());
        tokio::spawn(async move {
            if let Err(error) = service.observe_into(name, &out).await {
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(leaders))))
    }

    async fn resign(
        &self,
        request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        let leader = required(request.into_inner().leader)?;
        let delete = pb::DeleteRangeRequest { key: leader.key.clone(), ..Default::default() };
        let compare = vec![created_at(&leader.key, leader.rev)];
        let success = vec![op(Op::RequestDeleteRange(delete))];
        let response = self.0.recipe_txn(pb::TxnRequest { compare, success, failure: Vec::new() }).await?;
        Ok(Response::new(election::ResignResponse { header: response.header }))
    }
}
