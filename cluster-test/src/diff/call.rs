//! What is asked: one request to both servers, as a plain value that can be printed and sent again.

use std::fmt;

use quorate_proto::etcdserverpb as pb;

/// Watch streams that each server has open during a segment.
pub(super) const STREAMS: usize = 3;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    Range(pb::RangeRequest),
    RangeStream(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases(pb::LeaseLeasesRequest),
    KeepAlive(pb::LeaseKeepAliveRequest),
    /// A lease whose number the server picks, asked for and given back at once.
    AnonymousLease(pb::LeaseGrantRequest),
    HashKv(pb::HashKvRequest),
    Alarm(pb::AlarmRequest),
    WatchCreate(usize, pb::WatchCreateRequest),
    WatchCancel(usize, pb::WatchCancelRequest),
    WatchProgress(usize),
    /// A watch request that asks for nothing.
    WatchNothing(usize),
    /// Ends the stream and opens a new one.
    WatchReopen(usize),
}

impl Call {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Range(_) => "Range",
            Self::RangeStream(_) => "RangeStream",
            Self::Put(_) => "Put",
            Self::DeleteRange(_) => "DeleteRange",
            Self::Txn(_) => "Txn",
            Self::Compact(_) => "Compact",
            Self::LeaseGrant(_) | Self::AnonymousLease(_) => "LeaseGrant",
            Self::LeaseRevoke(_) => "LeaseRevoke",
            Self::TimeToLive(_) => "LeaseTimeToLive",
            Self::Leases(_) => "LeaseLeases",
            Self::KeepAlive(_) => "LeaseKeepAlive",
            Self::HashKv(_) => "HashKV",
            Self::Alarm(_) => "Alarm",
            Self::WatchCreate(..) => "Watch create",
            Self::WatchCancel(..) => "Watch cancel",
            Self::WatchProgress(_) => "Watch progress",
            Self::WatchNothing(_) => "Watch nothing",
            Self::WatchReopen(_) => "Watch reopen",
        }
    }

    /// Whether what watchers have yet to be told depends on when this comes: a compaction takes history away, a cancel drops what
    /// is under way, and progress is told when there is nothing more to say.
    pub(super) fn needs_quiet(&self) -> bool {
        matches!(self, Self::Compact(_) | Self::WatchCancel(..) | Self::WatchProgress(_) | Self::WatchReopen(_))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(request) | Self::RangeStream(request) => write!(out, "{} {request:?}", self.kind()),
            Self::Put(request) => write!(out, "{request:?}"),
            Self::DeleteRange(request) => write!(out, "{request:?}"),
            Self::Txn(request) => write!(out, "{request:?}"),
            Self::Compact(request) => write!(out, "{request:?}"),
            Self::LeaseGrant(request) => write!(out, "{request:?}"),
            Self::LeaseRevoke(request) => write!(out, "{request:?}"),
            Self::TimeToLive(request) => write!(out, "{request:?}"),
            Self::Leases(request) => write!(out, "{request:?}"),
            Self::KeepAlive(request) => write!(out, "{request:?}"),
            Self::AnonymousLease(request) => write!(out, "{request:?}, and LeaseRevoke of it"),
            Self::HashKv(request) => write!(out, "{request:?}"),
            Self::Alarm(request) => write!(out, "{request:?}"),
            Self::WatchCreate(stream, request) => write!(out, "stream {stream}: {request:?}"),
            Self::WatchCancel(stream, request) => write!(out, "stream {stream}: {request:?}"),
            Self::WatchProgress(stream) => write!(out, "stream {stream}: WatchProgressRequest"),
            Self::WatchNothing(stream) => write!(out, "stream {stream}: WatchRequest without content"),
            Self::WatchReopen(stream) => write!(out, "stream {stream}: ended and opened again"),
        }
    }
}
