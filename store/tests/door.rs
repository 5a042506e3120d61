//! What the door can say of a request without any state: forms, sizes, and keys that one branch would change twice.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use std::collections::BTreeSet;

use quorate_proto::etcdserverpb as pb;
use quorate_store::{Rejection, validate_delete, validate_put, validate_range, validate_txn};

use pb::request_op::Request;
use support::build::{delete, op_delete, op_put, op_range, op_txn, put, range, txn};
use support::chance::Chance;
use support::model::means;

mod support;

const OPS_MAX: usize = 128;

fn both(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    op_txn(pb::TxnRequest { success, failure, ..Default::default() })
}

#[test]
fn keys_changed_twice_in_one_branch_are_refused() {
    let (a, b) = (|| op_put(put("a", "1")), || op_put(put("b", "1")));
    let del = |key: &str, end: &str| op_delete(delete(key, end));
    let duplicate = [
        vec![a(), a()],
        vec![a(), del("a", "")],
        vec![del("a", ""), a()],
        vec![b(), del("a", "c")],
        vec![a(), op_txn(txn(vec![a()]))],
        vec![op_txn(txn(vec![a()])), a()],
        vec![op_txn(txn(vec![a()])), op_txn(txn(vec![a()]))],
        vec![both(vec![], vec![a()]), a()],
        vec![both(vec![a()], vec![]), both(vec![], vec![a()])],
        vec![del("a", "c"), op_txn(txn(vec![op_txn(txn(vec![b()]))]))],
        vec![op_txn(txn(vec![del("a", "c")])), b()],
        vec![op_txn(txn(vec![op_txn(txn(vec![b()]))])), b()],
    ];
    for ops in duplicate {
        assert_eq!(validate_txn(&txn(ops.clone()), OPS_MAX), Err(Rejection::DuplicateKey), "{ops:?}");
        let otherwise = pb::TxnRequest { failure: ops, ..Default::default() };
        assert_eq!(validate_txn(&otherwise, OPS_MAX), Err(Rejection::DuplicateKey));
    }
}

#[test]
fn what_cannot_meet_or_does_not_matter_is_accepted() {
    let (a, b) = (|| op_put(put("a", "1")), || op_put(put("b", "1")));
    let del = |key: &str, end: &str| op_delete(delete(key, end));
    let fine = [
        vec![],
        vec![a(), b()],
        vec![del("a", "c"), del("a", "c"), del("b", "")],
        vec![b(), del("a", "b")],
        vec![both(vec![a()], vec![a()])],
        vec![both(vec![a()], vec![a()]), b()],
        vec![a(), op_range(range("a", "", 0))],
        // etcd takes a `\0` end for an empty range here, and for everything when it deletes.
        vec![del("a", "\0"), b()],
        // A nested put is not held against the deletions of a txn that comes after it.
        vec![op_txn(txn(vec![a()])), op_txn(txn(vec![del("a", "")]))],
    ];
    for ops in fine {
        assert_eq!(validate_txn(&txn(ops.clone()), OPS_MAX), Ok(()), "{ops:?}");
    }
    let shared = pb::TxnRequest { success: vec![a()], failure: vec![a(), b()], ..Default::default() };
    assert_eq!(validate_txn(&shared, OPS_MAX), Ok(()), "the branches may share keys");
}

/// etcd's rule, read out: deletes of a level first, then nested txns in order, then the puts of the level.
fn naive(ops: &[pb::RequestOp]) -> Result<(BTreeSet<Vec<u8>>, Vec<pb::DeleteRangeRequest>), ()> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    let covered = |deletes: &[pb::DeleteRangeRequest], key: &[u8]| {
        deletes.iter().any(|delete| delete.range_end != "\0" && means(&delete.key, &delete.range_end, key))
    };
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deletes.push(delete.clone());
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let (then, otherwise) = (naive(&nested.success)?, naive(&nested.failure)?);
            let mut both = then.0.clone();
            both.extend(otherwise.0);
            if both.iter().any(|key| puts.contains(key) || covered(&deletes, key)) {
                return Err(());
            }
            puts.extend(both);
            deletes.extend(then.1.into_iter().chain(otherwise.1));
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request
            && (covered(&deletes, &put.key) || !puts.insert(put.key.to_vec()))
        {
            return Err(());
        }
    }
    Ok((puts, deletes))
}

fn some_ops(chance: &mut Chance, depth: u64) -> Vec<pb::RequestOp> {
    let op = |chance: &mut Chance| {
        let key = chance.pick(&["a", "b", "c", "d", "e", "f", "g", "h"]);
        match chance.weighted(&[6, 2, if depth < 3 { 4 } else { 0 }]) {
            0 => op_put(put(key, "1")),
            1 => op_delete(delete(key, chance.pick(&["", "", "\0", "c", "f"]))),
            _ => both(some_ops(chance, depth + 1), some_ops(chance, depth + 1)),
        }
    };
    (0..chance.below(3)).map(|_| op(chance)).collect()
}

#[test]
fn overlaps_are_found_as_the_rule_read_out_finds_them() {
    let mut chance = Chance(3);
    let mut refused = 0;
    for _ in 0..50_000 {
        let ops = some_ops(&mut chance, 0);
        let wanted = naive(&ops).map(drop).map_err(|()| Rejection::DuplicateKey);
        refused += u64::from(wanted.is_err());
        assert_eq!(validate_txn(&txn(ops.clone()), OPS_MAX), wanted, "{ops:?}");
    }
    assert!((3_000..30_000).contains(&refused), "{refused}");
}

#[test]
fn the_limit_of_operations_counts_every_level_and_each_list_by_itself() {
    let puts = |count: usize| (0..count).map(|key| op_put(put(&format!("{key}"), ""))).collect::<Vec<_>>();
    let compares = |count| vec![pb::Compare { key: "k".into(), ..Default::default() }; count];
    let full = pb::TxnRequest { compare: compares(3), success: puts(3), failure: puts(3) };
    assert_eq!(validate_txn(&full, 3), Ok(()));
    assert_eq!(validate_txn(&full, 2), Err(Rejection::TooManyOps));
    let nested = pb::TxnRequest { success: vec![op_txn(full)], ..Default::default() };
    assert_eq!(validate_txn(&nested, 4), Ok(()));
    assert_eq!(validate_txn(&nested, 3), Err(Rejection::TooManyOps));
}

#[test]
fn forms_are_refused_one_by_one() {
    let refused = |ops: Vec<pb::RequestOp>| validate_txn(&txn(ops), OPS_MAX).unwrap_err();
    assert_eq!(refused(vec![pb::RequestOp::default()]), Rejection::KeyNotFound);
    assert_eq!(refused(vec![op_put(put("", ""))]), Rejection::EmptyKey);
    assert_eq!(refused(vec![op_delete(delete("", "\0"))]), Rejection::EmptyKey);
    assert_eq!(refused(vec![op_range(range("", "\0", 0))]), Rejection::EmptyKey);
    assert_eq!(refused(vec![op_txn(txn(vec![op_put(put("", ""))]))]), Rejection::EmptyKey);
    let compare = pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() };
    assert_eq!(validate_txn(&compare, OPS_MAX), Err(Rejection::EmptyKey));

    let put_with = |put: pb::PutRequest| validate_put(&put).unwrap_err();
    assert_eq!(put_with(pb::PutRequest { ignore_value: true, ..put("k", "v") }), Rejection::ValueProvided);
    assert_eq!(put_with(pb::PutRequest { ignore_lease: true, lease: 1, ..put("k", "") }), Rejection::LeaseProvided);
    assert_eq!(validate_delete(&delete("", "")), Err(Rejection::EmptyKey));
    for (sort_order, sort_target) in [(3, 0), (0, 5), (-1, 0), (0, -1)] {
        let unknown = pb::RangeRequest { sort_order, sort_target, ..range("k", "", 0) };
        assert_eq!(validate_range(&unknown), Err(Rejection::InvalidSortOption));
    }
}
