//! What a member takes in before it says no. Every limit refuses early, with etcd's error, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::RequestError;

/// Proposals that wait for their answer; one more gets `too many requests`. etcd refuses when 5,000 entries are
/// committed and not applied; ours counts what is in flight at all, which is never less.
pub const PROPOSALS_IN_FLIGHT_MAX: u64 = 50_000;

/// Bytes of proposals that wait for their answer; one more gets `too many requests`.
pub const PROPOSAL_BYTES_IN_FLIGHT_MAX: u64 = 512 << 20;

/// Beyond both, for what frees resources or is the cluster's own: a flood of puts must not keep leases from ending.
pub const PROPOSALS_RESERVED: u64 = 5_000;
pub const PROPOSAL_BYTES_RESERVED: u64 = 64 << 20;

/// One request, whatever `--max-request-bytes` says: the log takes no entry larger than 64 MiB.
pub const REQUEST_BYTES_MAX: usize = 60 << 20;

/// Reads that wait for the same round; one more gets `too many requests`.
pub const READS_WAITING_MAX: usize = 100_000;

/// Requests that become one log entry, at most.
pub const PROPOSALS_PER_ENTRY_MAX: usize = 1_024;

/// Bytes of requests that become one log entry, at most; one request alone may be larger.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Counts what is in flight.
#[derive(Debug, Default)]
pub(super) struct Admission {
    count: AtomicU64,
    bytes: AtomicU64,
}

/// Which places a proposal may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Ordinary,
    /// The reserved ones too.
    Urgent,
}

impl Admission {
    /// A place for a proposal of `bytes`, given back when it is dropped.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize, urgency: Urgency) -> Result<Admitted, RequestError> {
        let bytes = bytes as u64;
        let (count_max, bytes_max) = match urgency {
            Urgency::Ordinary => (PROPOSALS_IN_FLIGHT_MAX, PROPOSAL_BYTES_IN_FLIGHT_MAX),
            Urgency::Urgent => {
                (PROPOSALS_IN_FLIGHT_MAX + PROPOSALS_RESERVED, PROPOSAL_BYTES_IN_FLIGHT_MAX + PROPOSAL_BYTES_RESERVED)
            }
        };
        let count_before = self.count.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admitted = Admitted { admission: self.clone(), bytes };
        if count_before >= count_max || bytes_before + bytes > bytes_max {
            return Err(RequestError::TooManyRequests);
        }
        Ok(admitted)
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
