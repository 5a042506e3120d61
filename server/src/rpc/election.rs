//! Election (`v3electionpb`): the oldest key under `<name>/` leads, and its value is what the leader proclaims.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, stream};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::v3electionpb as election;
use quorate_store::{EventKind, KeyRange};
use tonic::{Request, Response, Status};

use super::Services;
use super::concurrency::{Follow, Followed, delete, if_created_at, keys_of};
use super::error::unknown;
use crate::watch::Filters;
use pb::request_op::Request as Op;

pub(super) struct ElectionService(pub(super) Services);

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn required(leader: Option<election::LeaderKey>) -> Result<election::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

impl Services {
    /// The oldest key, and the header of the moment when it was.
    async fn leader_of(&self, name: &[u8]) -> Result<(Option<KeyValue>, pb::ResponseHeader), Status> {
        let (key, range_end) = keys_of(name);
        let oldest = pb::RangeRequest {
            key,
            range_end,
            limit: 1,
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            ..Default::default()
        };
        let (oldest, header) = self.recipe_read(move |view| view.range(&oldest)).await?;
        Ok((oldest.kvs.into_iter().next(), header))
    }

    /// Writes the leader's value, if its key still is the one that won.
    async fn proclaim(
        &self,
        leader: &election::LeaderKey,
        value: Bytes,
        lease: i64,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let put = Op::RequestPut(pb::PutRequest { key: leader.key.clone(), value, lease, ..Default::default() });
        let response = self.recipe_txn(if_created_at(&leader.key, leader.rev, put, None)).await.map_err(unknown)?;
        if response.succeeded { Ok(response.header) } else { Err(not_leader()) }
    }
}

#[tonic::async_trait]
impl election::election_server::Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        let election::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = self.0.session(lease).await?;
        let mut candidate = self.0.enter(&name, lease, value.clone()).await?;
        let (key, rev) = (candidate.key.clone(), candidate.create_revision);
        let leader = election::LeaderKey { name, key, rev, lease };
        // Who campaigns again under the same lease may bring another value.
        if candidate.found.as_ref().is_some_and(|kv| kv.value != value)
            && let Err(refused) = self.0.proclaim(&leader, value, lease).await
        {
            candidate.give_up();
            return Err(refused);
        }
        // etcd does not look whether the candidate is still there, and would make a leader of one whose lease has ended.
        if candidate.wait().await?.is_none() {
            return Err(not_leader());
        }
        let header = candidate.header.take();
        candidate.stay();
        Ok(Response::new(election::CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        let election::ProclaimRequest { leader, value } = request.into_inner();
        let leader = required(leader)?;
        let lease = self.0.session(leader.lease).await?;
        let header = self.0.proclaim(&leader, value, lease).await?;
        Ok(Response::new(election::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let (leader, header) = self.0.leader_of(&request.into_inner().name).await?;
        match leader {
            Some(kv) => Ok(Response::new(election::LeaderResponse { header: Some(header), kv: Some(kv) })),
            None => Err(Status::unknown("election: no leader")),
        }
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<election::LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let observer = Observer {
            services: self.0.clone(),
            name: request.into_inner().name,
            ready: VecDeque::new(),
            follow: None,
        };
        // Pulled: nothing is read for a client that does not read, and nothing runs once it has gone.
        let leaders = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    /// Whoever does not lead any more has resigned: that is no error.
    async fn resign(
        &self,
        request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        let leader = required(request.into_inner().leader)?;
        let resign = if_created_at(&leader.key, leader.rev, delete(&leader.key), None);
        let response = self.0.recipe_txn(resign).await.map_err(unknown)?;
        Ok(Response::new(election::ResignResponse { header: response.header }))
    }
}

/// The leader, then each of its proclamations, then the next leader.
struct Observer {
    services: Services,
    name: Bytes,
    ready: VecDeque<election::LeaderResponse>,
    /// Of the leader's key, while there is one.
    follow: Option<Follow>,
}

impl Observer {
    async fn next(&mut self) -> Result<election::LeaderResponse, Status> {
        loop {
            if let Some(leader) = self.ready.pop_front() {
                return Ok(leader);
            }
            let Some(follow) = &mut self.follow else {
                self.find().await?;
                continue;
            };
            match follow.next().await? {
                Followed::Events(events) => events.into_iter().for_each(|(kind, kv)| self.take(kind, kv)),
                Followed::Compacted => self.follow = None,
            }
        }
    }

    /// Nothing counts after the deletion: whoever came then is found like anybody else.
    fn take(&mut self, kind: EventKind, kv: KeyValue) {
        match kind {
            EventKind::Put if self.follow.is_some() => {
                let header = Some(self.services.node.header(kv.mod_revision));
                self.ready.push_back(election::LeaderResponse { header, kv: Some(kv) });
            }
            EventKind::Put => {}
            EventKind::Delete => self.follow = None,
        }
    }

    /// The leader there is, or else the first one to come.
    async fn find(&mut self) -> Result<(), Status> {
        let (leader, mut header) = self.services.leader_of(&self.name).await?;
        let kv = match leader {
            Some(kv) => kv,
            None => {
                let (key, range_end) = keys_of(&self.name);
                let puts = Filters { no_put: false, no_delete: true };
                let mut all = self.services.follow([KeyRange::new(&key, &range_end)], header.revision + 1, puts);
                let Followed::Events(events) = all.next().await? else { return Ok(()) };
                let Some((_, kv)) = events.into_iter().next() else { return Ok(()) };
                header = self.services.node.header(kv.mod_revision);
                kv
            }
        };
        let key = [KeyRange::One(kv.key.clone())];
        self.follow = Some(self.services.follow(key, header.revision + 1, Filters::default()));
        self.ready.push_back(election::LeaderResponse { header: Some(header), kv: Some(kv) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use election::election_server::Election;
    use futures::StreamExt;
    use quorate_proto::log::proposal::Command;
    use tokio::task::JoinHandle;
    use tonic::Code;

    use super::super::concurrency::tests::Alone;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn service() -> (Alone, Arc<ElectionService>) {
        let member = Alone::start().await;
        let service = Arc::new(ElectionService(member.services.clone()));
        (member, service)
    }

    type Campaigning = JoinHandle<Result<election::CampaignResponse, Status>>;

    fn campaign(service: &Arc<ElectionService>, lease: i64, value: &'static str) -> Campaigning {
        let service = service.clone();
        tokio::spawn(async move {
            let request = election::CampaignRequest { name: "n".into(), lease, value: value.into() };
            service.campaign(Request::new(request)).await.map(Response::into_inner)
        })
    }

    async fn elected(campaigning: Campaigning) -> election::LeaderKey {
        let answer = tokio::time::timeout(SOON, campaigning).await.expect("in time").unwrap().unwrap();
        answer.leader.unwrap()
    }

    async fn resign(service: &ElectionService, leader: &election::LeaderKey) {
        service.resign(Request::new(election::ResignRequest { leader: Some(leader.clone()) })).await.unwrap();
    }

    fn name() -> Request<election::LeaderRequest> {
        Request::new(election::LeaderRequest { name: "n".into() })
    }

    fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
        let refused = answer.unwrap_err();
        assert_eq!(refused.code(), Code::Unknown);
        refused.message().to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_oldest_candidate_leads_and_the_next_follows() {
        let (member, service) = service().await;
        assert_eq!(refusal(service.leader(name()).await), "election: no leader");
        let lease = member.lease(60).await;
        let first = elected(campaign(&service, lease, "a")).await;
        assert_eq!((&*first.name, &first.key, first.lease), (&b"n"[..], &Bytes::from(format!("n/{lease:x}")), lease));
        let second = campaign(&service, 0, "b");
        member.settled("n", 2).await;
        let leader = service.leader(name()).await.unwrap().into_inner();
        assert_eq!(leader.kv.unwrap().value, "a");
        resign(&service, &first).await;
        let second = elected(second).await;
        assert!(second.lease != 0 && second.rev > first.rev);
        // Resigning what is over is no error, and changes nothing.
        resign(&service, &first).await;
        assert_eq!(service.leader(name()).await.unwrap().into_inner().kv.unwrap().value, "b");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_the_leader_proclaims() {
        let (member, service) = service().await;
        let proclaim = |leader: Option<&election::LeaderKey>| {
            let request = election::ProclaimRequest { leader: leader.cloned(), value: "new".into() };
            service.proclaim(Request::new(request))
        };
        assert_eq!(refusal(proclaim(None).await), "\"leader\" field must be provided");
        let resigning = service.resign(Request::new(election::ResignRequest { leader: None })).await;
        assert_eq!(refusal(resigning), "\"leader\" field must be provided");
        assert_eq!(refusal(proclaim(Some(&Default::default())).await), "etcdserver: key is not provided");
        let leader = elected(campaign(&service, member.lease(60).await, "old")).await;
        let header = proclaim(Some(&leader)).await.unwrap().into_inner().header.unwrap();
        let kv = service.leader(name()).await.unwrap().into_inner().kv.unwrap();
        assert_eq!((&*kv.value, kv.create_revision, kv.mod_revision), (&b"new"[..], leader.rev, header.revision));
        resign(&service, &leader).await;
        assert_eq!(refusal(proclaim(Some(&leader)).await), "election: not leader");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_that_campaigns_again_changes_its_value() {
        let (member, service) = service().await;
        let lease = member.lease(60).await;
        let first = elected(campaign(&service, lease, "a")).await;
        assert_eq!(elected(campaign(&service, lease, "b")).await, first);
        let leader = service.leader(name()).await.unwrap().into_inner();
        assert_eq!(leader.kv.unwrap().value, "b");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_elected_without_a_lease() {
        let (member, service) = service().await;
        assert_eq!(refusal(campaign(&service, 4711, "x").await.unwrap()), "etcdserver: requested lease not found");
        let first = elected(campaign(&service, member.lease(60).await, "a")).await;
        let lease = member.lease(60).await;
        let second = campaign(&service, lease, "b");
        member.settled("n", 2).await;
        member.propose(Command::LeaseRevoke(pb::LeaseRevokeRequest { id: lease })).await;
        let second = tokio::time::timeout(SOON, second).await.expect("in time").unwrap();
        assert_eq!(refusal(second), "election: not leader");
        assert_eq!(member.keys("n").await, [first.key]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_observer_sees_every_leader_and_value_in_order() {
        let (member, service) = service().await;
        let mut leaders = service.observe(name()).await.unwrap().into_inner();
        let observed = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(leader) = leaders.next().await {
                let leader = leader.unwrap();
                let (header, kv) = (leader.header.unwrap(), leader.kv.unwrap());
                assert!(header.revision >= kv.mod_revision && header.member_id != 0);
                let last = kv.value == "d";
                seen.push((kv.value, kv.mod_revision));
                if last {
                    break;
                }
            }
            seen
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let first = elected(campaign(&service, member.lease(60).await, "a")).await;
        let value = Bytes::from("b");
        let proclaim = election::ProclaimRequest { leader: Some(first.clone()), value };
        service.proclaim(Request::new(proclaim)).await.unwrap();
        let second = campaign(&service, member.lease(60).await, "c");
        member.settled("n", 2).await;
        resign(&service, &first).await;
        let second = elected(second).await;
        let proclaim = election::ProclaimRequest { leader: Some(second), value: "d".into() };
        service.proclaim(Request::new(proclaim)).await.unwrap();
        let seen = tokio::time::timeout(SOON, observed).await.expect("in time").unwrap();
        assert!(seen.is_sorted_by_key(|(_, revision)| *revision), "{seen:?}");
        // A value may be passed over only where leaders change.
        let values: Vec<_> = seen.iter().map(|(value, _)| &value[..]).collect();
        assert!(values == [b"a", b"b", b"c", b"d"] || values == [b"a", b"b", b"d"], "{values:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_observer_is_told_when_the_member_stops() {
        let (member, service) = service().await;
        let mut leaders = service.observe(name()).await.unwrap().into_inner();
        elected(campaign(&service, 0, "a")).await;
        assert_eq!(leaders.next().await.unwrap().unwrap().kv.unwrap().value, "a");
        member.services.shutdown.cancel();
        assert_eq!(leaders.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(leaders.next().await.is_none());
    }
}
