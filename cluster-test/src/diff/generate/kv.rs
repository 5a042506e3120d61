//! Range, Put, DeleteRange.

use quorate_proto::etcdserverpb as pb;
use rand::RngExt as _;

use super::Generator;

/// Above the limit of a request (1.5 MiB), below that of a message (2 MiB).
const VALUE_BYTES_TOO_LONG: usize = 1_600_000;

impl Generator {
    pub(super) fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.span();
        let mut request = pb::RangeRequest { key, range_end, revision: self.revision_or_now(), ..Default::default() };
        request.serializable = self.one_in(4);
        if self.one_in(3) {
            request.limit = self.pick(&[1, 1, 2, 3, 5, 11, -1, i64::MAX, i64::MIN]);
        }
        if self.one_in(3) {
            request.sort_order = self.pick(&[0, 1, 2, 1, 2]);
            request.sort_target = self.pick(&[0, 1, 2, 3, 4]);
        }
        if self.one_in(40) {
            request.sort_order = self.pick(&[-1, 3, 9]);
        }
        if self.one_in(40) {
            request.sort_target = self.pick(&[-4, 5, 99]);
        }
        request.keys_only = self.one_in(6);
        request.count_only = self.one_in(8);
        if self.one_in(6) {
            for bound in [
                &mut request.min_mod_revision,
                &mut request.max_mod_revision,
                &mut request.min_create_revision,
                &mut request.max_create_revision,
            ] {
                if self.random.random_bool(0.4) {
                    *bound = self.revision();
                }
            }
        }
        request
    }

    /// Orders and filters are refused: mostly without.
    pub(super) fn range_stream(&mut self) -> pb::RangeRequest {
        let mut request = self.range();
        if !self.one_in(6) {
            request.sort_order = 0;
            request.sort_target = 0;
            request.min_mod_revision = 0;
            request.max_mod_revision = 0;
            request.min_create_revision = 0;
            request.max_create_revision = 0;
        }
        request
    }

    pub(super) fn put(&mut self) -> pb::PutRequest {
        let mut request = pb::PutRequest { key: self.key(), value: self.value(), ..Default::default() };
        if self.one_in(3) {
            request.lease = self.lease();
        }
        request.prev_kv = self.one_in(3);
        if self.one_in(8) {
            request.ignore_value = true;
            if !self.one_in(6) {
                request.value.clear();
            }
        }
        if self.one_in(8) {
            request.ignore_lease = true;
            if !self.one_in(6) {
                request.lease = 0;
            }
        }
        if self.one_in(600) {
            request.value = vec![b'v'; VALUE_BYTES_TOO_LONG].into();
        }
        request
    }

    pub(super) fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.span();
        // All from a key on is asked for less often than elsewhere, so that keys live long enough to have a history.
        let range_end = if range_end == "\0" && !self.one_in(4) { bytes::Bytes::new() } else { range_end };
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.one_in(3) }
    }
}
