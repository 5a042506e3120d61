//! Medians over the rounds, and the tables that show them.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::Figures;
use super::restart::Restart;
use super::{Run, Side};

/// Rows whose operations are long: shown by the operation instead of by ten thousand.
const LONG: [&str; 2] = ["count-", "list-"];

/// One row of the table: medians of each figure by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub row: String,
    pub etcd: Option<Figures>,
    pub quorate: Option<Figures>,
    /// Ours / etcd's; below 1 ours is cheaper.
    pub cpu_ratio: Option<f64>,
    /// Operations of both that failed, or were answered wrongly.
    pub failed: u64,
    pub etcd_restart: Option<Start>,
    pub quorate_restart: Option<Start>,
}

/// Medians of [`Restart`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Start {
    pub rss_before_bytes: f64,
    pub start_ms: f64,
    pub rss_after_bytes: f64,
    pub disk_bytes: f64,
}

/// A line for each row, in the order of the runs.
pub fn lines(runs: &[Run]) -> Vec<Line> {
    let mut rows: Vec<&str> = Vec::new();
    for run in runs {
        if !rows.contains(&run.row.as_str()) {
            rows.push(&run.row);
        }
    }
    rows.into_iter().map(|row| line(row, runs)).collect()
}

fn line(row: &str, runs: &[Run]) -> Line {
    let of = |side| runs.iter().filter(move |run| run.row == row && run.side == side);
    let (etcd, quorate) = (figures(of(Side::Etcd)), figures(of(Side::Quorate)));
    let cpu = |figures: Option<Figures>| figures.map(|figures| figures.cpu_seconds_per_10k).filter(|cpu| *cpu > 0.0);
    Line {
        row: row.to_owned(),
        etcd,
        quorate,
        cpu_ratio: cpu(etcd).zip(cpu(quorate)).map(|(etcd, quorate)| quorate / etcd),
        failed: runs.iter().filter(|run| run.row == row).map(|run| run.load.failed + run.load.checks_failed).sum(),
        etcd_restart: start(of(Side::Etcd)),
        quorate_restart: start(of(Side::Quorate)),
    }
}

fn figures<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<Figures> {
    let all: Vec<Figures> = runs.map(|run| run.load.figures()).collect();
    let of = |figure: fn(&Figures) -> f64| median(all.iter().map(figure).collect());
    Some(Figures {
        operations_per_second: of(|figures| figures.operations_per_second)?,
        p50_ms: of(|figures| figures.p50_ms)?,
        p99_ms: of(|figures| figures.p99_ms)?,
        cpu_seconds_per_10k: of(|figures| figures.cpu_seconds_per_10k)?,
        rss_bytes: of(|figures| figures.rss_bytes)?,
        client_microseconds: of(|figures| figures.client_microseconds)?,
    })
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn start<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<Start> {
    let all: Vec<&Restart> = runs.filter_map(|run| run.restart.as_ref()).collect();
    let of = |figure: fn(&Restart) -> f64| median(all.iter().map(|restart| figure(restart)).collect());
    Some(Start {
        rss_before_bytes: of(|restart| restart.rss_before_bytes as f64)?,
        start_ms: of(|restart| restart.start_ms)?,
        rss_after_bytes: of(|restart| restart.rss_after_bytes as f64)?,
        disk_bytes: of(|restart| restart.disk_bytes as f64)?,
    })
}

/// The middle one; the mean of the two middle ones where their number is even.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// The tables, in Markdown.
pub fn print(lines: &[Line]) -> String {
    let is_long = |line: &Line| LONG.iter().any(|name| line.row.starts_with(name));
    let (long, short): (Vec<_>, Vec<_>) = lines.iter().partition(|line| is_long(line));
    let mut text = String::new();
    if !short.is_empty() {
        text.push_str("| row | etcd: ops/s | p50 / p99 ms | CPU-s per 10k | ours: ops/s | p50 / p99 ms | CPU-s per 10k | CPU ours / etcd |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for line in short {
            row(&mut text, line, 1.0);
        }
    }
    if !long.is_empty() {
        text.push_str("\n| row | etcd: ops/s | p50 / p99 ms | CPU ms per operation | ours: ops/s | p50 / p99 ms | CPU ms per operation | CPU ours / etcd |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for line in long {
            // CPU-seconds by ten thousand are tenths of a millisecond by one.
            row(&mut text, line, 0.1);
        }
    }
    restarts(&mut text, lines);
    text
}

fn row(text: &mut String, line: &Line, cpu_scale: f64) {
    let side = |figures: Option<Figures>| match figures {
        Some(figures) => format!(
            "{} | {} / {} | {}",
            number(figures.operations_per_second),
            number(figures.p50_ms),
            number(figures.p99_ms),
            number(figures.cpu_seconds_per_10k * cpu_scale)
        ),
        None => "- | - | -".to_owned(),
    };
    let ratio = line.cpu_ratio.map_or("-".to_owned(), |ratio| {
        // A hundredth would hide what is a hundred times cheaper.
        if ratio < 0.095 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
    });
    let failed = if line.failed > 0 { format!(" ({} FAILED)", line.failed) } else { String::new() };
    let (etcd, quorate) = (side(line.etcd), side(line.quorate));
    writeln!(text, "| {}{failed} | {etcd} | {quorate} | {ratio} |", line.row).expect("a string takes everything");
}

fn restarts(text: &mut String, lines: &[Line]) {
    let mut first = true;
    for line in lines {
        for (side, start) in [("etcd", line.etcd_restart), ("ours", line.quorate_restart)] {
            let Some(start) = start else { continue };
            if std::mem::take(&mut first) {
                text.push_str("\n| after | of | RSS MB | data on disk MB | stop, start: ms to the first linearizable read | RSS MB then |\n");
                text.push_str("|---|---|---|---|---|---|\n");
            }
            let [before, disk, after] =
                [start.rss_before_bytes, start.disk_bytes, start.rss_after_bytes].map(|bytes| number(bytes / 1e6));
            let (row, ms) = (&line.row, number(start.start_ms));
            writeln!(text, "| {row} | {side} | {before} | {disk} | {ms} | {after} |")
                .expect("a string takes everything");
        }
    }
}

/// Three digits, and thousands apart.
fn number(value: f64) -> String {
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 {
        return text;
    }
    let mut apart = String::new();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && (text.len() - place) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::Load;

    fn run(row: &str, side: Side, rate: f64, cpu: f64, failed: u64) -> Run {
        let load = serde_json::json!({
            "name": row, "row": {}, "seconds": 1.0, "operations": 10, "operations_per_second": rate,
            "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99_9": 4.0, "max": 5.0, "mean": 1.5},
            "failed": failed, "checks_failed": 0, "by_text": {}, "counts": {},
            "server": {"pids": [1], "cpu_seconds": 1.0, "cpu_seconds_per_10k": cpu, "rss_before_bytes": 1,
                       "rss_after_bytes": 2_000_000, "rss_peak_bytes": 3, "rss_bytes_per_operation": 0.1},
            "client": {"cpu_seconds": 0.1, "cpu_microseconds_per_operation": 5.0},
        });
        let load: Load = serde_json::from_value(load).unwrap();
        Run { row: row.to_owned(), round: 0, side, load, restart: None }
    }

    #[test]
    fn each_figure_is_the_median_of_its_rounds() {
        let mut runs = Vec::new();
        for (rate, cpu) in [(3_000.0, 0.5), (1_000.0, 0.9), (2_000.0, 0.7)] {
            runs.push(run("put-1", Side::Etcd, rate, cpu, 0));
            runs.push(run("put-1", Side::Quorate, rate * 2.0, cpu / 7.0, 0));
        }
        runs.push(run("getl-1", Side::Etcd, 5.0, 0.4, 0));
        let lines = lines(&runs);
        assert_eq!(lines.iter().map(|line| line.row.as_str()).collect::<Vec<_>>(), ["put-1", "getl-1"]);
        let etcd = lines[0].etcd.unwrap();
        assert_eq!((etcd.operations_per_second, etcd.cpu_seconds_per_10k), (2_000.0, 0.7));
        assert!((lines[0].cpu_ratio.unwrap() - 1.0 / 7.0).abs() < 1e-9);
        assert_eq!((lines[1].quorate, lines[1].cpu_ratio), (None, None));
    }

    #[test]
    fn the_middle_of_two_is_between_them() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn tables_show_what_failed_and_long_operations_by_one() {
        let runs = [
            run("put-1", Side::Etcd, 12_345.6, 4.65, 0),
            run("put-1", Side::Quorate, 999.0, 0.5, 3),
            run("list-10k", Side::Etcd, 1.0, 400.0, 0),
        ];
        let text = print(&lines(&runs));
        assert!(
            text.contains("| put-1 (3 FAILED) | 12,346 | 1.00 / 3.00 | 4.65 | 999 | 1.00 / 3.00 | 0.500 | 0.11 |"),
            "{text}"
        );
        assert!(text.contains("| list-10k | 1.00 | 1.00 / 3.00 | 40.0 | - | - | - | - |"), "{text}");
    }
}
