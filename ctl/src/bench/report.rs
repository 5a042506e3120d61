//! What was measured, as JSON and as a line of a table.

use std::collections::BTreeMap;

use serde::Serialize;

use super::drive::{Bench, Measured};
use super::meter::ServerUse;
use super::recorder::Failures;
use super::rows::Row;

/// Raised when a field changes its meaning.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) version: &'static str,
    pub(crate) endpoints: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) rows: Vec<RowReport>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowReport {
    pub(crate) name: &'static str,
    /// What was run, flags included.
    pub(crate) row: Row,
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    pub(crate) latency_ms: Latency,
    #[serde(flatten)]
    pub(crate) failures: Failures,
    /// Null where no `--pid` was named.
    pub(crate) server: Option<ServerUse>,
    pub(crate) client: ClientUse,
    /// What the row counts beside its operations.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClientUse {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_microseconds_per_operation: f64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn row(bench: &Bench, measured: Measured) -> RowReport {
    let Measured { before, after, recorded } = measured;
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let operations = recorded.operations;
    let cpu_seconds = after.client_cpu.saturating_sub(before.client_cpu).as_secs_f64();
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let at = |quantile| milliseconds(recorded.latency.value_at_quantile(quantile));
    RowReport {
        name: bench.row.name,
        row: bench.row.clone(),
        seconds,
        operations,
        operations_per_second: operations as f64 / seconds,
        latency_ms: Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: milliseconds(recorded.latency.max()),
            mean: recorded.latency.mean() / 1e6,
        },
        failures: recorded.failures,
        server: bench.meter.used(&before, &after, operations),
        client: ClientUse { cpu_seconds, cpu_microseconds_per_operation: cpu_seconds / operations.max(1) as f64 * 1e6 },
        counts: recorded.counts,
    }
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.failures.failed == 0 && row.failures.checks_failed == 0)
    }
}

/// The head of the table, for the eyes.
pub(crate) fn head() -> String {
    format!(
        "{:<24}{:>11}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}  {:>12}{:>10}{:>11}",
        "row", "ops/s", "p50 ms", "p90", "p99", "p99.9", "max", "failed", "server CPU-s", "RSS MB", "client us"
    )
}

/// A row of the table, and a line for each way in which it failed.
pub(crate) fn lines(row: &RowReport) -> String {
    let latency = &row.latency_ms;
    let failed = row.failures.failed + row.failures.checks_failed;
    let (cpu, rss) = row.server.as_ref().map_or(("-".to_owned(), "-".to_owned()), |server| {
        #[allow(clippy::cast_precision_loss, reason = "figures for people")]
        let megabytes = server.rss_after_bytes as f64 / 1e6;
        (format!("{:.3}/10k", server.cpu_seconds_per_10k), format!("{megabytes:.0}"))
    });
    let mut text = format!(
        "{:<24}{:>11.0}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{failed:>8}  {cpu:>12}{rss:>10}{:>11.1}",
        row.name,
        row.operations_per_second,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.max,
        row.client.cpu_microseconds_per_operation
    );
    for (what, count) in &row.counts {
        text.push_str(&format!("\n    {what}: {count}"));
    }
    for (what, count) in &row.failures.by_text {
        text.push_str(&format!("\n    {count} x {what}"));
    }
    text
}
