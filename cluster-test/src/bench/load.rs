//! `quoratectl bench`: how it is run, and what it says.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::BenchOptions;
use crate::cluster::Member;
use crate::programs;

/// The format that is understood here.
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
struct Report {
    format: u32,
    rows: Vec<Load>,
}

/// One row, as `quoratectl bench` measured it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Load {
    pub name: String,
    /// What was run: clients, connections, keys and so on.
    pub row: serde_json::Value,
    pub seconds: f64,
    pub operations: u64,
    pub operations_per_second: f64,
    pub latency_ms: Latency,
    pub failed: u64,
    pub checks_failed: u64,
    pub by_text: BTreeMap<String, u64>,
    pub server: Server,
    pub client: Client,
    pub counts: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
    pub mean: f64,
}

/// Summed over the members.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Server {
    pub pids: Vec<u32>,
    pub cpu_seconds: f64,
    pub cpu_seconds_per_10k: f64,
    pub rss_before_bytes: u64,
    pub rss_after_bytes: u64,
    pub rss_peak_bytes: u64,
    pub rss_bytes_per_operation: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Client {
    pub cpu_seconds: f64,
    pub cpu_microseconds_per_operation: f64,
}

/// What a table shows of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    pub operations_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_seconds_per_10k: f64,
    pub rss_bytes: f64,
    pub client_microseconds: f64,
}

impl Load {
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.checks_failed == 0
    }

    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(super) fn figures(&self) -> Figures {
        Figures {
            operations_per_second: self.operations_per_second,
            p50_ms: self.latency_ms.p50,
            p99_ms: self.latency_ms.p99,
            cpu_seconds_per_10k: self.server.cpu_seconds_per_10k,
            rss_bytes: self.server.rss_after_bytes as f64,
            client_microseconds: self.client.cpu_microseconds_per_operation,
        }
    }
}

/// The names of all rows.
pub(super) fn rows() -> Result<Vec<String>> {
    let output = Command::new(programs::quoratectl()?).args(["bench", "--list"]).output().context("run quoratectl")?;
    ensure!(output.status.success(), "quoratectl bench --list: {}", output.status);
    let text = String::from_utf8(output.stdout).context("read the rows")?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Runs one row against these members. Failures of operations are in what it returns; an error means that there is nothing.
pub(super) fn run(row: &str, members: &[Member], options: &BenchOptions) -> Result<Load> {
    let join = |parts: Result<Vec<String>>| parts.map(|parts| parts.join(","));
    let pids = join(members.iter().map(|member| Ok(member.pid()?.as_raw_nonzero().to_string())).collect())?;
    let endpoints = join(members.iter().map(|member| Ok(member.endpoint())).collect())?;
    let output = Command::new(programs::quoratectl()?)
        .args(["bench", row, "--json", "-", "--endpoints", &endpoints, "--pid", &pids])
        .args(["--seconds", &options.seconds.to_string()])
        .args(&options.load)
        .stdin(Stdio::null())
        .output()
        .context("run quoratectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let Ok(report) = serde_json::from_slice::<Report>(&output.stdout) else {
        bail!("quoratectl bench {row}: {}: {}", output.status, said.trim_end());
    };
    ensure!(report.format == FORMAT, "quoratectl speaks format {}, not {FORMAT}", report.format);
    let load = report.rows.into_iter().next().context("find the row in what quoratectl said")?;
    if output.status.success() != load.is_clean() {
        bail!("quoratectl bench {row}: {}, and {} failed: {}", output.status, load.failed, said.trim_end());
    }
    Ok(load)
}
