//! Apply: committed entries in, one atomic batch out, answers and effects beside it.
//!
//! ```text
//!   entries ─▶ for each proposal: gate (alarms) ─▶ may this user? ─▶ do it, on the overlay
//!                                                                      │ all entries of the group
//!              engine.write(one batch: data, leases, auth, members, ◀──┘
//!                           alarms, revision, applied position)
//!              state of memory replaced ─▶ readers see it
//! ```
//!
//! A request ends in one of two ways. A [`Rejection`] is an answer, the same on every member. A [`Fault`] ends the
//! member. Whatever bytes were committed, there is no third way: a command that was never checked at the door is
//! rejected here or does something definite, and nothing in it can panic.
//!
//! Several entries share a batch: each is whole in it, the applied position with it, so a crash keeps all of a group or
//! nothing; one overlay and one write for many requests is what makes apply cheap.

mod auth;
mod kv;
mod txn;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};

use crate::effects::{Effects, LeaseEffect};
use crate::engine::Engine;
use crate::lease;
use crate::mvcc::{KeyRange, Writer, walk_step};
use crate::overlay::Overlay;
use crate::reader::Reader;
use crate::snapshot::{InstallError, Installed, ReceivedSnapshot};
use crate::state::{Board, Published, State};
use crate::types::{Failure, Fault, LogPosition, Rejection};

pub use crate::cluster::Membership;
pub use kv::{validate_delete, validate_put};
pub(crate) use txn::read_only as read_only_txn;
pub use txn::validate as validate_txn;

/// A committed entry of the Raft log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub position: LogPosition,
    pub payload: Payload,
}

#[derive(Clone, Debug)]
pub enum Payload {
    /// Says only that its leader leads.
    Blank,
    /// An encoded [`log::Batch`].
    Batch(Bytes),
    Membership(Membership),
}

/// What a request did. Headers carry the revision alone: whose member answers, and in which term, is not replicated.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseExpire,
    LeaseCheckpoint,
    Alarm(pb::AlarmResponse),
    ClusterVersionSet,
    DowngradeInfoSet,
    MemberPublish,
    /// Every change of the auth store answers with a header alone.
    Auth(pb::ResponseHeader),
}

pub type Answer = Result<Response, Rejection>;

/// What came of a group of entries.
#[derive(Clone, Debug)]
pub struct Applied {
    /// One list an entry, one answer a proposal of its batch, in order.
    pub answers: Vec<Vec<Answer>>,
    pub effects: Effects,
}

/// The writing half of the state, owned by whoever applies. Readers are made with [`Store::reader`].
pub struct Store {
    current: Arc<Published>,
    board: Board,
}

impl Store {
    pub fn open(engine: Arc<dyn Engine>) -> Result<Self, Fault> {
        let state = State::load(&*engine.view())?;
        let current = Arc::new(Published { engine, state });
        Ok(Self { board: Board::new(current.clone()), current })
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.board.clone())
    }

    fn state(&self) -> &State {
        &self.current.state
    }

    /// The last entry applied; the next one to give to [`Store::apply`] follows it.
    pub fn applied(&self) -> LogPosition {
        self.state().applied
    }

    /// See [`Membership::encoded`].
    pub fn membership(&self) -> Bytes {
        self.state().cluster.membership.clone()
    }

    /// The last applied entry that a crash would not undo.
    pub fn flushed(&self) -> Result<LogPosition, Fault> {
        flushed(&*self.current.engine)
    }

    /// Applies entries that follow each other and the last one applied. On return all of them are visible to readers.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Applied, Fault> {
        let view = self.current.engine.view();
        let mut group = Group::new(Overlay::new(&*view), self.state().clone());
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let expected = group.state.applied.index + 1;
            if entry.position.index != expected || entry.position.term < group.state.applied.term {
                let reason = format!("entry {expected} of term {} or later was due", group.state.applied.term);
                return Err(Fault::Entry { index: entry.position.index, reason });
            }
            group.position = entry.position;
            answers.push(group.entry(&entry.payload)?);
            group.state.applied = entry.position;
        }
        group.state.save(&mut group.overlay);
        let Group { overlay, state, effects, .. } = group;
        self.commit(overlay, state)?;
        Ok(Applied { answers, effects })
    }

    /// Drops what compaction made unreachable, looking at up to `entries_max` log entries. Returns whether all is done.
    pub fn compact_step(&mut self, entries_max: usize) -> Result<bool, Fault> {
        if self.compaction_done() {
            return Ok(true);
        }
        let view = self.current.engine.view();
        let mut overlay = Overlay::new(&*view);
        let mut state = self.state().clone();
        let compacted = state.tracks.compacted;
        state.walk = walk_step(&mut overlay, &mut state.tracks.buckets, state.walk, compacted, entries_max)?;
        state.tracks.bytes -= state.walk.freed_bytes;
        state.save_walk(&mut overlay);
        self.commit(overlay, state)?;
        Ok(self.compaction_done())
    }

    /// Whether the engine would make a writer wait now.
    pub fn is_stalled(&self) -> bool {
        self.current.engine.is_stalled()
    }

    pub fn compaction_done(&self) -> bool {
        self.state().walk.done(self.state().tracks.compacted)
    }

    fn commit(&mut self, overlay: Overlay<'_>, state: State) -> Result<(), Fault> {
        let engine = self.current.engine.clone();
        engine.write(overlay.into_batch())?;
        self.publish(Published { engine, state });
        Ok(())
    }

    fn publish(&mut self, published: Published) {
        self.current = Arc::new(published);
        self.board.publish(self.current.clone());
    }

    /// Puts a received snapshot in the place of the state: durable on return, and what every reader sees, while views
    /// made before stay as they are. To be called between two groups; its entries must not be applied again.
    ///
    /// Refused, with nothing changed, when the snapshot is not ahead of what was applied or cannot be of the same log.
    /// Whoever follows [`Effects`] has to be told what is returned instead.
    pub fn install(&mut self, received: ReceivedSnapshot) -> Result<Installed, InstallError> {
        received.may_follow(self.state())?;
        let (published, installed) = received.commit(self.state().tracks.revision)?;
        self.publish(published);
        Ok(installed)
    }
}

pub(crate) fn flushed(engine: &dyn Engine) -> Result<LogPosition, Fault> {
    match engine.get_flushed(crate::engine::Family::Meta, crate::keys::meta::APPLIED)? {
        Some(position) => crate::keys::decode_position(&position),
        None => Ok(LogPosition::default()),
    }
}

/// Entries being applied together.
pub(crate) struct Group<'v> {
    overlay: Overlay<'v>,
    state: State,
    effects: Effects,
    /// Of the entry at hand.
    position: LogPosition,
}

impl<'v> Group<'v> {
    pub(crate) fn new(overlay: Overlay<'v>, state: State) -> Self {
        Self { overlay, state, effects: Effects::default(), position: LogPosition::default() }
    }

    fn entry(&mut self, payload: &Payload) -> Result<Vec<Answer>, Fault> {
        match payload {
            Payload::Blank => Ok(Vec::new()),
            Payload::Membership(membership) => {
                Arc::make_mut(&mut self.state.cluster).set_membership(&mut self.overlay, membership);
                self.effects.members_changed = true;
                Ok(Vec::new())
            }
            Payload::Batch(bytes) => {
                let batch = log::Batch::decode(bytes.clone()).map_err(|error| self.unreadable(&error.to_string()))?;
                batch.proposals.into_iter().map(|proposal| self.proposal(proposal)).collect()
            }
        }
    }

    fn unreadable(&self, reason: &str) -> Fault {
        Fault::Entry { index: self.position.index, reason: format!("not a batch that this release knows: {reason}") }
    }

    fn proposal(&mut self, proposal: log::Proposal) -> Result<Answer, Fault> {
        let Some(command) = &proposal.command else {
            return Err(self.unreadable("a command of a newer release"));
        };
        let outcome = match self.gate(command) {
            Ok(()) => self.permit(&proposal.user, proposal.auth_revision, command),
            Err(rejection) => Err(rejection.into()),
        };
        match outcome.and_then(|()| self.command(command)) {
            Ok(response) => Ok(Ok(response)),
            Err(Failure::Rejected(rejection)) => Ok(Err(rejection)),
            Err(Failure::Fault(fault)) => Err(fault),
        }
    }

    /// What the alarms let through. Out of space: nothing that takes more of it. Corrupt: nothing that reads or writes
    /// data, while users and alarms can still be changed, to mend it.
    fn gate(&self, command: &Command) -> Result<(), Rejection> {
        let (takes_space, touches_data) = match command {
            Command::Put(_) | Command::LeaseGrant(_) => (true, true),
            Command::Txn(txn) => (crate::quota::cost_txn(txn) > 0, true),
            Command::DeleteRange(_) | Command::Compaction(_) | Command::LeaseRevoke(_) => (false, true),
            Command::LeaseExpire(_) | Command::LeaseCheckpoint(_) | Command::LeaseRemaining(_) => (false, true),
            Command::Alarm(_) | Command::ClusterVersionSet(_) | Command::MemberPublish(_) => (false, false),
            Command::DowngradeInfoSet(_) | Command::AuthEnable(_) | Command::AuthDisable(_) => (false, false),
            Command::AuthUserAdd(_) | Command::AuthUserDelete(_) | Command::AuthUserChangePassword(_) => (false, false),
            Command::AuthUserGrantRole(_) | Command::AuthUserRevokeRole(_) => (false, false),
            Command::AuthRoleAdd(_) | Command::AuthRoleDelete(_) => (false, false),
            Command::AuthRoleGrantPermission(_) | Command::AuthRoleRevokePermission(_) => (false, false),
        };
        if touches_data && self.state.alarms.raised(pb::AlarmType::Corrupt) {
            return Err(Rejection::Corrupt);
        }
        if takes_space && self.state.alarms.raised(pb::AlarmType::Nospace) {
            return Err(Rejection::NoSpace);
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<Response, Failure> {
        match command {
            Command::Put(request) => self.put(request).map(Response::Put),
            Command::DeleteRange(request) => self.delete_range(request).map(Response::DeleteRange),
            Command::Txn(request) => self.txn(request).map(Response::Txn),
            Command::Compaction(request) => self.compact(request).map(Response::Compaction),
            Command::LeaseGrant(request) => self.lease_grant(request).map(Response::LeaseGrant),
            Command::LeaseRevoke(request) => self.lease_revoke(request.id).map(Response::LeaseRevoke),
            Command::LeaseExpire(request) => self.lease_expire(request),
            Command::LeaseCheckpoint(request) => self.lease_checkpoint(&request.checkpoints),
            Command::LeaseRemaining(request) if request.leader_term != self.position.term => {
                Err(Rejection::NotLeader.into())
            }
            Command::LeaseRemaining(request) => self.lease_checkpoint(&request.checkpoints),
            Command::Alarm(request) => self.alarm(request),
            Command::ClusterVersionSet(request) => {
                Arc::make_mut(&mut self.state.cluster).set_version(&mut self.overlay, &request.version);
                Ok(Response::ClusterVersionSet)
            }
            Command::DowngradeInfoSet(request) => {
                let target = request.enabled.then_some(request.version.as_str());
                Arc::make_mut(&mut self.state.cluster).set_downgrade(&mut self.overlay, target);
                Ok(Response::DowngradeInfoSet)
            }
            Command::MemberPublish(request) => self.member_publish(request),
            Command::AuthEnable(_)
            | Command::AuthDisable(_)
            | Command::AuthUserAdd(_)
            | Command::AuthUserDelete(_)
            | Command::AuthUserChangePassword(_)
            | Command::AuthUserGrantRole(_)
            | Command::AuthUserRevokeRole(_)
            | Command::AuthRoleAdd(_)
            | Command::AuthRoleDelete(_)
            | Command::AuthRoleGrantPermission(_)
            | Command::AuthRoleRevokePermission(_) => self.auth(command).map(Response::Auth),
        }
    }

    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { revision: self.state.tracks.revision, ..Default::default() }
    }

    fn writer(&mut self) -> Writer<'_, 'v> {
        Writer::new(&mut self.overlay, self.state.tracks.clone())
    }

    /// Takes over what a writer moved and publishes its events.
    fn finish(&mut self, (tracks, events): (crate::mvcc::Tracks, Option<crate::effects::RevisionEvents>)) {
        self.state.tracks = tracks;
        self.effects.revisions.extend(events);
    }

    fn compact(&mut self, request: &pb::CompactionRequest) -> Result<pb::CompactionResponse, Failure> {
        let tracks = &mut self.state.tracks;
        if request.revision <= tracks.compacted {
            return Err(Rejection::Compacted.into());
        }
        if request.revision > tracks.revision {
            return Err(Rejection::FutureRevision.into());
        }
        tracks.compacted = request.revision;
        self.state.save_compacted(&mut self.overlay);
        self.effects.compacted = Some(request.revision);
        Ok(pb::CompactionResponse { header: Some(self.header()) })
    }

    fn lease_grant(&mut self, request: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Failure> {
        let ttl = lease::grant(&mut self.overlay, request.id, request.ttl)?;
        self.effects.leases.push(LeaseEffect::Granted { id: request.id, ttl_secs: ttl });
        Ok(pb::LeaseGrantResponse { header: Some(self.header()), id: request.id, ttl, error: String::new() })
    }

    fn lease_revoke(&mut self, id: i64) -> Result<pb::LeaseRevokeResponse, Failure> {
        if lease::find(&self.overlay, id)?.is_none() {
            return Err(Rejection::LeaseNotFound.into());
        }
        self.drop_lease(id)?;
        Ok(pb::LeaseRevokeResponse { header: Some(self.header()) })
    }

    /// The lease goes, and its keys with it: sorted, in one revision.
    fn drop_lease(&mut self, id: i64) -> Result<(), Fault> {
        let keys = lease::attached(&self.overlay, id)?;
        let mut writer = self.writer();
        for key in keys {
            for gone in writer.delete_range(&KeyRange::One(key))? {
                lease::attach(writer.overlay, &gone.key, gone.lease, 0);
            }
        }
        let finished = writer.finish();
        self.finish(finished);
        lease::remove(&mut self.overlay, id);
        self.effects.leases.push(LeaseEffect::Revoked { id });
        Ok(())
    }

    fn lease_expire(&mut self, request: &log::LeaseExpire) -> Result<Response, Failure> {
        if request.leader_term != self.position.term {
            return Err(Rejection::NotLeader.into());
        }
        for id in &request.ids {
            if lease::find(&self.overlay, *id)?.is_some() {
                self.drop_lease(*id)?;
            }
        }
        Ok(Response::LeaseExpire)
    }

    fn lease_checkpoint(&mut self, checkpoints: &[pb::LeaseCheckpoint]) -> Result<Response, Failure> {
        for checkpoint in checkpoints {
            let (id, remaining_ttl_secs) = (checkpoint.id, checkpoint.remaining_ttl.max(0));
            if lease::checkpoint(&mut self.overlay, id, remaining_ttl_secs)? {
                self.effects.leases.push(LeaseEffect::Checkpointed { id, remaining_ttl_secs });
            }
        }
        Ok(Response::LeaseCheckpoint)
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Result<Response, Failure> {
        let alarms = Arc::make_mut(&mut self.state.alarms);
        let (alarms, changed) = alarms.apply(&mut self.overlay, request);
        self.effects.alarms_changed |= changed;
        Ok(Response::Alarm(pb::AlarmResponse { header: Some(self.header()), alarms }))
    }

    fn member_publish(&mut self, request: &log::MemberPublish) -> Result<Response, Failure> {
        let cluster = Arc::make_mut(&mut self.state.cluster);
        if !cluster.publish(&mut self.overlay, request.id, &request.name, &request.client_urls) {
            return Err(Rejection::MemberNotFound.into());
        }
        self.effects.members_changed = true;
        Ok(Response::MemberPublish)
    }
}
