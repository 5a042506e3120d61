//! The order of keys that are equal in what they are sorted by. etcd sorts with an algorithm that keeps it for a few keys only;
//! ours keeps the order of keys always.

use std::cmp::Ordering;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use pb::range_request::SortTarget;
use pb::request_op::Request;
use pb::response_op::Response;

/// Go's `sort.Sort` keeps the order of equals up to this many elements.
const KEPT_UP_TO: i64 = 12;

/// Whether both are right answers, that differ in the order of equal keys alone (and so, under a limit, in which of them are left).
pub(super) fn same_range(request: &pb::RangeRequest, theirs: &pb::RangeResponse, ours: &pb::RangeResponse) -> bool {
    let Ok(target) = SortTarget::try_from(request.sort_target) else { return false };
    if target == SortTarget::Key || theirs.count <= KEPT_UP_TO {
        return false;
    }
    let but_for_keys = |answer: &pb::RangeResponse| pb::RangeResponse { kvs: Vec::new(), ..answer.clone() };
    if but_for_keys(theirs) != but_for_keys(ours) || theirs.kvs.len() != ours.kvs.len() {
        return false;
    }
    // What was sorted by can be seen, unless it was left out of the answer: then there is one tie, of all of them.
    let compare = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    if !theirs.kvs.iter().zip(&ours.kvs).all(|(a, b)| compare(a, b) == Ordering::Equal) {
        return false;
    }
    let in_order_of_keys = |kvs: &[KeyValue]| {
        // Under a limit, which of the last ties are in is part of their order.
        let cut = if theirs.more { kvs.last() } else { None };
        let whole = kvs.iter().filter(|kv| cut.is_none_or(|last| compare(kv, last) != Ordering::Equal));
        let mut whole: Vec<_> = whole.cloned().collect();
        whole.sort_by(|a, b| a.key.cmp(&b.key));
        whole
    };
    in_order_of_keys(&theirs.kvs) == in_order_of_keys(&ours.kvs)
}

/// The same of all ranges in a txn, where nothing else may differ.
pub(super) fn same_txn(request: &pb::TxnRequest, theirs: &pb::TxnResponse, ours: &pb::TxnResponse) -> bool {
    let but_for_ops = |answer: &pb::TxnResponse| pb::TxnResponse { responses: Vec::new(), ..answer.clone() };
    let branch = if theirs.succeeded { &request.success } else { &request.failure };
    but_for_ops(theirs) == but_for_ops(ours)
        && theirs.responses.len() == branch.len()
        && ours.responses.len() == branch.len()
        && branch.iter().zip(theirs.responses.iter().zip(&ours.responses)).all(|(op, (theirs, ours))| {
            theirs == ours
                || match (&op.request, &theirs.response, &ours.response) {
                    (
                        Some(Request::RequestRange(request)),
                        Some(Response::ResponseRange(theirs)),
                        Some(Response::ResponseRange(ours)),
                    ) => same_range(request, theirs, ours),
                    (
                        Some(Request::RequestTxn(request)),
                        Some(Response::ResponseTxn(theirs)),
                        Some(Response::ResponseTxn(ours)),
                    ) => same_txn(request, theirs, ours),
                    _ => false,
                }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(target: SortTarget) -> pb::RangeRequest {
        pb::RangeRequest { sort_target: target as i32, ..Default::default() }
    }

    /// Key and version of each.
    fn range(kvs: &[(&'static str, i64)], more: bool) -> pb::RangeResponse {
        let kv = |(key, version): &(&'static str, i64)| KeyValue {
            key: (*key).into(),
            version: *version,
            ..Default::default()
        };
        pb::RangeResponse { kvs: kvs.iter().map(kv).collect(), more, count: 13, ..Default::default() }
    }

    #[test]
    fn only_equals_may_change_places() {
        let version = by(SortTarget::Version);
        let theirs = range(&[("b", 1), ("a", 1), ("c", 2)], false);
        assert!(same_range(&version, &theirs, &range(&[("a", 1), ("b", 1), ("c", 2)], false)));
        assert!(!same_range(&version, &theirs, &range(&[("a", 1), ("c", 2), ("b", 1)], false)), "out of order");
        assert!(!same_range(&version, &theirs, &range(&[("a", 1), ("a", 1), ("c", 2)], false)), "one key twice");
        assert!(!same_range(&version, &theirs, &range(&[("a", 1), ("b", 1)], false)), "one is missing");
        assert!(!same_range(&version, &theirs, &range(&[("a", 1), ("b", 1), ("c", 2)], true)), "more");
        assert!(!same_range(&by(SortTarget::Key), &theirs, &range(&[("a", 1), ("b", 1), ("c", 2)], false)), "by key");
        let few = |answer| pb::RangeResponse { count: 12, ..answer };
        let swapped = range(&[("a", 1), ("b", 1), ("c", 2)], false);
        assert!(!same_range(&version, &few(theirs), &few(swapped)), "etcd keeps the order of a few");
    }

    #[test]
    fn a_limit_may_leave_others_of_the_last_equals() {
        let version = by(SortTarget::Version);
        let theirs = range(&[("a", 1), ("d", 2)], true);
        assert!(same_range(&version, &theirs, &range(&[("a", 1), ("c", 2)], true)));
        assert!(!same_range(&version, &theirs, &range(&[("b", 1), ("c", 2)], true)), "all of version 1 are in");
        assert!(!same_range(&version, &theirs, &range(&[("a", 1), ("c", 3)], true)), "another version");
    }

    #[test]
    fn in_a_txn_nothing_but_ranges_may_differ() {
        let request = |request| pb::RequestOp { request: Some(request) };
        let response = |response| pb::ResponseOp { response: Some(response) };
        let ask = pb::TxnRequest {
            success: vec![
                request(Request::RequestRange(by(SortTarget::Version))),
                request(Request::RequestPut(Default::default())),
            ],
            ..Default::default()
        };
        let say = |kvs: &[(&'static str, i64)], revision| {
            let header = Some(pb::ResponseHeader { revision, ..Default::default() });
            let put = pb::PutResponse { header, prev_kv: None };
            let responses =
                vec![response(Response::ResponseRange(range(kvs, false))), response(Response::ResponsePut(put))];
            pb::TxnResponse { header: None, succeeded: true, responses }
        };
        let theirs = say(&[("b", 1), ("a", 1)], 5);
        assert!(same_txn(&ask, &theirs, &say(&[("a", 1), ("b", 1)], 5)));
        assert!(!same_txn(&ask, &theirs, &say(&[("a", 1), ("b", 1)], 6)));
        assert!(!same_txn(&ask, &theirs, &say(&[("a", 1), ("c", 1)], 5)));
        let nested = pb::TxnRequest { success: vec![request(Request::RequestTxn(ask))], ..Default::default() };
        let around = |txn| pb::TxnResponse {
            succeeded: true,
            responses: vec![response(Response::ResponseTxn(txn))],
            header: None,
        };
        assert!(same_txn(&nested, &around(theirs), &around(say(&[("a", 1), ("b", 1)], 5))));
    }
}
