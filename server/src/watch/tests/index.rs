//! The index against the plain question, asked of every watcher.

use bytes::Bytes;
use quorate_store::KeyRange;

use super::support::{Dice, everything, key, span};
use crate::watch::KeySet;
use crate::watch::index::Index;

fn name(dice: &mut Dice) -> Bytes {
    let letters = b"abc";
    (0..dice.below(4)).map(|_| letters[dice.below(3) as usize]).collect::<Vec<_>>().into()
}

fn range(dice: &mut Dice) -> KeyRange {
    let (a, b) = (name(dice), name(dice));
    match dice.below(4) {
        0 | 1 => KeyRange::One(a),
        2 if a != b => KeyRange::Span { from: a.clone().min(b.clone()), until: a.max(b) },
        _ => KeyRange::AtLeast(a),
    }
}

fn found(index: &Index<u32>, key: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    index.matches(key, |targets| targets.each(|target| found.push(target)));
    let mut sorted = found.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(found.len(), sorted.len(), "nobody is found twice");
    sorted
}

#[test]
fn index_finds_exactly_those_who_watch_while_they_come_and_go() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let mut index = Index::new();
        let mut watching: Vec<(KeyRange, u32)> = Vec::new();
        for number in 0..120 {
            if dice.one_in(3) && !watching.is_empty() {
                let (range, target) = watching.swap_remove(dice.below(watching.len() as u64) as usize);
                assert!(index.remove(&range, target));
                assert!(!index.remove(&range, target), "gone is gone");
            } else {
                let range = range(&mut dice);
                index.add(&range, number);
                watching.push((range, number));
            }
            let key = name(&mut dice);
            let mut expected: Vec<_> =
                watching.iter().filter(|(range, _)| range.contains(&key)).map(|(_, target)| *target).collect();
            expected.sort_unstable();
            assert_eq!(found(&index, &key), expected, "seed {seed}");
        }
        for (range, target) in watching {
            assert!(index.remove(&range, target));
        }
        assert!(index.is_empty());
    }
}

#[test]
fn index_stays_shallow_whatever_the_order() {
    // Recursion on a list of a hundred thousand would end the thread.
    let mut index = Index::new();
    for number in 0..100_000_u32 {
        let name = format!("{number:08}");
        index.add(&KeyRange::Span { from: name.clone().into(), until: (name + "x").into() }, number);
    }
    assert_eq!(found(&index, b"00050000"), [50_000]);
    assert_eq!(found(&index, b"00050000y"), [0_u32; 0]);
}

#[test]
fn key_set_is_the_union_of_its_ranges() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let ranges: Vec<_> = (0..dice.below(6)).map(|_| range(&mut dice)).collect();
        let set = KeySet::new(&ranges);
        for _ in 0..60 {
            let key = name(&mut dice);
            let expected = ranges.iter().any(|range| range.contains(&key));
            assert_eq!(set.contains(&key), expected, "seed {seed}: {key:?} in {ranges:?}");
            assert_eq!(set.ranges().iter().any(|range| range.contains(&key)), expected, "seed {seed}");
        }
    }
    assert_eq!(KeySet::new(&[span("a", "c"), everything(), key("b")]).ranges().len(), 1);
}
