//! `cluster-test diff`: its flags, and what it prints while it runs and at its end.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use cluster_test::diff::{self, DiffOptions};
use cluster_test::programs;

use crate::{print_line, server};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The same seed gives the same requests
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Only this segment, to see a difference again
    #[arg(long)]
    segment: Option<u64>,
    /// Steps (mostly one request each) before both start over with fresh data
    #[arg(long, default_value_t = 2_500)]
    segment_steps: usize,
    /// How long a difference is looked at for the fewest requests that show it
    #[arg(long, default_value_t = 120)]
    shrink_secs: u64,
    /// Another server in place of ours, for example the real etcd
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub(crate) fn run(args: DiffArgs) -> Result<()> {
    let mut options = DiffOptions::new(args.seed.unwrap_or_else(rand::random), args.requests);
    options.segment = args.segment;
    options.segment_steps = args.segment_steps.max(1);
    options.shrink_for = Duration::from_secs(args.shrink_secs);
    let terminal = std::io::stdout().is_terminal();
    let mut shown = 0;
    let summary = diff::run(programs::etcd()?, &server(args.binary)?, &options, &mut |summary| {
        for finding in &summary.findings[shown..] {
            print_line(&diff::describe_finding(finding, &options));
        }
        shown = summary.findings.len();
        if terminal {
            print_line(&format!("{:>5} segments, {} requests", summary.segments, summary.total.total()));
        }
    })?;
    print_line(&diff::describe_summary(&summary, &options));
    if !summary.findings.is_empty() {
        bail!("{} unexplained differences", summary.findings.len());
    }
    Ok(())
}
