//! Transactions: compare, check, then do, all or nothing.
//!
//! The order is etcd's, for it decides which error a client sees: first all comparisons, down to the innermost txn,
//! against the state before; then every op of the branches taken is checked against that same state; then the ops run,
//! each seeing what the ones before it did. They run on an overlay of their own, so that one which fails after all (a
//! put that wants to keep the lease of a key that this very txn has deleted) undoes the whole.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::Group;
use super::kv::{check_put, delete_range, put, validate_delete, validate_put};
use crate::mvcc::{KeyRange, Keyspace, Writer, validate_range};
use crate::overlay::Overlay;
use crate::types::{Failure, Fault, Rejection};
use pb::compare::{CompareResult, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

/// Deeper nesting than this is refused. The decoder ends at 100 messages inside each other, two to a txn, and the log
/// wraps a request in two more than it came in: without a limit well below that, a txn that the door can just decode
/// would be one that no member can read from the log any more.
const TXN_DEPTH_MAX: usize = 32;

impl Group<'_> {
    pub(super) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
        let path = decide(&self.state.keyspace(&self.overlay), request, 0)?;
        let mut nested = Overlay::new(&self.overlay);
        let mut writer = Writer::new(&mut nested, self.state.tracks.clone());
        check(&writer.keyspace(), request, &path)?;
        let mut response = execute(&mut writer, request, &path)?;
        response.header = Some(pb::ResponseHeader { revision: writer.revision(), ..Default::default() });
        let finished = writer.finish();
        let changes = nested.into_changes();
        self.overlay.absorb(changes);
        self.finish(finished);
        Ok(response)
    }
}

/// Answers a txn that holds nothing but ranges, from a frozen state.
pub(crate) fn read_only(keyspace: &Keyspace<'_>, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
    let path = decide(keyspace, request, 0)?;
    check(keyspace, request, &path)?;
    let mut responses = Vec::new();
    for op in path.ops(request) {
        let Some(Request::RequestRange(range)) = &op.request else { return Err(Rejection::KeyNotFound.into()) };
        let response = Some(Response::ResponseRange(keyspace.range(range)?));
        responses.push(pb::ResponseOp { response });
    }
    let header = Some(pb::ResponseHeader { revision: keyspace.revision, ..Default::default() });
    Ok(pb::TxnResponse { header, succeeded: path.succeeded, responses })
}

/// Which branch a txn takes, and its nested txns in the order of that branch.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn ops<'t>(&self, request: &'t pb::TxnRequest) -> &'t [pb::RequestOp] {
        if self.succeeded { &request.success } else { &request.failure }
    }
}

fn decide(keyspace: &Keyspace<'_>, request: &pb::TxnRequest, depth: usize) -> Result<Path, Failure> {
    if depth > TXN_DEPTH_MAX {
        return Err(Rejection::TooManyOps.into());
    }
    let mut path = Path { succeeded: true, nested: Vec::new() };
    for comparison in &request.compare {
        if !compare(keyspace, comparison)? {
            path.succeeded = false;
            break;
        }
    }
    for op in path.ops(request) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            path.nested.push(decide(keyspace, nested, depth + 1)?);
        }
    }
    Ok(path)
}

/// Over a range, every key must pass; where there is no key, versions and revisions compare as 0, values as nothing.
fn compare(keyspace: &Keyspace<'_>, comparison: &pb::Compare) -> Result<bool, Fault> {
    let kvs = match KeyRange::new(&comparison.key, &comparison.range_end) {
        KeyRange::One(key) => keyspace.newest(&key)?.into_iter().collect(),
        range @ (KeyRange::Span { .. } | KeyRange::AtLeast(_)) => keyspace.all(&range)?,
    };
    if kvs.is_empty() {
        let by_value = comparison.target == pb::compare::CompareTarget::Value as i32;
        return Ok(!by_value && compare_one(comparison, &KeyValue::default()));
    }
    Ok(kvs.iter().all(|kv| compare_one(comparison, kv)))
}

fn compare_one(comparison: &pb::Compare, kv: &KeyValue) -> bool {
    use pb::compare::CompareTarget;
    let union = comparison.target_union.as_ref();
    let order = match CompareTarget::try_from(comparison.target) {
        Ok(CompareTarget::Value) => {
            let empty = Bytes::new();
            let wanted = if let Some(TargetUnion::Value(value)) = union { value } else { &empty };
            kv.value.cmp(wanted)
        }
        Ok(CompareTarget::Create) => {
            kv.create_revision.cmp(if let Some(TargetUnion::CreateRevision(wanted)) = union { wanted } else { &0 })
        }
        Ok(CompareTarget::Mod) => {
            kv.mod_revision.cmp(if let Some(TargetUnion::ModRevision(wanted)) = union { wanted } else { &0 })
        }
        Ok(CompareTarget::Version) => {
            kv.version.cmp(if let Some(TargetUnion::Version(wanted)) = union { wanted } else { &0 })
        }
        Ok(CompareTarget::Lease) => {
            kv.lease.cmp(if let Some(TargetUnion::Lease(wanted)) = union { wanted } else { &0 })
        }
        // A target that etcd does not know compares as equal there.
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(comparison.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        // And an operator that it does not know always holds.
        Err(_) => true,
    }
}

/// Checks the ops that will run, against the state before any of them.
fn check(keyspace: &Keyspace<'_>, request: &pb::TxnRequest, path: &Path) -> Result<(), Failure> {
    let mut nested = path.nested.iter();
    for op in path.ops(request) {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                validate_range(range)?;
                match range.revision {
                    0 => {}
                    asked if asked > keyspace.revision => return Err(Rejection::FutureRevision.into()),
                    asked if asked < keyspace.compacted => return Err(Rejection::Compacted.into()),
                    _ => {}
                }
            }
            Some(Request::RequestPut(put)) => check_put(keyspace, put)?,
            Some(Request::RequestDeleteRange(delete)) => validate_delete(delete)?,
            Some(Request::RequestTxn(txn)) => {
                check(keyspace, txn, nested.next().expect("decide() made one path for each nested txn"))?;
            }
            None => return Err(Rejection::KeyNotFound.into()),
        }
    }
    Ok(())
}

fn execute(writer: &mut Writer<'_, '_>, request: &pb::TxnRequest, path: &Path) -> Result<pb::TxnResponse, Failure> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in path.ops(request) {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => Response::ResponseRange(writer.keyspace().range(range)?),
            Some(Request::RequestPut(request)) => Response::ResponsePut(put(writer, request)?),
            Some(Request::RequestDeleteRange(request)) => Response::ResponseDeleteRange(delete_range(writer, request)?),
            Some(Request::RequestTxn(txn)) => {
                let path = nested.next().expect("decide() made one path for each nested txn");
                Response::ResponseTxn(execute(writer, txn, path)?)
            }
            None => return Err(Rejection::KeyNotFound.into()),
        };
        responses.push(pb::ResponseOp { response: Some(response) });
    }
    // Only the outermost txn's header carries a revision, in etcd as here.
    Ok(pb::TxnResponse { header: Some(pb::ResponseHeader::default()), succeeded: path.succeeded, responses })
}

/// What can be said of a txn at the door: sizes, empty keys, and keys that one branch would change twice. `ops_max` is
/// a flag, so apply never asks.
pub fn validate(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    validate_ops(request, ops_max, 0)?;
    overlaps(&request.success)?;
    overlaps(&request.failure)?;
    Ok(())
}

fn validate_ops(request: &pb::TxnRequest, ops_max: usize, depth: usize) -> Result<(), Rejection> {
    if depth > TXN_DEPTH_MAX {
        return Err(Rejection::TooManyOps);
    }
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else { return Err(Rejection::TooManyOps) };
    if request.compare.iter().any(|comparison| comparison.key.is_empty()) {
        return Err(Rejection::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => validate_range(range)?,
            Some(Request::RequestPut(put)) => validate_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => validate_delete(delete)?,
            Some(Request::RequestTxn(txn)) => validate_ops(txn, left, depth + 1)?,
            None => return Err(Rejection::KeyNotFound),
        }
    }
    Ok(())
}

/// What the ops of one branch change.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    /// Key and range end as given: a `\0` end covers nothing here, as in etcd, which takes it for an empty range.
    deletes: Vec<(Bytes, Bytes)>,
}

impl Touched {
    fn deletes(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|(from, until)| if until.is_empty() { from == key } else { from <= key && key < until })
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Rejection> {
        if self.deletes(key) || !self.puts.insert(key.clone()) { Err(Rejection::DuplicateKey) } else { Ok(()) }
    }
}

fn overlaps(ops: &[pb::RequestOp]) -> Result<Touched, Rejection> {
    let mut touched = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            touched.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else { continue };
        let (then, otherwise) = (overlaps(&txn.success)?, overlaps(&txn.failure)?);
        for key in &then.puts {
            touched.put(key)?;
        }
        // The two branches of one txn exclude each other, so they may share keys.
        for key in otherwise.puts.difference(&then.puts) {
            touched.put(key)?;
        }
        if let Some(key) = otherwise.puts.intersection(&then.puts).next()
            && touched.deletes(key)
        {
            return Err(Rejection::DuplicateKey);
        }
        touched.deletes.extend(then.deletes);
        touched.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            touched.put(&put.key)?;
        }
    }
    Ok(touched)
}
