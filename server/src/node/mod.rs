//! The member as the rooms above see it: propose a change, take a view, ask how things stand.
//!
//! ```text
//!   propose ─▶ limits ─▶ queue ─▶ one entry for all that waits ─▶ raft ─▶ apply ─▶ answer
//!   read_view ─▶ (linearizable) one ReadIndex round for all that wait ─▶ one view shared by them
//!             └▶ (serializable) a view, at once
//! ```
//!
//! Nothing here knows gRPC; nothing below knows clients.

mod error;
mod identity;
pub mod limits;
mod propose;
mod read;

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};
use quorate_store::{Reader, Rejection, Response, StoreView};

use crate::identity::Identity;
use crate::raft::{Raft, RaftStatus};
use limits::Urgency;

pub use error::RequestError;
pub use identity::{MemberIdentity, cluster_id, member_id};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Not older than the moment it was asked for: confirmed with a quorum.
    Linearizable,
    /// What this member has.
    Serializable,
}

#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--quota-backend-bytes`, resolved; `None` when it is off.
    pub quota_bytes: Option<u64>,
    /// A request that is not answered by then fails: 5 s and two election time-outs, etcd's rule.
    pub request_timeout: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    identity: MemberIdentity,
    settings: NodeSettings,
    raft: Raft,
    reader: Reader,
    proposals: propose::Proposals,
    reads: read::Rounds<Arc<StoreView>>,
    confirmations: read::Rounds<()>,
}

impl Node {
    /// Starts the loops that gather proposals and reads; they end when the last handle is gone.
    pub fn start(identity: MemberIdentity, settings: NodeSettings, raft: Raft, reader: Reader) -> Self {
        let proposals = propose::Proposals::start(raft.clone());
        let reads = read::views(raft.clone(), reader.clone());
        let confirmations = read::confirmations(raft.clone());
        Self(Arc::new(Inner { identity, settings, raft, reader, proposals, reads, confirmations }))
    }

    pub fn identity(&self) -> &MemberIdentity {
        &self.0.identity
    }

    pub fn settings(&self) -> &NodeSettings {
        &self.0.settings
    }

    /// The state as this member has it; for reads that need not be linearizable.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub fn status(&self) -> RaftStatus {
        self.0.raft.status()
    }

    pub fn is_learner(&self) -> bool {
        self.0.raft.is_learner()
    }

    pub fn raft(&self) -> &Raft {
        &self.0.raft
    }

    /// Proposals that wait for their answer.
    pub fn proposals_pending(&self) -> u64 {
        self.0.proposals.in_flight()
    }

    /// The header of an answer given at `revision`.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        let MemberIdentity { cluster_id, member_id, .. } = self.0.identity;
        pb::ResponseHeader { cluster_id, member_id, revision, raft_term: self.0.raft.term() }
    }

    /// Fills in what a header from apply does not carry.
    pub fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        let revision = if revision == 0 { self.0.reader.revision() } else { revision };
        *header = Some(self.header(revision));
    }

    /// Brings `command` into the log and answers when it is applied. An error other than a rejection leaves open
    /// whether it was, or will be: see [`RequestError`].
    pub async fn propose(&self, identity: &Identity, command: Command) -> Result<Response, RequestError> {
        let proposal = log::Proposal {
            user: identity.user.clone(),
            auth_revision: identity.auth_revision,
            command: Some(command),
        };
        self.check_quota(&proposal).await?;
        let urgency = match &proposal.command {
            // Under overload, what takes work away goes first (etcd's PriorityRequest).
            Some(Command::LeaseRevoke(_)) => Urgency::Urgent,
            _ => Urgency::Ordinary,
        };
        self.send(proposal, self.0.settings.request_bytes_max, urgency).await
    }

    async fn send(
        &self,
        proposal: log::Proposal,
        request_bytes_max: usize,
        urgency: Urgency,
    ) -> Result<Response, RequestError> {
        let answer = self.0.proposals.submit(proposal, request_bytes_max, urgency)?;
        match tokio::time::timeout(self.0.settings.request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    /// A frozen state. Linearizable ones are confirmed with a quorum; callers that wait at the same time share one.
    pub async fn read_view(&self, consistency: Consistency) -> Result<Arc<StoreView>, RequestError> {
        match consistency {
            Consistency::Serializable => Ok(Arc::new(self.0.reader.view()?)),
            Consistency::Linearizable => {
                match tokio::time::timeout(self.0.settings.request_timeout, self.0.reads.next()).await {
                    Ok(view) => view,
                    Err(_) => Err(RequestError::TimedOut),
                }
            }
        }
    }

    /// A quorum says that this member leads; callers that wait at the same time share a round.
    pub async fn confirm_leadership(&self) -> Result<(), RequestError> {
        match tokio::time::timeout(self.0.settings.request_timeout, self.0.confirmations.next()).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    /// The quota is this member's own flag, so it is asked here and never in apply; what all members act upon is the
    /// alarm that is raised when it is exceeded.
    async fn check_quota(&self, proposal: &log::Proposal) -> Result<(), RequestError> {
        let cost = match &proposal.command {
            Some(Command::Put(put)) => quorate_store::cost_put(put),
            Some(Command::Txn(txn)) => quorate_store::cost_txn(txn),
            Some(Command::LeaseGrant(_)) => quorate_store::COST_LEASE_GRANT_BYTES,
            _ => 0,
        };
        let Some(quota) = self.0.settings.quota_bytes.filter(|_| cost > 0) else { return Ok(()) };
        if self.0.reader.logical_bytes() as u64 + cost < quota {
            return Ok(());
        }
        if !self.0.reader.alarm_raised(pb::AlarmType::Nospace) {
            tracing::warn!(
                quota_bytes = quota,
                used_bytes = self.0.reader.logical_bytes(),
                "the keyspace exceeds --quota-backend-bytes: raising the NOSPACE alarm"
            );
            let alarm = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate.into(),
                member_id: self.0.identity.member_id,
                alarm: pb::AlarmType::Nospace.into(),
            };
            // The cluster itself raises alarms, not the user whose request met one; who is told that there is no space
            // either way.
            if let Err(error) = self.propose_system(Command::Alarm(alarm)).await {
                tracing::warn!(%error, "failed to raise the NOSPACE alarm; the next request tries again");
            }
        }
        Err(Rejection::NoSpace.into())
    }

    fn system(&self) -> log::Proposal {
        let auth = self.0.reader.auth();
        log::Proposal { user: quorate_store::auth::USER_ROOT.to_owned(), auth_revision: auth.revision(), command: None }
    }

    /// Brings a command of the cluster's own into the log: expiry, checkpoints, versions, alarms. No flag of clients'
    /// requests limits it.
    pub async fn propose_system(&self, command: Command) -> Result<Response, RequestError> {
        let proposal = log::Proposal { command: Some(command), ..self.system() };
        self.send(proposal, usize::MAX, Urgency::Urgent).await
    }

    /// Returns when what compaction at `revision` made unreachable is gone from this member's disk.
    pub async fn compaction_walked(&self, revision: i64) {
        while self.0.reader.walked() < revision {
            self.0.raft.compaction_progress().await;
        }
    }
}
