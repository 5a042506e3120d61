//! What a request will weigh, by etcd's estimate: the door compares it with the quota, apply with nothing at all.
//!
//! The quota itself is a flag and may differ between members, so only the door looks at it; what apply acts upon is the
//! NOSPACE alarm, which is replicated. A request that costs nothing passes under the alarm, so that space can be freed.

use quorate_proto::etcdserverpb as pb;

use pb::request_op::Request;

/// What etcd adds to a key and a value for the page it may open.
const PUT_OVERHEAD_BYTES: u64 = 256;
pub const COST_LEASE_GRANT_BYTES: u64 = 64;

pub fn cost_put(put: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// The dearer of the two branches, nested txns included.
pub fn cost_txn(txn: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Request::RequestPut(put)) => cost_put(put),
                Some(Request::RequestTxn(txn)) => cost_txn(txn),
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}
