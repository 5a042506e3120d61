//! No member outlives its test, however the test ends: a shell waits for the end of its input, which the kernel brings when this
//! process is gone, and then ends the member and removes its directory.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::Pid;

const SCRIPT: &str = r#"read -r _; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2""#;

#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
}

impl Keeper {
    /// `owned`: the directory to remove with the process, where it is a temporary one.
    pub(super) fn of(process: Pid, owned: Option<&Path>) -> Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "keeper", &process.as_raw_nonzero().to_string()])
            .arg(owned.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the keeper")?;
        Ok(Self { shell })
    }
}

impl Drop for Keeper {
    /// The process has been reaped: its number may be somebody else's soon, so the shell must not act any more.
    fn drop(&mut self) {
        // Either fails only where the shell is gone already.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
