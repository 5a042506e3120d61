//! What the answers of members say about who has other data than the rest. Pure.
//!
//! Compared are hashes of one revision under one compaction; whoever could not be compared has not passed, it was not looked at.
//! Of those that differ, the ones outside a majority of all members with one hash are to blame (etcd's rule for its compact-hash
//! check; its periodic one believes whoever leads). Without such a majority nobody knows, and member 0, which is the whole
//! cluster, is named.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::peer::HashAnswer;

/// Member id of an alarm that concerns the whole cluster (etcd's value).
pub(super) const WHOLE_CLUSTER: u64 = 0;

/// What came of asking a member; the text says why it has not answered.
pub(super) type Asked = Result<HashAnswer, String>;

/// What nobody may be ahead of: taken from the cluster after the answers were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) newest: i64,
    pub(super) compacted: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Members whose data are not those of the others, or [`WHOLE_CLUSTER`]. Empty where nothing differs.
    pub(super) blamed: BTreeSet<u64>,
    /// What speaks against them, one line a finding.
    pub(super) findings: Vec<String>,
    /// Other members that were compared.
    pub(super) compared: usize,
    /// Members that were not, and why.
    pub(super) skipped: Vec<(u64, String)>,
    /// Some of these had forgotten more or less of their history, and may be compared the next time.
    pub(super) compacted_meanwhile: bool,
}

/// `own` is the answer of member `own_id`, which asked the `others`.
pub(super) fn judge(own_id: u64, own: &HashAnswer, others: &BTreeMap<u64, Asked>, bound: Option<Bound>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut by_hash = BTreeMap::from([(own.hash, BTreeSet::from([own_id]))]);
    verdict.look_at(own_id, own, bound);
    for (id, asked) in others {
        let answer = match asked {
            Ok(answer) => answer,
            Err(reason) => {
                verdict.skipped.push((*id, reason.clone()));
                continue;
            }
        };
        verdict.look_at(*id, answer, bound);
        if answer.compacted == own.compacted {
            by_hash.entry(answer.hash).or_default().insert(*id);
            verdict.compared += 1;
        } else {
            verdict.compacted_meanwhile = true;
            let reason = format!("its compacted revision {} is not {}", answer.compacted, own.compacted);
            verdict.skipped.push((*id, reason));
        }
    }
    verdict.compare(&by_hash, majority(others.len() + 1));
    verdict
}

fn majority(members: usize) -> usize {
    members / 2 + 1
}

impl Verdict {
    /// What one answer says by itself.
    fn look_at(&mut self, id: u64, answer: &HashAnswer, bound: Option<Bound>) {
        if !answer.contradiction.is_empty() {
            self.blame(id, format!("member {id:x}: {}", answer.contradiction));
        }
        let Some(Bound { newest, compacted }) = bound else { return };
        if answer.newest > newest {
            self.blame(id, format!("member {id:x}: at revision {}, the cluster at {newest}", answer.newest));
        }
        if answer.compacted > compacted {
            self.blame(id, format!("member {id:x}: compacted to {}, the cluster to {compacted}", answer.compacted));
        }
    }

    fn blame(&mut self, id: u64, finding: String) {
        self.blamed.insert(id);
        self.findings.push(finding);
    }

    fn compare(&mut self, by_hash: &BTreeMap<u32, BTreeSet<u64>>, majority: usize) {
        if by_hash.len() < 2 {
            return;
        }
        for (hash, members) in by_hash {
            let members: Vec<String> = members.iter().map(|id| format!("{id:x}")).collect();
            self.findings.push(format!("hash {hash} of {}", members.join(", ")));
        }
        match by_hash.iter().find(|(_, members)| members.len() >= majority) {
            Some((right, _)) => {
                let wrong = by_hash.iter().filter(|(hash, _)| *hash != right);
                self.blamed.extend(wrong.flat_map(|(_, members)| members));
            }
            None => {
                self.blamed.insert(WHOLE_CLUSTER);
            }
        }
    }
}

/// Whether a member that has just started may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A majority of the voters has what it has.
    Agrees,
    /// Somebody has other data, and no majority has the same.
    Differs,
    /// Too few could be compared to say it: to be asked again.
    Unknown,
}

/// `voters`: the ids of all that vote. See [`judge`].
pub(super) fn may_enter(own_id: u64, own: &HashAnswer, others: &BTreeMap<u64, Asked>, voters: &BTreeSet<u64>) -> Entry {
    if !own.contradiction.is_empty() {
        return Entry::Differs;
    }
    let comparable = || {
        let answers = others.iter().filter_map(|(id, asked)| Some((id, asked.as_ref().ok()?)));
        answers.filter(|(_, answer)| answer.compacted == own.compacted)
    };
    let same = comparable().filter(|(_, answer)| answer.hash == own.hash).map(|(id, _)| *id);
    let agreeing = same.chain([own_id]).filter(|id| voters.contains(id)).count();
    if agreeing >= majority(voters.len()) {
        return Entry::Agrees;
    }
    if comparable().any(|(_, answer)| answer.hash != own.hash) { Entry::Differs } else { Entry::Unknown }
}
