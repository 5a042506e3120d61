//! What can go wrong with one operation. Counted and shown, never swallowed: a figure with failures in it is no figure.

/// Why an operation did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The answer did not come, or was no gRPC.
    #[error("no answer: {0}")]
    Transport(String),
    /// The server refused.
    #[error("{message} (gRPC status {code})")]
    Status { code: i32, message: String },
    /// The server answered, and the answer is not what it must be.
    #[error("wrong answer: {0}")]
    Wrong(String),
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Self::Transport(error.to_string())
    }
}

impl Failure {
    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }
}
