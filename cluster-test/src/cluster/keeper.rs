//! Nothing outlives its test, however the test ends: a shell waits for the end of its input, which the kernel brings when this
//! process is gone, and then cleans up: ends a member and removes its directory, unmounts a file system.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::Pid;

const MEMBER_SCRIPT: &str = r#"kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2""#;

#[derive(Debug)]
pub(crate) struct Keeper {
    shell: Child,
}

impl Keeper {
    /// `owned`: the directory to remove with the process, where it is a temporary one.
    pub(super) fn of(process: Pid, owned: Option<&Path>) -> Result<Self> {
        let process = process.as_raw_nonzero().to_string();
        Self::with(MEMBER_SCRIPT, &[OsStr::new(&process), owned.unwrap_or(Path::new("")).as_os_str()])
    }

    /// Runs `script` with `args` as $1, $2 ... once this process is gone, unless the keeper was dropped before.
    pub(crate) fn with(script: &str, args: &[&OsStr]) -> Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", &format!("read -r _; {script}"), "keeper"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal: Ctrl-C ends the test, not who cleans up after it.
            .process_group(0)
            .spawn()
            .context("start the keeper")?;
        Ok(Self { shell })
    }
}

impl Drop for Keeper {
    /// What it would clean up is gone, and its number or name may be somebody else's soon: the shell must not act any more.
    fn drop(&mut self) {
        // Either fails only where the shell is gone already.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
