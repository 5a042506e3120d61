//! The checker: operations against the history of the keyspace, in the order of revisions, in O(n log n).
//!
//! Every write carries a value that nobody else writes, so each change in the history names its operation; deletes carry
//! none and are told by their revision, or by being the only one that can have done it. What it holds:
//!
//! 1. An acknowledged operation is there, at its revision, with exactly its effect.
//! 2. Every revision is the work of one operation that was invoked, and no operation worked twice.
//! 3. Create revisions, versions and previous values follow from what was there before.
//! 4. An operation that was acknowledged before another one was invoked has the smaller revision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, bail, ensure};
use quorate_proto::mvccpb::KeyValue;

/// What an operation does if it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Each key gets this operation's value, in one revision; `lease` 0 is none.
    Put {
        keys: Vec<String>,
        lease: i64,
    },
    /// Every key from the first on, up to the second, which is left out.
    Delete {
        from: String,
        until: String,
    },
    Compact {
        revision: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer's revision; `worked` is false for one that changed nothing (a guard that failed, no key to delete).
    Acknowledged { revision: i64, worked: bool },
    /// Refused for certain.
    Refused,
    /// Under way when the member was killed.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it writes: no other operation writes the same.
    pub value: String,
    pub effect: Effect,
    /// A put that only works while the key was last changed at this revision; 0 for a key that is not there.
    pub guard: Option<(String, i64)>,
    pub invoked: u64,
    pub completed: Option<u64>,
    pub outcome: Outcome,
}

/// One change of one key, as a watch shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: i64,
    pub deletion: bool,
    pub kv: KeyValue,
    pub prev_kv: Option<KeyValue>,
}

/// What must be there, built from history as it is checked.
#[derive(Debug, Default)]
pub struct Model {
    /// Up to which history has been checked.
    pub revision: i64,
    pub compacted_acknowledged: i64,
    /// Every change that still counts for the hash, without what it replaced.
    pub history: Vec<Change>,
    contents: BTreeMap<String, KeyValue>,
    operations: Vec<Operation>,
}

impl Model {
    /// Operations of the round that has just ended; unknown ones of earlier rounds can have no effect any more, since
    /// their connections are gone and the history that they would be in has been checked.
    pub fn invoked(&mut self, operations: Vec<Operation>) {
        self.operations = operations;
    }

    /// Holds the changes since the last check against the operations. Returns how many unknown ones had happened.
    pub fn check(&mut self, changes: Vec<Change>) -> Result<usize> {
        let operations = std::mem::take(&mut self.operations);
        let mut open = Open::new(&operations)?;
        let mut unknown_happened = 0;
        for group in changes.chunk_by(|a, b| a.revision == b.revision) {
            let revision = group[0].revision;
            ensure!(revision == self.revision.max(1) + 1, "revision {revision} follows {}", self.revision);
            let at = open.explain(revision, group, &self.contents)?;
            let operation = &operations[at];
            self.effect_of(operation, group)?;
            unknown_happened += usize::from(operation.outcome == Outcome::Unknown);
            open.happened(at, revision);
            self.apply(group)?;
            self.revision = revision;
        }
        self.revision = self.revision.max(1);
        open.all_acknowledged_happened()?;
        real_time(&operations, &open.revisions)?;
        for operation in &operations {
            if let (Effect::Compact { revision }, Outcome::Acknowledged { .. }) = (&operation.effect, operation.outcome)
            {
                self.compacted_acknowledged = self.compacted_acknowledged.max(*revision);
            }
        }
        self.history.extend(changes.into_iter().map(|change| Change { prev_kv: None, ..change }));
        Ok(unknown_happened)
    }

    /// Drops what no hash from now on can count: revisions that were compacted and hold nothing that still stands. Whole
    /// revisions, since the hash numbers the changes within each; of one that stays, what does not stand is left as a
    /// deletion, which has a number and does not count. (Else it would pass for the newest of its key, whose newer ones
    /// are dropped.)
    pub fn forget(&mut self, compacted: i64) {
        let contents = &self.contents;
        let stands = |change: &Change| {
            let now = std::str::from_utf8(&change.kv.key).ok().and_then(|key| contents.get(key));
            !change.deletion && now.is_some_and(|now| now.mod_revision == change.revision)
        };
        let mut kept = Vec::new();
        for group in self.history.chunk_by(|a, b| a.revision == b.revision) {
            if group[0].revision > compacted {
                kept.extend_from_slice(group);
            } else if group.iter().any(stands) {
                kept.extend(group.iter().map(|change| Change { deletion: !stands(change), ..change.clone() }));
            }
        }
        self.history = kept;
    }

    /// Exactly the operation's effect on what was there, and its guard held.
    fn effect_of(&self, operation: &Operation, group: &[Change]) -> Result<()> {
        let revision = group[0].revision;
        if let Some((key, at)) = &operation.guard {
            let was = self.contents.get(key).map_or(0, |kv| kv.mod_revision);
            ensure!(was == *at, "{operation:?} worked at {revision} though its key was last changed at {was}");
        }
        let changed: Vec<String> =
            group.iter().map(|change| String::from_utf8_lossy(&change.kv.key).into_owned()).collect();
        match &operation.effect {
            Effect::Put { keys, lease } => {
                ensure!(changed == *keys, "{operation:?} changed {changed:?} at {revision}");
                ensure!(
                    group.iter().all(|change| !change.deletion && change.kv.lease == *lease),
                    "{operation:?} left another lease or deleted at {revision}: {group:?}"
                );
            }
            Effect::Delete { from, until } => {
                let wanted: Vec<_> =
                    self.contents.range(from.clone()..until.clone()).map(|(key, _)| key.clone()).collect();
                ensure!(changed == wanted, "{operation:?} deleted {changed:?} at {revision}, there were {wanted:?}");
            }
            Effect::Compact { .. } => bail!("a compaction changed keys at {revision}: {group:?}"),
        }
        Ok(())
    }

    fn apply(&mut self, group: &[Change]) -> Result<()> {
        for change in group {
            let key = String::from_utf8_lossy(&change.kv.key).into_owned();
            let before = self.contents.get(&key);
            ensure!(
                change.prev_kv.as_ref() == before,
                "{key} at {}: the previous value is said to be {:?}, it was {before:?}",
                change.revision,
                change.prev_kv
            );
            if change.deletion {
                ensure!(before.is_some(), "{key} was deleted at {} and was not there", change.revision);
                self.contents.remove(&key);
                continue;
            }
            let (created, version) = before.map_or((change.revision, 1), |kv| (kv.create_revision, kv.version + 1));
            ensure!(
                change.kv.create_revision == created && change.kv.version == version,
                "{key} at {}: create revision {} and version {}, should be {created} and {version}",
                change.revision,
                change.kv.create_revision,
                change.kv.version
            );
            self.contents.insert(key, change.kv.clone());
        }
        Ok(())
    }

    pub fn check_contents(&self, kvs: &[KeyValue]) -> Result<()> {
        let wanted: Vec<&KeyValue> = self.contents.values().collect();
        let found: Vec<&KeyValue> = kvs.iter().collect();
        ensure!(wanted == found, "the contents differ from their history:\n  found {found:?}\n  wanted {wanted:?}");
        Ok(())
    }
}

/// Operations that may still explain a revision.
struct Open<'o> {
    operations: &'o [Operation],
    by_revision: HashMap<i64, usize>,
    by_value: HashMap<&'o str, usize>,
    unknown_deletes: BTreeSet<usize>,
    revisions: BTreeMap<usize, i64>,
}

impl<'o> Open<'o> {
    fn new(operations: &'o [Operation]) -> Result<Self> {
        let mut open = Self {
            operations,
            by_revision: HashMap::new(),
            by_value: HashMap::new(),
            unknown_deletes: BTreeSet::new(),
            revisions: BTreeMap::new(),
        };
        for (at, operation) in operations.iter().enumerate() {
            match operation.outcome {
                Outcome::Acknowledged { revision, worked: true }
                    if !matches!(operation.effect, Effect::Compact { .. }) =>
                {
                    if let Some(other) = open.by_revision.insert(revision, at) {
                        bail!("revision {revision} was given twice: {operation:?} and {:?}", operations[other]);
                    }
                }
                Outcome::Unknown if matches!(operation.effect, Effect::Put { .. }) => {
                    open.by_value.insert(&operation.value, at);
                }
                Outcome::Unknown if matches!(operation.effect, Effect::Delete { .. }) => {
                    open.unknown_deletes.insert(at);
                }
                Outcome::Acknowledged { .. } | Outcome::Refused | Outcome::Unknown => {}
            }
        }
        Ok(open)
    }

    /// Whose work the changes of one revision are.
    fn explain(&self, revision: i64, group: &[Change], contents: &BTreeMap<String, KeyValue>) -> Result<usize> {
        if let Some(at) = self.by_revision.get(&revision) {
            let operation = &self.operations[*at];
            let own = |change: &Change| change.deletion || change.kv.value == operation.value.as_bytes();
            ensure!(group.iter().all(own), "{operation:?} was acknowledged at {revision}, where {group:?} is");
            return Ok(*at);
        }
        if group[0].deletion {
            let would = |at: &&usize| {
                let Effect::Delete { from, until } = &self.operations[**at].effect else { return false };
                let keys = contents.range(from.clone()..until.clone()).map(|(key, _)| key.as_bytes());
                keys.eq(group.iter().map(|change| change.kv.key.as_ref()))
            };
            let found = self.unknown_deletes.iter().find(would);
            return found.copied().ok_or_else(|| anyhow::anyhow!("nobody deleted {group:?}"));
        }
        let value = String::from_utf8_lossy(&group[0].kv.value);
        match self.by_value.get(value.as_ref()) {
            Some(at) => Ok(*at),
            None => {
                bail!("nobody who may have written it wrote {group:?}: a write that was lost, refused or came twice")
            }
        }
    }

    fn happened(&mut self, at: usize, revision: i64) {
        self.by_revision.remove(&revision);
        self.by_value.remove(self.operations[at].value.as_str());
        self.unknown_deletes.remove(&at);
        self.revisions.insert(at, revision);
    }

    fn all_acknowledged_happened(&self) -> Result<()> {
        match self.by_revision.iter().min() {
            Some((revision, at)) => bail!("lost: {:?} was acknowledged at {revision}", self.operations[*at]),
            None => Ok(()),
        }
    }
}

/// Whoever completed before another was invoked has not the greater revision.
fn real_time(operations: &[Operation], happened: &BTreeMap<usize, i64>) -> Result<()> {
    let revision_of = |at: usize, operation: &Operation| match operation.outcome {
        Outcome::Acknowledged { revision, .. } => Some(revision),
        Outcome::Unknown => happened.get(&at).copied(),
        Outcome::Refused => None,
    };
    // (time, is an invocation, operation): at equal times completions come first.
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        if matches!(operation.effect, Effect::Compact { .. }) || revision_of(at, operation).is_none() {
            continue;
        }
        times.push((operation.invoked, true, at));
        times.extend(operation.completed.map(|completed| (completed, false, at)));
    }
    times.sort_unstable();
    let (mut newest, mut by) = (0, None);
    for (_, invocation, at) in times {
        let Some(revision) = revision_of(at, &operations[at]) else { continue };
        if invocation {
            ensure!(
                revision >= newest,
                "{:?} answered revision {revision}, though {:?} had been answered {newest} before it was asked",
                operations[at],
                by.map(|by: usize| &operations[by])
            );
        } else if revision > newest {
            (newest, by) = (revision, Some(at));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
