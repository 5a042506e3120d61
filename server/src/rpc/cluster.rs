//! Cluster: who the members are. Changing them comes with clusters of several members; until then a change that etcd
//! would refuse is refused as etcd does it, and any other with `not capable`.

use quorate_proto::etcdserverpb as pb;
use quorate_store::Rejection;
use tonic::{Request, Response, Status};

use super::Services;
use super::error::status;
use crate::config::Url;
use crate::node::Consistency;

pub(super) struct ClusterService(pub(super) Services);

/// etcd's answer of a server that cannot do what newer ones can.
pub(super) fn not_capable() -> Status {
    Status::failed_precondition("etcdserver: not capable")
}

impl ClusterService {
    /// Answers about members carry no revision (etcd's rule).
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.0.node.header(0))
    }

    fn known(&self, id: u64) -> Result<pb::Member, Status> {
        let member = self.0.node.reader().members().into_iter().find(|member| member.id == id);
        member.ok_or_else(|| status(Rejection::MemberNotFound))
    }
}

fn check_urls(urls: &[String]) -> Result<(), Status> {
    if urls.is_empty() || urls.iter().any(|url| Url::parse(url).is_err()) {
        return Err(Status::invalid_argument("etcdserver: given member URLs are invalid"));
    }
    Ok(())
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.node.read_view(Consistency::Linearizable).await.map_err(status)?;
        }
        let members = self.0.node.reader().members();
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        check_urls(&request.peer_urls)?;
        let taken = |url: &String| self.0.node.reader().members().iter().any(|member| member.peer_urls.contains(url));
        if request.peer_urls.iter().any(taken) {
            return Err(Status::failed_precondition("etcdserver: Peer URLs already exists"));
        }
        Err(not_capable())
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.known(request.into_inner().id)?;
        Err(not_capable())
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        check_urls(&request.peer_urls)?;
        self.known(request.id)?;
        Err(not_capable())
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let member = self.known(request.into_inner().id)?;
        if !member.is_learner {
            return Err(Status::failed_precondition("etcdserver: can only promote a learner member"));
        }
        Err(not_capable())
    }
}
