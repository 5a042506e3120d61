//! Histories as text: one line a request, only what is not the default. `script` reads it back.
//!
//! ```text
//! group probe=7
//!   entry term=1
//!     put key="a" value="1" lease=3
//!     txn
//!       if key="a" target=mod result=equal revision=4
//!       then
//!         delete key="a" end="\x00"
//!       else
//!     end
//!   blank term=2
//! walk probe=9 entries_max=2
//! crash split=5
//! ```

use std::fmt::{self, Display, Write};

use quorate_proto::authpb;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{self, proposal::Command};

use super::history::{History, Load, Step, What};
use pb::compare::TargetUnion;
use pb::request_op::Request;

impl Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::default();
        self.steps.iter().for_each(|step| text.step(step));
        out.write_str(&text.out)
    }
}

/// `"ab\x00"`, or `"x"*4097` for what is long and all alike.
pub(crate) fn quote(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((first, rest)) if rest.len() > 32 && rest.iter().all(|byte| byte == first) => {
            format!("\"{}\"*{}", [*first].escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[derive(Default)]
struct Text {
    out: String,
    indent: usize,
}

impl Text {
    fn line(&mut self, word: &str) -> Line<'_> {
        let indent = self.indent * 2;
        write!(self.out, "{:indent$}{word}", "").unwrap();
        Line(&mut self.out)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Group { probe, entries } => {
                self.line("group").number("probe", *probe as i64).done();
                self.indent += 1;
                entries.iter().for_each(|entry| self.entry(entry));
                self.indent -= 1;
            }
            Step::Walk { probe, entries_max } => {
                self.line("walk").number("probe", *probe as i64).number("entries_max", *entries_max as i64).done();
            }
            Step::Flush => self.line("flush").done(),
            Step::Crash { split } => self.line("crash").number("split", *split as i64).done(),
            Step::Install { split } => self.line("install").number("split", *split as i64).done(),
        }
    }

    fn entry(&mut self, entry: &Load) {
        let term = entry.term as i64;
        match &entry.what {
            What::Blank => self.line("blank").number("term", term).done(),
            What::Members(members) => {
                let ids = members.iter().map(|(id, learner)| format!("{id}{}", if *learner { "l" } else { "" }));
                self.line("members").number("term", term).list("ids", ids.collect()).done();
            }
            What::Proposals(proposals) => {
                self.line("entry").number("term", term).done();
                self.indent += 1;
                proposals.iter().for_each(|proposal| self.proposal(proposal));
                self.indent -= 1;
            }
        }
    }

    fn proposal(&mut self, proposal: &log::Proposal) {
        let command = proposal.command.as_ref().expect("histories hold commands that exist");
        if let Command::Txn(txn) = command {
            return self.txn(txn, Some(proposal));
        }
        command_line(self, command).who(proposal).done();
    }

    fn txn(&mut self, txn: &pb::TxnRequest, proposal: Option<&log::Proposal>) {
        match proposal {
            Some(proposal) => self.line("txn").who(proposal).done(),
            None => self.line("txn").done(),
        }
        self.indent += 1;
        txn.compare.iter().for_each(|compare| self.compare(compare));
        for (word, ops) in [("then", &txn.success), ("else", &txn.failure)] {
            self.line(word).done();
            self.indent += 1;
            ops.iter().for_each(|op| self.op(op));
            self.indent -= 1;
        }
        self.indent -= 1;
        self.line("end").done();
    }

    fn compare(&mut self, compare: &pb::Compare) {
        let line = self.line("if").bytes("key", &compare.key).bytes("end", &compare.range_end);
        let line = line.number("target", compare.target.into()).number("result", compare.result.into());
        match &compare.target_union {
            Some(TargetUnion::Version(version)) => line.always("version", *version),
            Some(TargetUnion::CreateRevision(revision)) => line.always("create", *revision),
            Some(TargetUnion::ModRevision(revision)) => line.always("mod", *revision),
            Some(TargetUnion::Lease(lease)) => line.always("lease", *lease),
            Some(TargetUnion::Value(value)) => line.always("value", quote(value)),
            None => line,
        }
        .done();
    }

    fn op(&mut self, op: &pb::RequestOp) {
        match &op.request {
            Some(Request::RequestTxn(txn)) => self.txn(txn, None),
            Some(Request::RequestPut(put)) => put_line(self, put).done(),
            Some(Request::RequestDeleteRange(delete)) => delete_line(self, delete).done(),
            Some(Request::RequestRange(range)) => range_line(self, range).done(),
            None => self.line("nothing").done(),
        }
    }
}

struct Line<'t>(&'t mut String);

impl Line<'_> {
    fn always(self, name: &str, value: impl Display) -> Self {
        write!(self.0, " {name}={value}").unwrap();
        self
    }

    fn number(self, name: &str, number: i64) -> Self {
        if number == 0 { self } else { self.always(name, number) }
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.always(name, quote(bytes)) }
    }

    fn list(self, name: &str, items: Vec<String>) -> Self {
        if items.is_empty() { self } else { self.always(name, items.join(",")) }
    }

    fn flag(self, name: &str, on: bool) -> Self {
        if on {
            write!(self.0, " {name}").unwrap();
        }
        self
    }

    fn who(self, proposal: &log::Proposal) -> Self {
        self.bytes("user", proposal.user.as_bytes()).number("auth", proposal.auth_revision as i64)
    }

    fn done(self) {
        self.0.push('\n');
    }
}

fn put_line<'t>(text: &'t mut Text, put: &pb::PutRequest) -> Line<'t> {
    let line = text.line("put").bytes("key", &put.key).bytes("value", &put.value).number("lease", put.lease);
    line.flag("prev_kv", put.prev_kv).flag("ignore_value", put.ignore_value).flag("ignore_lease", put.ignore_lease)
}

fn delete_line<'t>(text: &'t mut Text, delete: &pb::DeleteRangeRequest) -> Line<'t> {
    text.line("delete").bytes("key", &delete.key).bytes("end", &delete.range_end).flag("prev_kv", delete.prev_kv)
}

fn range_line<'t>(text: &'t mut Text, range: &pb::RangeRequest) -> Line<'t> {
    let line = text.line("range").bytes("key", &range.key).bytes("end", &range.range_end);
    let line = line.number("limit", range.limit).number("revision", range.revision);
    let line = line.number("order", range.sort_order.into()).number("target", range.sort_target.into());
    let line = line.number("min_mod", range.min_mod_revision).number("max_mod", range.max_mod_revision);
    let line = line.number("min_create", range.min_create_revision).number("max_create", range.max_create_revision);
    let line = line.flag("serializable", range.serializable).flag("keys_only", range.keys_only);
    line.flag("count_only", range.count_only)
}

fn permission<'t>(line: Line<'t>, permission: Option<&authpb::Permission>) -> Line<'t> {
    match permission {
        Some(permission) => line
            .always("permission", permission.perm_type)
            .bytes("key", &permission.key)
            .bytes("end", &permission.range_end),
        None => line,
    }
}

fn command_line<'t>(text: &'t mut Text, command: &Command) -> Line<'t> {
    let name = |text: &'t mut Text, word, name: &str| text.line(word).bytes("name", name.as_bytes());
    let role = |line: Line<'t>, role: &str| line.bytes("role", role.as_bytes());
    match command {
        Command::Put(put) => put_line(text, put),
        Command::DeleteRange(delete) => delete_line(text, delete),
        Command::Txn(_) => unreachable!("printed over several lines"),
        Command::Compaction(it) => text.line("compact").number("revision", it.revision).flag("physical", it.physical),
        Command::LeaseGrant(it) => text.line("grant").number("id", it.id).number("ttl", it.ttl),
        Command::LeaseRevoke(it) => text.line("revoke").number("id", it.id),
        Command::LeaseExpire(it) => {
            let ids = it.ids.iter().map(i64::to_string).collect();
            text.line("expire").number("leader_term", it.leader_term as i64).list("ids", ids)
        }
        Command::LeaseCheckpoint(it) => {
            let ids = it.checkpoints.iter().map(|it| format!("{}:{}", it.id, it.remaining_ttl)).collect();
            text.line("checkpoint").list("ids", ids)
        }
        Command::LeaseRemaining(it) => {
            let ids = it.checkpoints.iter().map(|it| format!("{}:{}", it.id, it.remaining_ttl)).collect();
            text.line("remaining").number("leader_term", it.leader_term as i64).list("ids", ids)
        }
        Command::Alarm(it) => {
            let line = text.line("alarm").number("action", it.action.into()).number("member", it.member_id as i64);
            line.number("kind", it.alarm.into())
        }
        Command::ClusterVersionSet(it) => text.line("version").bytes("version", it.version.as_bytes()),
        Command::DowngradeInfoSet(it) => {
            text.line("downgrade").flag("enabled", it.enabled).bytes("version", it.version.as_bytes())
        }
        Command::MemberPublish(it) => {
            let line = text.line("publish").number("id", it.id as i64).bytes("name", it.name.as_bytes());
            line.list("urls", it.client_urls.clone())
        }
        Command::AuthEnable(_) => text.line("auth_enable"),
        Command::AuthDisable(_) => text.line("auth_disable"),
        Command::AuthUserAdd(it) => {
            let line = name(text, "user_add", &it.name).bytes("hash", it.hashed_password.as_bytes());
            line.flag("no_password", it.options.as_ref().is_some_and(|options| options.no_password))
        }
        Command::AuthUserDelete(it) => name(text, "user_delete", &it.name),
        Command::AuthUserChangePassword(it) => {
            name(text, "user_password", &it.name).bytes("hash", it.hashed_password.as_bytes())
        }
        Command::AuthUserGrantRole(it) => role(name(text, "user_grant", &it.user), &it.role),
        Command::AuthUserRevokeRole(it) => role(name(text, "user_revoke", &it.name), &it.role),
        Command::AuthRoleAdd(it) => name(text, "role_add", &it.name),
        Command::AuthRoleDelete(it) => role(text.line("role_delete"), &it.role),
        Command::AuthRoleGrantPermission(it) => permission(name(text, "role_grant", &it.name), it.perm.as_ref()),
        Command::AuthRoleRevokePermission(it) => {
            role(text.line("role_revoke"), &it.role).bytes("key", &it.key).bytes("end", &it.range_end)
        }
    }
}
