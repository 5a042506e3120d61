//! What the keeper of leases needs of its member, and nothing else: so that leaders can be lost and proposals delayed at
//! will in tests.

use std::future::Future;

use quorate_proto::log::proposal::Command;

use crate::node::{Consistency, Node, RequestError};
use crate::raft::RaftStatus;

/// Who this member is to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub term: u64,
    pub leads: bool,
}

pub trait Seat: Clone + Send + Sync + 'static {
    fn standing(&self) -> Standing;

    /// Returns what the standing is, as soon as it is not `since`; `None` when the member has stopped.
    fn standing_changed(&self, since: Standing) -> impl Future<Output = Option<Standing>> + Send;

    /// A quorum says that this member leads.
    fn confirm(&self) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// A quorum says that this member leads, and everything that was committed before is applied.
    fn prove(&self) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Into the log, in the order of the calls; returns when it is applied. See [`RequestError`] for what is known then.
    fn propose(&self, command: Command) -> impl Future<Output = Result<(), RequestError>> + Send;
}

impl From<RaftStatus> for Standing {
    fn from(status: RaftStatus) -> Self {
        Self { term: status.term, leads: status.is_leader }
    }
}

impl Seat for Node {
    fn standing(&self) -> Standing {
        self.status().into()
    }

    async fn standing_changed(&self, since: Standing) -> Option<Standing> {
        let mut status = self.status();
        while Standing::from(status) == since {
            status = self.raft().status_changed(status).await?;
        }
        Some(status.into())
    }

    async fn confirm(&self) -> Result<(), RequestError> {
        self.confirm_leadership().await
    }

    async fn prove(&self) -> Result<(), RequestError> {
        self.read_view(Consistency::Linearizable).await.map(|_| ())
    }

    async fn propose(&self, command: Command) -> Result<(), RequestError> {
        self.propose_system(command).await.map(|_| ())
    }
}
