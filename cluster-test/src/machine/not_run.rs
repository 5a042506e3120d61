//! What a machine does not allow: said with its reason and an exit code of its own, never passed over in silence.

use std::fmt;

/// The exit code of a command that did not run, as in automake's test protocol: neither passed nor failed.
pub const EXIT_CODE_NOT_RUN: u8 = 77;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRun {
    /// What is missing here.
    pub step: String,
    pub reason: String,
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "did not run: {}: {}", self.step, self.reason)
    }
}

impl std::error::Error for NotRun {}

/// For `map_err`.
pub(crate) fn not_run(step: impl Into<String>, reason: impl fmt::Display) -> anyhow::Error {
    NotRun { step: step.into(), reason: reason.to_string() }.into()
}
