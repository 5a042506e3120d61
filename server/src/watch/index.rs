//! From a key to those who watch it: a hash map for single keys, a tree for ranges.
//!
//! ```text
//!            ┌─ keys    "a" ─▶ {w1, w7}     "b" ─▶ {w2}
//!   key ─────┤
//!            └─ ranges  ["a", "b") ─▶ {w3}  ["a", ∞) ─▶ {w4, w5}
//! ```
//!
//! Used twice: by the hub for all watchers of the member, by a page of catch-up for the watchers it serves.
//! Left out: revisions and filters. The hash map is never walked, so its order is nobody's order.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use quorate_store::KeyRange;

use super::interval::{Interval, IntervalTree};

#[derive(Debug)]
pub(super) struct Index<T> {
    keys: HashMap<Bytes, Targets<T>>,
    ranges: IntervalTree<T>,
}

/// Most keys have one watcher: it costs no allocation of its own.
#[derive(Debug)]
pub(super) enum Targets<T> {
    One(T),
    Many(BTreeSet<T>),
}

impl<T: Ord + Copy> Index<T> {
    pub(super) fn new() -> Self {
        Self { keys: HashMap::new(), ranges: IntervalTree::new() }
    }

    pub(super) fn add(&mut self, range: &KeyRange, target: T) {
        match place(range) {
            Place::Key(key) => match self.keys.get_mut(key) {
                Some(targets) => targets.add(target),
                None => drop(self.keys.insert(key.clone(), Targets::One(target))),
            },
            Place::Range(interval) => self.ranges.add(&interval, target),
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, range: &KeyRange, target: T) -> bool {
        match place(range) {
            Place::Key(key) => {
                let Some(targets) = self.keys.get_mut(key) else { return false };
                let removed = targets.remove(target);
                if targets.is_empty() {
                    self.keys.remove(key);
                    self.give_back_room();
                }
                removed
            }
            Place::Range(interval) => self.ranges.remove(&interval, target),
        }
    }

    /// Calls `found` once for each set of targets that watches `key`; no target is in two of them.
    pub(super) fn matches<'a>(&'a self, key: &[u8], mut found: impl FnMut(&'a Targets<T>)) {
        if let Some(targets) = self.keys.get(key) {
            found(targets);
        }
        self.ranges.stab(key, &mut found);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// A hundred thousand watchers that came and went leave no table of their size behind.
    fn give_back_room(&mut self) {
        if self.keys.capacity() > 1024 && self.keys.len() < self.keys.capacity() / 8 {
            self.keys.shrink_to(self.keys.len() * 2);
        }
    }
}

impl<T: Ord + Copy> Targets<T> {
    pub(super) fn add(&mut self, target: T) {
        match self {
            Self::One(one) => *self = Self::Many(BTreeSet::from([*one, target])),
            Self::Many(many) => drop(many.insert(target)),
        }
    }

    /// Whether it was there. The last one leaves an empty set, for whoever holds it to throw away.
    pub(super) fn remove(&mut self, target: T) -> bool {
        match self {
            Self::One(one) if *one == target => {
                *self = Self::Many(BTreeSet::new());
                true
            }
            Self::One(_) => false,
            Self::Many(many) => many.remove(&target),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }

    /// In ascending order.
    pub(super) fn each(&self, mut seen: impl FnMut(T)) {
        match self {
            Self::One(one) => seen(*one),
            Self::Many(many) => many.iter().for_each(|target| seen(*target)),
        }
    }
}

enum Place<'a> {
    Key(&'a Bytes),
    Range(Interval),
}

fn place(range: &KeyRange) -> Place<'_> {
    match range {
        KeyRange::One(key) => Place::Key(key),
        KeyRange::Span { from, until } => Place::Range(Interval { from: from.clone(), until: Some(until.clone()) }),
        KeyRange::AtLeast(from) => Place::Range(Interval { from: from.clone(), until: None }),
    }
}
