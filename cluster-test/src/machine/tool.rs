//! Programs of the system, as an administrator runs them.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};

/// A program of the system, and why it did not do its work.
#[derive(Debug)]
pub(crate) struct ToolError {
    program: &'static str,
    kind: ToolErrorKind,
}

#[derive(Debug)]
enum ToolErrorKind {
    Start(io::Error),
    Failed(String),
}

impl ToolError {
    pub(crate) fn explained(&self) -> String {
        match &self.kind {
            ToolErrorKind::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("no such program: {} (`scripts/setup test` installs it)", self.program)
            }
            ToolErrorKind::Start(error) => format!("run {}: {error}", self.program),
            ToolErrorKind::Failed(text) => text.clone(),
        }
    }
}

pub(crate) fn tool(program: &'static str, args: &[&OsStr]) -> std::result::Result<(), ToolError> {
    // Administrators' directories are not in everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run = Command::new(program).args(args).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let kind = match run {
        Ok(output) if output.status.success() => return Ok(()),
        // fsck: 1 is "errors were corrected".
        Ok(output) if program.starts_with("fsck") && output.status.code() == Some(1) => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            ToolErrorKind::Failed(format!("{program} ended with {}: {}", output.status, said.join("; ")))
        }
        Err(error) => ToolErrorKind::Start(error),
    };
    Err(ToolError { program, kind })
}
