//! The reference, transactions: all comparisons first, then all checks, both on the state before; then the operations,
//! each on what the ones before it have left.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::Rejection;

use super::{Model, check_range_form, header};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response::{ResponseDeleteRange, ResponsePut, ResponseRange, ResponseTxn};

/// The branch that a txn takes, with the branches that the txns in it take.
struct Branch<'t> {
    succeeded: bool,
    ops: Vec<Op<'t>>,
}

enum Op<'t> {
    Nothing,
    Plain(&'t Request),
    Txn(Branch<'t>),
}

impl Model {
    pub(super) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Rejection> {
        let branch = self.decide(request);
        self.check(&branch)?;
        let response = self.execute(&branch)?;
        Ok(pb::TxnResponse { header: Some(header(self.now())), ..response })
    }

    /// The branches that a txn and the txns in it take.
    fn decide<'t>(&self, txn: &'t pb::TxnRequest) -> Branch<'t> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let taken = if succeeded { &txn.success } else { &txn.failure };
        let ops = taken.iter().map(|op| match &op.request {
            Some(Request::RequestTxn(nested)) => Op::Txn(self.decide(nested)),
            Some(request) => Op::Plain(request),
            None => Op::Nothing,
        });
        Branch { succeeded, ops: ops.collect() }
    }

    /// All keys of the range must pass; where there is none, a key of zeros is compared, but no value is ever right.
    fn holds(&self, compare: &pb::Compare) -> bool {
        let kvs = self.live(&compare.key, &compare.range_end, i64::MAX);
        if kvs.is_empty() {
            return compare.target != CompareTarget::Value as i32 && compare_one(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| compare_one(compare, kv))
    }

    fn check(&self, branch: &Branch<'_>) -> Result<(), Rejection> {
        for op in &branch.ops {
            match op {
                Op::Nothing => return Err(Rejection::KeyNotFound),
                Op::Txn(nested) => self.check(nested)?,
                Op::Plain(Request::RequestPut(put)) => self.check_put(put)?,
                Op::Plain(Request::RequestDeleteRange(delete)) if delete.key.is_empty() => {
                    return Err(Rejection::EmptyKey);
                }
                Op::Plain(Request::RequestRange(range)) => {
                    check_range_form(range)?;
                    match range.revision {
                        0 => {}
                        asked if asked > self.revision => return Err(Rejection::FutureRevision),
                        asked if asked < self.compacted => return Err(Rejection::Compacted),
                        _ => {}
                    }
                }
                Op::Plain(_) => {}
            }
        }
        Ok(())
    }

    fn execute(&mut self, branch: &Branch<'_>) -> Result<pb::TxnResponse, Rejection> {
        let mut responses = Vec::new();
        for op in &branch.ops {
            let response = match op {
                Op::Txn(nested) => ResponseTxn(self.execute(nested)?),
                Op::Plain(Request::RequestRange(range)) => ResponseRange(self.range(range)?),
                Op::Plain(Request::RequestPut(put)) => ResponsePut(self.put(put)?),
                Op::Plain(Request::RequestDeleteRange(delete)) => ResponseDeleteRange(self.delete_range(delete)),
                Op::Plain(Request::RequestTxn(_)) | Op::Nothing => {
                    unreachable!("a txn is an Op::Txn, nothing is refused")
                }
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        Ok(pb::TxnResponse { header: Some(header(0)), succeeded: branch.succeeded, responses })
    }
}

/// What is compared with is zero, or nothing, when another kind of thing was given. An unknown target is always equal,
/// an unknown operator always holds.
fn compare_one(compare: &pb::Compare, kv: &KeyValue) -> bool {
    use CompareTarget as Target;
    let order = match (Target::try_from(compare.target), compare.target_union.as_ref()) {
        (Ok(Target::Value), Some(TargetUnion::Value(value))) => kv.value.cmp(value),
        (Ok(Target::Value), _) => kv.value.as_ref().cmp(b""),
        (Ok(Target::Version), Some(TargetUnion::Version(version))) => kv.version.cmp(version),
        (Ok(Target::Version), _) => kv.version.cmp(&0),
        (Ok(Target::Create), Some(TargetUnion::CreateRevision(revision))) => kv.create_revision.cmp(revision),
        (Ok(Target::Create), _) => kv.create_revision.cmp(&0),
        (Ok(Target::Mod), Some(TargetUnion::ModRevision(revision))) => kv.mod_revision.cmp(revision),
        (Ok(Target::Mod), _) => kv.mod_revision.cmp(&0),
        (Ok(Target::Lease), Some(TargetUnion::Lease(lease))) => kv.lease.cmp(lease),
        (Ok(Target::Lease), _) => kv.lease.cmp(&0),
        (Err(_), _) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
