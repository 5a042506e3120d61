//! Runs a history on a store and on the model, side by side, and says where they first differ.

use std::fmt::Debug;

use quorate_store::{Answer, Applied, Effects, Entry, LogPosition, Store};

use super::chance::Chance;
use super::history::{History, Load, Step, What};
use super::model::Model;
use super::subject::{Kind, Subject};
use super::{install, physical, probe};

/// Why a history failed, for people.
pub(crate) type Verdict = Result<(), String>;

/// One entry, with what the model says comes of it.
struct Logged {
    entry: Entry,
    answers: Vec<Answer>,
    effects: Effects,
}

struct Runner {
    kind: Kind,
    subject: Subject,
    model: Model,
    log: Vec<Logged>,
    flushed: usize,
    applied: LogPosition,
}

pub(crate) fn run(history: &History, kind: Kind) -> Verdict {
    let subject = Subject::new(kind);
    let applied = LogPosition::default();
    let mut runner = Runner { kind, subject, model: Model::new(), log: Vec::new(), flushed: 0, applied };
    for (number, step) in history.steps.iter().enumerate() {
        runner.step(step).map_err(|text| format!("step {}: {text}", number + 1))?;
    }
    runner.end().map_err(|text| format!("at the end: {text}"))
}

pub(crate) fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, store: &T, model: &T) -> Verdict {
    if store == model {
        return Ok(());
    }
    Err(format!("{}\n  store: {store:?}\n  model: {model:?}", what()))
}

impl Runner {
    fn step(&mut self, step: &Step) -> Verdict {
        match step {
            Step::Group { entries, .. } if entries.is_empty() => Ok(()),
            Step::Group { probe, entries } => {
                let first = self.log.len();
                entries.iter().for_each(|entry| self.record(entry));
                self.apply(first, self.log.len())?;
                self.probe(*probe)
            }
            Step::Walk { probe, entries_max } => {
                let done = self.subject.store().compact_step(*entries_max as usize).map_err(fault)?;
                same(|| "compact_step".into(), &done, &self.subject.store().compaction_done())?;
                self.probe(*probe)
            }
            Step::Flush => {
                self.flushed = self.log.len();
                let flushed = self.subject.store().reader().flush().map_err(fault)?;
                same(|| "flush".into(), &flushed, &self.applied)
            }
            Step::Crash { split } => {
                self.subject.crash();
                let came_back = self.subject.store().applied().index as usize;
                if came_back < self.flushed || came_back > self.log.len() {
                    return Err(format!("flushed {}, {came_back} after a crash", self.flushed));
                }
                self.again(came_back, *split)?;
                self.probe(*split)
            }
            Step::Install { .. } if self.log.is_empty() => Ok(()),
            Step::Install { split } => {
                let log: Vec<Entry> = self.log.iter().map(|logged| logged.entry.clone()).collect();
                self.subject = install::install(self.subject.store(), &log, &self.model, self.kind, *split)?;
                self.flushed = log.len();
                self.probe(*split)
            }
        }
    }

    /// Lets the model do one entry.
    fn record(&mut self, load: &Load) {
        let index = self.log.len() as u64 + 1;
        self.applied = LogPosition { index, term: load.term };
        let mut answers = Vec::new();
        match &load.what {
            What::Blank => {}
            What::Proposals(proposals) => {
                answers.extend(proposals.iter().map(|proposal| self.model.proposal(load.term, proposal)));
            }
            What::Members(members) => self.model.membership(&super::history::membership(members)),
        }
        let effects = std::mem::take(&mut self.model.effects);
        self.log.push(Logged { entry: Entry { position: self.applied, payload: load.payload() }, answers, effects });
    }

    fn apply(&mut self, first: usize, end: usize) -> Verdict {
        check_group(self.subject.store(), &self.log[first..end])
    }

    /// Applies what a crash lost, in groups of other sizes.
    fn again(&mut self, mut first: usize, split: u64) -> Verdict {
        let mut chance = Chance(split);
        while first < self.log.len() {
            let end = (first + 1 + chance.below(4) as usize).min(self.log.len());
            self.apply(first, end).map_err(|text| format!("after a crash: {text}"))?;
            first = end;
        }
        Ok(())
    }

    fn probe(&mut self, seed: u64) -> Verdict {
        probe::probe(self.subject.store(), &self.model, self.applied, seed)
    }

    /// Everything is looked at: as it stands, with compaction done, and on a store that has only seen the log.
    fn end(&mut self) -> Verdict {
        probe::everything(self.subject.store(), &self.model)?;
        let mut steps = 0;
        while !self.subject.store().compact_step(3).map_err(fault)? {
            steps += 1;
            if steps > 3 * self.model.changes.len() + 3 {
                return Err("compaction does not come to an end".into());
            }
        }
        probe::everything(self.subject.store(), &self.model)?;
        let rows = physical::at_rest(self.subject.store(), &self.model)?;
        let mut fresh = Subject::new(Kind::Memory);
        for at in 0..self.log.len() {
            check_group(fresh.store(), &self.log[at..=at]).map_err(|text| format!("replay: {text}"))?;
        }
        while !fresh.store().compact_step(1000).map_err(fault)? {}
        let replayed = physical::at_rest(fresh.store(), &self.model)?;
        for (family, (own, replayed)) in rows.iter().zip(&replayed).enumerate() {
            same(|| format!("rows of family {family}, here and replayed"), own, replayed)?;
        }
        Ok(())
    }
}

fn check_group(store: &mut Store, logged: &[Logged]) -> Verdict {
    let entries: Vec<Entry> = logged.iter().map(|logged| logged.entry.clone()).collect();
    let Applied { answers, effects } = store.apply(&entries).map_err(fault)?;
    for (answers, logged) in answers.iter().zip(logged) {
        same(|| format!("answers of entry {}", logged.entry.position.index), answers, &logged.answers)?;
    }
    same(|| "entries answered".into(), &answers.len(), &logged.len())?;
    let mut wanted = Effects::default();
    for Logged { effects, .. } in logged {
        wanted.revisions.extend(effects.revisions.iter().cloned());
        wanted.leases.extend(effects.leases.iter().cloned());
        wanted.compacted = effects.compacted.or(wanted.compacted);
        wanted.alarms_changed |= effects.alarms_changed;
        wanted.auth_changed |= effects.auth_changed;
        wanted.members_changed |= effects.members_changed;
    }
    same(|| "effects".into(), &effects, &wanted)
}

pub(crate) fn fault(fault: quorate_store::Fault) -> String {
    format!("fault: {fault}")
}
