//! Maintenance: how the member stands, alarms, hashes, snapshots.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::Response as Applied;
use tonic::{Request, Response, Status};

use super::cluster::not_capable;
use super::error::{failure, status};
use super::{ETCD_STORAGE_VERSION, ETCD_VERSION, Services, snapshot};
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;

/// What `dbSizeQuota` shows where the flag was not given.
const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

pub(super) struct MaintenanceService(pub(super) Services);

/// As Go's protobuf prints it, which is what clients are used to see in `errors`.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    format!("memberID:{} alarm:{}", alarm.member_id, alarm.alarm().as_str_name())
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let node = &self.0.node;
        let mut response = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                node.read_view(Consistency::Linearizable).await.map_err(status)?;
                pb::AlarmResponse { header: None, alarms: node.reader().alarms(request.alarm()) }
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
                match node.propose(&Identity::default(), Command::Alarm(request)).await.map_err(status)? {
                    Applied::Alarm(response) => response,
                    _ => return Err(status(RequestError::Stopped)),
                }
            }
            Err(_) => pb::AlarmResponse::default(),
        };
        node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn status(&self, _request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (node, raft) = (&self.0.node, self.0.node.status());
        let reader = node.reader();
        let mut errors = Vec::new();
        if raft.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        errors.extend(reader.alarms(pb::AlarmType::None).iter().map(alarm_text));
        let quota = self.0.options.quota_bytes_flag;
        Ok(Response::new(pb::StatusResponse {
            header: Some(node.header(reader.revision())),
            version: ETCD_VERSION.into(),
            db_size: reader.logical_bytes(),
            leader: raft.leader.unwrap_or(0),
            raft_index: raft.committed_index,
            raft_term: raft.term,
            raft_applied_index: raft.applied_index,
            errors,
            db_size_in_use: reader.logical_bytes(),
            is_learner: raft.is_learner,
            storage_version: ETCD_STORAGE_VERSION.into(),
            db_size_quota: if quota == 0 { QUOTA_BYTES_DEFAULT } else { quota },
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    /// There is nothing to do: compaction gives space back as it goes.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        tracing::info!("asked to defragment: there is nothing to do, compaction gives space back by itself");
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, _request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let view = self.0.node.read_view(Consistency::Serializable).await.map_err(status)?;
        let header = Some(self.0.node.header(view.revision()));
        let hash = tokio::task::spawn_blocking(move || view.hash()).await;
        let hash = hash.map_err(|_| status(RequestError::Stopped))?.map_err(status)?;
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let view = self.0.node.read_view(Consistency::Serializable).await.map_err(status)?;
        let header = Some(self.0.node.header(view.revision()));
        let hash = tokio::task::spawn_blocking(move || view.hash_kv(revision)).await;
        let hash = hash.map_err(|_| status(RequestError::Stopped))?.map_err(failure)?;
        Ok(Response::new(pb::HashKvResponse {
            header,
            hash: hash.hash,
            compact_revision: hash.compacted,
            hash_revision: hash.revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _request: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let view = self.0.node.read_view(Consistency::Serializable).await.map_err(status)?;
        Ok(Response::new(Box::pin(snapshot::stream(view))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let own = self.0.node.identity().member_id;
        if !self.0.node.status().is_leader {
            return Err(status(RequestError::NotLeader));
        }
        if request.into_inner().target_id != own {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let request = request.into_inner();
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                check_downgrade_target(&request.version)?;
                // There is no older release whose format this one could write.
                Err(not_capable())
            }
            Ok(DowngradeAction::Cancel) => {
                let header = Some(self.0.node.header(self.0.node.reader().revision()));
                let version = self.0.node.reader().cluster_version();
                Ok(Response::new(pb::DowngradeResponse { header, version }))
            }
            Err(_) => Err(Status::unknown("etcdserver: unknown method")),
        }
    }
}

/// One minor version below ours, and nothing else (etcd's rule).
fn check_downgrade_target(version: &str) -> Result<(), Status> {
    let mut numbers = version.split('.');
    let parsed = (|| {
        let major = numbers.next()?.parse::<u32>().ok()?;
        let minor = numbers.next()?.parse::<u32>().ok()?;
        numbers.all(|number| number.parse::<u32>().is_ok()).then_some((major, minor))
    })();
    match parsed {
        None => Err(Status::invalid_argument("etcdserver: wrong downgrade target version format")),
        Some((3, 6)) => Ok(()),
        Some(_) => Err(Status::invalid_argument("etcdserver: invalid downgrade target version")),
    }
}
