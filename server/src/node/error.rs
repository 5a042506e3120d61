//! Why a request got no answer, and whether it may have been executed all the same.

use quorate_store::{Failure, Rejection};

/// Display is etcd's text, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The answer of replicated state: the request was not executed, and never will be.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Above `--max-request-bytes`.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// More is in flight than the member takes: see [`super::limits`]. Not executed.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// No leader is known. Not executed.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The leader changed before the request was known to be committed. May have been executed.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// Not known to be committed in time. May have been executed, and may still be.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// The member stops. May have been executed.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// Asked of a member that is not the leader, for something that only the leader can say.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// Asked of a learner, which answers what needs nobody else.
    #[error("etcdserver: rpc not supported for learner")]
    NotForLearners,
}

impl RequestError {
    /// Whether the request may be, or come to be, in the log all the same.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            Self::LeaderChanged | Self::TimedOut | Self::Stopped => true,
            Self::Rejected(_)
            | Self::TooLarge
            | Self::TooManyRequests
            | Self::NoLeader
            | Self::NotLeader
            | Self::NotForLearners => false,
        }
    }
}

/// A fault is logged and ends the member where it is met; to the client it is a member that stops.
impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(rejection) => Self::Rejected(rejection),
            Failure::Fault(fault) => {
                crate::fault::stop(&format!("failed to read the state: {fault}"));
                Self::Stopped
            }
        }
    }
}

impl From<quorate_store::Fault> for RequestError {
    fn from(fault: quorate_store::Fault) -> Self {
        Failure::from(fault).into()
    }
}
