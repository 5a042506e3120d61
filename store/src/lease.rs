//! Leases as replicated state: an id, a time to live in seconds, and the keys attached to it.
//!
//! There is no clock here. When a lease is due is known to the leader's keeper alone; what reaches this room is that
//! one was granted, attached to, checkpointed or taken back.

use bytes::Bytes;

use crate::engine::{Direction, Family, Read, Span};
use crate::keys::{self, LeaseRecord};
use crate::overlay::Overlay;
use crate::types::{Failure, Fault, LEASE_TTL_SECS_MAX, Rejection};

pub(crate) fn find(read: &dyn Read, id: i64) -> Result<Option<LeaseRecord>, Fault> {
    read.get(Family::Leases, &keys::lease_key(id))?.map(|record| LeaseRecord::decode(&record)).transpose()
}

/// Every lease, by id.
pub(crate) fn all(read: &dyn Read) -> Result<Vec<(i64, LeaseRecord)>, Fault> {
    let rows = read.scan(Family::Leases, Span::all(), Direction::Forward);
    rows.map(|row| {
        let (id, record) = row?;
        let id = id.as_ref().try_into().map_err(|_| Fault::Data(format!("a lease key of {} bytes", id.len())))?;
        Ok((i64::from_be_bytes(id), LeaseRecord::decode(&record)?))
    })
    .collect()
}

/// The keys attached to lease `id`, in key order.
pub(crate) fn attached(read: &dyn Read, id: i64) -> Result<Vec<Bytes>, Fault> {
    let prefix = keys::lease_key(id);
    let mut found = Vec::new();
    for row in read.scan(Family::LeaseKeys, Span::at_least(prefix.clone()), Direction::Forward) {
        let (key, _) = row?;
        if !key.starts_with(&prefix) {
            break;
        }
        found.push(key.slice(prefix.len()..));
    }
    Ok(found)
}

/// `ttl_secs` was clamped at the door to what the election time-out asks for; here it is only kept positive.
pub(crate) fn grant(overlay: &mut Overlay<'_>, id: i64, ttl_secs: i64) -> Result<i64, Failure> {
    if id == 0 {
        return Err(Rejection::LeaseNotFound.into());
    }
    if ttl_secs > LEASE_TTL_SECS_MAX {
        return Err(Rejection::LeaseTtlTooLarge.into());
    }
    if find(overlay, id)?.is_some() {
        return Err(Rejection::LeaseExists.into());
    }
    let ttl_secs = ttl_secs.max(1);
    let record = LeaseRecord { ttl_secs, remaining_ttl_secs: 0 };
    overlay.put(Family::Leases, keys::lease_key(id), record.encode());
    Ok(ttl_secs)
}

pub(crate) fn checkpoint(overlay: &mut Overlay<'_>, id: i64, remaining_ttl_secs: i64) -> Result<bool, Fault> {
    let Some(record) = find(overlay, id)? else { return Ok(false) };
    let record = LeaseRecord { remaining_ttl_secs: remaining_ttl_secs.max(0), ..record };
    overlay.put(Family::Leases, keys::lease_key(id), record.encode());
    Ok(true)
}

/// Forgets the lease; its keys are the caller's to delete, which detaches them.
pub(crate) fn remove(overlay: &mut Overlay<'_>, id: i64) {
    overlay.delete(Family::Leases, keys::lease_key(id));
}

/// Moves `key` from one lease to another; 0 is no lease.
pub(crate) fn attach(overlay: &mut Overlay<'_>, key: &[u8], from: i64, to: i64) {
    if from == to {
        return;
    }
    if from != 0 {
        overlay.delete(Family::LeaseKeys, keys::lease_attachment_key(from, key));
    }
    if to != 0 {
        overlay.put(Family::LeaseKeys, keys::lease_attachment_key(to, key), Bytes::new());
    }
}
