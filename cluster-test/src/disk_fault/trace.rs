//! One failing call of an unmodified program, by strace, and what strace wrote about it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;

use crate::machine::not_run;

/// Which call of a thread fails, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub call: &'static str,
    pub error: &'static str,
    /// Counted by thread, from 1.
    pub nth: u32,
    /// All from there on, or that one alone: the next sync succeeds then, and says nothing about what was lost.
    pub from_there_on: bool,
}

impl Fault {
    fn args(&self, output: &Path) -> Vec<String> {
        let more = if self.from_there_on { "+" } else { "" };
        // -qq: nothing of comings and goings. -y: descriptors with their paths.
        let mut args: Vec<String> = ["-f", "-qq", "-y", "-ttt", "-o"].map(str::to_owned).into();
        args.push(output.display().to_string());
        args.push(format!("--trace={}", self.call));
        args.push(format!("--inject={}:error={}:when={}{more}", self.call, self.error, self.nth));
        args
    }

    /// For [`crate::cluster::Options::through`]; strace stands aside, so that the member is a child of this process.
    pub(super) fn through(&self, output: &Path) -> Vec<String> {
        [vec!["strace".to_owned(), "-D".to_owned()], self.args(output)].concat()
    }
}

/// Strace, attached to threads of a member that runs. It ends with them.
pub(super) struct Attached(Child);

impl Attached {
    /// To the threads whose name begins with one of `threads`.
    pub(super) fn to(process: Pid, threads: &[&str], fault: &Fault, output: &Path) -> Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{}/task", process.as_raw_nonzero()));
        let mut command = Command::new("strace");
        // Without -f: threads that these start are none of theirs.
        command.args(fault.args(output).into_iter().filter(|arg| arg != "-f"));
        let mut found = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("list {}", tasks.display()))? {
            let task = task?;
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if threads.iter().any(|wanted| name.starts_with(wanted)) {
                command.arg("-p").arg(task.file_name());
                found += 1;
            }
        }
        ensure!(found > 0, "no thread of the member is named {}...", threads.join(" or "));
        let said = File::create(output.with_extension("err")).context("make a file for strace")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().context("run strace")?;
        Ok(Self(child))
    }

    /// Whether it has ended though the member has not.
    pub(super) fn ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait().context("look at strace")?.is_some())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Either fails only where it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A call that strace made fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injected {
    pub at: SystemTime,
    /// The call with its arguments, and so with its file.
    pub call: String,
}

/// What was made to fail so far, of calls on files below `directory` that matter.
pub(super) fn injected(output: &Path, directory: &Path) -> Vec<Injected> {
    let text = fs::read(output).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text), &directory.display().to_string())
}

fn parse(text: &str, directory: &str) -> Vec<Injected> {
    // A call that another thread's line interrupts is written in two: `call(args <unfinished ...>`, `<... call resumed>`.
    let mut unfinished = std::collections::HashMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        // `thread time call`; of one thread alone strace leaves out which.
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (thread, time, rest) = match (first.contains('.'), rest.trim_start().split_once(' ')) {
            (true, _) => ("", first, rest),
            (false, Some((time, rest))) => (first, time, rest),
            (false, None) => continue,
        };
        let Ok(seconds) = time.parse::<f64>() else { continue };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread.to_owned(), (at, begun.trim().to_owned()));
            continue;
        }
        let (at, call) = match rest.trim_start().starts_with("<... ") {
            true => unfinished.remove(thread).unwrap_or((at, rest.to_owned())),
            false => (at, rest.trim().to_owned()),
        };
        if line.ends_with("(INJECTED)") && call.contains(directory) && !call.contains("/LOG") {
            found.push(Injected { at, call });
        }
    }
    found
}

/// That strace is there, may trace, and that what it makes fail fails.
pub(super) fn proved(directory: &Path) -> Result<()> {
    let file = directory.join("proof");
    fs::write(&file, "synced")?;
    let sync = |fault: Option<&Fault>| {
        let through = fault.map_or(Vec::new(), |fault| fault.through(&directory.join("proof.trace")));
        let mut words = through.into_iter().chain(["sync".into(), "-d".into(), file.display().to_string()]);
        let program = words.next().expect("there are three");
        Command::new(program).args(words).env("LC_ALL", "C").stdin(Stdio::null()).output()
    };
    let plain = sync(None).map_err(|error| not_run("sync", error))?;
    ensure!(plain.status.success(), "a file cannot be synced: {}", String::from_utf8_lossy(&plain.stderr));
    let fault = Fault { call: "fdatasync", error: "EIO", nth: 1, from_there_on: false };
    let failed = sync(Some(&fault)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => not_run("strace", "no such program (`scripts/setup test` installs it)"),
        _ => not_run("strace", error),
    })?;
    let said = String::from_utf8_lossy(&failed.stderr).trim().to_owned();
    if failed.status.success() || !said.contains("Input/output error") {
        return Err(not_run("strace", format!("a call that it was to make fail did not: {}, {said}", failed.status)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_whole_or_in_two_lines() {
        let text = "\
12 1700000000.000001 fdatasync(5</d/wal/1.qlog>) = 0
12 1700000000.000002 fdatasync(5</d/wal/1.qlog> <unfinished ...>
7    1700000000.250000 write(9</d/state/LOG>, \"x\", 1) = -1 EIO (Input/output error) (INJECTED)
7    1700000000.300000 write(9</elsewhere/a>, \"x\", 1) = -1 EIO (Input/output error) (INJECTED)
12 1700000000.500000 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)
";
        let found = parse(text, "/d");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.000_002);
        assert_eq!(found, [Injected { at, call: "fdatasync(5</d/wal/1.qlog>".into() }]);
    }

    #[test]
    fn lines_of_a_single_thread_have_no_number() {
        let text =
            "1700000000.500000 pwrite64(5</d/wal/1.qlog>, \"\", 3, 7) = -1 ENOSPC (No space left on device) (INJECTED)";
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.5);
        let found = parse(text, "/d");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].at, at);
        assert!(found[0].call.starts_with("pwrite64(5</d/wal/1.qlog>"), "{found:?}");
    }
}
