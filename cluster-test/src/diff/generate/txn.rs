//! Txn: compares of every kind, operations, txns inside of txns, too many of them, the same key twice.

use quorate_proto::etcdserverpb as pb;
use rand::RngExt as _;

use super::Generator;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;

const DEPTH_MAX: u32 = 3;
/// etcd's `--max-txn-ops`.
const OPS_MAX: usize = 128;

impl Generator {
    pub(super) fn txn(&mut self) -> pb::TxnRequest {
        let mut txn = self.txn_at(0);
        if self.one_in(60) {
            self.fill(&mut txn);
        }
        if is_fatal_to_etcd(&txn) {
            forget_ignore_flags(&mut txn);
        }
        txn
    }

    fn txn_at(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.pick(&[0, 0, 0, 1, 1, 2, 3]);
        let compare = (0..compares).map(|_| self.compare()).collect();
        let success = self.branch(depth);
        let failure = self.branch(depth);
        pb::TxnRequest { compare, success, failure }
    }

    /// Just as many operations as are allowed, or one more.
    fn fill(&mut self, txn: &mut pb::TxnRequest) {
        let count = OPS_MAX + self.random.random_range(0..2);
        let ops = (0..count).map(|number| {
            let key = format!("many/{number}").into();
            Op::RequestRange(pb::RangeRequest { key, ..Default::default() })
        });
        let ops = ops.map(|op| pb::RequestOp { request: Some(op) }).collect();
        if self.one_in(3) {
            let key = self.key();
            txn.compare = vec![pb::Compare { key, ..Default::default() }; count];
        } else if self.one_in(2) {
            txn.failure = ops;
        } else {
            txn.success = ops;
        }
    }

    fn branch(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        let count = self.pick(&[0, 1, 1, 2, 2, 3, 4]);
        (0..count).map(|_| pb::RequestOp { request: self.op(depth) }).collect()
    }

    fn op(&mut self, depth: u32) -> Option<Op> {
        Some(match self.random.random_range(0..100) {
            0..46 => Op::RequestPut(self.put_in_txn()),
            46..66 => Op::RequestRange(self.range_in_txn()),
            66..84 => Op::RequestDeleteRange(self.delete()),
            84..99 if depth < DEPTH_MAX => Op::RequestTxn(self.txn_at(depth + 1)),
            84..99 => Op::RequestPut(self.put_in_txn()),
            _ => return None,
        })
    }

    /// What cannot be done fails the whole txn, so it is asked for less often than by itself.
    fn range_in_txn(&mut self) -> pb::RangeRequest {
        let mut range = self.range();
        if !self.one_in(3) {
            range.revision = 0;
        }
        if !self.one_in(4) {
            range.sort_order = range.sort_order.clamp(0, 2);
            range.sort_target = range.sort_target.clamp(0, 4);
        }
        range
    }

    fn put_in_txn(&mut self) -> pb::PutRequest {
        let mut put = self.put();
        if !self.one_in(3) {
            put.lease = 0;
        }
        if !self.one_in(3) {
            (put.ignore_value, put.ignore_lease) = (false, false);
        }
        put
    }

    fn compare(&mut self) -> pb::Compare {
        let (key, range_end) = self.span();
        let target = if self.one_in(30) { self.pick(&[-1, 5, 99]) } else { self.random.random_range(0..5) };
        let result = if self.one_in(30) { self.pick(&[-3, 4, 77]) } else { self.pick(&[0, 0, 1, 2, 3]) };
        let operand = if self.one_in(20) { self.random.random_range(0..6) } else { target };
        let target_union = match operand {
            0 => Some(TargetUnion::Version(self.random.random_range(-1..5))),
            1 => Some(TargetUnion::CreateRevision(self.revision_or_now())),
            2 => Some(TargetUnion::ModRevision(self.revision_or_now())),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(if self.one_in(3) { 0 } else { self.lease() })),
            _ => None,
        };
        pb::Compare { result, target, key, range_end, target_union }
    }
}

/// Where a delete up to the end of all keys may take a key and a put bring it back under one revision: etcd 3.7.3 takes the key for
/// deleted when it compacts to that revision, drops what was put, and ends when the key is read. Ours keeps it (store/tests).
pub(in crate::diff) fn is_lost_by_compaction(txn: &pb::TxnRequest) -> bool {
    any_op(txn, &|op| matches!(op, Op::RequestDeleteRange(delete) if delete.range_end == "\0"))
        && any_op(txn, &|op| matches!(op, Op::RequestPut(_)))
}

/// A put that keeps value or lease of a key that a delete up to the end of all keys has just taken: etcd 3.7.3 does not see that
/// they overlap, panics when it applies it, and again at every start. Ours refuses it (tests/bad_input holds that).
fn is_fatal_to_etcd(txn: &pb::TxnRequest) -> bool {
    any_op(txn, &|op| matches!(op, Op::RequestDeleteRange(delete) if delete.range_end == "\0"))
        && any_op(txn, &|op| matches!(op, Op::RequestPut(put) if put.ignore_value || put.ignore_lease))
}

fn any_op(txn: &pb::TxnRequest, holds: &dyn Fn(&Op) -> bool) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .filter_map(|op| op.request.as_ref())
        .any(|op| holds(op) || matches!(op, Op::RequestTxn(nested) if any_op(nested, holds)))
}

fn forget_ignore_flags(txn: &mut pb::TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure).filter_map(|op| op.request.as_mut()) {
        match op {
            Op::RequestPut(put) => (put.ignore_value, put.ignore_lease) = (false, false),
            Op::RequestTxn(nested) => forget_ignore_flags(nested),
            Op::RequestRange(_) | Op::RequestDeleteRange(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Known, step};
    use super::*;
    use crate::diff::call::Call;

    #[test]
    fn what_ends_etcd_is_never_asked() {
        let known = Known { revision: 50, compacted: 3 };
        let txns = (0..20_000).flat_map(|index| step(7, index, known)).filter_map(|call| match call {
            Call::Txn(txn) => Some(txn),
            _ => None,
        });
        let mut deletes_to_the_end = 0;
        for txn in txns {
            assert!(!is_fatal_to_etcd(&txn), "{txn:?}");
            let to_the_end = |op: &Op| matches!(op, Op::RequestDeleteRange(delete) if delete.range_end == "\0");
            deletes_to_the_end += usize::from(any_op(&txn, &to_the_end));
        }
        assert!(deletes_to_the_end > 20, "deletes up to the end are asked for otherwise: {deletes_to_the_end}");
    }
}
