//! `cluster-test bench`: its flags, what it shows while it runs, and its tables.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use cluster_test::bench::{self, BenchOptions, Run};
use cluster_test::programs;

use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Rows of `quoratectl bench --list`; all by default
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// The table shows the medians over so many
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long a row is measured in a round
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Of each cluster
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    members: String,
    /// Keeps everything that was measured, the machine and the versions
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Another server instead of ours
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Further flags of `quoratectl bench`, after `--`
    #[arg(last = true)]
    load: Vec<String>,
}

pub(crate) fn run(args: BenchArgs) -> Result<()> {
    let program = match args.binary {
        Some(binary) => binary,
        None => programs::quorate()?.to_owned(),
    };
    let members = args.members.parse().context("read --members")?;
    let options =
        BenchOptions { rows: args.rows, rounds: args.rounds, seconds: args.seconds, members, load: args.load };
    let report = bench::run(&program, options, &mut |run| print_line(&describe(run)))?;
    print_line("");
    print_line(&bench::print(&report.table));
    if let Some(file) = args.json {
        let text = serde_json::to_string_pretty(&report).context("write the report as JSON")?;
        fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    let failed: u64 = report.table.iter().map(|line| line.failed).sum();
    ensure!(failed == 0, "{failed} operations or checks failed; the figures of their rows are of no use");
    Ok(())
}

fn describe(run: &Run) -> String {
    let load = &run.load;
    let mut text = format!(
        "round {} {:<24}{:<8}{:>10.0}/s  p50 {:.2} ms  p99 {:.2} ms  {:.3} CPU-s per 10k  {} MB  {} failed",
        run.round + 1,
        run.row,
        format!("{:?}", run.side).to_lowercase(),
        load.operations_per_second,
        load.latency_ms.p50,
        load.latency_ms.p99,
        load.server.cpu_seconds_per_10k,
        load.server.rss_after_bytes / 1_000_000,
        load.failed + load.checks_failed,
    );
    for (what, count) in &load.by_text {
        text.push_str(&format!("\n    {count} x {what}"));
    }
    text
}
