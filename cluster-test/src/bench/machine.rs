//! What the figures were taken on, and of what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::programs::repository;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of the last minute, before the first run: other work shows here.
    pub load_average: f64,
    pub unix_seconds: u64,
    /// Of this repository, with `+` where it holds what is not committed; none outside of one.
    pub commit: Option<String>,
}

impl Machine {
    pub(super) fn look() -> Result<Self> {
        let memory = read("/proc/meminfo")?;
        let kilobytes: u64 = field(&memory, "MemTotal:").trim_end_matches(" kB").parse().context("read MemTotal")?;
        let load = read("/proc/loadavg")?;
        let load = load.split_whitespace().next().context("read /proc/loadavg")?;
        Ok(Self {
            processor: field(&read("/proc/cpuinfo")?, "model name").trim_start_matches([':', ' ']).to_owned(),
            cores: thread::available_parallelism().context("count the cores")?.get(),
            memory_bytes: kilobytes * 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_average: load.parse().context("read /proc/loadavg")?,
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs(),
            commit: commit(),
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// The rest of the line that begins with this name; empty where there is none.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(repository()).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"])?;
    Some(git(&["rev-parse", "HEAD"])? + if changed.is_empty() { "" } else { "+" })
}

/// The first line of what a server says of its version.
pub(super) fn version(program: &Path) -> Result<String> {
    let output =
        Command::new(program).arg("--version").output().with_context(|| format!("run {}", program.display()))?;
    ensure!(output.status.success(), "{} --version: {}", program.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
