//! Reads what `print` writes. Names, not positions; indentation means nothing; `#` starts a comment line.

use std::iter::Peekable;
use std::str::FromStr;

use bytes::Bytes;
use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};

use super::history::{History, Load, Step, What};
use pb::compare::TargetUnion;
use pb::request_op::Request;

/// # Panics
/// When the text is no history; tests want to know at once.
pub(crate) fn parse(text: &str) -> History {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut lines = lines.map(Words::new).peekable();
    let mut history = History::default();
    while let Some(words) = lines.next() {
        match words.verb.as_str() {
            "group" => history.steps.push(Step::Group { probe: words.number("probe"), entries: Vec::new() }),
            "walk" => {
                let (probe, entries_max) = (words.number("probe"), words.number("entries_max"));
                history.steps.push(Step::Walk { probe, entries_max });
            }
            "flush" => history.steps.push(Step::Flush),
            "crash" => history.steps.push(Step::Crash { split: words.number("split") }),
            "install" => history.steps.push(Step::Install { split: words.number("split") }),
            "blank" => entries(&mut history).push(Load { term: words.number("term"), what: What::Blank }),
            "members" => {
                let member = |item: &String| (item.trim_end_matches('l').parse().unwrap(), item.ends_with('l'));
                let what = What::Members(words.list("ids").iter().map(member).collect());
                entries(&mut history).push(Load { term: words.number("term"), what });
            }
            "entry" => {
                let what = What::Proposals(Vec::new());
                entries(&mut history).push(Load { term: words.number("term"), what });
            }
            _ => {
                let proposal = proposal(&words, &mut lines);
                match entries(&mut history).last_mut() {
                    Some(Load { what: What::Proposals(proposals), .. }) => proposals.push(proposal),
                    other => panic!("{} stands in no entry but in {other:?}", words.verb),
                }
            }
        }
    }
    history
}

fn entries(history: &mut History) -> &mut Vec<Load> {
    match history.steps.last_mut() {
        Some(Step::Group { entries, .. }) => entries,
        other => panic!("an entry stands in no group but after {other:?}"),
    }
}

fn proposal(words: &Words, lines: &mut Peekable<impl Iterator<Item = Words>>) -> log::Proposal {
    let command = match words.verb.as_str() {
        "txn" => Command::Txn(txn(lines)),
        _ => command(words),
    };
    log::Proposal { user: words.text("user"), auth_revision: words.number("auth"), command: Some(command) }
}

fn txn(lines: &mut Peekable<impl Iterator<Item = Words>>) -> pb::TxnRequest {
    let (mut txn, mut otherwise) = (pb::TxnRequest::default(), false);
    loop {
        let words = lines.next().expect("a txn ends with `end`");
        let request = match words.verb.as_str() {
            "end" => return txn,
            "then" | "else" => {
                otherwise = words.verb == "else";
                continue;
            }
            "if" => {
                txn.compare.push(compare(&words));
                continue;
            }
            "nothing" => None,
            "range" => Some(Request::RequestRange(range(&words))),
            "put" => Some(Request::RequestPut(put(&words))),
            "delete" => Some(Request::RequestDeleteRange(delete(&words))),
            "txn" => Some(Request::RequestTxn(self::txn(lines))),
            other => panic!("{other} in a txn"),
        };
        let branch = if otherwise { &mut txn.failure } else { &mut txn.success };
        branch.push(pb::RequestOp { request });
    }
}

fn compare(words: &Words) -> pb::Compare {
    let kinds = [
        ("version", TargetUnion::Version as fn(i64) -> TargetUnion),
        ("create", TargetUnion::CreateRevision),
        ("mod", TargetUnion::ModRevision),
        ("lease", TargetUnion::Lease),
    ];
    let number = kinds.into_iter().find(|(name, _)| words.has(name)).map(|(name, kind)| kind(words.number(name)));
    pb::Compare {
        result: words.number("result"),
        target: words.number("target"),
        key: words.bytes("key"),
        range_end: words.bytes("end"),
        target_union: if words.has("value") { Some(TargetUnion::Value(words.bytes("value"))) } else { number },
    }
}

fn put(words: &Words) -> pb::PutRequest {
    pb::PutRequest {
        key: words.bytes("key"),
        value: words.bytes("value"),
        lease: words.number("lease"),
        prev_kv: words.has("prev_kv"),
        ignore_value: words.has("ignore_value"),
        ignore_lease: words.has("ignore_lease"),
    }
}

fn delete(words: &Words) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: words.bytes("key"), range_end: words.bytes("end"), prev_kv: words.has("prev_kv") }
}

fn range(words: &Words) -> pb::RangeRequest {
    pb::RangeRequest {
        key: words.bytes("key"),
        range_end: words.bytes("end"),
        limit: words.number("limit"),
        revision: words.number("revision"),
        sort_order: words.number("order"),
        sort_target: words.number("target"),
        serializable: words.has("serializable"),
        keys_only: words.has("keys_only"),
        count_only: words.has("count_only"),
        min_mod_revision: words.number("min_mod"),
        max_mod_revision: words.number("max_mod"),
        min_create_revision: words.number("min_create"),
        max_create_revision: words.number("max_create"),
    }
}

fn checkpoints(words: &Words) -> Vec<pb::LeaseCheckpoint> {
    let checkpoint = |item: &String| {
        let (id, remaining_ttl) = item.split_once(':').unwrap();
        pb::LeaseCheckpoint { id: id.parse().unwrap(), remaining_ttl: remaining_ttl.parse().unwrap() }
    };
    words.list("ids").iter().map(checkpoint).collect()
}

fn command(words: &Words) -> Command {
    let (name, role) = (words.text("name"), words.text("role"));
    match words.verb.as_str() {
        "put" => Command::Put(put(words)),
        "delete" => Command::DeleteRange(delete(words)),
        "compact" => {
            let (revision, physical) = (words.number("revision"), words.has("physical"));
            Command::Compaction(pb::CompactionRequest { revision, physical })
        }
        "grant" => Command::LeaseGrant(pb::LeaseGrantRequest { id: words.number("id"), ttl: words.number("ttl") }),
        "revoke" => Command::LeaseRevoke(pb::LeaseRevokeRequest { id: words.number("id") }),
        "expire" => {
            let ids = words.list("ids").iter().map(|id| id.parse().unwrap()).collect();
            Command::LeaseExpire(log::LeaseExpire { leader_term: words.number("leader_term"), ids })
        }
        "checkpoint" => Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: checkpoints(words) }),
        "remaining" => {
            let leader_term = words.number("leader_term");
            Command::LeaseRemaining(log::LeaseRemaining { leader_term, checkpoints: checkpoints(words) })
        }
        "alarm" => Command::Alarm(pb::AlarmRequest {
            action: words.number("action"),
            member_id: words.number("member"),
            alarm: words.number("kind"),
        }),
        "version" => Command::ClusterVersionSet(log::ClusterVersionSet { version: words.text("version") }),
        "downgrade" => Command::DowngradeInfoSet(log::DowngradeInfoSet {
            enabled: words.has("enabled"),
            version: words.text("version"),
        }),
        "publish" => {
            let (id, client_urls) = (words.number("id"), words.list("urls"));
            Command::MemberPublish(log::MemberPublish { id, name, client_urls })
        }
        "auth_enable" => Command::AuthEnable(pb::AuthEnableRequest {}),
        "auth_disable" => Command::AuthDisable(pb::AuthDisableRequest {}),
        "user_add" => {
            let no_password = words.has("no_password");
            let options = no_password.then_some(authpb::UserAddOptions { no_password });
            let hashed_password = words.text("hash");
            Command::AuthUserAdd(pb::AuthUserAddRequest { name, hashed_password, options, ..Default::default() })
        }
        "user_delete" => Command::AuthUserDelete(pb::AuthUserDeleteRequest { name }),
        "user_password" => {
            let hashed_password = words.text("hash");
            let request = pb::AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() };
            Command::AuthUserChangePassword(request)
        }
        "user_grant" => Command::AuthUserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role }),
        "user_revoke" => Command::AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role }),
        "role_add" => Command::AuthRoleAdd(pb::AuthRoleAddRequest { name }),
        "role_delete" => Command::AuthRoleDelete(pb::AuthRoleDeleteRequest { role }),
        "role_grant" => {
            let (key, range_end) = (words.bytes("key"), words.bytes("end"));
            let perm_type = words.number("permission");
            let perm = words.has("permission").then_some(authpb::Permission { perm_type, key, range_end });
            Command::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
        }
        "role_revoke" => {
            let (key, range_end) = (words.bytes("key"), words.bytes("end"));
            Command::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
        }
        other => panic!("no command is called {other}"),
    }
}

/// A line: a verb, then `name=value` or `name`.
struct Words {
    verb: String,
    fields: Vec<(String, String)>,
}

impl Words {
    fn new(line: &str) -> Self {
        let (mut words, mut quoted, mut escaped) = (vec![String::new()], false, false);
        for letter in line.chars() {
            if letter == ' ' && !quoted {
                words.push(String::new());
                continue;
            }
            quoted ^= letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            words.last_mut().unwrap().push(letter);
        }
        let mut words = words.into_iter().filter(|word| !word.is_empty());
        let verb = words.next().expect("a line is not empty");
        let fields = words.map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (word, String::new()),
        });
        Self { verb, fields: fields.collect() }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    fn number<T: FromStr + Default>(&self, name: &str) -> T {
        let parse = |value: &str| value.parse().unwrap_or_else(|_| panic!("{}: {name}={value}", self.verb));
        self.field(name).map_or_else(T::default, parse)
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.field(name).map_or_else(Vec::new, |value| value.split(',').map(str::to_owned).collect())
    }

    fn bytes(&self, name: &str) -> Bytes {
        self.field(name).map_or_else(Bytes::new, unquote)
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name).to_vec()).unwrap()
    }
}

/// See [`super::print::quote`].
fn unquote(quoted: &str) -> Bytes {
    let (inner, times) = quoted.strip_prefix('"').and_then(|rest| rest.rsplit_once('"')).expect("bytes are quoted");
    let (mut bytes, mut letters) = (Vec::new(), inner.bytes());
    while let Some(letter) = letters.next() {
        let byte = match letter {
            b'\\' => match letters.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'x' => {
                    let digits = [letters.next().unwrap(), letters.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        };
        bytes.push(byte);
    }
    match times.strip_prefix('*') {
        Some(times) => bytes.repeat(times.parse().unwrap()).into(),
        None => bytes.into(),
    }
}
