//! Requests, entries and stores in few words, for named tests.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};
use quorate_store::engine::{Engine, Family, MemoryEngine};
use quorate_store::{Answer, Entry, KeyRange, LogPosition, Payload, Rejection, Response, Store, StoreView};

use pb::request_op::Request;

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub(crate) fn put_leased(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { lease, ..put(key, "leased") }
}

pub(crate) fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub(crate) fn range(key: &str, range_end: &str, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), revision, ..Default::default() }
}

/// A txn without comparisons.
pub(crate) fn txn(ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success: ops, ..Default::default() }
}

pub(crate) fn op_put(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

pub(crate) fn op_delete(delete: pb::DeleteRangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

pub(crate) fn op_range(range: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestRange(range)) }
}

pub(crate) fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestTxn(txn)) }
}

pub(crate) fn c_put(put: pb::PutRequest) -> Command {
    Command::Put(put)
}

pub(crate) fn c_txn(ops: Vec<pb::RequestOp>) -> Command {
    Command::Txn(txn(ops))
}

pub(crate) fn c_delete(key: &str, range_end: &str) -> Command {
    Command::DeleteRange(delete(key, range_end))
}

pub(crate) fn c_compact(revision: i64) -> Command {
    Command::Compaction(pb::CompactionRequest { revision, physical: false })
}

pub(crate) fn c_grant(id: i64) -> Command {
    Command::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 })
}

pub(crate) fn c_revoke(id: i64) -> Command {
    Command::LeaseRevoke(pb::LeaseRevokeRequest { id })
}

pub(crate) fn c_expire(leader_term: u64, ids: &[i64]) -> Command {
    Command::LeaseExpire(log::LeaseExpire { leader_term, ids: ids.to_vec() })
}

pub(crate) fn c_alarm(action: pb::alarm_request::AlarmAction, member_id: u64, alarm: pb::AlarmType) -> Command {
    Command::Alarm(pb::AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 })
}

/// Nobody in particular asks.
pub(crate) fn anonymous(command: Command) -> log::Proposal {
    log::Proposal { user: String::new(), auth_revision: 0, command: Some(command) }
}

pub(crate) fn batch(proposals: Vec<log::Proposal>) -> Payload {
    Payload::Batch(log::Batch { proposals }.encode_to_vec().into())
}

pub(crate) fn payload(command: Command) -> Payload {
    batch(vec![anonymous(command)])
}

pub(crate) fn entry(index: u64, term: u64, payload: Payload) -> Entry {
    Entry { position: LogPosition { index, term }, payload }
}

/// A store in memory whose log is kept, so that it can crash and come back.
pub(crate) struct Member {
    pub engine: Arc<MemoryEngine>,
    pub store: Store,
    pub log: Vec<Entry>,
}

impl Member {
    pub(crate) fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        Self { store: Store::open(engine.clone()).unwrap(), engine, log: Vec::new() }
    }

    /// Appends and applies one entry for each command, in one group.
    pub(crate) fn apply_all(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let first = self.log.len();
        for command in commands {
            self.log.push(entry(self.log.len() as u64 + 1, 1, payload(command)));
        }
        self.store.apply(&self.log[first..]).unwrap().answers.concat()
    }

    pub(crate) fn apply(&mut self, command: Command) -> Answer {
        self.apply_all(vec![command]).remove(0)
    }

    pub(crate) fn ok(&mut self, command: Command) -> Response {
        self.apply(command).unwrap()
    }

    /// As [`Self::ok`], for a member whose log did not begin here.
    pub(crate) fn ok_next(&mut self, command: Command) -> Response {
        let LogPosition { index, term } = self.store.applied();
        let applied = self.store.apply(&[entry(index + 1, term, payload(command))]).unwrap();
        applied.answers.concat().remove(0).unwrap()
    }

    pub(crate) fn refused(&mut self, command: Command) -> Rejection {
        self.apply(command).unwrap_err()
    }

    pub(crate) fn revision(&self) -> i64 {
        self.store.reader().revision()
    }

    pub(crate) fn view(&self) -> StoreView {
        self.store.reader().view().unwrap()
    }

    pub(crate) fn flush(&self) {
        self.engine.flush().unwrap();
    }

    /// Loses what was not flushed and opens again, without applying anything.
    pub(crate) fn crash(&mut self) {
        self.engine = Arc::new(self.engine.reopened());
        self.store = Store::open(self.engine.clone()).unwrap();
    }

    /// Applies again what a crash lost.
    pub(crate) fn catch_up(&mut self) {
        let applied = self.store.applied().index as usize;
        self.store.apply(&self.log[applied..]).unwrap();
    }

    /// Drops everything that compaction made unreachable.
    pub(crate) fn walk(&mut self) {
        while !self.store.compact_step(7).unwrap() {}
    }

    /// Keys alive at `revision` (0: now), as text.
    pub(crate) fn keys(&self, revision: i64) -> Vec<String> {
        let kvs = self.view().range(&range("\0", "\0", revision)).unwrap().kvs;
        kvs.into_iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }

    /// The value of `key` at `revision`, as text.
    pub(crate) fn value(&self, key: &str, revision: i64) -> Option<String> {
        let kvs = self.view().range(&range(key, "", revision)).unwrap().kvs;
        kvs.into_iter().next().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }

    /// `revision kind key prev` of every event from `from` on.
    pub(crate) fn events(&self, from: i64) -> Vec<String> {
        let view = self.view();
        let page = view.events(from, view.revision(), &[everything()], usize::MAX).unwrap();
        let mut lines = Vec::new();
        for revision in &page.revisions {
            for event in revision.events.iter() {
                let key = String::from_utf8_lossy(&event.kv.key);
                let before = event.prev_kv.as_ref().map_or("-".into(), |kv| String::from_utf8_lossy(&kv.value));
                lines.push(format!("{} {:?} {key} {before}", revision.revision, event.kind));
            }
        }
        lines
    }

    pub(crate) fn rows(&self, family: Family) -> Vec<(Bytes, Bytes)> {
        self.view().rows(family).map(Result::unwrap).collect()
    }

    pub(crate) fn all_rows(&self) -> Vec<Vec<(Bytes, Bytes)>> {
        Family::ALL.into_iter().map(|family| self.rows(family)).collect()
    }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::AtLeast(Bytes::new())
}
