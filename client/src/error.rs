//! Errors that say where: which endpoint, in which phase, and whether the request may have been executed.

/// How far a request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The endpoint is not an address.
    Endpoint,
    /// Name, route or listener: nothing was sent.
    Connect,
    /// The member answered, or the answer did not come.
    Request,
}

impl Phase {
    fn doing(self) -> &'static str {
        match self {
            Self::Endpoint => "read the endpoint",
            Self::Connect => "connect to",
            Self::Request => "ask",
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to {} {endpoint}: {reason}", .phase.doing())]
pub struct Error {
    pub endpoint: String,
    pub phase: Phase,
    pub reason: String,
    /// The gRPC status, where there was one.
    pub status: Option<tonic::Status>,
}

impl Error {
    pub(crate) fn connection(endpoint: &str, phase: Phase, reason: &tonic::transport::Error) -> Self {
        // The outermost words are "transport error"; the innermost say what happened.
        let mut cause: &dyn std::error::Error = reason;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self { endpoint: endpoint.into(), phase, reason: cause.to_string(), status: None }
    }

    pub(crate) fn status(endpoint: &str, status: tonic::Status) -> Self {
        let reason = status.message().to_owned();
        Self { endpoint: endpoint.into(), phase: Phase::Request, reason, status: Some(status) }
    }

    /// Whether a write may have happened although it failed: never repeat one blindly then.
    pub fn may_have_been_executed(&self) -> bool {
        use tonic::Code;
        let unknown = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal];
        self.phase == Phase::Request && self.status.as_ref().is_none_or(|status| unknown.contains(&status.code()))
    }
}
