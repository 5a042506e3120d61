//! The words of the store: positions in the log, revisions, and the two ways in which a request can fail.
//!
//! A [`Rejection`] is an answer: it follows from replicated state alone and is the same on every member. A [`Fault`]
//! is the end of this member: disk, engine or invariant failed, and nothing may be answered after it. Keeping them in
//! two types makes it impossible to answer a client with a fault, or to stop a member over a bad request.

use std::fmt;

/// Where an entry stands in the Raft log. Ordered by index; equal indices have equal terms once committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    pub index: u64,
    pub term: u64,
}

/// A point in the history of the keyspace: `main` counts requests that changed something (etcd's revision), `sub` the
/// changes inside one of them, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.main, self.sub)
    }
}

/// A keyspace that holds nothing stands at revision 1; the first change gets 2 (etcd's rule).
pub const REVISION_FIRST: i64 = 1;

/// A lease may ask for at most this many seconds (etcd's `MaxLeaseTTL`); more is refused with `too large lease TTL`.
pub const LEASE_TTL_SECS_MAX: i64 = 9_000_000_000;

/// The answer to a request that replicated state refuses. Display is etcd's text, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,

    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// A leader that has lost its term found these leases due: see [`quorate_proto::log::LeaseExpire`].
    #[error("etcdserver: not leader")]
    NotLeader,

    #[error("etcdserver: root user does not exist")]
    RootUserNotExist,
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotExist,
    #[error("etcdserver: user name already exists")]
    UserAlreadyExist,
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    #[error("etcdserver: user name not found")]
    UserNotFound,
    #[error("etcdserver: role name already exists")]
    RoleAlreadyExist,
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    #[error("etcdserver: revision of auth store is old")]
    AuthOldRevision,
    #[error("etcdserver: invalid auth management")]
    InvalidAuthManagement,

    #[error("etcdserver: member not found")]
    MemberNotFound,
}

/// What ends this member. The chain reads as a sentence, outermost first.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The engine could not read or write. Whether the disk holds the write is unknown; never retried.
    #[error("storage engine: {0}")]
    Engine(String),
    /// Bytes on disk do not say what they must: damage, or a version of the format that this release does not know.
    #[error("stored data: {0}")]
    Data(String),
    /// A committed entry cannot be understood by this release.
    #[error("log entry {index}: {reason}")]
    Entry { index: u64, reason: String },
}

/// Why a request gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Fault(#[from] Fault),
}
