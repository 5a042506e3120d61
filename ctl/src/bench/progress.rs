//! One line that changes while a row runs; nothing at all where the output is no terminal.

#![allow(clippy::print_stdout, reason = "it is shown to whoever watches")]

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::Instant;

use super::recorder::Recorder;

#[derive(Debug)]
pub(crate) struct Progress {
    row: &'static str,
    started: Instant,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new(row: &'static str) -> Self {
        Self { row, started: Instant::now(), terminal: stdout().is_terminal() }
    }

    pub(crate) fn show(&self, operations: u64, recorder: &Recorder) {
        if self.terminal {
            let failures = recorder.so_far().failures;
            let failed = failures.failed + failures.checks_failed;
            self.line(&format!("{operations} operations, {failed} failed"));
        }
    }

    /// What is being prepared.
    pub(crate) fn preparing(&self, what: &str) {
        if self.terminal {
            self.line(what);
        }
    }

    fn line(&self, text: &str) {
        print!("\r\x1b[K{}: {} s, {text}", self.row, self.started.elapsed().as_secs());
        // A terminal that cannot be written to has nobody to tell.
        let _ = stdout().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }
}
