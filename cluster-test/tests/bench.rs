//! The measuring itself: every row runs against ours, and what it says is whole and without failures.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cluster_test::bench::{self, BenchOptions, Side};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;
use serde_json::Value;

/// A few hundred operations of each row.
const TINY: [&str; 16] = [
    "--total",
    "240",
    "--keys",
    "240",
    "--clients",
    "6",
    "--watchers",
    "24",
    "--streams",
    "3",
    "--span",
    "100",
    "--limit",
    "50",
    "--seed",
    "7",
];

fn quoratectl(member: &Member, args: &[&str]) -> Result<Value> {
    let output = Command::new(programs::quoratectl()?)
        .args(["--endpoints", &member.endpoint(), "bench", "--json", "-"])
        .args(["--pid", &member.pid()?.as_raw_nonzero().to_string()])
        .args(args)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{args:?}: {}: {said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).context("read the report")
}

fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).with_context(|| format!("no number at {path} of {value}"))
}

/// All that is measured is there, and nothing failed.
fn check(row: &Value) -> Result<()> {
    for path in ["/seconds", "/operations", "/operations_per_second", "/latency_ms/p50", "/latency_ms/max"] {
        ensure!(number(row, path)? > 0.0, "{path} of {row}");
    }
    let quantiles = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(row, &format!("/latency_ms/{name}")));
    let quantiles = quantiles.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(quantiles.is_sorted(), "{quantiles:?}");
    for path in ["/server/rss_before_bytes", "/server/rss_after_bytes", "/client/cpu_seconds"] {
        ensure!(number(row, path)? > 0.0, "{path} of {row}");
    }
    number(row, "/server/cpu_seconds_per_10k")?;
    ensure!(number(row, "/failed")? == 0.0 && number(row, "/checks_failed")? == 0.0, "{row}");
    Ok(())
}

#[test]
fn every_row_runs_against_ours() -> Result<()> {
    let member = Member::start(programs::quorate()?, &Options::quick())?;
    let report = quoratectl(&member, &[&["all"][..], &TINY].concat())?;
    let rows = report["rows"].as_array().context("no rows")?;
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    for name in ["put-1", "scan1000-limit500-10", "fanout-10000", "lease-revoke", "kube-all", "fill-1m", "list-100k"] {
        ensure!(names.contains(&name), "{name} is not among {names:?}");
    }
    for row in rows {
        check(row).with_context(|| format!("of {}", row["name"]))?;
        ensure!(row.pointer("/row/clients") == Some(&Value::from(6)), "the flags are not in the report: {row}");
    }
    Ok(())
}

#[test]
fn real_etcd_is_measured_with_the_same() -> Result<()> {
    let member = Member::start(programs::etcd()?, &Options::default())?;
    let rows = ["put-100", "txn-contend-100", "watch-lat-100w-1000rps", "kube-all", "lease-keepalive", "list-10k"];
    let report = quoratectl(&member, &[&rows[..], &TINY].concat())?;
    let measured = report["rows"].as_array().context("no rows")?;
    ensure!(measured.len() == rows.len());
    measured.iter().try_for_each(check)
}

#[test]
fn a_server_that_goes_away_is_a_failure() -> Result<()> {
    let mut member = Member::start(programs::quorate()?, &Options::quick())?;
    let endpoint = member.endpoint();
    let mut load = Command::new(programs::quoratectl()?)
        .args(["--endpoints", &endpoint, "bench", "put-100", "--seconds", "3", "--warmup", "0", "--json", "-"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    // Not before there is something to lose: the revision shows that puts arrive.
    while member.status()?.header.is_none_or(|header| header.revision < 100) {
        ensure!(load.try_wait()?.is_none(), "the load ended before it began");
    }
    member.kill();
    let output = load.wait_with_output()?;
    ensure!(!output.status.success(), "a load without a server is a success");
    let report: Value = serde_json::from_slice(&output.stdout).context("read the report")?;
    ensure!(number(&report, "/rows/0/failed")? > 0.0, "{report}");
    Ok(())
}

#[test]
fn both_are_run_in_turn_with_fresh_data() -> Result<()> {
    let load = TINY.map(str::to_owned).to_vec();
    let rows = ["put-1", "fill-1m"].map(str::to_owned).to_vec();
    let options = BenchOptions { rows, rounds: 2, seconds: 1.0, members: 1, load };
    let mut told = 0;
    let report = bench::run(programs::quorate()?, options, &mut |_| told += 1)?;
    let order: Vec<_> = report.runs.iter().map(|run| (run.row.as_str(), run.side)).collect();
    let (etcd, ours) = (Side::Etcd, Side::Quorate);
    let first = [("put-1", etcd), ("put-1", ours), ("fill-1m", ours), ("fill-1m", etcd)];
    let second = [("put-1", ours), ("put-1", etcd), ("fill-1m", etcd), ("fill-1m", ours)];
    ensure!(order == [first, second].concat(), "{order:?}");
    ensure!(told == order.len());
    for line in &report.table {
        ensure!(line.failed == 0 && line.etcd.is_some() && line.quorate.is_some(), "{line:?}");
    }
    let start = report.table[1].quorate_restart.context("the fill was not followed by a start")?;
    ensure!(start.start_ms > 0.0 && start.rss_before_bytes > 0.0 && start.disk_bytes > 0.0, "{start:?}");
    let json = serde_json::to_value(&report)?;
    ensure!(json["etcd"]["version"].as_str().is_some_and(|version| version.contains('3')), "{json}");
    for path in ["/machine/processor", "/machine/cores", "/options/rounds", "/runs/0/load/row/clients"] {
        ensure!(json.pointer(path).is_some_and(|value| !value.is_null()), "nothing at {path}");
    }
    Ok(())
}
