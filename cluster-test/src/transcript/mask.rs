//! What differs from one run to the next gets a name; all the rest must be equal.
//!
//! ```text
//!  127.0.0.1:2379            the client address            <cluster> <member>   the two IDs, decimal, hex and as varints
//!  m0:2379 m0:2380 <m0>      of members of a cluster       <id 1>               what else is an ID there
//!  <lease 1>                 leases in order of appearance <term> <index> <size> of Raft and of the database
//!  <took> <left>             how long, and what is left of a lease
//!  | A | B |                 tables without their padding  [warn] ...           etcdctl's own log lines, without time and place
//! ```
//!
//! By value where the value is known (IDs, ports), by its field's name elsewhere. HashKV stays: of equal content it is equal.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use prost::encoding::encode_varint;
use quorate_proto::etcdserverpb as pb;
use regex::{Captures, Regex};

use crate::cluster::{Cluster, Member};

/// Where etcd listens when nothing else is said: in the files, every member does.
const ENDPOINT: &str = "127.0.0.1:2379";

#[derive(Debug)]
pub struct Mask {
    fixed: Vec<(String, String)>,
    /// In binary output; of one member only.
    header: Option<Regex>,
    /// What an ID that is met is one of.
    noun: &'static str,
    numbered: BTreeMap<u64, usize>,
}

impl Mask {
    /// Asks the member for its IDs.
    pub fn of(member: &Member) -> Result<Self> {
        let header = member.status()?.header.context("find the header of its status")?;
        Ok(Self::new(&member.endpoint(), &header))
    }

    /// Members of several by their names; one that joins later is `next`.
    pub fn of_several(cluster: &Cluster, next_client: u16, next_peer: u16) -> Result<Self> {
        let header = cluster.members[0].status()?.header.context("find the header of its status")?;
        let mut fixed = vec![
            (header.cluster_id.to_string(), "<cluster>".to_owned()),
            (format!("{:x}", header.cluster_id), "<cluster>".to_owned()),
        ];
        let ports = cluster.members.iter().map(|member| (member.name(), member.client_port(), member.peer_port()));
        for (name, client, peer) in ports.chain([("next", next_client, next_peer)]) {
            fixed.push((format!("127.0.0.1:{client}"), format!("{name}:2379")));
            fixed.push((format!("127.0.0.1:{peer}"), format!("{name}:2380")));
            fixed.push((format!("localhost:{peer}"), format!("localhost:2380 of {name}")));
        }
        for (index, member) in cluster.members.iter().enumerate() {
            let id = cluster.id(index)?;
            fixed.push((id.to_string(), format!("<{}>", member.name())));
            fixed.push((format!("{id:x}"), format!("<{}>", member.name())));
        }
        Ok(Self { fixed, header: None, noun: "id", numbered: BTreeMap::new() })
    }

    fn new(endpoint: &str, header: &pb::ResponseHeader) -> Self {
        let (cluster, member) = (header.cluster_id, header.member_id);
        let fixed = [
            (endpoint.to_owned(), ENDPOINT),
            (cluster.to_string(), "<cluster>"),
            (format!("{cluster:x}"), "<cluster>"),
            (member.to_string(), "<member>"),
            (format!("{member:x}"), "<member>"),
        ]
        .map(|(from, to)| (from, to.to_owned()))
        .to_vec();
        let ids = format!("08{}10{}", varint_hex(cluster), varint_hex(member));
        let header = Regex::new(&format!("{ids}(18[0-9a-f]{{2}})20[0-9a-f]{{2}}")).expect("of hex digits");
        Self { fixed, header: Some(header), noun: "lease", numbered: BTreeMap::new() }
    }

    /// Masks one output. Leases keep their numbers from one call to the next.
    pub fn apply(&mut self, output: &str) -> String {
        let mut lines = Vec::new();
        let mut table = Table::default();
        // Of a lease's fields, the time left stands on a line of its own, and looks like the time granted.
        let of_lease = output.contains("GrantedTTL");
        for line in output.lines() {
            let mut line = line.to_owned();
            for (from, to) in &self.fixed {
                line = line.replace(from, to);
            }
            if let Some(header) = &self.header {
                line = header.replace_all(&line, "<header $1 term>").into_owned();
            }
            if let Some(row) = table.row(&line) {
                lines.extend(row);
                continue;
            }
            line = log_line(&line).unwrap_or(line);
            for (pattern, to) in PATTERNS.iter() {
                line = pattern.replace_all(&line, *to).into_owned();
            }
            if of_lease && line.starts_with("\"TTL\" : ") {
                line = "\"TTL\" : <left>".to_owned();
            }
            lines.push(self.number(&attached_keys_sorted(&line)));
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.join("\n")
    }

    fn number(&mut self, line: &str) -> String {
        ID.replace_all(line, |found: &Captures<'_>| {
            let text = &found[0];
            let id = match text.parse() {
                Ok(id) if text.len() > HEX_DIGITS_MAX => Some(id),
                _ => u64::from_str_radix(text, 16).ok(),
            };
            let Some(id) = id.filter(|id| *id != 0) else { return text.to_owned() };
            let next = self.numbered.len() + 1;
            format!("<{} {}>", self.noun, self.numbered.entry(id).or_insert(next))
        })
        .into_owned()
    }
}

const HEX_DIGITS_MAX: usize = 16;

/// An ID of a lease or member, of which no server so far makes small ones.
static ID: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(?:[0-9a-f]{13,16}|[0-9]{17,19})\b"));

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r#""raft(_t|T)erm":\d+"#, r#""raft${1}erm":<term>"#),
        (r#""RaftTerm" : \d+"#, r#""RaftTerm" : <term>"#),
        (r#""raft(Applied)?Index":\d+"#, r#""raft${1}Index":<index>"#),
        (r#""Raft(Applied)?Index" : \d+"#, r#""Raft${1}Index" : <index>"#),
        (r#""dbSize(InUse)?":\d+"#, r#""dbSize${1}":<size>"#),
        (r#""DBSize(InUse)?" : \d+"#, r#""DBSize${1}" : <size>"#),
        // endpoint status: version, storage version | two sizes, percentage | quota, leader, learner | term, two indexes
        (
            r"^((?:http://)?(?:127\.0\.0\.1|\w+):2379, <\w+>, [^,]*, [^,]*), [^,]*B, [^,]*B, -?\d+%, ([^,]*, \w+, \w+), \d+, \d+, \d+,",
            "$1, <size>, <size>, <size>, $2, <term>, <index>, <index>,",
        ),
        (r#"took( = |":"| )[\d.]+[nµm]?s"#, "took$1<took>"),
        (r#""Took" : .*"#, r#""Took" : <took>"#),
        // IDs are padded to 16 digits there, and one in 16 has fewer.
        (r"^Member +", "Member "),
        (r" cluster +<cluster>", " cluster <cluster>"),
        (r"remaining\(\d+s\)", "remaining(<left>)"),
        (r#""ttl":\d+,"granted-ttl""#, r#""ttl":<left>,"granted-ttl""#),
    ]
    .map(|(pattern, to)| (regex(pattern), to))
    .into()
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file")
}

/// etcd gives a lease's keys in the order of a Go map, that is in none.
fn attached_keys_sorted(line: &str) -> String {
    static KEYS: LazyLock<Regex> = LazyLock::new(|| regex(r"attached keys\(\[(.*)\]\)"));
    KEYS.replace(line, |found: &Captures<'_>| {
        let mut keys: Vec<&str> = found[1].split(' ').collect();
        keys.sort_unstable();
        format!("attached keys([{}])", keys.join(" "))
    })
    .into_owned()
}

/// What etcdctl logs on standard error: of these JSON lines, what the server had a part in.
fn log_line(line: &str) -> Option<String> {
    static FIELD: LazyLock<Regex> =
        LazyLock::new(|| regex(r#""(level|msg|method|attempt|error)":(?:"((?:[^"\\]|\\.)*)"|(\d+))"#));
    if !line.starts_with("{\"level\":") || !line.contains("\"ts\":") {
        return None;
    }
    let mut parts = Vec::new();
    for field in FIELD.captures_iter(line) {
        let value = field.get(2).or(field.get(3)).map_or("", |value| value.as_str());
        match &field[1] {
            "level" => parts.push(format!("[{value}]")),
            "msg" => parts.push(value.to_owned()),
            name => parts.push(format!("{name}={value}")),
        }
    }
    Some(parts.join(" "))
}

/// A table that is being printed: which of its columns are masked is known from its first row.
#[derive(Default)]
struct Table {
    masks: Vec<Option<&'static str>>,
}

impl Table {
    /// The row without its padding, or nothing for a border; `None` where the line is not of a table.
    fn row(&mut self, line: &str) -> Option<Option<String>> {
        if line.starts_with('┌') {
            self.masks.clear();
        }
        if line.starts_with(['┌', '├', '└']) {
            return Some(None);
        }
        let inside = line.strip_prefix('│')?.strip_suffix('│')?;
        let cells: Vec<&str> = inside.split('│').map(str::trim).collect();
        if self.masks.is_empty() {
            self.masks = cells.iter().map(|name| column_mask(name)).collect();
            return Some(Some(format!("| {} |", cells.join(" | "))));
        }
        let masked: Vec<&str> = cells.iter().zip(&self.masks).map(|(cell, mask)| mask.unwrap_or(cell)).collect();
        Some(Some(format!("| {} |", masked.join(" | "))))
    }
}

fn column_mask(name: &str) -> Option<&'static str> {
    match name {
        "DB SIZE" | "IN USE" | "PERCENTAGE NOT IN USE" => Some("<size>"),
        "RAFT TERM" => Some("<term>"),
        "RAFT INDEX" | "RAFT APPLIED INDEX" => Some("<index>"),
        "TOOK" => Some("<took>"),
        _ => None,
    }
}

fn varint_hex(value: u64) -> String {
    let mut bytes = Vec::new();
    encode_varint(value, &mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        let header = pb::ResponseHeader {
            cluster_id: 0xcdf8_1819_4e3a_8c32,
            member_id: 0x8e9e_05c5_2164_694d,
            ..Default::default()
        };
        Mask::new("127.0.0.1:33379", &header)
    }

    #[test]
    fn numbers_a_lease_alike_in_hex_and_decimal() {
        let mut mask = mask();
        assert_eq!(mask.apply("lease 694da20dd3035815 granted"), "lease <lease 1> granted\n");
        assert_eq!(mask.apply("694da20dd3035817 7587899127447640085"), "<lease 2> <lease 1>\n");
    }

    #[test]
    fn names_ids_addresses_and_terms() {
        let masked =
            mask().apply("{\"cluster_id\":14841639068965178418,\"raft_term\":2} 8e9e05c52164694d 127.0.0.1:33379");
        assert_eq!(masked, "{\"cluster_id\":<cluster>,\"raft_term\":<term>} <member> 127.0.0.1:2379\n");
        let masked = mask().apply("0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118022002120c");
        assert_eq!(masked, "0a1a<header 1802 term>120c\n");
    }

    #[test]
    fn masks_columns_by_their_name() {
        let masked = mask().apply("┌────┬────┐\n│  ID  │ RAFT TERM │\n├────┼────┤\n│ x │   12 │\n└────┴────┘");
        assert_eq!(masked, "| ID | RAFT TERM |\n| x | <term> |\n");
    }

    #[test]
    fn keeps_of_a_log_line_what_the_server_said() {
        let line = r#"{"level":"warn","ts":"2026-11-24T13:51:02Z","logger":"etcd-client","msg":"retrying","target":"0x1","attempt":0,"error":"a \"b\""}"#;
        assert_eq!(mask().apply(line), "[warn] retrying attempt=0 error=a \\\"b\\\"\n");
    }
}
