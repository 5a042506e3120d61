//! The rows that can be measured, by name: what is asked, by how many at once, over how many connections.
//!
//! Names say it shortly: `put-100` is puts by 100 clients, `watch-lat-5000w-200rps` 5,000 watchers and 200 puts a second. Every
//! number of a row can be set by a flag; the name then only says where it began.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde::Serialize;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    Put,
    GetLinearizable,
    GetSerializable,
    /// Ranges of [`Row::span`] keys, at most [`Row::limit`] returned.
    Scan,
    /// 80 % linearizable get, 20 % put.
    Mixed,
    /// If(mod_revision) Then(put) Else(get), each client on keys of its own.
    Txn,
    /// The same, all clients on [`Row::keys`] keys.
    TxnContend,
    /// Puts at a steady rate on keys that [`Row::watchers`] watch.
    WatchLatency,
    /// One key that all watch; the next put when all have seen the last.
    Fanout,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    KubeCreate,
    KubeSteady,
    KubeDelete,
    KubeAll,
    /// Each key once.
    Fill,
    /// Every object, page by page, at the revision of the first page.
    List,
    /// The number of all keys.
    Count,
}

/// One row. Zero stands for "has none".
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) about: &'static str,
    /// Operations under way at once.
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) keys: u64,
    pub(crate) key_size: usize,
    pub(crate) value_size: usize,
    /// Keys in a range.
    pub(crate) span: u64,
    /// Keys in an answer.
    pub(crate) limit: i64,
    pub(crate) watchers: usize,
    pub(crate) streams: usize,
    /// Operations, where the row does not end by time.
    pub(crate) total: u64,
    /// Operations a second, whatever the server does; 0: as many as it answers.
    pub(crate) rate: f64,
    /// Puts a second beside the operations that are measured.
    pub(crate) writes_rate: f64,
    /// All connections go to the leader instead of to all endpoints in turn.
    pub(crate) leader: bool,
}

const ROW: Row = Row {
    name: "",
    work: Work::Put,
    about: "",
    clients: 100,
    connections: 9,
    keys: 10_000,
    key_size: 8,
    value_size: 256,
    span: 0,
    limit: 0,
    watchers: 0,
    streams: 0,
    total: 0,
    rate: 0.0,
    writes_rate: 0.0,
    leader: false,
};
const ONE: Row = Row { clients: 1, connections: 1, ..ROW };
const THOUSAND: Row = Row { clients: 1_000, connections: 99, ..ROW };
const KUBE: Row = Row { clients: 50, keys: 5_000, watchers: 12, streams: 12, value_size: 4_096, ..ROW };
const LEASES: Row = Row { keys: 2_000, key_size: 0, value_size: 0, ..ROW };
const LIST: Row = Row { work: Work::List, value_size: 2_048, limit: 500, writes_rate: 100.0, about: LIST_ABOUT, ..ONE };
const COUNT: Row = Row { work: Work::Count, about: "count_only over all keys", ..ONE };

const PUT: &str = "puts of random keys";
const GETL: &str = "linearizable gets of one key";
const GETS: &str = "serializable gets of one key";
const TXN: &str = "If(mod_revision) Then(put) Else(get) on own keys";
const WATCH: &str = "events; latency from when the put was due to delivery";
const FANOUT: &str = "events to watchers of one key; latency from when the put was sent to delivery";
const LIST_ABOUT: &str = "lists of all objects in pages of 500 at the first page's revision, under steady writes";

/// Every row, in the order in which they are shown.
pub(crate) const ROWS: [Row; 33] = [
    Row { name: "put-1", about: PUT, keys: 100_000, ..ONE },
    Row { name: "put-100", about: PUT, keys: 100_000, ..ROW },
    Row { name: "put-1000", about: PUT, keys: 100_000, ..THOUSAND },
    Row {
        name: "put-100-leader",
        about: "puts of random keys, sent to the leader",
        keys: 100_000,
        leader: true,
        ..ROW
    },
    Row { name: "getl-1", work: Work::GetLinearizable, about: GETL, ..ONE },
    Row { name: "getl-100", work: Work::GetLinearizable, about: GETL, ..ROW },
    Row { name: "getl-1000", work: Work::GetLinearizable, about: GETL, ..THOUSAND },
    Row { name: "gets-1", work: Work::GetSerializable, about: GETS, ..ONE },
    Row { name: "gets-100", work: Work::GetSerializable, about: GETS, ..ROW },
    Row { name: "gets-1000", work: Work::GetSerializable, about: GETS, ..THOUSAND },
    Row { name: "scan100-100", work: Work::Scan, about: "linearizable ranges of 100 keys", span: 100, ..ROW },
    Row {
        name: "scan1000-limit500-10",
        work: Work::Scan,
        about: "linearizable ranges of 1,000 keys, limit 500",
        span: 1_000,
        limit: 500,
        clients: 10,
        ..ROW
    },
    Row { name: "mixed80-100", work: Work::Mixed, about: "80 % linearizable gets, 20 % puts", ..ROW },
    Row { name: "txn-1", work: Work::Txn, about: TXN, ..ONE },
    Row { name: "txn-100", work: Work::Txn, about: TXN, ..ROW },
    Row { name: "txn-contend-100", work: Work::TxnContend, about: "the same, all clients on 10 keys", keys: 10, ..ROW },
    Row {
        name: "watch-lat-100w-1000rps",
        work: Work::WatchLatency,
        about: WATCH,
        watchers: 100,
        streams: 10,
        keys: 100,
        rate: 1_000.0,
        ..ROW
    },
    Row {
        name: "watch-lat-5000w-200rps",
        work: Work::WatchLatency,
        about: WATCH,
        watchers: 5_000,
        streams: 50,
        keys: 100,
        rate: 200.0,
        ..ROW
    },
    Row { name: "fanout-1000", work: Work::Fanout, about: FANOUT, watchers: 1_000, streams: 10, keys: 1, ..ONE9 },
    Row { name: "fanout-10000", work: Work::Fanout, about: FANOUT, watchers: 10_000, streams: 100, keys: 1, ..ONE9 },
    Row { name: "lease-grant", work: Work::LeaseGrant, about: "leases granted", total: 20_000, ..LEASES },
    Row {
        name: "lease-keepalive",
        work: Work::LeaseKeepAlive,
        about: "keep-alives of 2,000 leases over 60 streams, one under way on each",
        clients: 60,
        ..LEASES
    },
    Row {
        name: "lease-revoke",
        work: Work::LeaseRevoke,
        about: "leases without keys revoked",
        total: 10_000,
        ..LEASES
    },
    Row { name: "kube-create", work: Work::KubeCreate, about: "objects of 1-4 KiB created under 12 watches", ..KUBE },
    Row {
        name: "kube-steady",
        work: Work::KubeSteady,
        about: "guarded updates of 5,000 objects of 1-4 KiB under 12 watches with prev_kv",
        ..KUBE
    },
    Row {
        name: "kube-delete",
        work: Work::KubeDelete,
        about: "the objects deleted, guarded, under 12 watches",
        ..KUBE
    },
    Row { name: "kube-all", work: Work::KubeAll, about: "all created, updated four times each, deleted", ..KUBE },
    Row { name: "fill-1m", work: Work::Fill, about: FILL, clients: 200, keys: 1_000_000, ..ROW },
    Row { name: "count-10k", keys: 10_000, ..COUNT },
    Row { name: "count-100k", keys: 100_000, ..COUNT },
    Row { name: "count-1m", keys: 1_000_000, ..COUNT },
    Row { name: "list-10k", keys: 10_000, total: 30, ..LIST },
    Row { name: "list-100k", keys: 100_000, total: 5, ..LIST },
];
const ONE9: Row = Row { connections: 9, ..ONE };
const FILL: &str = "puts of every key once, in random order, by 200 clients";

/// Short words for the rows most often asked for.
const ALIASES: [(&str, &str); 14] = [
    ("put", "put-100"),
    ("get", "getl-100"),
    ("getl", "getl-100"),
    ("gets", "gets-100"),
    ("range", "scan100-100"),
    ("scan", "scan100-100"),
    ("mixed", "mixed80-100"),
    ("txn", "txn-100"),
    ("watch", "watch-lat-100w-1000rps"),
    ("fanout", "fanout-1000"),
    ("kube", "kube-all"),
    ("fill", "fill-1m"),
    ("count", "count-1m"),
    ("list", "list-100k"),
];

/// The row of this name or alias.
pub(crate) fn find(name: &str) -> Result<Row> {
    let full = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, full)| full);
    match ROWS.iter().find(|row| row.name == full) {
        Some(row) => Ok(row.clone()),
        None => bail!("no row {name:?}; there are {}", ROWS.map(|row| row.name).join(", ")),
    }
}

/// One line for each row: its name, and what it is.
pub(crate) fn list() -> String {
    ROWS.iter().map(|row| format!("{:<24}{}", row.name, row.about)).collect::<Vec<_>>().join("\n")
}

/// For `--help`: name and meaning of each row, and the aliases.
pub(crate) fn help() -> String {
    let mut text = String::from("Rows:\n");
    for row in &ROWS {
        writeln!(text, "  {:<24}{}", row.name, row.about).expect("a string takes everything");
    }
    text.push_str("\nShort for: ");
    text.push_str(&ALIASES.map(|(alias, full)| format!("{alias} = {full}")).join(", "));
    text.push_str("\n\nKeys begin with `~`; those of a row are deleted before it starts, and stay when it ends.");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_aliases_lead_to_one() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for (alias, full) in ALIASES {
            assert_eq!(find(alias).unwrap().name, full);
            assert!(!names.contains(alias), "{alias} is a row too");
        }
        assert!(find("put-7").unwrap_err().to_string().contains("put-1000"));
    }

    #[test]
    fn names_say_what_the_row_does() {
        for row in &ROWS {
            let parts: Vec<_> = row.name.split('-').collect();
            match row.work {
                Work::WatchLatency => {
                    assert_eq!(parts[2], format!("{}w", row.watchers));
                    assert_eq!(parts[3], format!("{}rps", row.rate));
                }
                Work::Fanout => assert_eq!(parts[1], row.watchers.to_string()),
                Work::Fill | Work::Count | Work::List => {
                    let size = parts[parts.len() - 1].replace('k', "000").replace('m', "000000");
                    assert_eq!(size, row.keys.to_string());
                }
                Work::LeaseGrant | Work::LeaseKeepAlive | Work::LeaseRevoke => assert_eq!(row.keys, 2_000),
                Work::KubeCreate | Work::KubeSteady | Work::KubeDelete | Work::KubeAll => assert_eq!(row.keys, 5_000),
                _ => assert!(parts.contains(&row.clients.to_string().as_str()), "{}: {}", row.name, row.clients),
            }
            assert!(row.connections <= row.clients.max(row.streams), "{}: idle connections", row.name);
            assert!(!row.about.is_empty());
        }
    }
}
