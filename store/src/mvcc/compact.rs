//! Compaction, the physical half: forgetting versions that nobody can ask for any more.
//!
//! The command itself only moves the compacted revision C, in apply, at once; reads below it are refused from then on.
//! What it made unreachable is dropped later, in steps of bounded size between two groups of entries, each with its
//! own place to go on from in the same batch. The walk looks at the log from the last compaction to this one only:
//!
//! ```text
//!   revisions   ... C_old ───────────────── C ...
//!   each entry e in [C_old, C]:
//!     the version e replaced, if below C           goes: row, place in the history
//!     e itself, if a deletion below C              goes: row, place in the history, head if it still is e
//!     e's tally                                    goes: no count at C or later needs it
//! ```
//!
//! Entries at C itself stay until the next compaction, deletions too: a watch from exactly C is legal.

use std::ops::Bound;

use super::write::version_bytes;
use super::{Buckets, head};
use crate::engine::{Direction, Family, Read, Span};
use crate::keys::{self, ChangeRecord};
use crate::overlay::Overlay;
use crate::types::{Fault, Revision};

/// Where a walk stands. `WalkProgress::done` means that nothing below the compacted revision is left to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalkProgress {
    /// The compacted revision whose walk is finished.
    pub walked: i64,
    /// Under way: the next revision to look at, and the compacted revision that this walk serves.
    pub under_way: Option<(Revision, i64)>,
    /// Logical bytes that this step set free.
    pub freed_bytes: i64,
    /// Versions that this step dropped.
    pub dropped: u64,
}

impl WalkProgress {
    pub(crate) fn done(&self, compacted: i64) -> bool {
        self.walked >= compacted
    }
}

/// Looks at up to `entries_max` entries. The caller writes `overlay`, with the progress, in one batch.
pub(crate) fn walk_step(
    overlay: &mut Overlay<'_>,
    buckets: &mut Buckets,
    before: WalkProgress,
    compacted: i64,
    entries_max: usize,
) -> Result<WalkProgress, Fault> {
    let mut after = WalkProgress { freed_bytes: 0, dropped: 0, ..before };
    if before.done(compacted) {
        return Ok(after);
    }
    let (cursor, target) = before.under_way.unwrap_or((Revision::new(before.walked.max(0), 0), compacted));
    let span = Span {
        from: Bound::Included(keys::revision_key(cursor)),
        until: Bound::Included(keys::revision_key(Revision::new(target, i64::MAX))),
    };
    let mut entries = Vec::with_capacity(entries_max.min(1024));
    for row in overlay.scan(Family::Revisions, span, Direction::Forward).take(entries_max) {
        let (revision, change) = row?;
        entries.push((keys::parse_revision_key(&revision)?, ChangeRecord::decode(change)?));
    }
    for (revision, change) in &entries {
        drop_behind(overlay, buckets, *revision, change, target, &mut after)?;
    }
    match entries.last() {
        Some((last, _)) if entries.len() == entries_max => {
            after.under_way = Some((Revision::new(last.main, last.sub + 1), target));
        }
        Some(_) | None => (after.walked, after.under_way) = (target, None),
    }
    Ok(after)
}

fn drop_behind(
    overlay: &mut Overlay<'_>,
    buckets: &mut Buckets,
    at: Revision,
    change: &ChangeRecord,
    target: i64,
    progress: &mut WalkProgress,
) -> Result<(), Fault> {
    if let Some(previous) = change.previous
        && previous.revision.main < target
        && overlay.get(Family::Revisions, &keys::revision_key(previous.revision))?.is_some()
    {
        overlay.delete(Family::Revisions, keys::revision_key(previous.revision));
        overlay.delete(Family::History, keys::history_key(&change.key, previous.revision));
        progress.freed_bytes += version_bytes(&change.key, i64::from(previous.value_bytes));
        progress.dropped += 1;
    }
    if change.is_deletion() || change.version == 1 {
        overlay.delete(Family::Tallies, keys::revision_key(at));
    }
    if change.is_deletion() && at.main < target {
        overlay.delete(Family::Revisions, keys::revision_key(at));
        overlay.delete(Family::History, keys::history_key(&change.key, at));
        if head(overlay, &change.key)?.is_some_and(|head| head.modified == at) {
            overlay.delete(Family::Heads, change.key.clone());
            buckets.dropped(overlay, &change.key);
        }
        progress.freed_bytes += version_bytes(&change.key, 0);
        progress.dropped += 1;
    }
    Ok(())
}
