//! `quoratectl bench`: puts a load on a server and says what it did, how fast, and what it cost.
//!
//! ```text
//!  options ─▶ rows (what can be measured) ─▶ drive ─▶ report (table, JSON)
//!                                             │
//!             pace: when the next is due ─────┼───── work/: what a client does, and whether the answer is right
//!             meter: processor, memory ───────┤
//!             recorder: latencies, failures ──┘      connection, frame: gRPC over bare HTTP/2
//! ```
//!
//! For any etcd v3 server. Everything runs on one thread, because it shares the processors with the server that it measures.
//! Left out: starting the server, and comparing two of them (`cluster-test bench`).

mod connection;
mod data;
mod drive;
mod failure;
mod frame;
mod meter;
mod options;
mod pace;
mod progress;
mod recorder;
mod report;
mod rows;
mod socket;
mod work;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::print;
use drive::Bench;
use meter::Meter;
pub(crate) use options::BenchArgs;
use report::{FORMAT, Report};

pub(crate) async fn run(args: &BenchArgs, endpoints: &str) -> Result<()> {
    if args.list {
        print::line(&rows::list());
        return Ok(());
    }
    let endpoints: Vec<String> = endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
    let meter = Meter::new(args.pid.clone())?;
    let mut report =
        Report { format: FORMAT, version: env!("CARGO_PKG_VERSION"), endpoints, seed: args.seed, rows: Vec::new() };
    // JSON on the standard output stands there alone.
    let table = args.json.as_deref() != Some("-");
    let rows = args.resolve()?;
    if table {
        print::line(&report::head());
    }
    for row in rows {
        let name = row.name;
        let bench = Bench::new(row, args, &report.endpoints, meter.clone()).await?;
        let measured = work::run(&bench).await.with_context(|| format!("measure {name}"))?;
        let row = report::row(&bench, measured);
        drop(bench);
        if table {
            print::line(&report::lines(&row));
        }
        report.rows.push(row);
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("write the report as JSON")?;
        if file == "-" {
            print::line(&json);
        } else {
            fs::write(file, json + "\n").with_context(|| format!("write {file}"))?;
        }
    }
    if !report.is_clean() {
        bail!("operations or checks failed; the figures above are of no use");
    }
    Ok(())
}
