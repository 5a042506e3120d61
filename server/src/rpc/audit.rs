//! What members ask each other about what they have and what they are, on the peer port.

use std::time::Duration;

use quorate_proto::peer as pb;
use quorate_store::Rejection;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::error::status;
use crate::config::ETCD_VERSION;
use crate::keepers::{CompactionHashes, HASH_PATIENCE, hash_of};
use crate::node::{Consistency, Node};

/// Of the time a hash may take, what this member may take to catch up first.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct AuditService {
    node: Node,
    compactions: CompactionHashes,
    /// One at a time: each reads all keys.
    hashing: tokio::sync::Mutex<()>,
}

impl AuditService {
    pub(super) fn new(node: Node, compactions: CompactionHashes) -> Self {
        Self { node, compactions, hashing: tokio::sync::Mutex::new(()) }
    }

    async fn hash_now(&self, request: pb::HashRequest) -> Result<pb::HashAnswer, Status> {
        let caught_up = self.node.raft().wait_applied(request.applied, Instant::now() + CATCH_UP_PATIENCE).await;
        if caught_up.is_err() {
            return Err(Status::unavailable(format!("behind: entry {} is not applied here", request.applied)));
        }
        let turn = tokio::time::timeout(HASH_PATIENCE, self.hashing.lock()).await;
        let _turn = turn.map_err(|_| Status::unavailable("hashes for others take all the time"))?;
        let view = self.node.read_view(Consistency::Serializable).await.map_err(status)?;
        hash_of(view, request.revision, true).await.map_err(status)
    }
}

#[tonic::async_trait]
impl pb::audit_server::Audit for AuditService {
    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashAnswer>, Status> {
        let request = request.into_inner();
        if request.revision <= 0 {
            return Err(status(Rejection::Compacted));
        }
        let answer = if request.at_compaction {
            let unknown =
                || Status::not_found(format!("no hash of a compaction to {} is remembered", request.revision));
            self.compactions.at(request.revision).ok_or_else(unknown)?
        } else {
            self.hash_now(request).await?
        };
        Ok(Response::new(answer))
    }

    async fn version(&self, _: Request<pb::VersionRequest>) -> Result<Response<pb::VersionAnswer>, Status> {
        Ok(Response::new(pb::VersionAnswer { version: ETCD_VERSION.into() }))
    }
}
