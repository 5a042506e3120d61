//! The reference, writing: one command after the other, each whole or not at all.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{Answer, LEASE_TTL_SECS_MAX, LeaseEffect, LeaseRecord, Membership, Rejection, Response, Revision};

use super::{Change, Model, header};
use pb::alarm_request::AlarmAction;
use pb::request_op::Request;

impl Model {
    pub(crate) fn membership(&mut self, membership: &Membership) {
        self.membership = membership.encoded.clone();
        let before = std::mem::take(&mut self.members);
        for member in &membership.members {
            let mut member = member.clone();
            if let Some(known) = before.get(&member.id) {
                (member.name, member.client_urls) = (known.name.clone(), known.client_urls.clone());
            }
            self.members.insert(member.id, member);
        }
        self.removed.extend(before.into_keys().filter(|id| !self.members.contains_key(id)));
        self.effects.members_changed = true;
    }

    /// Applies one request of an entry of term `term`: whole, or not at all.
    pub(crate) fn proposal(&mut self, term: u64, proposal: &log::Proposal) -> Answer {
        let command = proposal.command.as_ref().expect("the model is only given commands that exist");
        self.alarms_let_pass(command)?;
        self.auth.permit(&proposal.user, proposal.auth_revision, command, &|id| self.lease_keys(id))?;
        let answer = self.command(term, command);
        if answer.is_err() {
            self.changes.truncate(self.changes.len() - self.open as usize);
            self.open = 0;
        }
        self.close();
        answer
    }

    fn alarms_let_pass(&self, command: &Command) -> Result<(), Rejection> {
        let kv =
            matches!(command, Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Compaction(_));
        let lease = matches!(
            command,
            Command::LeaseGrant(_)
                | Command::LeaseRevoke(_)
                | Command::LeaseExpire(_)
                | Command::LeaseCheckpoint(_)
                | Command::LeaseRemaining(_)
        );
        let data = kv || lease;
        let space = match command {
            Command::Put(_) | Command::LeaseGrant(_) => true,
            Command::Txn(txn) => puts_anything(txn),
            _ => false,
        };
        match () {
            () if data && self.raised(pb::AlarmType::Corrupt) => Err(Rejection::Corrupt),
            () if space && self.raised(pb::AlarmType::Nospace) => Err(Rejection::NoSpace),
            () => Ok(()),
        }
    }

    fn command(&mut self, term: u64, command: &Command) -> Answer {
        match command {
            Command::Put(request) => {
                self.check_put(request)?;
                self.put(request).map(Response::Put)
            }
            Command::DeleteRange(request) if request.key.is_empty() => Err(Rejection::EmptyKey),
            Command::DeleteRange(request) => Ok(Response::DeleteRange(self.delete_range(request))),
            Command::Txn(request) => self.txn(request).map(Response::Txn),
            Command::Compaction(request) => self.compact(request.revision),
            Command::LeaseGrant(request) => self.grant(request),
            Command::LeaseRevoke(request) if !self.leases.contains_key(&request.id) => Err(Rejection::LeaseNotFound),
            Command::LeaseRevoke(request) => {
                self.drop_lease(request.id);
                Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(header(self.revision)) }))
            }
            Command::LeaseExpire(request) if request.leader_term != term => Err(Rejection::NotLeader),
            Command::LeaseExpire(request) => {
                for id in &request.ids {
                    if self.leases.contains_key(id) {
                        self.drop_lease(*id);
                    }
                }
                Ok(Response::LeaseExpire)
            }
            Command::LeaseRemaining(request) if request.leader_term != term => Err(Rejection::NotLeader),
            Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })
            | Command::LeaseRemaining(log::LeaseRemaining { checkpoints, .. }) => {
                for checkpoint in checkpoints {
                    let (id, remaining_ttl_secs) = (checkpoint.id, checkpoint.remaining_ttl.max(0));
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.remaining_ttl_secs = remaining_ttl_secs;
                        self.effects.leases.push(LeaseEffect::Checkpointed { id, remaining_ttl_secs });
                    }
                }
                Ok(Response::LeaseCheckpoint)
            }
            Command::Alarm(request) => Ok(self.alarm(request)),
            Command::ClusterVersionSet(request) => {
                self.version = request.version.clone();
                Ok(Response::ClusterVersionSet)
            }
            Command::DowngradeInfoSet(request) => {
                self.downgrade = request.enabled.then(|| request.version.clone());
                Ok(Response::DowngradeInfoSet)
            }
            Command::MemberPublish(request) => {
                let member = self.members.get_mut(&request.id).ok_or(Rejection::MemberNotFound)?;
                (member.name, member.client_urls) = (request.name.clone(), request.client_urls.clone());
                self.effects.members_changed = true;
                Ok(Response::MemberPublish)
            }
            auth => {
                self.auth.command(auth)?;
                self.effects.auth_changed = true;
                Ok(Response::Auth(header(self.revision)))
            }
        }
    }

    /// Writes down one change, under the revision of the request at hand. Gives back what was there.
    fn change(&mut self, key: &Bytes, value: Option<Bytes>, lease: i64) -> Option<KeyValue> {
        let before = self.alive(key, i64::MAX);
        let at = Revision::new(self.revision + 1, self.open);
        let (create, version) = match (&value, &before) {
            (None, _) => (0, 0),
            (Some(_), None) => (at.main, 1),
            (Some(_), Some(before)) => (before.create_revision, before.version + 1),
        };
        self.changes.push(Change { at, key: key.clone(), create, version, lease, value });
        self.open += 1;
        before
    }

    /// Ends a request: if it changed anything, that was one revision.
    fn close(&mut self) {
        if self.open > 0 {
            self.open = 0;
            self.revision += 1;
            let all = [(Bytes::new(), Bytes::from_static(b"\0"))];
            let events =
                self.events(self.revision, self.revision, &all).expect("the newest revision is never compacted");
            self.effects.revisions.extend(events);
        }
    }

    pub(super) fn check_put(&self, request: &pb::PutRequest) -> Result<(), Rejection> {
        match request {
            _ if request.key.is_empty() => Err(Rejection::EmptyKey),
            _ if request.ignore_value && !request.value.is_empty() => Err(Rejection::ValueProvided),
            _ if request.ignore_lease && request.lease != 0 => Err(Rejection::LeaseProvided),
            _ if request.lease != 0 && !self.leases.contains_key(&request.lease) => Err(Rejection::LeaseNotFound),
            _ if !(request.ignore_value || request.ignore_lease) => Ok(()),
            _ => self.alive(&request.key, i64::MAX).map(drop).ok_or(Rejection::KeyNotFound),
        }
    }

    pub(super) fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Rejection> {
        let (mut value, mut lease) = (request.value.clone(), request.lease);
        if request.ignore_value || request.ignore_lease {
            let old = self.alive(&request.key, i64::MAX).ok_or(Rejection::KeyNotFound)?;
            value = if request.ignore_value { old.value } else { value };
            lease = if request.ignore_lease { old.lease } else { lease };
        }
        let before = self.change(&request.key, Some(value), lease);
        Ok(pb::PutResponse { header: Some(header(self.now())), prev_kv: before.filter(|_| request.prev_kv) })
    }

    pub(super) fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone = self.live(&request.key, &request.range_end, i64::MAX);
        for kv in &gone {
            self.change(&kv.key, None, 0);
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
        pb::DeleteRangeResponse { header: Some(header(self.now())), deleted, prev_kvs }
    }

    fn compact(&mut self, revision: i64) -> Answer {
        if revision <= self.compacted {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        self.effects.compacted = Some(revision);
        Ok(Response::Compaction(pb::CompactionResponse { header: Some(header(self.revision)) }))
    }

    fn grant(&mut self, request: &pb::LeaseGrantRequest) -> Answer {
        let (id, ttl_secs) = (request.id, request.ttl.max(1));
        match () {
            () if id == 0 => return Err(Rejection::LeaseNotFound),
            () if ttl_secs > LEASE_TTL_SECS_MAX => return Err(Rejection::LeaseTtlTooLarge),
            () if self.leases.contains_key(&id) => return Err(Rejection::LeaseExists),
            () => self.leases.insert(id, LeaseRecord { ttl_secs, remaining_ttl_secs: 0 }),
        };
        self.effects.leases.push(LeaseEffect::Granted { id, ttl_secs });
        let header = Some(header(self.revision));
        Ok(Response::LeaseGrant(pb::LeaseGrantResponse { header, id, ttl: ttl_secs, error: String::new() }))
    }

    /// The keys of the lease go in key order and in one revision.
    fn drop_lease(&mut self, id: i64) {
        for key in self.lease_keys(id) {
            self.change(&key, None, 0);
        }
        self.close();
        self.leases.remove(&id);
        self.effects.leases.push(LeaseEffect::Revoked { id });
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Response {
        let alarm = pb::AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.alarm_list(request.alarm),
            Ok(AlarmAction::Activate) if request.alarm == pb::AlarmType::None as i32 => vec![],
            Ok(AlarmAction::Activate) => {
                self.effects.alarms_changed |= self.alarms.insert((request.member_id, request.alarm));
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) => {
                let was_raised = self.alarms.remove(&(request.member_id, request.alarm));
                self.effects.alarms_changed |= was_raised;
                if was_raised { vec![alarm] } else { vec![] }
            }
            Err(_) => vec![],
        };
        Response::Alarm(pb::AlarmResponse { header: Some(header(self.revision)), alarms })
    }
}

fn puts_anything(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts_anything(nested),
        _ => false,
    })
}
