//! Who votes, who learns, who was removed; and the changes of it, one member at a time.
//!
//! A change is one entry, and takes effect with it: from one set of voters to another that differs by one, any two majorities
//! meet (Raft dissertation, 4.1). openraft allows the next one only when the last is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EntryPayload, Membership};
use quorate_proto::etcdserverpb::{AlarmType, Member};
use quorate_proto::peer as pb;
use tokio::time::Instant;

use super::peers::{Link, within};
use super::types::{self, MemberId, Peer, TypeConfig};
use super::{Inner, Raft};
use pb::change_members_answer::Outcome;
use pb::change_members_request::Change;

/// A learner may vote once it has this share of the leader's log (etcd's threshold).
const READY_PERCENT: u64 = 90;
/// While another change is under way, or nobody leads.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks for members that may vote by now.
const LET_VOTE_INTERVAL: Duration = Duration::from_millis(50);

/// One member more, less, or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    Add { id: u64, peer_urls: Vec<String>, is_learner: bool },
    Promote { id: u64 },
    Remove { id: u64 },
    Update { id: u64, peer_urls: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFailure {
    /// Nothing was changed.
    #[error("no leader takes the change")]
    NotLeader { leader: Option<u64> },
    /// Nothing was changed: another change is under way, or this one makes no sense.
    #[error("{0}")]
    Refused(String),
    /// A learner that is to be promoted lacks too much of the log.
    #[error("the learner is not in sync with the leader")]
    NotReady,
    /// May have been changed, and may still be.
    #[error("not known to be committed")]
    Unknown,
}

impl Raft {
    /// Voters and learners as Raft has them, with what they said of themselves.
    pub fn members(&self) -> Vec<Member> {
        self.0.reader.members()
    }

    pub(super) fn removed_ids(&self) -> Vec<u64> {
        self.0.reader.removed_members()
    }

    pub(super) fn was_removed(&self, id: MemberId) -> bool {
        self.0.reader.member_removed(id)
    }

    /// A member of another cluster has called.
    pub(super) fn stranger(&self, id: u64, cluster: u64) {
        let new = self.0.strangers.lock().unwrap_or_else(PoisonError::into_inner).insert((cluster, id));
        if new {
            tracing::warn!(
                member = format!("{id:x}"),
                cluster = format!("{cluster:x}"),
                own_cluster = format!("{:x}", self.0.cluster_id),
                "refused a member of another cluster: its --initial-cluster or --initial-cluster-token is not ours"
            );
        }
    }

    fn membership(&self) -> Arc<types::StoredMembership> {
        self.0.core.server_metrics().borrow_watched().membership_config.clone()
    }

    pub(super) fn link_to(&self, id: MemberId) -> Option<Arc<Link>> {
        let membership = self.membership();
        membership.get_node(&id).map(|peer| self.0.links.to(id, &peer.peer_urls))
    }

    /// Whether this member and the process of `id` are connected now.
    pub fn is_connected(&self, id: u64) -> bool {
        id == self.0.id || self.link_to(id).is_some_and(|link| link.present.load(Ordering::Relaxed))
    }

    /// A gRPC channel to the leader, for questions that only it can answer; `None` when this member leads, or nobody does.
    pub fn leader_channel(&self) -> Option<PeerChannel> {
        let (leader, _) = self.leader_and_term().filter(|(leader, _)| *leader != self.0.id)?;
        Some(self.link_to(leader)?.channel())
    }

    /// A gRPC channel to another member; `None` when there is no such member.
    pub fn peer_channel(&self, id: u64) -> Option<PeerChannel> {
        Some(self.link_to(id)?.channel())
    }

    /// Whether this member may become the leader when there is none. It votes in any case.
    pub fn stand_for_election(&self, stands: bool) {
        self.0.core.runtime_config().elect(stands);
    }

    /// Voters whose data are not said to be wrong; all of them where that is said of all.
    fn eligible(&self) -> BTreeSet<MemberId> {
        let alarms = self.0.reader.alarms(AlarmType::Corrupt);
        let corrupt: BTreeSet<MemberId> = alarms.iter().map(|alarm| alarm.member_id).collect();
        let voters: BTreeSet<MemberId> = self.membership().voter_ids().collect();
        let eligible: BTreeSet<MemberId> = voters.difference(&corrupt).copied().collect();
        if eligible.is_empty() { voters } else { eligible }
    }

    /// The vote that made `leader` the leader, if it is still taken for it here.
    pub(super) fn vote_of_leader(&self, leader: MemberId) -> Option<openraft::alias::VoteOf<TypeConfig>> {
        let metrics = self.0.core.server_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader == Some(leader)).then_some(metrics.vote)
    }

    /// Where this member stands among those without `dead` that may lead, highest id first; `None` for one that may not.
    pub(super) fn rank_without(&self, dead: MemberId) -> Option<u32> {
        let mut voters: Vec<MemberId> = self.eligible().into_iter().filter(|id| *id != dead).collect();
        voters.sort_unstable_by(|a, b| b.cmp(a));
        voters.iter().position(|id| *id == self.0.id).and_then(|rank| u32::try_from(rank).ok())
    }

    /// Changes the members, through whoever leads. Returns when the change is applied here, or, for this
    /// member's own removal, committed.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), ChangeFailure> {
        if change == (MemberChange::Remove { id: self.0.id })
            && let Some(successor) = self.best_successor()
        {
            // A leader that is no member cannot see its own removal through.
            self.hand_over(successor).await;
        }
        let deadline = Instant::now() + self.0.request_timeout;
        let is_own_removal = change == MemberChange::Remove { id: self.0.id };
        let index = self.change_through_leader(encode(change), deadline).await?;
        if is_own_removal {
            // It is committed, and who is no member is sent no more entries: this one may never come here.
            return Ok(());
        }
        // What waits here is answered by the state, and the state does not hold it before.
        self.wait_applied(index, deadline).await.map_err(|_| ChangeFailure::Unknown)
    }

    /// Asks again where nothing was changed because the member asked does not lead, or nobody does.
    async fn change_through_leader(&self, change: Change, deadline: Instant) -> Result<u64, ChangeFailure> {
        loop {
            let Some((leader, _)) = self.wait_for_leader(deadline).await else {
                return Err(ChangeFailure::NotLeader { leader: None });
            };
            let outcome = if leader == self.0.id {
                self.change_members_here(change.clone()).await
            } else {
                let link = self.link_to(leader).ok_or(ChangeFailure::NotLeader { leader: None })?;
                let request = pb::ChangeMembersRequest { change: Some(change.clone()) };
                let patience = deadline.saturating_duration_since(Instant::now());
                let answer = within(patience, link.control().change_members(request)).await;
                match answer.ok().and_then(|answer| answer.outcome) {
                    // A leader that is removed, or dies, may have made the change and not said so.
                    None => self.seen(&change, deadline.min(Instant::now() + 2 * self.0.election_timeout)).await,
                    outcome => outcome,
                }
            };
            return match outcome {
                Some(Outcome::Index(index)) => Ok(index),
                Some(Outcome::NotLeader(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                Some(Outcome::NotLeader(pb::NotLeader { leader })) => {
                    Err(ChangeFailure::NotLeader { leader: (leader != 0).then_some(leader) })
                }
                Some(Outcome::Refused(reason)) => Err(ChangeFailure::Refused(reason)),
                Some(Outcome::NotReady(_)) => Err(ChangeFailure::NotReady),
                None => Err(ChangeFailure::Unknown),
            };
        }
    }

    /// Waits until the change is committed, as far as this member knows; `None` if it is not, by then.
    async fn seen(&self, change: &Change, until: Instant) -> Option<Outcome> {
        let mut metrics = self.0.core.server_metrics();
        loop {
            let committed = metrics.borrow_watched().committed_membership_config.clone();
            if let Some(at) = committed.log_id()
                && holds(change, &committed)
            {
                return Some(Outcome::Index(types::position(at).index));
            }
            if !matches!(tokio::time::timeout_at(until, metrics.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }

    /// As the leader. Waits for a change that is under way. `None` when it is not known what has become of the change.
    pub(super) async fn change_members_here(&self, change: Change) -> Option<Outcome> {
        let deadline = Instant::now() + self.0.request_timeout;
        loop {
            let before = *self.membership().log_id();
            match self.change_once(change.clone()).await {
                Err(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                )) if Instant::now() < deadline => tokio::time::sleep(BUSY_PAUSE).await,
                // In the log, although this member does not lead any more.
                Err(ClientWriteError::ForwardToLeader(_)) if *self.membership().log_id() != before => {
                    return self.seen(&change, deadline).await;
                }
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    return Some(Outcome::NotLeader(pb::NotLeader { leader: forward.leader_id.unwrap_or(0) }));
                }
                Err(error) => return Some(Outcome::Refused(error.to_string())),
                Ok(outcome) => return outcome,
            }
        }
    }

    /// `None` when the member stops.
    async fn change_once(&self, change: Change) -> Result<Option<Outcome>, ClientWriteError<TypeConfig>> {
        let current = self.membership();
        let mut voters: BTreeSet<MemberId> = current.voter_ids().collect();
        let mut nodes: BTreeMap<MemberId, Peer> = current.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        if let Some(reason) = clash(&change, &voters, &nodes) {
            return Ok(Some(Outcome::Refused(reason)));
        }
        match change {
            Change::AddVoter(pb::RaftPeer { id, peer_urls }) => {
                // Of two voters both are needed, and one that was not there yet cannot be: see `let_vote`.
                let will_vote = voters.len() == 1;
                if !will_vote {
                    voters.insert(id);
                }
                nodes.insert(id, Peer { peer_urls, will_vote });
            }
            Change::AddLearner(pb::RaftPeer { id, peer_urls }) => {
                nodes.insert(id, Peer { peer_urls, will_vote: false });
            }
            Change::Promote(id) => {
                if !self.is_ready(id) {
                    return Ok(Some(Outcome::NotReady(pb::NotReady {})));
                }
                voters.insert(id);
            }
            Change::Remove(id) => {
                voters.remove(&id);
                nodes.remove(&id);
            }
            // What openraft takes for unsafe in general (two clusters under one id) is what an update is.
            Change::Update(pb::RaftPeer { id, peer_urls }) => {
                let will_vote = nodes.get(&id).is_some_and(|peer| peer.will_vote);
                let nodes = BTreeMap::from([(id, Peer { peer_urls, will_vote })]);
                let changed = self.0.core.change_membership(ChangeMembers::SetNodes(nodes), true).await;
                return outcome(changed);
            }
        }
        match Membership::new(vec![voters], nodes) {
            Ok(next) => outcome(self.0.core.append_membership(next, EntryPayload::Blank, []).await),
            Err(error) => Ok(Some(Outcome::Refused(error.to_string()))),
        }
    }

    fn is_ready(&self, id: MemberId) -> bool {
        let metrics = self.0.core.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        let replication = metrics.replication.as_ref();
        let matching = replication.and_then(|peers| peers.get(&id).copied().flatten());
        let matching = matching.map_or(0, |matching| types::position(&matching).index);
        matching.saturating_mul(100) >= last.saturating_mul(READY_PERCENT)
    }

    /// Hands leadership over to `to`, which must be a voter. Returns when somebody else is seen to lead.
    pub async fn transfer_leader(&self, to: u64) -> anyhow::Result<()> {
        self.0.core.trigger().transfer_leader(to).await?;
        let mut metrics = self.0.core.server_metrics();
        loop {
            if self.leader_and_term().is_some_and(|(leader, _)| leader != self.0.id) {
                return Ok(());
            }
            metrics.changed().await?;
        }
    }

    /// As [`Self::transfer_leader`], for a leader that goes of itself: whether `to` took over within an election time-out.
    pub async fn hand_over(&self, to: u64) -> bool {
        let taken = tokio::time::timeout(self.0.election_timeout, self.transfer_leader(to)).await;
        let taken = matches!(taken, Ok(Ok(())));
        if !taken {
            tracing::warn!(to = format!("{to:x}"), "leadership was not taken over in time");
        }
        taken
    }

    /// Of those other than this member that may lead, one that is connected and has most of the log; `None` when there is no
    /// other.
    pub fn best_successor(&self) -> Option<u64> {
        let others = self.eligible().into_iter().filter(|id| *id != self.0.id);
        let others: Vec<(bool, MemberId)> = others.map(|id| (self.is_connected(id), id)).collect();
        let metrics = self.0.core.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let matching = |id: &MemberId| replication.get(id).copied().flatten().map(|id| types::position(&id).index);
        others.into_iter().max_by_key(|(connected, id)| (*connected, matching(id))).map(|(_, id)| id)
    }
}

/// As the leader: lets those vote that were added as voters when there was one alone. A new voter counts as soon as its entry is
/// in the log, so that the entry itself would wait for a member that nobody can start before it is committed. etcd has the
/// entry committed by those who voted before.
pub(super) async fn let_vote(raft: Weak<Inner>) {
    loop {
        tokio::time::sleep(LET_VOTE_INTERVAL).await;
        let Some(raft) = raft.upgrade().map(Raft) else { return };
        let membership = raft.membership();
        let votes = |id: MemberId| membership.voter_ids().any(|voter| voter == id);
        let mut waiting = membership.nodes().filter(|(id, peer)| peer.will_vote && !votes(**id)).map(|(id, _)| *id);
        let Some(id) = waiting.find(|id| raft.status().is_leader && raft.is_ready(*id)) else { continue };
        match raft.change_once(Change::Promote(id)).await {
            Ok(Some(Outcome::Index(_))) => tracing::info!(member = format!("{id:x}"), "a new member votes from now on"),
            // Whoever leads then tries again.
            Ok(_) => {}
            Err(error) => tracing::debug!(member = format!("{id:x}"), %error, "a new member does not vote yet"),
        }
    }
}

/// A gRPC channel to another member that says who calls.
pub type PeerChannel =
    tonic::service::interceptor::InterceptedService<tonic::transport::Channel, super::peers::Identify>;

fn encode(change: MemberChange) -> Change {
    match change {
        MemberChange::Add { id, peer_urls, is_learner: false } => Change::AddVoter(pb::RaftPeer { id, peer_urls }),
        MemberChange::Add { id, peer_urls, is_learner: true } => Change::AddLearner(pb::RaftPeer { id, peer_urls }),
        MemberChange::Promote { id } => Change::Promote(id),
        MemberChange::Remove { id } => Change::Remove(id),
        MemberChange::Update { id, peer_urls } => Change::Update(pb::RaftPeer { id, peer_urls }),
    }
}

/// What two members that were asked at the same time could not see of each other's change, and the leader does.
fn clash(change: &Change, voters: &BTreeSet<MemberId>, nodes: &BTreeMap<MemberId, Peer>) -> Option<String> {
    let (Change::AddVoter(peer) | Change::AddLearner(peer) | Change::Update(peer)) = change else { return None };
    let mut others = nodes.iter().filter(|(id, _)| **id != peer.id);
    if let Some((id, _)) = others.find(|(_, other)| other.peer_urls.iter().any(|url| peer.peer_urls.contains(url))) {
        return Some(format!("member {id:x} has one of the peer URLs {}", peer.peer_urls.join(", ")));
    }
    let learner = nodes.iter().find(|(id, peer)| !voters.contains(id) && !peer.will_vote);
    match (change, learner) {
        (Change::AddLearner(_), Some((learner, _))) => Some(format!("there is a learner already, {learner:x}")),
        (_, _) => None,
    }
}

/// Whether `members` are such as the change wants them.
fn holds(change: &Change, members: &types::StoredMembership) -> bool {
    let is_voter = |id: &MemberId| members.voter_ids().any(|voter| voter == *id);
    let urls = |id: &MemberId| members.get_node(id).map(|peer| &peer.peer_urls);
    match change {
        Change::AddVoter(peer) => is_voter(&peer.id) || members.get_node(&peer.id).is_some_and(|known| known.will_vote),
        Change::AddLearner(peer) => urls(&peer.id).is_some(),
        Change::Promote(id) => is_voter(id),
        Change::Remove(id) => urls(id).is_none(),
        Change::Update(peer) => urls(&peer.id) == Some(&peer.peer_urls),
    }
}

type Changed =
    Result<openraft::raft::ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

fn outcome(changed: Changed) -> Result<Option<Outcome>, ClientWriteError<TypeConfig>> {
    match changed {
        Ok(response) => Ok(Some(Outcome::Index(types::position(&response.log_id).index))),
        Err(RaftError::APIError(error)) => Err(error),
        Err(RaftError::Fatal(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_sees_what_two_askers_could_not() {
        let url = |id: u64| vec![format!("http://m{id}:2380")];
        let peer = |id: u64, at: u64| pb::RaftPeer { id, peer_urls: url(at) };
        let known = |id| (id, Peer { peer_urls: url(id), will_vote: false });
        let mut nodes = BTreeMap::from([known(1), known(2)]);
        let (both, one) = (BTreeSet::from([1, 2]), BTreeSet::from([1]));
        for taken in [Change::AddVoter(peer(3, 2)), Change::AddLearner(peer(3, 2)), Change::Update(peer(1, 2))] {
            assert!(clash(&taken, &both, &nodes).is_some_and(|reason| reason.contains("member 2")), "{taken:?}");
        }
        for free in [Change::AddVoter(peer(3, 3)), Change::Update(peer(2, 2)), Change::Promote(2), Change::Remove(2)] {
            assert_eq!(clash(&free, &one, &nodes), None, "{free:?}");
        }
        assert_eq!(clash(&Change::AddLearner(peer(3, 3)), &both, &nodes), None);
        let second = clash(&Change::AddLearner(peer(3, 3)), &one, &nodes);
        assert_eq!(second.as_deref(), Some("there is a learner already, 2"));
        nodes.get_mut(&2).unwrap().will_vote = true;
        assert_eq!(clash(&Change::AddLearner(peer(3, 3)), &one, &nodes), None, "2 is none");
    }
}
