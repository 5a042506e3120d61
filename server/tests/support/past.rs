//! What a member was asked and what it answered, and the state that follows from it.
//!
//! ```text
//!   requests, each with its answer or none ─┐
//!                                           ├▶ in the order of the revisions, on a store that never crashes ─▶ compare
//!   events of the member, revision by revision ─┘
//! ```
//!
//! Every revision must be that of a request: of the one that was answered with it, or of one without an answer that
//! would have made the same events there. Every request that was answered must be found. What was asked and not found
//! by then never happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::log::{Batch, Proposal, proposal::Command};
use quorate_proto::mvccpb::{Event, event::EventType};
use quorate_store::engine::MemoryEngine;
use quorate_store::{
    Effects, Entry, EventKind, KeyRange, LogPosition, Payload, Reader, RevisionEvents, Store, StoreView,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    /// It changed nothing, and will not.
    Nothing,
    /// It is done, and the answer does not tell whether at a revision of its own.
    Done,
    DoneAt(i64),
}

#[derive(Debug)]
struct Asked {
    command: Command,
    outcome: Outcome,
}

pub(crate) struct Past {
    store: Store,
    /// Since the last comparison, by number.
    asked: BTreeMap<u64, Asked>,
    numbers: u64,
    /// What watchers were told since.
    seen: Vec<Event>,
    /// The last entry known to be applied.
    applied: u64,
}

/// Old revisions that are compared, at most.
const OLD_REVISIONS: i64 = 8;

pub(crate) fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

impl Past {
    pub(crate) fn new() -> Self {
        let store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
        Self { store, asked: BTreeMap::new(), numbers: 0, seen: Vec::new(), applied: 0 }
    }

    /// Of what is known for certain.
    pub(crate) fn reader(&self) -> Reader {
        self.store.reader()
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers + 1
    }

    /// Answers its number.
    pub(crate) fn ask(&mut self, command: Command) -> u64 {
        self.numbers += 1;
        self.asked.insert(self.numbers, Asked { command, outcome: Outcome::Unknown });
        self.numbers
    }

    pub(crate) fn answered(&mut self, number: u64, outcome: Outcome, applied: LogPosition) {
        self.asked.get_mut(&number).unwrap().outcome = outcome;
        self.applied = self.applied.max(applied.index);
    }

    pub(crate) fn saw(&mut self, events: Vec<Event>) {
        self.seen.extend(events);
    }

    /// Whether a watcher was told of everything up to `revision`.
    pub(crate) fn seen(&self, revision: i64) -> bool {
        let last = self.seen.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        last.unwrap_or(self.reader().revision()) >= revision
    }

    /// Compares with a member that has caught up.
    pub(crate) fn compare(&mut self, member: &Reader, view: &StoreView) {
        assert!(member.applied().index >= self.applied, "entry {} was applied: {:?}", self.applied, member.applied());
        self.take(|command, outcome| {
            let Command::LeaseGrant(grant) = command else { return false };
            outcome == Outcome::Done || view.lease(grant.id).unwrap().is_some()
        });
        let (from, to) = (self.reader().revision() + 1, view.revision());
        let everything = [KeyRange::AtLeast(Bytes::from_static(b"\0"))];
        let revisions = view.events(from, to, &everything, usize::MAX).unwrap().revisions;
        assert!(revisions.iter().map(|found| found.revision).eq(from..=to), "a hole between {from} and {to}");
        for found in &revisions {
            let number = self.whose(found);
            let asked = self.asked.remove(&number).unwrap();
            let effects = self.apply(asked.command.clone());
            assert_eq!(effects.revisions, std::slice::from_ref(found), "{asked:?}");
        }
        self.check_seen(&revisions);
        self.take(|command, outcome| match command {
            Command::LeaseRevoke(revoke) => outcome == Outcome::Done || view.lease(revoke.id).unwrap().is_none(),
            Command::Compaction(compact) => outcome == Outcome::Done || compact.revision <= view.compacted(),
            _ => false,
        });
        for Asked { command, outcome } in std::mem::take(&mut self.asked).into_values() {
            assert!(!matches!(outcome, Outcome::DoneAt(_)), "{command:?} was answered and is lost: {outcome:?}");
        }
        while !self.store.compact_step(usize::MAX).unwrap() {}
        same(view, &self.reader().view().unwrap());
        if member.walked() == view.compacted() {
            assert_eq!(member.logical_bytes(), self.reader().logical_bytes());
        }
    }

    /// Applies those of the commands that change no revision and, by `happened`, happened.
    fn take(&mut self, happened: impl Fn(&Command, Outcome) -> bool) {
        let revision = self.reader().revision();
        let taken =
            |_: &u64, asked: &mut Asked| asked.outcome != Outcome::Nothing && happened(&asked.command, asked.outcome);
        let taken: Vec<Asked> = self.asked.extract_if(.., taken).map(|(_, asked)| asked).collect();
        for asked in taken {
            self.apply(asked.command.clone());
            assert_eq!(self.reader().revision(), revision, "{asked:?} changed nothing where it was answered");
        }
    }

    /// The number of the request that made these events.
    fn whose(&self, found: &RevisionEvents) -> u64 {
        let claims = |asked: &Asked| asked.outcome == Outcome::DoneAt(found.revision);
        if let Some((number, _)) = self.asked.iter().find(|(_, asked)| claims(asked)) {
            return *number;
        }
        let view = self.reader().view().unwrap();
        let events: Vec<Change> =
            found.events.iter().map(|event| (event.kind, event.kv.key.clone(), event.kv.value.clone())).collect();
        let open = |asked: &Asked| matches!(asked.outcome, Outcome::Unknown | Outcome::Done);
        let fits = |asked: &Asked| open(asked) && changes(&view, &asked.command) == events;
        let known = self.asked.iter().find(|(_, asked)| fits(asked));
        *known.unwrap_or_else(|| panic!("nobody asked for {found:?}: {:#?}", self.asked)).0
    }

    /// Nobody is told what a crash could undo.
    fn check_seen(&mut self, revisions: &[RevisionEvents]) {
        for event in std::mem::take(&mut self.seen) {
            let kind = if event.r#type() == EventType::Put { EventKind::Put } else { EventKind::Delete };
            let kv = event.kv.unwrap();
            let at = revisions.iter().find(|found| found.revision == kv.mod_revision);
            let found = at.is_some_and(|found| found.events.iter().any(|event| event.kind == kind && event.kv == kv));
            assert!(found, "a watcher was told of {kv:?}");
        }
    }

    fn apply(&mut self, command: Command) -> Effects {
        let proposal = Proposal { command: Some(command), ..Default::default() };
        let payload = Payload::Batch(Batch { proposals: vec![proposal] }.encode_to_vec().into());
        let position = LogPosition { index: self.store.applied().index + 1, term: 1 };
        self.store.apply(&[Entry { position, payload }]).unwrap().effects
    }
}

type Change = (EventKind, Bytes, Bytes);

/// What `command` would change.
fn changes(view: &StoreView, command: &Command) -> Vec<Change> {
    let put = |put: &pb::PutRequest| (EventKind::Put, put.key.clone(), put.value.clone());
    let gone = |key| (EventKind::Delete, key, Bytes::new());
    let delete = |delete: &pb::DeleteRangeRequest| {
        let range =
            pb::RangeRequest { key: delete.key.clone(), range_end: delete.range_end.clone(), ..Default::default() };
        view.range(&range).unwrap().kvs.into_iter().map(|kv| gone(kv.key)).collect::<Vec<_>>()
    };
    match command {
        Command::Put(request) => vec![put(request)],
        Command::DeleteRange(request) => delete(request),
        Command::Txn(txn) => txn
            .success
            .iter()
            .flat_map(|op| match op.request.as_ref().unwrap() {
                Request::RequestPut(request) => vec![put(request)],
                Request::RequestDeleteRange(request) => delete(request),
                other => panic!("{other:?}"),
            })
            .collect(),
        Command::LeaseRevoke(revoke) => view.lease_keys(revoke.id).unwrap().into_iter().map(gone).collect(),
        _ => Vec::new(),
    }
}

/// Now, and at some of the revisions that can still be read.
fn same(found: &StoreView, expected: &StoreView) {
    assert_eq!(found.compacted(), expected.compacted());
    assert_eq!(found.revision(), expected.revision());
    let oldest = expected.compacted().max(1);
    let step = (expected.revision() - oldest) / OLD_REVISIONS + 1;
    for revision in (oldest..=expected.revision()).step_by(step as usize).chain([0]) {
        let then = pb::RangeRequest { revision, ..everything() };
        assert_eq!(found.range(&then).unwrap(), expected.range(&then).unwrap(), "at {revision}");
        assert_eq!(found.hash_kv(revision).unwrap(), expected.hash_kv(revision).unwrap(), "at {revision}");
    }
    let leases = expected.leases().unwrap();
    assert_eq!(found.leases().unwrap(), leases);
    for (id, _) in leases {
        assert_eq!(found.lease_keys(id).unwrap(), expected.lease_keys(id).unwrap(), "of lease {id}");
    }
}
