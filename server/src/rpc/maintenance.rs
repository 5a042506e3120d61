//! Maintenance: how the member stands, alarms, hashes, snapshots.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{DowngradeInfoSet, proposal::Command};
use quorate_store::Response as Applied;
use tonic::{Request, Response, Status};

use super::error::{failure, status};
use super::{Services, snapshot};
use crate::config::ETCD_VERSION;
use crate::identity::Identity;
use crate::keepers::Version;
use crate::node::{Consistency, RequestError};
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;

pub(super) struct MaintenanceService(pub(super) Services);

/// As Go's protobuf prints it, which is what clients are used to see in `errors`: zeros left out, a number for what has
/// no name.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    let mut fields = Vec::new();
    if alarm.member_id != 0 {
        fields.push(format!("memberID:{}", alarm.member_id));
    }
    match pb::AlarmType::try_from(alarm.alarm) {
        Ok(pb::AlarmType::None) => {}
        Ok(kind) => fields.push(format!("alarm:{}", kind.as_str_name())),
        Err(_) => fields.push(format!("alarm:{}", alarm.alarm)),
    }
    fields.join(" ")
}

fn downgrade_info(target: Option<String>) -> pb::DowngradeInfo {
    pb::DowngradeInfo { enabled: target.is_some(), target_version: target.unwrap_or_default() }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let node = &self.0.node;
        let mut response = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                node.read_view(Consistency::Linearizable).await.map_err(status)?;
                let mut alarms = node.reader().alarms(pb::AlarmType::None);
                // By number: a kind without a name is a kind, too, and not all of them.
                alarms.retain(|raised| [0, raised.alarm].contains(&request.alarm));
                pb::AlarmResponse { header: None, alarms }
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
        let header = node.header(reader.revision());
        let (bytes, raft_term) = (reader.logical_bytes(), header.raft_term);
        Ok(Response::new(pb::StatusResponse {
            header: Some(header),
            version: ETCD_VERSION.into(),
            db_size: bytes,
            leader: raft.leader.unwrap_or(0),
            // Apply may be ahead of what Raft has told of itself; what is applied is committed.
            raft_index: raft.committed_index.max(raft.applied_index),
            raft_term,
            raft_applied_index: raft.applied_index,
            errors,
            db_size_in_use: bytes,
            is_learner: raft.is_learner,
            // Formats of the cluster's version are all there are.
            storage_version: reader.cluster_version(),
            db_size_quota: self.0.options.quota_bytes,
            downgrade_info: Some(downgrade_info(reader.downgrade())),
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
        let turn = snapshot::turn(&self.0.shutdown).await?;
        let view = self.0.node.read_view(Consistency::Serializable).await.map_err(status)?;
        Ok(Response::new(Box::pin(snapshot::stream(view, turn, self.0.shutdown.clone()))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let own = self.0.node.identity().member_id;
        if !self.0.node.status().is_leader {
            return Err(status(RequestError::NotLeader));
        }
        let target = request.into_inner().target_id;
        let corrupt = self.0.node.reader().alarms(pb::AlarmType::Corrupt);
        let members = self.0.node.reader().members();
        // One whose data are wrong would hand it back.
        if corrupt.iter().any(|alarm| alarm.member_id == target)
            || !members.iter().any(|member| member.id == target && !member.is_learner)
        {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        let patience = self.0.node.settings().election_timeout;
        if target != own {
            match tokio::time::timeout(patience, self.0.node.raft().transfer_leader(target)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(status(RequestError::Stopped)),
                Err(_) => {
                    return Err(Status::unavailable("etcdserver: request timed out, leader transfer took too long"));
                }
            }
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let request = request.into_inner();
        let version = match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => self.validate_downgrade(&request.version).await?.0,
            Ok(DowngradeAction::Enable) => self.enable_downgrade(&request.version).await?,
            Ok(DowngradeAction::Cancel) => self.cancel_downgrade().await?,
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        let header = Some(self.0.node.header(self.0.node.reader().revision()));
        Ok(Response::new(pb::DowngradeResponse { header, version: version.short() }))
    }
}

/// Downgrades, each answered with the version of the cluster. What follows from one is up to the keeper of the version.
impl MaintenanceService {
    fn cluster_version(&self) -> Result<Version, Status> {
        let version = Version::parse(&self.0.node.reader().cluster_version());
        version.ok_or_else(|| Status::failed_precondition("etcdserver: cluster version not found during downgrade"))
    }

    /// The version of the cluster, and the one that may be gone back to.
    async fn validate_downgrade(&self, target: &str) -> Result<(Version, Version), Status> {
        let target = downgrade_target(target)?;
        self.cluster_version()?;
        self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        let cluster = self.cluster_version()?;
        check_downgrade(target, cluster, self.0.node.reader().downgrade().as_deref())?;
        Ok((cluster, target))
    }

    async fn enable_downgrade(&self, target: &str) -> Result<Version, Status> {
        let (_, target) = self.validate_downgrade(target).await?;
        tracing::warn!(
            %target,
            "a downgrade was enabled: the cluster goes back to this version, and no etcd of it can read a member of Quorate"
        );
        self.set_downgrade(DowngradeInfoSet { enabled: true, version: target.to_string() }).await?;
        self.cluster_version()
    }

    /// Without a downgrade under way etcd answers as if it had ended one.
    async fn cancel_downgrade(&self) -> Result<Version, Status> {
        self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        if self.0.node.reader().downgrade().is_some() {
            self.set_downgrade(DowngradeInfoSet { enabled: false, version: String::new() }).await?;
        }
        self.cluster_version()
    }

    async fn set_downgrade(&self, set: DowngradeInfoSet) -> Result<(), Status> {
        let command = Command::DowngradeInfoSet(set);
        self.0.node.propose(&Identity::default(), command).await.map(|_| ()).map_err(status)
    }
}

/// A version, which may come without its patch number.
fn downgrade_target(version: &str) -> Result<Version, Status> {
    Version::parse(version)
        .or_else(|| Version::parse(&format!("{version}.0")))
        .ok_or_else(|| Status::invalid_argument("etcdserver: wrong downgrade target version format"))
}

/// One minor version below the cluster's, and nothing else; one at a time (etcd's rules, in its order).
fn check_downgrade(target: Version, cluster: Version, under_way: Option<&str>) -> Result<(), Status> {
    if target != cluster.before() {
        return Err(Status::invalid_argument("etcdserver: invalid downgrade target version"));
    }
    match under_way {
        Some(_) => Err(Status::failed_precondition("etcdserver: cluster has a downgrade job in progress")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use pb::maintenance_server::Maintenance;
    use sha2::Digest;

    use super::super::concurrency::tests::Alone;
    use super::*;

    #[test]
    fn alarms_read_as_go_prints_them() {
        let text = |member_id, alarm| alarm_text(&pb::AlarmMember { member_id, alarm });
        assert_eq!(text(17, 1), "memberID:17 alarm:NOSPACE");
        assert_eq!(text(0, 2), "alarm:CORRUPT");
        assert_eq!(text(17, 9), "memberID:17 alarm:9");
    }

    #[test]
    fn targets_may_come_without_a_patch_number() {
        for good in ["3.6.0", "3.6", "3.6.9", "3.6.0-rc.1"] {
            assert_eq!(downgrade_target(good).unwrap().short(), "3.6", "{good}");
        }
        for bad in ["", "3", "3.6.0.0", "3.6.", "a.b.c", "v3.6.0"] {
            let refused = downgrade_target(bad).unwrap_err();
            assert_eq!(refused.message(), "etcdserver: wrong downgrade target version format", "{bad}");
        }
    }

    #[test]
    fn the_target_is_one_below_the_cluster_and_there_is_no_other_one() {
        let version = |text: &str| downgrade_target(text).unwrap();
        let check = |target, under_way| check_downgrade(version(target), version("3.7"), under_way);
        check("3.6", None).unwrap();
        for target in ["3.7", "3.5", "2.6"] {
            let refused = check(target, Some("3.6.0")).unwrap_err();
            assert_eq!(refused.message(), "etcdserver: invalid downgrade target version");
        }
        let refused = check("3.6", Some("3.6.0")).unwrap_err();
        assert_eq!(refused.message(), "etcdserver: cluster has a downgrade job in progress");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_downgrade_is_enabled_shown_and_cancelled() {
        let member = Alone::start().await;
        let service = MaintenanceService(member.services.clone());
        let ask = |action: DowngradeAction| {
            service.downgrade(Request::new(pb::DowngradeRequest { action: action.into(), version: "3.6".into() }))
        };
        let undecided = ask(DowngradeAction::Validate).await.unwrap_err();
        assert_eq!(undecided.message(), "etcdserver: cluster version not found during downgrade");
        let version = quorate_proto::log::ClusterVersionSet { version: "3.7.0".into() };
        member.propose(Command::ClusterVersionSet(version)).await;
        let shown = || async {
            let status = service.status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner();
            assert_eq!(status.storage_version, "3.7.0");
            let info = status.downgrade_info.unwrap();
            (info.enabled, info.target_version)
        };
        for action in [DowngradeAction::Cancel, DowngradeAction::Validate] {
            assert_eq!(ask(action).await.unwrap().into_inner().version, "3.7");
            assert_eq!(shown().await, (false, String::new()));
        }
        assert_eq!(ask(DowngradeAction::Enable).await.unwrap().into_inner().version, "3.7");
        assert_eq!(shown().await, (true, "3.6.0".to_owned()));
        for action in [DowngradeAction::Enable, DowngradeAction::Validate] {
            let refused = ask(action).await.unwrap_err();
            assert_eq!(refused.message(), "etcdserver: cluster has a downgrade job in progress");
        }
        ask(DowngradeAction::Cancel).await.unwrap();
        assert_eq!(shown().await, (false, String::new()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn alarms_come_and_go() {
        let member = Alone::start().await;
        let service = MaintenanceService(member.services.clone());
        let ask = |action: AlarmAction, alarm: i32| {
            let request = pb::AlarmRequest { action: action.into(), member_id: 5, alarm };
            let service = &service;
            async move { service.alarm(Request::new(request)).await.unwrap().into_inner().alarms }
        };
        let raised = vec![pb::AlarmMember { member_id: 5, alarm: 1 }];
        assert_eq!(ask(AlarmAction::Activate, 1).await, raised);
        assert_eq!(ask(AlarmAction::Get, 0).await, raised);
        assert_eq!(ask(AlarmAction::Get, 1).await, raised);
        assert_eq!(ask(AlarmAction::Get, 2).await, []);
        assert_eq!(ask(AlarmAction::Get, 7).await, []);
        let status = service.status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner();
        assert_eq!(status.errors, ["memberID:5 alarm:NOSPACE"]);
        assert_eq!(ask(AlarmAction::Deactivate, 1).await, raised);
        assert_eq!(ask(AlarmAction::Get, 0).await, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_alone_tells_how_it_stands() {
        let member = Alone::start().await;
        let service = MaintenanceService(member.services.clone());
        let status = service.status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner();
        let own = member.services.node.identity().member_id;
        assert_eq!((status.leader, &*status.version, status.db_size_quota), (own, "3.7.3", 2 << 30));
        assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
        assert_eq!(status.raft_term, status.header.unwrap().raft_term);
        assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
        let lead = |target_id| service.move_leader(Request::new(pb::MoveLeaderRequest { target_id }));
        assert_eq!(lead(own).await.unwrap().into_inner(), pb::MoveLeaderResponse { header: None });
        assert_eq!(lead(own + 1).await.unwrap_err().message(), "etcdserver: bad leader transferee");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_has_the_size_that_etcds_clients_check() {
        let member = Alone::start().await;
        let service = MaintenanceService(member.services.clone());
        let stream = service.snapshot(Request::new(pb::SnapshotRequest {})).await.unwrap().into_inner();
        let blobs: Vec<_> = stream.map(|message| message.unwrap().blob).collect().await;
        let file = blobs.concat();
        assert_eq!(file.len() % 512, 32);
        let (content, checksum) = file.split_at(file.len() - 32);
        assert_eq!(sha2::Sha256::digest(content)[..], *checksum);
    }
}
