//! The next request, right or wrong, from nothing but a seed, the place in the segment and two numbers that were seen.
//!
//! ```text
//!  mod    which kind comes next; what all kinds draw from: keys, ranges, values, revisions, lease numbers
//!  kv     Range, Put, DeleteRange
//!  txn    Txn, and what must not be asked of etcd
//!  rest   leases, watches, compaction, hashes, alarms
//! ```
//!
//! Each step has a seed of its own, and revisions are drawn as distances from the newest and the compacted one. So steps can be
//! left out and the others mean the same as before: that is what makes shrinking work.
//!
//! There are few keys, few leases and few watch numbers, so that requests meet.

mod kv;
mod rest;
mod txn;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::call::Call;
pub(super) use txn::is_lost_by_compaction;

/// Prefixes of each other, neighbours, and the ends of the order of bytes.
const KEYS: [&[u8]; 20] = [
    b"a",
    b"a\0",
    b"aa",
    b"ab",
    b"b",
    b"b/1",
    b"b/2",
    b"b/3",
    b"c",
    b"c/x",
    b"d",
    b"e",
    b"f/1",
    b"f/2",
    b"g",
    b"h",
    b"\0",
    b"\0\0",
    b"\xfe",
    b"\xff\xff",
];
const LEASES: [i64; 7] = [1, 2, 3, 4, 5, i64::MAX, -7];
const KEY_BYTES_LONG: usize = 3_000;
const VALUE_BYTES_LONG: usize = 20_000;

/// What the answers so far have shown, and requests refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

/// Seed of a segment: one of many that a run is made of.
pub(super) fn segment_seed(seed: u64, segment: u64) -> u64 {
    mix(mix(seed).wrapping_add(segment))
}

/// One step: mostly one request, sometimes a few that belong together.
pub(super) fn step(segment_seed: u64, index: usize, known: Known) -> Vec<Call> {
    let random = StdRng::seed_from_u64(mix(segment_seed.wrapping_add(index as u64)));
    Generator { random, known }.step()
}

/// SplitMix64, so that neighbouring numbers give unrelated seeds.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Generator {
    random: StdRng,
    known: Known,
}

/// Thousandths of all steps, in this order.
type Maker = fn(&mut Generator) -> Vec<Call>;
const WEIGHTS: [(u32, Maker); 19] = [
    (230, |g| vec![Call::Put(g.put())]),
    (190, |g| vec![Call::Range(g.range())]),
    (40, |g| vec![Call::RangeStream(g.range_stream())]),
    (70, |g| vec![Call::DeleteRange(g.delete())]),
    (220, |g| vec![Call::Txn(g.txn())]),
    (14, |g| vec![Call::Compact(g.compact())]),
    (45, |g| vec![Call::LeaseGrant(g.lease_grant())]),
    (20, |g| vec![Call::LeaseRevoke(g.lease_revoke())]),
    (30, |g| vec![Call::TimeToLive(g.time_to_live())]),
    (10, |_| vec![Call::Leases(Default::default())]),
    (20, |g| vec![Call::KeepAlive(g.keep_alive())]),
    (6, Generator::brief_lease),
    (30, |g| vec![Call::HashKv(g.hash_kv())]),
    (2, Generator::without_space),
    (40, |g| vec![Call::WatchCreate(g.stream(), g.watch_create())]),
    (22, |g| vec![Call::WatchCancel(g.stream(), g.watch_cancel())]),
    (6, |g| vec![Call::WatchProgress(g.stream())]),
    (2, |g| vec![Call::WatchNothing(g.stream())]),
    (3, |g| vec![Call::WatchReopen(g.stream())]),
];

impl Generator {
    fn step(mut self) -> Vec<Call> {
        let all: u32 = WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.random.random_range(0..all);
        for (weight, make) in WEIGHTS {
            if at < weight {
                return make(&mut self);
            }
            at -= weight;
        }
        unreachable!("the number drawn is below the sum of all weights");
    }

    /// True once in `count` times.
    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).expect("no list to pick from is empty")
    }

    fn key(&mut self) -> Bytes {
        match self.random.random_range(0..200) {
            0 => Bytes::new(),
            1 => vec![b'k'; KEY_BYTES_LONG].into(),
            2 => "nobody writes this".into(),
            _ => Bytes::from_static(self.pick(&KEYS)),
        }
    }

    /// Key and range_end, in all the forms there are.
    fn span(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = match self.random.random_range(0..100) {
            0..45 => Bytes::new(),
            45..57 => prefix_end(&key),
            57..66 => Bytes::from_static(b"\0"),
            66..86 => self.key(),
            86..89 => key.clone(),
            89..93 => [&key[..], b"\0"].concat().into(),
            93..96 => return (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            96..98 => return (Bytes::new(), self.key()),
            _ => Bytes::from_static(b"\xff"),
        };
        (key, end)
    }

    fn value(&mut self) -> Bytes {
        match self.random.random_range(0..100) {
            0..4 => Bytes::new(),
            4 => vec![self.random.random(); VALUE_BYTES_LONG].into(),
            5 => Bytes::from_static(b"\0\xff\x80not UTF-8"),
            _ => format!("v{}", self.random.random_range(0..8)).into(),
        }
    }

    /// A revision that may be asked for, near what is known.
    fn revision(&mut self) -> i64 {
        let Known { revision, compacted } = self.known;
        match self.random.random_range(0..100) {
            0..55 => revision - self.random.random_range(0..20),
            55..75 => revision - self.random.random_range(0..300),
            75..85 => compacted + self.random.random_range(-1..=2),
            85..91 => revision + self.random.random_range(1..4),
            91..94 => self.random.random_range(-2..3),
            94..96 => i64::MAX,
            96..98 => i64::MIN,
            _ => compacted / 2,
        }
    }

    /// Mostly "now".
    fn revision_or_now(&mut self) -> i64 {
        if self.random.random_bool(0.6) { 0 } else { self.revision() }
    }

    fn lease(&mut self) -> i64 {
        if self.one_in(12) { self.pick(&[77, 0, -1, i64::MIN]) } else { self.pick(&LEASES) }
    }
}

/// The end of the range of all keys that start with `key`.
fn prefix_end(key: &[u8]) -> Bytes {
    let mut end = key.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { revision: 500, compacted: 400 };

    #[test]
    fn a_seed_gives_the_same_requests_and_another_gives_others() {
        let of = |seed| (0..200).flat_map(|index| step(segment_seed(seed, 3), index, KNOWN)).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn every_kind_comes() {
        let mut kinds: Vec<_> = (0..5_000).flat_map(|index| step(1, index, KNOWN)).map(|call| call.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 18, "{kinds:?}");
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_that_has_it_not() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"b/\xff"), "b0");
        assert_eq!(prefix_end(b"\xff\xff"), "\0");
    }
}
