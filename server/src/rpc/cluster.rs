//! Cluster: who the members are, and who comes and goes.
//!
//! etcd's order: URLs that are none (only where a member is added), then too few started members (its strict check, on
//! by default), then what the members themselves say.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_proto::etcdserverpb as pb;
use quorate_store::Rejection;
use tonic::{Request, Response, Status};

use super::Services;
use super::error::status;
use crate::config::Url;
use crate::node::{Consistency, RequestError, member_id};
use crate::raft::{ChangeFailure, MemberChange};

pub(super) struct ClusterService(pub(super) Services);

/// etcd's answer of a server that cannot do what newer ones can.
pub(super) fn not_capable() -> Status {
    Status::failed_precondition("etcdserver: not capable")
}

impl ClusterService {
    fn is_strict(&self) -> bool {
        self.0.options.strict_reconfig_check
    }

    /// Answers about members carry no revision (etcd's rule).
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.0.node.header(0))
    }

    /// The members after the change.
    async fn change(&self, change: MemberChange) -> Result<Vec<pb::Member>, Status> {
        tracing::info!(?change, "changing the members");
        self.0.node.raft().change_members(change).await.map_err(change_failure)?;
        Ok(self.0.node.reader().members())
    }

    /// By id, and not older than the request.
    async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        Ok(self.0.node.reader().members())
    }
}

fn change_failure(failure: ChangeFailure) -> Status {
    match failure {
        ChangeFailure::NotReady => {
            Status::failed_precondition("etcdserver: can only promote a learner member which is in sync with leader")
        }
        ChangeFailure::NotLeader { .. } => status(RequestError::NoLeader),
        ChangeFailure::Unknown => status(RequestError::TimedOut),
        ChangeFailure::Refused(reason) => Status::unknown(format!("etcdserver: re-configuration refused: {reason}")),
    }
}

/// As etcd writes them.
fn parse_urls(urls: &[String]) -> Result<Vec<String>, Status> {
    let parsed: Result<Vec<_>, _> = urls.iter().map(|url| Url::parse(url).map(|url| url.as_str().to_owned())).collect();
    match parsed {
        Ok(urls) if !urls.is_empty() => Ok(urls),
        Ok(_) | Err(_) => Err(Status::invalid_argument("etcdserver: given member URLs are invalid")),
    }
}

fn known(members: &[pb::Member], id: u64) -> Result<&pb::Member, Status> {
    members.iter().find(|member| member.id == id).ok_or_else(|| status(Rejection::MemberNotFound))
}

/// No other member than `but` may have any of `urls`.
fn check_urls_free(members: &[pb::Member], urls: &[String], but: Option<u64>) -> Result<(), Status> {
    let others = members.iter().filter(|member| Some(member.id) != but);
    if others.flat_map(|member| &member.peer_urls).any(|taken| urls.contains(taken)) {
        return Err(Status::failed_precondition("etcdserver: Peer URLs already exists"));
    }
    Ok(())
}

/// Whether the voters that have started would be a quorum of `voters` of them. A member has started once it has a name.
fn check_started(started: usize, voters: usize) -> Result<(), Status> {
    if started < voters / 2 + 1 {
        // etcd's table has a code for it; its servers have always sent this one.
        return Err(Status::unknown("etcdserver: re-configuration failed due to not enough started members"));
    }
    Ok(())
}

/// Voters, and how many of them have started; without `but`.
fn voters(members: &[pb::Member], but: Option<u64>) -> (usize, usize) {
    let voters = || members.iter().filter(|member| !member.is_learner && Some(member.id) != but);
    (voters().filter(|member| !member.name.is_empty()).count(), voters().count())
}

/// Voters that are there, among all of them. etcd wants them to have been there for five seconds; here now is enough.
fn connected(members: &[pb::Member], is_connected: impl Fn(u64) -> bool) -> (usize, usize) {
    let voters = || members.iter().filter(|member| !member.is_learner);
    (voters().filter(|member| is_connected(member.id)).count(), voters().count())
}

fn unhealthy() -> Status {
    Status::unavailable("etcdserver: unhealthy cluster")
}

/// `strict`: `--strict-reconfig-check`; without it only what makes no sense at all is refused.
fn check_add(
    members: &[pb::Member],
    urls: &[String],
    is_learner: bool,
    strict: bool,
    is_connected: impl Fn(u64) -> bool,
) -> Result<(), Status> {
    let (started, all) = voters(members, None);
    // A cluster of one may always grow: it may have been restored from a snapshot.
    if strict && !is_learner && (started, all) != (1, 1) {
        check_started(started, all + 1)?;
    }
    let (there, all) = connected(members, is_connected);
    // The new one is taken for one that is not there.
    if strict && all > 1 && there < all.div_ceil(2) + 1 {
        return Err(unhealthy());
    }
    check_urls_free(members, urls, None)?;
    if is_learner && members.iter().any(|member| member.is_learner) {
        return Err(Status::failed_precondition("etcdserver: too many learner members in cluster"));
    }
    Ok(())
}

fn check_remove(
    members: &[pb::Member],
    id: u64,
    strict: bool,
    is_connected: impl Fn(u64) -> bool,
) -> Result<(), Status> {
    if strict && !members.iter().any(|member| member.id == id && member.is_learner) {
        let (started, all) = voters(members, Some(id));
        check_started(started, all)?;
        known(members, id)?;
        // One that is gone may always be removed: nobody counts on it.
        let (there, all) = connected(members, &is_connected);
        if is_connected(id) && there < 2 + all.saturating_sub(1) / 2 {
            return Err(unhealthy());
        }
    }
    known(members, id).map(|_| ())
}

fn check_promote(members: &[pb::Member], id: u64, strict: bool) -> Result<(), Status> {
    // The one to be promoted counts as a voter that has started.
    let (started, all) = voters(members, None);
    if strict {
        check_started(started + 1, all + 1)?;
    }
    if !known(members, id)?.is_learner {
        return Err(Status::failed_precondition("etcdserver: can only promote a learner member"));
    }
    Ok(())
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let linearizable = request.into_inner().linearizable;
        let members = if linearizable { self.members().await? } else { self.0.node.reader().members() };
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let urls = parse_urls(&request.peer_urls)?;
        check_add(&self.members().await?, &urls, request.is_learner, self.is_strict(), |id| {
            self.0.node.raft().is_connected(id)
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = member_id(&urls, "", Some(i64::try_from(now).unwrap_or(0)));
        let change = MemberChange::Add { id, peer_urls: urls, is_learner: request.is_learner };
        let members = self.change(change).await?;
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        check_remove(&self.members().await?, id, self.is_strict(), |id| self.0.node.raft().is_connected(id))?;
        let mut members = self.change(MemberChange::Remove { id }).await?;
        // A member that removes itself may not see it applied.
        members.retain(|member| member.id != id);
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    /// etcd takes any text for a URL here.
    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let members = self.members().await?;
        known(&members, request.id)?;
        check_urls_free(&members, &request.peer_urls, Some(request.id))?;
        let change = MemberChange::Update { id: request.id, peer_urls: request.peer_urls };
        let members = self.change(change).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        check_promote(&self.members().await?, id, self.is_strict())?;
        let members = self.change(MemberChange::Promote { id }).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> pb::Member {
        let peer_urls = vec![format!("http://m{id}:2380")];
        pb::Member { id, name: name.into(), peer_urls, is_learner, ..Default::default() }
    }

    fn text<T: std::fmt::Debug>(refused: Result<T, Status>) -> String {
        refused.unwrap_err().message().to_owned()
    }

    const ALL: fn(u64) -> bool = |_| true;
    const NOT_STARTED: &str = "etcdserver: re-configuration failed due to not enough started members";
    const NOT_FOUND: &str = "etcdserver: member not found";

    #[test]
    fn urls_are_read_as_etcd_reads_them() {
        for bad in [&[][..], &["localhost:2380".to_owned()], &["http://h:1/path".to_owned()], &["ftp://h:1".to_owned()]]
        {
            assert_eq!(text(parse_urls(bad)), "etcdserver: given member URLs are invalid", "{bad:?}");
        }
        assert_eq!(parse_urls(&[" http://h:1 ".to_owned()]).unwrap(), ["http://h:1"]);
    }

    #[test]
    fn the_only_member_stays_and_may_be_joined() {
        let members = [member(1, "a", false)];
        assert_eq!(text(check_remove(&members, 1, true, ALL)), NOT_STARTED);
        assert_eq!(text(check_remove(&members, 9, true, ALL)), NOT_FOUND);
        check_add(&members, &["http://m2:2380".to_owned()], false, true, ALL).unwrap();
        assert_eq!(
            text(check_add(&members, &members[0].peer_urls, false, true, ALL)),
            "etcdserver: Peer URLs already exists"
        );
    }

    #[test]
    fn started_members_have_to_remain_a_quorum() {
        let members = [member(1, "a", false), member(2, "", false)];
        let url = ["http://m3:2380".to_owned()];
        assert_eq!(text(check_add(&members, &url, false, true, ALL)), NOT_STARTED);
        check_add(&members, &url, true, true, ALL).unwrap();
        check_remove(&members, 2, true, ALL).unwrap();
        assert_eq!(text(check_remove(&members, 1, true, ALL)), NOT_STARTED);
    }

    #[test]
    fn without_the_strict_check_the_operator_decides() {
        let members = [member(1, "a", false), member(2, "", false)];
        let nobody = |_| false;
        check_add(&members, &["http://m3:2380".to_owned()], false, false, nobody).unwrap();
        check_remove(&members, 1, false, nobody).unwrap();
        assert_eq!(text(check_remove(&members, 9, false, nobody)), NOT_FOUND);
        check_promote(&[members[1].clone(), member(3, "", false), member(4, "", true)], 4, false).unwrap();
    }

    #[test]
    fn learners_are_one_and_can_be_promoted() {
        let members = [member(1, "a", false), member(2, "b", true)];
        let url = ["http://m3:2380".to_owned()];
        assert_eq!(text(check_add(&members, &url, true, true, ALL)), "etcdserver: too many learner members in cluster");
        assert_eq!(text(check_promote(&members, 1, true)), "etcdserver: can only promote a learner member");
        assert_eq!(text(check_promote(&members, 9, true)), NOT_FOUND);
        check_promote(&members, 2, true).unwrap();
        check_remove(&members, 2, true, ALL).unwrap();
    }

    #[test]
    fn members_that_are_there_have_to_remain_a_quorum() {
        let members = [member(1, "a", false), member(2, "b", false), member(3, "c", false)];
        let url = ["http://m4:2380".to_owned()];
        let without_third = |id| id != 3;
        for is_learner in [false, true] {
            check_add(&members, &url, is_learner, true, ALL).unwrap();
            let refused = check_add(&members, &url, is_learner, true, without_third);
            assert_eq!(text(refused), "etcdserver: unhealthy cluster");
        }
        check_remove(&members, 3, true, without_third).unwrap();
        assert_eq!(text(check_remove(&members, 2, true, without_third)), "etcdserver: unhealthy cluster");
        check_remove(&members, 2, true, ALL).unwrap();
        check_remove(&members[..2], 2, true, ALL).unwrap();
    }
}
