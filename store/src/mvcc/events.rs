//! The revision log as watchers read it to catch up: whole revisions, in order, with what each change replaced.

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
        // A created key replaced nothing, though it may link to its own deletion, which compaction may have dropped.
        let created = !change.is_deletion() && change.version == 1;
        let prev_kv = match change.previous {
            Some(Previous { revision: before, .. }) if !created && revision.main > self.compacted => {
                Some(change_at(self.read, before)?.key_value(before))
            }
            // What a change at the compacted revision replaced may be gone or not, depending on how far this member's
            // walk has come: never shown, as it cannot be read either.
            Some(_) | None => None,
        };
        let kind = if change.is_deletion() { EventKind::Delete } else { EventKind::Put };
        Ok(Event { kind, kv: change.key_value(revision), prev_kv })
    }
}

fn close(page: &mut EventPage, revision: i64, events: &mut Vec<Event>) {
    if !events.is_empty() {
        page.revisions.push(RevisionEvents { revision, events: std::mem::take(events).into() });
    }
}
