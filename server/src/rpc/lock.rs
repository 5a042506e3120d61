//! Lock (`v3lockpb`): a key under `<name>/` that lives as long as its lease; the oldest one holds the lock.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_proto::v3lockpb;
use quorate_store::Response as Applied;
use tonic::{Request, Response, Status};

use super::Services;
use super::concurrency::Waiting;
use super::error::unknown;
use crate::identity::Identity;
use crate::node::RequestError;

pub(super) struct LockService(pub(super) Services);

#[tonic::async_trait]
impl v3lockpb::lock_server::Lock for LockService {
    async fn lock(
        &self,
        request: Request<v3lockpb::LockRequest>,
    ) -> Result<Response<v3lockpb::LockResponse>, Status> {
        let v3lockpb::LockRequest { name, lease } = request.into_inner();
        let lease = self.0.session(lease).await?;
        let entry = self.0.enter(&name, lease, Bytes::new()).await?;
        // The request may be cancelled at any await: the key must not stay behind as a lock that nobody holds.
        let waiting = Waiting::new(&self.0, &entry);
        self.0.wait_for_older(&entry).await?;
        let own = self.0.own_key(&entry).await?;
        waiting.done();
        Ok(Response::new(v3lockpb::LockResponse { header: own.header, key: entry.key }))
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
