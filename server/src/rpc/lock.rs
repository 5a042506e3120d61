//! Lock (`v3lockpb`): a key under `<name>/` that lives as long as its lease; the oldest one holds the lock.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_proto::v3lockpb;
use quorate_store::Response as Applied;
use tonic::{Request, Response, Status};

use super::Services;
use super::error::unknown;
use crate::identity::Identity;
use crate::node::RequestError;

pub(super) struct LockService(pub(super) Services);

#[tonic::async_trait]
impl v3lockpb::lock_server::Lock for LockService {
    async fn lock(&self, request: Request<v3lockpb::LockRequest>) -> Result<Response<v3lockpb::LockResponse>, Status> {
        let v3lockpb::LockRequest { name, lease } = request.into_inner();
        let lease = self.0.session(lease).await?;
        let mut candidate = self.0.enter(&name, lease, Bytes::new()).await?;
        let Some(header) = candidate.wait().await? else {
            return Err(Status::unknown("mutex: session is expired"));
        };
        Ok(Response::new(v3lockpb::LockResponse { header: Some(header), key: candidate.stay() }))
    }

    async fn unlock(
        &self,
        request: Request<v3lockpb::UnlockRequest>,
    ) -> Result<Response<v3lockpb::UnlockResponse>, Status> {
        let key = request.into_inner().key;
        let delete = pb::DeleteRangeRequest { key, ..Default::default() };
        quorate_store::validate_delete(&delete).map_err(unknown)?;
        match self.0.node.propose(&Identity::default(), Command::DeleteRange(delete)).await.map_err(unknown)? {
            Applied::DeleteRange(mut response) => {
                self.0.node.fill(&mut response.header);
                Ok(Response::new(v3lockpb::UnlockResponse { header: response.header }))
            }
            _ => Err(unknown(RequestError::Stopped)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tonic::Code;
    use v3lockpb::lock_server::Lock;

    use super::super::concurrency::tests::Alone;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    /// Long enough for something that must not happen to happen.
    const A_WHILE: Duration = Duration::from_millis(100);

    async fn service() -> (Alone, Arc<LockService>) {
        let member = Alone::start().await;
        let service = Arc::new(LockService(member.services.clone()));
        (member, service)
    }

    type Locking = JoinHandle<Result<v3lockpb::LockResponse, Status>>;

    fn lock(service: &Arc<LockService>, lease: i64) -> Locking {
        let service = service.clone();
        tokio::spawn(async move {
            let request = v3lockpb::LockRequest { name: "n".into(), lease };
            service.lock(Request::new(request)).await.map(Response::into_inner)
        })
    }

    async fn locked(locking: Locking) -> v3lockpb::LockResponse {
        tokio::time::timeout(SOON, locking).await.expect("in time").unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiters_get_the_lock_in_the_order_in_which_they_came() {
        let (member, service) = service().await;
        let mut waiting = Vec::new();
        for nth in 1..=5 {
            waiting.push(lock(&service, member.lease(60).await));
            member.settled("n", nth).await;
        }
        for (nth, locking) in waiting.into_iter().enumerate() {
            let held = locked(locking).await;
            tokio::time::sleep(A_WHILE).await;
            assert_eq!(member.keys("n").await.len(), 5 - nth, "nobody else has gone on");
            assert!(held.header.unwrap().revision > 1);
            service.unlock(Request::new(v3lockpb::UnlockRequest { key: held.key })).await.unwrap();
        }
        member.settled("n", 0).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_lease_asks_twice_and_holds_once() {
        let (member, service) = service().await;
        let lease = member.lease(60).await;
        let (once, twice) = (locked(lock(&service, lease)).await, locked(lock(&service, lease)).await);
        assert_eq!(once, twice);
        assert_eq!(once.key, format!("n/{lease:x}"));
        assert_eq!(member.keys("n").await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_goes_leaves_no_key_behind() {
        let (member, service) = service().await;
        let held = locked(lock(&service, member.lease(60).await)).await;
        for patience in [0, 1, 2, 5, 20, 100] {
            let gone = lock(&service, member.lease(60).await);
            tokio::time::sleep(Duration::from_millis(patience)).await;
            gone.abort();
            let _ = gone.await;
        }
        let last = lock(&service, member.lease(60).await);
        member.settled("n", 2).await;
        service.unlock(Request::new(v3lockpb::UnlockRequest { key: held.key })).await.unwrap();
        let last = locked(last).await;
        assert_eq!(member.keys("n").await, [last.key]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn asking_again_and_going_does_not_lose_the_lock() {
        let (member, service) = service().await;
        let lease = member.lease(60).await;
        let held = locked(lock(&service, lease)).await;
        for patience in [0, 1, 2, 5] {
            let again = lock(&service, lease);
            tokio::time::sleep(Duration::from_millis(patience)).await;
            again.abort();
        }
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(member.keys("n").await, [held.key]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_loses_its_lease_while_waiting_is_told_at_once() {
        let (member, service) = service().await;
        let held = locked(lock(&service, member.lease(60).await)).await;
        let lease = member.lease(60).await;
        let waiting = lock(&service, lease);
        member.settled("n", 2).await;
        member.propose(Command::LeaseRevoke(pb::LeaseRevokeRequest { id: lease })).await;
        let refused = tokio::time::timeout(SOON, waiting).await.expect("in time").unwrap().unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "mutex: session is expired"));
        assert_eq!(member.keys("n").await, [held.key]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_whose_lease_ends_gives_way() {
        let (member, service) = service().await;
        let short = member.lease(1).await;
        locked(lock(&service, short)).await;
        let next = locked(lock(&service, 0)).await;
        assert_eq!(member.keys("n").await, [next.key]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn compaction_while_waiting_loses_nobody() {
        let (member, service) = service().await;
        let held = locked(lock(&service, member.lease(60).await)).await;
        let waiting = lock(&service, member.lease(60).await);
        member.settled("n", 2).await;
        for n in 0..20 {
            let put = pb::PutRequest { key: "other".into(), value: format!("{n}").into(), ..Default::default() };
            member.propose(Command::Put(put)).await;
        }
        let revision = member.services.node.reader().revision();
        member.propose(Command::Compaction(pb::CompactionRequest { revision, physical: false })).await;
        service.unlock(Request::new(v3lockpb::UnlockRequest { key: held.key })).await.unwrap();
        locked(waiting).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_have_etcds_text_and_no_code() {
        let (member, service) = service().await;
        let refused = lock(&service, 4711).await.unwrap().unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "etcdserver: requested lease not found"));
        let unlock = v3lockpb::UnlockRequest::default();
        let refused = service.unlock(Request::new(unlock)).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "etcdserver: key is not provided"));

        locked(lock(&service, member.lease(60).await)).await;
        let waiting = lock(&service, member.lease(60).await);
        member.settled("n", 2).await;
        member.services.shutdown.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}
