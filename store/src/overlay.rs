//! A frozen view with this batch's own changes laid over it, so that a request sees what came before it in the batch.
//!
//! Apply writes here and nowhere else; [`Overlay::into_batch`] then goes to the engine in one piece. Changes are kept
//! in order per family, so a scan is a merge of two ordered walks.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use crate::engine::{Batch, Change, Direction, Family, Read, Rows, Span};
use crate::types::Fault;

/// `None` marks a key deleted by this batch.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

pub struct Overlay<'a> {
    base: &'a dyn Read,
    changes: [Changes; Family::ALL.len()],
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn Read) -> Self {
        Self { base, changes: Default::default() }
    }

    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes[family as usize].insert(key.into(), Some(value.into()));
    }

    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.changes[family as usize].insert(key.into(), None);
    }

    pub fn is_empty(&self) -> bool {
        self.changes.iter().all(BTreeMap::is_empty)
    }

    /// Takes over what a nested overlay on this one has decided. Until then nothing of it is seen here: dropping the
    /// nested overlay undoes it.
    pub fn absorb(&mut self, nested: OverlayChanges) {
        for (own, changes) in self.changes.iter_mut().zip(nested.0) {
            own.extend(changes);
        }
    }

    pub fn into_changes(self) -> OverlayChanges {
        OverlayChanges(self.changes)
    }

    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (family, changes) in Family::ALL.into_iter().zip(self.changes) {
            batch.changes.extend(changes.into_iter().map(|(key, value)| match value {
                Some(value) => Change::Put { family, key, value },
                None => Change::Delete { family, key },
            }));
        }
        batch
    }
}

/// What an overlay has decided, without the state it decided on.
pub struct OverlayChanges([Changes; Family::ALL.len()]);

impl Read for Overlay<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.changes[family as usize].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(family, key),
        }
    }

    fn scan(&self, family: Family, span: Span, direction: Direction) -> Rows<'_> {
        let changes = &self.changes[family as usize];
        if crosses(&span) {
            return Box::new(std::iter::empty());
        }
        if changes.is_empty() {
            return self.base.scan(family, span, direction);
        }
        let own = changes.range::<Bytes, _>((span.from.as_ref(), span.until.as_ref()));
        let own: Box<dyn Iterator<Item = (&Bytes, &Option<Bytes>)> + Send> = match direction {
            Direction::Forward => Box::new(own),
            Direction::Backward => Box::new(own.rev()),
        };
        let base = self.base.scan(family, span, direction).peekable();
        Box::new(Merge { base, own: own.peekable(), direction })
    }
}

/// `BTreeMap::range` panics on bounds that cross; a request can ask for them.
pub(crate) fn crosses(span: &Span) -> bool {
    match (&span.from, &span.until) {
        (Bound::Included(from), Bound::Included(until)) => from > until,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(until)) => from >= until,
        (Bound::Excluded(from), Bound::Included(until)) => from >= until,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

struct Merge<'a, Own: Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>> {
    base: Peekable<Rows<'a>>,
    own: Peekable<Own>,
    direction: Direction,
}

impl<'a, Own: Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>> Iterator for Merge<'a, Own> {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let from_base = match (self.base.peek(), self.own.peek()) {
                (None, None) => return None,
                (Some(_), None) | (Some(Err(_)), _) => return self.base.next(),
                (None, Some(_)) => None,
                (Some(Ok((base, _))), Some((own, _))) => Some(base.cmp(own)),
            };
            let base_first = match (from_base, self.direction) {
                (None, _) => false,
                (Some(order), Direction::Forward) => order.is_lt(),
                (Some(order), Direction::Backward) => order.is_gt(),
            };
            if base_first {
                return self.base.next();
            }
            if from_base.is_some_and(std::cmp::Ordering::is_eq) {
                self.base.next();
            }
            if let Some((key, Some(value))) = self.own.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
