//! Makes a failing history smaller, for as long as it fails: whole steps first, then entries, requests, operations of
//! txns, and at last the options of requests.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;

use super::history::{History, Load, Step, What};
use pb::request_op::Request;

/// Runs that one failure may cost.
const RUNS_MAX: usize = 5_000;

pub(crate) fn shrink(mut history: History, fails: impl Fn(&History) -> bool) -> History {
    let mut runs = 0;
    loop {
        let before = history.clone();
        let mut piece = history.steps.len() / 2;
        while piece > 0 {
            let mut from = 0;
            while from < history.steps.len() {
                let mut smaller = history.clone();
                smaller.steps.drain(from..(from + piece).min(smaller.steps.len()));
                runs += 1;
                if fails(&smaller) { history = smaller } else { from += piece }
            }
            piece /= 2;
        }
        let mut number = 0;
        while let Some(smaller) = variant(&history, number) {
            runs += 1;
            if runs > RUNS_MAX {
                return history;
            }
            if fails(&smaller) { history = smaller } else { number += 1 }
        }
        if history == before {
            return history;
        }
    }
}

/// The `number`th way to make a history a little smaller.
fn variant(history: &History, number: usize) -> Option<History> {
    let mut smaller = history.clone();
    let mut knife = Knife { left: number, cut: false };
    knife.history(&mut smaller);
    knife.cut.then_some(smaller)
}

/// Walks over a history and makes one cut, at the place whose number it was given.
struct Knife {
    left: usize,
    cut: bool,
}

impl Knife {
    fn here(&mut self) -> bool {
        if self.cut {
            return false;
        }
        self.cut = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.cut
    }

    fn list<T>(&mut self, items: &mut Vec<T>, mut inside: impl FnMut(&mut Self, &mut T)) {
        for at in 0..items.len() {
            if self.here() {
                items.remove(at);
                return;
            }
        }
        for item in items {
            inside(self, item);
        }
    }

    fn history(&mut self, history: &mut History) {
        self.list(&mut history.steps, |knife, step| {
            if let Step::Group { entries, .. } = step {
                knife.list(entries, Self::entry);
            }
        });
    }

    fn entry(&mut self, entry: &mut Load) {
        match &mut entry.what {
            What::Blank => {}
            What::Members(members) => self.list(members, |_, _| {}),
            What::Proposals(proposals) => self.list(proposals, |knife, proposal| match &mut proposal.command {
                Some(Command::Put(put)) => knife.put(put),
                Some(Command::DeleteRange(delete)) => knife.delete(delete),
                Some(Command::Txn(txn)) => {
                    knife.txn(txn);
                    let alone = if let [op] = &txn.success[..] { op.clone() } else { pb::RequestOp::default() };
                    knife.instead_of_txn(&mut proposal.command, &alone);
                }
                Some(Command::LeaseExpire(expire)) => knife.list(&mut expire.ids, |_, _| {}),
                _ => {}
            }),
        }
    }

    /// A txn with one operation may do as well without the txn.
    fn instead_of_txn(&mut self, command: &mut Option<Command>, op: &pb::RequestOp) {
        let plain = match &op.request {
            Some(Request::RequestPut(put)) => Command::Put(put.clone()),
            Some(Request::RequestDeleteRange(delete)) => Command::DeleteRange(delete.clone()),
            Some(Request::RequestTxn(txn)) => Command::Txn(txn.clone()),
            Some(Request::RequestRange(_)) | None => return,
        };
        if self.here() {
            *command = Some(plain);
        }
    }

    fn txn(&mut self, txn: &mut pb::TxnRequest) {
        self.list(&mut txn.compare, |_, _| {});
        for branch in [&mut txn.success, &mut txn.failure] {
            self.list(branch, |knife, op| match &mut op.request {
                Some(Request::RequestPut(put)) => knife.put(put),
                Some(Request::RequestDeleteRange(delete)) => knife.delete(delete),
                Some(Request::RequestTxn(txn)) => knife.txn(txn),
                Some(Request::RequestRange(range)) => knife.range(range),
                None => {}
            });
        }
    }

    fn put(&mut self, put: &mut pb::PutRequest) {
        self.clear(&mut put.prev_kv);
        self.clear(&mut put.ignore_value);
        self.clear(&mut put.ignore_lease);
        self.clear(&mut put.lease);
        if put.value.len() > 1 && self.here() {
            put.value.truncate(1);
        }
    }

    fn delete(&mut self, delete: &mut pb::DeleteRangeRequest) {
        self.clear(&mut delete.prev_kv);
        self.clear(&mut delete.range_end);
    }

    fn range(&mut self, range: &mut pb::RangeRequest) {
        self.clear(&mut range.limit);
        self.clear(&mut range.keys_only);
        self.clear(&mut range.count_only);
        for number in [
            &mut range.revision,
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            self.clear(number);
        }
        self.clear(&mut range.sort_order);
        self.clear(&mut range.sort_target);
        self.clear(&mut range.range_end);
    }

    fn clear<T: Default + PartialEq>(&mut self, field: &mut T) {
        if *field != T::default() && self.here() {
            *field = T::default();
        }
    }
}
