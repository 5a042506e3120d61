//! Which ranges hold a key: a search tree over `(from, until)` in which each node also knows how far its subtree reaches.
//!
//! ```text
//!                  [d, f) reach k
//!                 /              \
//!        [a, c) reach k        [g, h) reach h         stab "e": left, because k > e; self; right not, g > e
//!          /       \
//!    [a, b)      [b, k)
//! ```
//!
//! A treap: the shape follows from a number drawn per node, so it is balanced whatever the order of arrival. The
//! numbers come from a counter (nobody outside can choose them, and every run is the same).
//! Left out: single keys (a hash map finds those faster) and everything about watchers; a node just carries a set.

use std::cmp::Ordering;

use bytes::Bytes;

use super::index::Targets;

/// `[from, until)`; without `until` there is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub from: Bytes,
    pub until: Option<Bytes>,
}

impl Interval {
    fn order(&self, other: &Self) -> Ordering {
        self.from.cmp(&other.from).then_with(|| order_ends(self.until.as_deref(), other.until.as_deref()))
    }
}

fn order_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

#[derive(Debug)]
pub(super) struct IntervalTree<T> {
    root: Tree<T>,
    drawn: u64,
}

type Tree<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    interval: Interval,
    /// The furthest end in this subtree.
    reach: Option<Bytes>,
    rank: u64,
    targets: Targets<T>,
    left: Tree<T>,
    right: Tree<T>,
}

impl<T: Ord + Copy> IntervalTree<T> {
    pub(super) fn new() -> Self {
        Self { root: None, drawn: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub(super) fn add(&mut self, interval: &Interval, target: T) {
        if let Some(node) = find(&mut self.root, interval) {
            node.targets.add(target);
            return;
        }
        self.drawn += 1;
        let node = Box::new(Node {
            interval: interval.clone(),
            reach: interval.until.clone(),
            rank: scatter(self.drawn),
            targets: Targets::One(target),
            left: None,
            right: None,
        });
        self.root = Some(insert(self.root.take(), node));
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, interval: &Interval, target: T) -> bool {
        let Some(node) = find(&mut self.root, interval) else { return false };
        let removed = node.targets.remove(target);
        if node.targets.is_empty() {
            self.root = take_out(self.root.take(), interval);
        }
        removed
    }

    /// Calls `found` for the targets of every interval that holds `key`.
    pub(super) fn stab<'a>(&'a self, key: &[u8], found: &mut impl FnMut(&'a Targets<T>)) {
        stab(&self.root, key, found);
    }
}

fn stab<'a, T>(tree: &'a Tree<T>, key: &[u8], found: &mut impl FnMut(&'a Targets<T>)) {
    let Some(node) = tree else { return };
    if order_ends(node.reach.as_deref(), Some(key)).is_le() {
        return;
    }
    stab(&node.left, key, found);
    if node.interval.from.as_ref() <= key {
        if order_ends(node.interval.until.as_deref(), Some(key)).is_gt() {
            found(&node.targets);
        }
        stab(&node.right, key, found);
    }
}

fn find<'a, T>(tree: &'a mut Tree<T>, interval: &Interval) -> Option<&'a mut Node<T>> {
    let node = tree.as_mut()?;
    match interval.order(&node.interval) {
        Ordering::Less => find(&mut node.left, interval),
        Ordering::Greater => find(&mut node.right, interval),
        Ordering::Equal => Some(node),
    }
}

fn insert<T>(tree: Tree<T>, mut new: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut node) = tree else { return new };
    if new.rank > node.rank {
        (new.left, new.right) = split(Some(node), &new.interval);
        return measured(new);
    }
    if new.interval.order(&node.interval).is_lt() {
        node.left = Some(insert(node.left.take(), new));
    } else {
        node.right = Some(insert(node.right.take(), new));
    }
    measured(node)
}

/// What comes before `at`, and what after.
fn split<T>(tree: Tree<T>, at: &Interval) -> (Tree<T>, Tree<T>) {
    let Some(mut node) = tree else { return (None, None) };
    if node.interval.order(at).is_lt() {
        let (left, right) = split(node.right.take(), at);
        node.right = left;
        (Some(measured(node)), right)
    } else {
        let (left, right) = split(node.left.take(), at);
        node.left = right;
        (left, Some(measured(node)))
    }
}

fn take_out<T>(tree: Tree<T>, interval: &Interval) -> Tree<T> {
    let mut node = tree?;
    match interval.order(&node.interval) {
        Ordering::Less => node.left = take_out(node.left.take(), interval),
        Ordering::Greater => node.right = take_out(node.right.take(), interval),
        Ordering::Equal => return join(node.left.take(), node.right.take()),
    }
    Some(measured(node))
}

/// Everything in `left` comes before everything in `right`.
fn join<T>(left: Tree<T>, right: Tree<T>) -> Tree<T> {
    match (left, right) {
        (Some(mut left), Some(right)) if left.rank > right.rank => {
            left.right = join(left.right.take(), Some(right));
            Some(measured(left))
        }
        (Some(left), Some(mut right)) => {
            right.left = join(Some(left), right.left.take());
            Some(measured(right))
        }
        (left, right) => left.or(right),
    }
}

fn measured<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    let mut reach = &node.interval.until;
    for child in [&node.left, &node.right].into_iter().flatten() {
        if order_ends(child.reach.as_deref(), reach.as_deref()).is_gt() {
            reach = &child.reach;
        }
    }
    node.reach = reach.clone();
    node
}

/// splitmix64: neighbouring numbers come out unrelated.
pub(super) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
