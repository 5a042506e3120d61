//! The revision log as watchers read it to catch up: whole revisions, in order, with what each key was before the revision.

use quorate_proto::mvccpb::KeyValue;

use super::{KeyRange, Keyspace, change_at};
use crate::effects::{Event, EventKind, RevisionEvents};
use crate::engine::{Direction, Family, Span};
use crate::keys::{self, ChangeRecord, Previous};
use crate::types::{Failure, Fault, Rejection, Revision};

/// A piece of history. `next` is the first main revision that it does not cover.
#[derive(Clone, Debug, PartialEq)]
pub struct EventPage {
    pub revisions: Vec<RevisionEvents>,
    pub next: i64,
}

impl Keyspace<'_> {
    /// Events of `ranges` from main revision `from` up to and including `until`, stopping after about `bytes_max`
    /// bytes of log looked at. Revisions come whole; those without a matching event are left out.
    pub(crate) fn events(
        &self,
        from: i64,
        until: i64,
        ranges: &[KeyRange],
        bytes_max: usize,
    ) -> Result<EventPage, Failure> {
        if from < self.compacted {
            return Err(Rejection::Compacted.into());
        }
        // Keys order revisions as unsigned numbers.
        let from = from.max(0);
        let mut page = EventPage { revisions: Vec::new(), next: until.saturating_add(1) };
        let (mut main, mut events, mut bytes) = (from, Vec::new(), 0);
        let span = Span::half_open(
            keys::revision_key(Revision::new(from, 0)),
            keys::revision_key(Revision::new(until.saturating_add(1), 0)),
        );
        for row in self.read.scan(Family::Revisions, span, Direction::Forward) {
            let (revision, record) = row?;
            let revision = keys::parse_revision_key(&revision)?;
            if revision.main != main {
                close(&mut page, main, &mut events);
                if bytes >= bytes_max {
                    page.next = revision.main;
                    return Ok(page);
                }
                main = revision.main;
            }
            bytes += record.len();
            let change = ChangeRecord::decode(record)?;
            if ranges.iter().any(|range| range.contains(&change.key)) {
                let event = self.event(revision, change)?;
                bytes += event.prev_kv.as_ref().map_or(0, |prev| prev.value.len());
                events.push(event);
            }
        }
        close(&mut page, main, &mut events);
        Ok(page)
    }

    fn event(&self, revision: Revision, change: ChangeRecord) -> Result<Event, Fault> {
        // What a change at the compacted revision replaced may be gone or not, depending on how far this member's
        // walk has come: never shown, as it cannot be read either.
        let prev_kv = if is_creation(&change) || revision.main <= self.compacted {
            None
        } else {
            self.before(revision.main, change.clone())?
        };
        let kind = if change.is_deletion() { EventKind::Delete } else { EventKind::Put };
        Ok(Event { kind, kv: change.key_value(revision), prev_kv })
    }

    /// The key of `change` as it was before anything of the main revision happened to it.
    fn before(&self, main: i64, mut change: ChangeRecord) -> Result<Option<KeyValue>, Fault> {
        while let Some(Previous { revision: before, .. }) = change.previous {
            let same_revision = before.main == main;
            // A created key may link to its own deletion, which compaction may have dropped.
            if !same_revision && is_creation(&change) {
                return Ok(None);
            }
            change = change_at(self.read, before)?;
            if !same_revision {
                return Ok(Some(change.key_value(before)));
            }
        }
        Ok(None)
    }
}

fn is_creation(change: &ChangeRecord) -> bool {
    !change.is_deletion() && change.version == 1
}

fn close(page: &mut EventPage, revision: i64, events: &mut Vec<Event>) {
    if !events.is_empty() {
        page.revisions.push(RevisionEvents { revision, events: std::mem::take(events).into() });
    }
}
