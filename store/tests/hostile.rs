//! Whatever was committed, apply rejects it or does something definite; it never panics. One request that could, ended
//! all members of a real cluster, and again at every start.
//!
//! `HOSTILE_ROUNDS` says how many rounds of each kind.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};
use quorate_store::{Entry, Failure, Fault, KeyRange, Payload, Rejection};

use pb::request_op::Request;
use support::build::{Member, bytes, entry, everything, op_put, op_txn, payload, put, txn};
use support::chance::{Chance, from_env};
use support::history::{History, Load, Step, What};
use support::run::run;
use support::shrink::shrink;
use support::subject::Kind;
use support::wild::Wild;
use support::{generate, history};

mod support;

fn rounds(default: u64) -> u64 {
    from_env("HOSTILE_ROUNDS", default)
}

/// Applies; a fault must say so and leave everything as it was.
fn apply(member: &mut Member, entries: &[Entry]) -> bool {
    let before = (member.store.applied(), member.revision());
    match member.store.apply(entries) {
        Ok(_) => true,
        Err(Fault::Entry { .. }) => {
            assert_eq!((member.store.applied(), member.revision()), before);
            false
        }
        Err(other) => panic!("{other}"),
    }
}

/// What is there can be read, opened and compacted.
fn healthy(member: &mut Member, wild: &mut Wild) {
    member.flush();
    member.crash();
    while !member.store.compact_step(50).unwrap() {}
    let view = member.view();
    view.hash_kv(0).unwrap();
    view.hash().unwrap();
    view.leases().unwrap();
    let from = view.compacted();
    view.events(from, view.revision(), &[everything()], usize::MAX).unwrap();
    for _ in 0..20 {
        let request = wild.range();
        let range = KeyRange::new(&request.key, &request.range_end);
        let revision = wild.number();
        answered(view.range(&request));
        answered(view.range_piece(&request, 3, 10));
        answered(view.count(&range, revision));
        answered(view.hash_kv(revision));
        answered(view.events(revision, wild.number(), &[range], 100));
        view.lease_keys(revision).unwrap();
        let nested = wild.command();
        if let Command::Txn(txn) = nested {
            answered(view.read_only_txn(&txn));
        }
    }
}

fn answered<T>(result: Result<T, Failure>) {
    if let Err(Failure::Fault(fault)) = result {
        panic!("{fault}");
    }
}

#[test]
fn commands_never_checked_at_the_door_are_answered() {
    for seed in 0..rounds(1_500) {
        let mut wild = Wild { chance: Chance(seed) };
        let mut member = Member::new();
        for _ in 0..30 {
            let proposals = (0..1 + wild.chance.below(3)).map(|_| wild.proposal()).collect::<Vec<_>>();
            let known = proposals.iter().all(|proposal| proposal.command.is_some());
            let bytes = log::Batch { proposals }.encode_to_vec().into();
            let next = entry(member.store.applied().index + 1, 1, Payload::Batch(bytes));
            assert_eq!(apply(&mut member, &[next]), known, "seed {seed}: only an unknown command is a fault");
        }
        healthy(&mut member, &mut wild);
    }
}

/// Of the commands that the model knows to the letter, it also knows the answer to nonsense.
#[test]
fn nonsense_is_answered_as_the_model_answers_it() {
    let nonsense = |seed| {
        let mut wild = Wild { chance: Chance(seed) };
        let groups = (0..30).map(|_| {
            let command = Some(wild.data_command());
            let what = What::Proposals(vec![log::Proposal { command, ..Default::default() }]);
            Step::Group { probe: wild.chance.next() >> 32, entries: vec![Load { term: 1, what }] }
        });
        History { steps: groups.collect() }
    };
    for seed in 0..rounds(1_000) {
        if let Err(text) = run(&nonsense(seed), Kind::Memory) {
            let small = shrink(nonsense(seed), |smaller| run(smaller, Kind::Memory).is_err());
            panic!("seed {seed}: {text}\n{small}\n{}", run(&small, Kind::Memory).unwrap_err());
        }
    }
}

#[test]
fn random_bytes_are_a_fault_or_a_batch_and_never_a_panic() {
    let mut chance = Chance(1);
    let (mut faults, mut member) = (0, Member::new());
    for _ in 0..rounds(20_000) {
        let bytes = chance.bytes(60);
        let next = entry(member.store.applied().index + 1, 1, Payload::Batch(bytes));
        faults += u64::from(!apply(&mut member, &[next]));
    }
    assert!(faults > rounds(20_000) / 2, "{faults} faults");
}

/// A bit turned over, a piece cut out, a tail cut off: what the log's checksums are there to catch.
#[test]
fn damaged_batches_never_panic() {
    let mut chance = Chance(2);
    for seed in 0..rounds(200) {
        let mut member = Member::new();
        for step in generate::history(seed, 40).steps {
            let Step::Group { entries, .. } = step else { continue };
            for load in entries {
                let Payload::Batch(bytes) = load.payload() else { continue };
                let mut bytes = bytes.to_vec();
                for _ in 0..=chance.below(2) {
                    damage(&mut chance, &mut bytes);
                }
                let next = entry(member.store.applied().index + 1, 1, Payload::Batch(bytes.into()));
                apply(&mut member, &[next]);
            }
        }
        healthy(&mut member, &mut Wild { chance: Chance(seed) });
    }
}

fn damage(chance: &mut Chance, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = chance.below(bytes.len() as u64) as usize;
    match chance.below(4) {
        0 | 1 => bytes[at] ^= 1 << chance.below(8),
        2 => bytes.truncate(at),
        _ => drop(bytes.remove(at)),
    }
}

fn nested(depth: usize) -> pb::TxnRequest {
    (0..depth).fold(txn(vec![op_put(put("deep", "down"))]), |inner, _| txn(vec![op_txn(inner)]))
}

/// The log wraps a request in two more layers than it came in: one that the door can just decode must not be one that
/// no member can decode any more.
#[test]
fn a_txn_that_passes_the_door_can_be_read_back_from_the_log_at_any_depth() {
    let mut deepest = 0;
    for depth in 0..140 {
        let request = nested(depth);
        let arrived = pb::TxnRequest::decode(&request.encode_to_vec()[..]);
        let Ok(arrived) = arrived else { continue };
        if quorate_store::validate_txn(&arrived, 1_000) != Ok(()) {
            continue;
        }
        let mut member = Member::new();
        let applied = member.store.apply(&[entry(1, 1, payload(Command::Txn(arrived)))]);
        assert!(applied.is_ok_and(|applied| applied.answers[0][0].is_ok()), "depth {depth}");
        assert_eq!(member.value("deep", 0).as_deref(), Some("down"));
        deepest = depth;
    }
    assert!(deepest >= 16, "{deepest}");
}

/// Whoever hands a txn over without its having been decoded from bytes: the depth is the door's to refuse.
#[test]
fn the_door_refuses_txns_nested_beyond_measure() {
    for depth in [50, 100, 127, 1_000] {
        assert_eq!(quorate_store::validate_txn(&nested(depth), 10_000), Err(Rejection::TooManyOps), "depth {depth}");
    }
}

#[test]
fn crossing_and_empty_ranges_match_nothing_everywhere() {
    let mut member = Member::new();
    member.ok(Command::Put(put("b", "1")));
    for (key, range_end) in [("c", "a"), ("b", "b"), ("\u{7f}", "\u{1}"), ("b\0", "b")] {
        let delete = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: true };
        member.ok(Command::DeleteRange(delete.clone()));
        let compare =
            pb::Compare { key: delete.key.clone(), range_end: delete.range_end.clone(), ..Default::default() };
        let ops = vec![pb::RequestOp { request: Some(Request::RequestDeleteRange(delete.clone())) }];
        member.ok(Command::Txn(pb::TxnRequest { compare: vec![compare], ..txn(ops) }));
        let view = member.view();
        let range = KeyRange::new(&delete.key, &delete.range_end);
        assert_eq!(view.count(&range, 0).unwrap(), 0);
        assert!(view.range(&support::build::range(key, range_end, 0)).unwrap().kvs.is_empty());
        assert!(view.events(2, 2, &[range], 100).unwrap().revisions.is_empty());
    }
    assert_eq!((member.revision(), member.keys(0)), (2, vec!["b".into()]));
}

#[test]
fn a_log_of_membership_nonsense_is_applied() {
    let mut member = Member::new();
    let twice = vec![(1, false), (1, true), (0, false), (u64::MAX, false)];
    for (index, members) in (1..).zip([vec![], twice, vec![(1, true)], vec![]]) {
        let payload = Payload::Membership(history::membership(&members));
        member.store.apply(&[entry(index, 1, payload)]).unwrap();
    }
    member.flush();
    member.crash();
    assert!(member.store.reader().members().is_empty());
    assert!([0, 1, u64::MAX].into_iter().all(|id| member.store.reader().member_removed(id)));
}
