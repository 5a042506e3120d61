//! What two right servers may answer differently, made the same: names of members, terms, clocks. Revisions never.

use quorate_proto::etcdserverpb as pb;

/// Longer than any run: a lease with less left than this below what was granted has lost time in some other way.
const RUN_SECS_MAX: i64 = 3_600;

pub(super) trait Mask {
    fn mask(&mut self);
}

impl Mask for Option<pb::ResponseHeader> {
    /// A header that is missing stays missing.
    fn mask(&mut self) {
        if let Some(header) = self {
            header.cluster_id = 0;
            header.member_id = 0;
            header.raft_term = 0;
        }
    }
}

macro_rules! only_the_header {
    ($($answer:ident)*) => {
        $(impl Mask for pb::$answer {
            fn mask(&mut self) {
                self.header.mask();
            }
        })*
    };
}

only_the_header!(RangeResponse PutResponse DeleteRangeResponse CompactionResponse LeaseGrantResponse LeaseRevokeResponse
    LeaseLeasesResponse LeaseKeepAliveResponse HashKvResponse AlarmResponse WatchResponse);

impl Mask for pb::TxnResponse {
    fn mask(&mut self) {
        use pb::response_op::Response;
        self.header.mask();
        for response in self.responses.iter_mut().filter_map(|op| op.response.as_mut()) {
            match response {
                Response::ResponseRange(answer) => answer.mask(),
                Response::ResponsePut(answer) => answer.mask(),
                Response::ResponseDeleteRange(answer) => answer.mask(),
                Response::ResponseTxn(answer) => answer.mask(),
            }
        }
    }
}

impl Mask for pb::LeaseTimeToLiveResponse {
    /// What is left is up to the clock; etcd lists attached keys in the order of a hash map.
    fn mask(&mut self) {
        self.header.mask();
        if (self.granted_ttl - RUN_SECS_MAX..=self.granted_ttl).contains(&self.ttl) && self.ttl > 0 {
            self.ttl = self.granted_ttl;
        }
        self.keys.sort();
    }
}

/// A range that came in pieces, as one. How it was cut is up to the server, where header, `more` and `count` stand is not.
pub(super) fn merged(pieces: Vec<pb::RangeStreamResponse>) -> Result<pb::RangeResponse, String> {
    let count = pieces.len();
    let mut whole = pb::RangeResponse::default();
    for (at, piece) in pieces.into_iter().enumerate() {
        let range = piece.range_response.ok_or_else(|| format!("piece {at} of {count} is empty"))?;
        let last = at + 1 == count;
        if !last && (range.header.is_some() || range.more || range.count != 0 || range.kvs.is_empty()) {
            return Err(format!("piece {at} of {count} says what is for the last, or nothing: {range:?}"));
        }
        whole.kvs.extend(range.kvs);
        (whole.header, whole.more, whole.count) = (range.header, range.more, range.count);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn header(member_id: u64, revision: i64, raft_term: u64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: member_id, member_id, revision, raft_term })
    }

    fn masked<M: Mask>(mut message: M) -> M {
        message.mask();
        message
    }

    #[test]
    fn who_answers_in_which_term_is_masked_and_the_revision_is_not() {
        let put =
            |member, revision, term| masked(pb::PutResponse { header: header(member, revision, term), prev_kv: None });
        assert_eq!(put(1, 7, 2), put(9, 7, 3));
        assert_ne!(put(1, 7, 2), put(1, 8, 2));
        assert_ne!(put(1, 0, 2), masked(pb::PutResponse::default()), "a header is not the same as none");
    }

    #[test]
    fn headers_inside_a_txn_are_masked_like_its_own() {
        let txn = |member, inner_revision| {
            let put = pb::PutResponse { header: header(member, inner_revision, member), prev_kv: None };
            let put = pb::ResponseOp { response: Some(pb::response_op::Response::ResponsePut(put)) };
            let nested = pb::TxnResponse { header: None, succeeded: true, responses: vec![put] };
            let nested = pb::ResponseOp { response: Some(pb::response_op::Response::ResponseTxn(nested)) };
            masked(pb::TxnResponse { header: header(member, 5, member), succeeded: true, responses: vec![nested] })
        };
        assert_eq!(txn(1, 5), txn(2, 5));
        assert_ne!(txn(1, 5), txn(1, 6));
    }

    #[test]
    fn the_clock_decides_what_is_left_of_a_lease_and_nothing_else() {
        let lease = |ttl, granted_ttl, keys: &[&'static str]| {
            let keys = keys.iter().map(|key| bytes::Bytes::from_static(key.as_bytes())).collect();
            masked(pb::LeaseTimeToLiveResponse { header: header(1, 5, 1), id: 3, ttl, granted_ttl, keys })
        };
        assert_eq!(lease(9_998, 10_000, &["b", "a"]), lease(10_000, 10_000, &["a", "b"]));
        assert_ne!(lease(9_998, 10_000, &[]), lease(9_998, 10_001, &[]), "what was granted is compared");
        assert_ne!(lease(10_001, 10_000, &[]), lease(10_000, 10_000, &[]), "more is left than was granted");
        assert_ne!(lease(-1, 0, &[]), lease(0, 0, &[]), "no lease");
        assert_ne!(lease(10, 10_000, &[]), lease(9_999, 10_000, &[]), "time was lost");
        assert_ne!(lease(1, 2, &["a"]), lease(1, 2, &["a", "a"]));
    }

    #[test]
    fn pieces_of_a_range_are_compared_as_a_whole_wherever_they_were_cut() {
        let kv = |key: &'static str| KeyValue { key: key.into(), ..Default::default() };
        let piece = |keys: &[&'static str], last: bool| {
            let kvs = keys.iter().map(|key| kv(key)).collect();
            let header = if last { header(1, 5, 1) } else { None };
            let range = pb::RangeResponse { header, kvs, more: false, count: if last { 3 } else { 0 } };
            pb::RangeStreamResponse { range_response: Some(range) }
        };
        let whole = merged(vec![piece(&["a", "b", "c"], true)]);
        assert_eq!(whole, merged(vec![piece(&["a"], false), piece(&["b", "c"], true)]));
        assert_eq!(whole, merged(vec![piece(&["a", "b", "c"], false), piece(&[], true)]));
        assert_ne!(whole, merged(vec![piece(&["a", "c", "b"], true)]));
        assert!(merged(vec![piece(&["a"], true), piece(&["b", "c"], true)]).is_err(), "a header in the middle");
        assert!(merged(vec![piece(&[], false), piece(&["b", "c"], true)]).is_err(), "a piece without content");
    }
}
