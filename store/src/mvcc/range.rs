//! Range: one key or many, at one revision, filtered, sorted, cut and counted as etcd does it.
//!
//! What is easy to get wrong, and is etcd's rule: `count` is of the whole range, whatever limit and filters say; a
//! limit is pushed down only when neither order nor filter needs all rows; a keys-only answer carries no lease unless
//! it was sorted by value; a sort target without an order means ascending.

use std::cmp::Ordering;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::{KeyRange, Keyspace, Want};
use crate::engine::{Direction, Family};
use crate::keys::HeadRecord;
use crate::types::{Failure, Fault, Rejection};
use pb::range_request::{SortOrder, SortTarget};

/// What can be said of a request without looking at any state.
pub fn validate(request: &pb::RangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    order_of(request).map(|_| ())
}

/// How rows are sorted; `None` is key order, in which they come.
fn order_of(request: &pb::RangeRequest) -> Result<Option<(SortTarget, SortOrder)>, Rejection> {
    let target = SortTarget::try_from(request.sort_target).map_err(|_| Rejection::InvalidSortOption)?;
    let order = SortOrder::try_from(request.sort_order).map_err(|_| Rejection::InvalidSortOption)?;
    Ok(match (target, order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (_, SortOrder::None) => Some((target, SortOrder::Ascend)),
        (_, SortOrder::Ascend | SortOrder::Descend) => Some((target, order)),
    })
}

pub(crate) fn has_revision_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &pb::RangeRequest, kv: &KeyValue) -> bool {
    let below = |max: i64, revision: i64| max == 0 || revision <= max;
    let above = |min: i64, revision: i64| min == 0 || revision >= min;
    below(request.max_mod_revision, kv.mod_revision)
        && above(request.min_mod_revision, kv.mod_revision)
        && below(request.max_create_revision, kv.create_revision)
        && above(request.min_create_revision, kv.create_revision)
}

/// Rows of one scan, and whether the scan stopped before the end of the range.
struct Rows {
    kvs: Vec<KeyValue>,
    /// Live rows seen, filtered out or not.
    seen: i64,
    cut: bool,
}

impl Keyspace<'_> {
    /// Answers `request`. The header carries the newest revision this reader sees, as etcd's does.
    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        validate(request)?;
        let order = order_of(request)?;
        let at = self.resolve(request.revision)?;
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut response = pb::RangeResponse {
            header: Some(pb::ResponseHeader { revision: self.revision, ..Default::default() }),
            ..Default::default()
        };
        if request.count_only {
            response.count = self.count(&range, at)?;
            return Ok(response);
        }

        let limit = usize::try_from(request.limit).unwrap_or(0);
        // A limit stops the scan where no order was asked for, even if a target was: the rows found are then sorted, and
        // the last of them is cut off (etcd's rule).
        let unordered = request.sort_order == SortOrder::None as i32 || order.is_none();
        let pushed_down = limit > 0 && unordered && !has_revision_filters(request);
        let rows_max = pushed_down.then_some(if order.is_some() { limit.saturating_add(1) } else { limit });
        let by_value = request.sort_target == SortTarget::Value as i32;
        let want = if request.keys_only && !by_value { Want::WithoutValue } else { Want::Everything };
        let mut rows = self.rows(&range, at, want, rows_max, |kv| passes_filters(request, kv))?;
        response.count = if rows.cut { self.count(&range, at)? } else { rows.seen };
        if let Some((target, order)) = order {
            sort(&mut rows.kvs, target, order);
        }
        response.more = rows.cut || (limit > 0 && rows.kvs.len() > limit);
        if limit > 0 {
            rows.kvs.truncate(limit);
        }
        if request.keys_only {
            for kv in &mut rows.kvs {
                kv.value = Bytes::new();
                // etcd answers from its index then, and the index knows no leases.
                if !by_value {
                    kv.lease = 0;
                }
            }
        }
        response.kvs = rows.kvs;
        Ok(response)
    }

    /// Live keys of `range` at `at`, in key order, at most `limit` of them.
    fn rows(
        &self,
        range: &KeyRange,
        at: i64,
        want: Want,
        limit: Option<usize>,
        passes: impl Fn(&KeyValue) -> bool,
    ) -> Result<Rows, Fault> {
        let mut rows = Rows { kvs: Vec::new(), seen: 0, cut: false };
        if let KeyRange::One(key) = range {
            if let Some(head) = self.head(key)?
                && let Some(kv) = self.version_of_head(key, head, at, want)?
            {
                rows.seen = 1;
                if passes(&kv) {
                    rows.kvs.push(kv);
                }
            }
            return Ok(rows);
        }
        for row in self.read.scan(Family::Heads, range.span(), Direction::Forward) {
            let (key, head) = row?;
            let Some(kv) = self.version_of_head(&key, HeadRecord::decode(head)?, at, want)? else { continue };
            if limit.is_some_and(|limit| rows.kvs.len() == limit) {
                rows.cut = true;
                return Ok(rows);
            }
            rows.seen += 1;
            if passes(&kv) {
                rows.kvs.push(kv);
            }
        }
        Ok(rows)
    }

    /// Every live version of `range` now, for a request that must look at all of them.
    pub(crate) fn all(&self, range: &KeyRange) -> Result<Vec<KeyValue>, Fault> {
        Ok(self.rows(range, self.revision, Want::Everything, None, |_| true)?.kvs)
    }

    /// Live keys from `from` on inside `range`, at `at`, until `limit` rows or about `bytes_max` bytes: one piece of a
    /// range that is answered as a stream. The flag says whether more is left.
    pub(crate) fn piece(
        &self,
        range: &KeyRange,
        at: i64,
        want: Want,
        limit: usize,
        bytes_max: usize,
    ) -> Result<(Vec<KeyValue>, bool), Fault> {
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        if let KeyRange::One(_) = range {
            return Ok((self.rows(range, at, want, None, |_| true)?.kvs, false));
        }
        for row in self.read.scan(Family::Heads, range.span(), Direction::Forward) {
            let (key, head) = row?;
            let Some(kv) = self.version_of_head(&key, HeadRecord::decode(head)?, at, want)? else { continue };
            let size = kv.key.len() + kv.value.len();
            if kvs.len() == limit || (!kvs.is_empty() && bytes + size > bytes_max) {
                return Ok((kvs, true));
            }
            bytes += size;
            kvs.push(kv);
        }
        Ok((kvs, false))
    }
}

pub(crate) fn sort(kvs: &mut [KeyValue], target: SortTarget, order: SortOrder) {
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match order {
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
        SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
    }
}
