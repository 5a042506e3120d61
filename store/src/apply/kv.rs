//! Puts and deletes: where the keyspace and the leases meet.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::Group;
use crate::lease;
use crate::mvcc::{KeyRange, Keyspace, Writer};
use crate::types::{Failure, Rejection};

impl Group<'_> {
    pub(super) fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Failure> {
        let mut writer = self.writer();
        check_put(&writer.keyspace(), request)?;
        let response = put(&mut writer, request)?;
        let finished = writer.finish();
        self.finish(finished);
        Ok(response)
    }

    pub(super) fn delete_range(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Failure> {
        validate_delete(request)?;
        let mut writer = self.writer();
        let response = delete_range(&mut writer, request)?;
        let finished = writer.finish();
        self.finish(finished);
        Ok(response)
    }
}

/// What can be said of a put without looking at any state.
pub fn validate_put(request: &pb::PutRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Rejection::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Rejection::LeaseProvided);
    }
    Ok(())
}

pub fn validate_delete(request: &pb::DeleteRangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() { Err(Rejection::EmptyKey) } else { Ok(()) }
}

/// What a put asks of the state, the lease first as etcd does it.
pub(super) fn check_put(keyspace: &Keyspace<'_>, request: &pb::PutRequest) -> Result<(), Failure> {
    validate_put(request)?;
    if request.lease != 0 && lease::find(keyspace.read, request.lease)?.is_none() {
        return Err(Rejection::LeaseNotFound.into());
    }
    if (request.ignore_value || request.ignore_lease) && !alive(keyspace, request)? {
        return Err(Rejection::KeyNotFound.into());
    }
    Ok(())
}

fn alive(keyspace: &Keyspace<'_>, request: &pb::PutRequest) -> Result<bool, Failure> {
    Ok(keyspace.head(&request.key)?.is_some_and(|head| !head.is_deleted()))
}

pub(super) fn put(writer: &mut Writer<'_, '_>, request: &pb::PutRequest) -> Result<pb::PutResponse, Failure> {
    let mut old: Option<KeyValue> = None;
    if request.ignore_value || request.ignore_lease {
        old = writer.keyspace().newest(&request.key)?;
        // A delete of the same txn may have taken the key after the check: the whole txn is then refused.
        if old.is_none() {
            return Err(Rejection::KeyNotFound.into());
        }
    }
    let value = match &old {
        Some(old) if request.ignore_value => old.value.clone(),
        Some(_) | None => request.value.clone(),
    };
    let to = match &old {
        Some(old) if request.ignore_lease => old.lease,
        Some(_) | None => request.lease,
    };
    let replaced = writer.put(&request.key, value, to)?;
    let from = replaced.as_ref().map_or(0, |kv| kv.lease);
    lease::attach(writer.overlay, &request.key, from, to);
    let prev_kv = replaced.filter(|_| request.prev_kv);
    Ok(pb::PutResponse { header: Some(header(writer)), prev_kv })
}

pub(super) fn delete_range(
    writer: &mut Writer<'_, '_>,
    request: &pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Failure> {
    let gone = writer.delete_range(&KeyRange::new(&request.key, &request.range_end))?;
    for kv in gone.iter().filter(|kv| kv.lease != 0) {
        lease::attach(writer.overlay, &kv.key, kv.lease, 0);
    }
    let deleted = gone.len() as i64;
    let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
    Ok(pb::DeleteRangeResponse { header: Some(header(writer)), deleted, prev_kvs })
}

fn header(writer: &Writer<'_, '_>) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: writer.revision(), ..Default::default() }
}
