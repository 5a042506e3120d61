//! The flags of `bench`, and the row that they make of a named one.

use anyhow::{Result, ensure};
use clap::Args;

use super::rows::{self, ROWS, Row, Work};

#[derive(Clone, Debug, Args)]
#[command(after_help = rows::help())]
pub(crate) struct BenchArgs {
    /// Rows to measure, one after the other
    #[arg(required_unless_present = "list", value_name = "ROW")]
    pub(crate) rows: Vec<String>,
    /// Prints the rows instead
    #[arg(long)]
    pub(crate) list: bool,
    /// Operations under way at once
    #[arg(long)]
    clients: Option<usize>,
    /// Connections that they share
    #[arg(long)]
    connections: Option<usize>,
    /// Different keys (objects, leases)
    #[arg(long)]
    keys: Option<u64>,
    /// Bytes in a key
    #[arg(long)]
    key_size: Option<usize>,
    /// Bytes in a value
    #[arg(long)]
    value_size: Option<usize>,
    /// Keys in a range (scan)
    #[arg(long)]
    span: Option<u64>,
    /// Keys in an answer (scan, list)
    #[arg(long)]
    limit: Option<i64>,
    /// Watchers, in all
    #[arg(long)]
    watchers: Option<usize>,
    /// Streams that they share
    #[arg(long)]
    streams: Option<usize>,
    /// Ends a row after so many operations instead of after a time
    #[arg(long)]
    total: Option<u64>,
    /// Operations a second, whatever the server does; latency then counts from when each was due (open loop)
    #[arg(long, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Puts a second beside what is measured (list)
    #[arg(long, allow_negative_numbers = true)]
    writes_rate: Option<f64>,
    /// How long a row is measured
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// How long the load runs before it is measured
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// The same seed gives the same keys, values and choices
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Writes what was measured as JSON into a file, or with `-` on the standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<String>,
    /// The server's processes, of which processor time and memory are measured
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
}

impl BenchArgs {
    /// The rows asked for, as the flags change them.
    pub(crate) fn resolve(&self) -> Result<Vec<Row>> {
        ensure!(self.seconds > 0.0 && self.seconds.is_finite(), "--seconds {}: not above 0", self.seconds);
        ensure!(self.warmup >= 0.0 && self.warmup.is_finite(), "--warmup {}: below 0", self.warmup);
        let mut resolved = Vec::new();
        for name in self.rows.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty()) {
            let named = if name == "all" { ROWS.to_vec() } else { vec![rows::find(name)?] };
            for row in named {
                resolved.push(self.apply(row)?);
            }
        }
        Ok(resolved)
    }

    fn apply(&self, mut row: Row) -> Result<Row> {
        // Fewer clients than connections would leave some of these idle.
        let connections = self.clients.map_or(row.connections, |clients| row.connections.min(clients.max(row.streams)));
        row.connections = self.connections.unwrap_or(connections);
        row.clients = self.clients.unwrap_or(row.clients);
        row.keys = self.keys.unwrap_or(row.keys);
        row.key_size = self.key_size.unwrap_or(row.key_size);
        row.value_size = self.value_size.unwrap_or(row.value_size);
        row.span = self.span.unwrap_or(row.span);
        row.limit = self.limit.unwrap_or(row.limit);
        row.watchers = self.watchers.unwrap_or(row.watchers);
        row.streams = self.streams.unwrap_or(row.streams);
        row.total = self.total.unwrap_or(row.total);
        row.rate = self.rate.unwrap_or(row.rate);
        row.writes_rate = self.writes_rate.unwrap_or(row.writes_rate);
        check(&row)?;
        Ok(row)
    }
}

/// What a row cannot be run with.
fn check(row: &Row) -> Result<()> {
    let name = row.name;
    ensure!(row.clients > 0, "{name}: --clients 0: at least one");
    ensure!(row.connections > 0, "{name}: --connections 0: at least one");
    ensure!(row.keys > 0, "{name}: --keys 0: at least one");
    ensure!(row.rate >= 0.0 && row.rate.is_finite(), "{name}: --rate {}: below 0", row.rate);
    ensure!(
        row.writes_rate >= 0.0 && row.writes_rate.is_finite(),
        "{name}: --writes-rate {}: below 0",
        row.writes_rate
    );
    let clients = u64::try_from(row.clients)?;
    match row.work {
        Work::Txn => ensure!(row.keys >= clients, "{name}: --keys {} for {clients} clients: one each", row.keys),
        Work::Scan => {
            ensure!(row.span > 0 && row.keys >= row.span, "{name}: --span {} of --keys {}", row.span, row.keys)
        }
        Work::List => ensure!(row.limit > 0, "{name}: --limit {}: at least one key in a page", row.limit),
        Work::WatchLatency | Work::Fanout => {
            ensure!(
                row.streams > 0 && row.watchers >= row.streams,
                "{name}: --streams {}: 1 to --watchers",
                row.streams
            );
        }
        Work::LeaseKeepAlive => {
            ensure!(row.keys >= clients, "{name}: --keys {} (leases) for {clients} clients", row.keys)
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn resolve(line: &str) -> Result<Vec<Row>> {
        Line::try_parse_from(format!("bench {line}").split(' '))?.bench.resolve()
    }

    #[test]
    fn every_row_can_be_run_as_it_is() {
        assert_eq!(resolve("all").unwrap(), ROWS);
    }

    #[test]
    fn flags_change_rows() {
        let rows = resolve("put,txn-1 watch --clients 4 --value-size 9 --rate 50.5").unwrap();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| (row.clients, row.value_size) == (4, 9) && row.rate == 50.5));
        assert_eq!(rows.iter().map(|row| row.connections).collect::<Vec<_>>(), [4, 1, 9]);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name_and_value() {
        for (line, words) in [
            ("put --clients 0", ["put-100", "--clients 0"]),
            ("txn-100 --keys 99", ["--keys 99", "100 clients"]),
            ("fanout-1000 --streams 1001", ["fanout-1000", "--streams 1001"]),
            ("put --rate -1", ["--rate", "-1"]),
            ("put --seconds 0", ["--seconds 0", "above 0"]),
            ("putt", ["\"putt\"", "put-100"]),
        ] {
            let error = format!("{:#}", resolve(line).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{line}: {error}");
        }
    }
}
