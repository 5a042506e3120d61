//! What a watch stream has to say, in order, before it becomes bytes or messages.
//!
//! Left out: header, fragments and encoding (wire.rs), because the hub does not know who its member is.

use std::sync::Arc;

use quorate_store::EventKind;

use super::record::Record;

/// Stands for all watchers of a stream in a progress answer, and for none in a refusal.
pub const WATCH_ID_NONE: i64 = -1;

#[derive(Debug)]
pub enum Output {
    /// Always the first about a watcher.
    Created {
        watch_id: i64,
        revision: i64,
    },
    /// A watcher that never came to be.
    Refused {
        reason: String,
        revision: i64,
    },
    Canceled {
        watch_id: i64,
        revision: i64,
    },
    /// Canceled by the hub: what the watcher has to see next is gone.
    Compacted {
        watch_id: i64,
        compact_revision: i64,
    },
    Events(Delivery),
    /// Everything up to `revision` has been said before, to one watcher or to all.
    Progress {
        watch_id: i64,
        revision: i64,
    },
}

/// Events for one watcher that belong into one answer.
#[derive(Debug)]
pub struct Delivery {
    pub watch_id: i64,
    /// For the header: of the event when it is live, of the hub when it is history (etcd's rule).
    pub revision: i64,
    pub prev_kv: bool,
    pub fragment: bool,
    pub parts: Parts,
}

/// Whole revisions, ascending.
#[derive(Debug)]
pub enum Parts {
    One(Part),
    Many(Vec<Part>),
}

#[derive(Debug)]
pub struct Part {
    pub record: Arc<Record>,
    pub chosen: Chosen,
}

/// Which changes of a record the watcher gets; never none.
#[derive(Debug)]
pub enum Chosen {
    All,
    These(Box<[u32]>),
}

impl Delivery {
    pub fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// Every event in order, as the record that has it and its place there.
    pub fn events(&self) -> impl Iterator<Item = (&Record, usize)> {
        self.parts().iter().flat_map(|part| part.changes().map(|change| (part.record.as_ref(), change)))
    }
}

impl Part {
    pub(super) fn new(record: Arc<Record>, chosen: Vec<u32>) -> Self {
        let chosen = if chosen.len() == record.len() { Chosen::All } else { Chosen::These(chosen.into()) };
        Self { record, chosen }
    }

    pub fn changes(&self) -> impl Iterator<Item = usize> {
        let (all, these): (usize, &[u32]) = match &self.chosen {
            Chosen::All => (self.record.len(), &[]),
            Chosen::These(these) => (0, these),
        };
        (0..all).chain(these.iter().map(|change| *change as usize))
    }

    pub(super) fn bytes(&self, prev_kv: bool) -> usize {
        self.changes().map(|change| self.record.event_bytes(change, prev_kv).len()).sum()
    }
}

/// What a watcher does not want to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    pub no_put: bool,
    pub no_delete: bool,
}

impl Filters {
    pub(super) fn pass(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}
