//! What a group of applied entries changed, for those who follow: the watch hub, the lease keeper, metrics.
//!
//! Published after the batch is visible and before any client is answered, in revision order.

use std::sync::Arc;

use quorate_proto::mvccpb::KeyValue;

/// One change of one key. `kv` of a deletion holds only the key and the revision of the deletion (etcd's form).
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    pub kv: KeyValue,
    /// The key before this revision; absent when it did not exist, or when this change created it.
    pub prev_kv: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// Every change of one main revision, in sub-revision order; never empty. Shared: a revision may go to many watchers.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEvents {
    pub revision: i64,
    pub events: Arc<[Event]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEffect {
    Granted {
        id: i64,
        ttl_secs: i64,
    },
    /// Revoked by a client or expired: its keys are gone in the same revision.
    Revoked {
        id: i64,
    },
    Checkpointed {
        id: i64,
        remaining_ttl_secs: i64,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// In revision order, without holes in what is published: consecutive groups continue each other.
    pub revisions: Vec<RevisionEvents>,
    pub leases: Vec<LeaseEffect>,
    /// The new compacted revision, if this group moved it.
    pub compacted: Option<i64>,
    pub alarms_changed: bool,
    pub auth_changed: bool,
    pub members_changed: bool,
}
