//! Keys and records on disk: their bytes are pinned here, one example each, and what is written is read back.
//!
//! A change of a line of bytes below is a new disk format: give it a number, and a way to read the old one.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use bytes::Bytes;
use proptest::prelude::*;
use quorate_store::engine::Family;
use quorate_store::keys::{
    self, BucketRecord, ChangeRecord, FORMAT_VERSION, HeadRecord, HeadValue, INLINE_VALUE_BYTES_MAX, LeaseRecord,
    Previous, VERSION_OVERHEAD_BYTES, meta,
};
use quorate_store::{LogPosition, Revision};

use support::build::{Member, c_grant, c_put, put_leased};

mod support;

const FAR: i64 = 0x0102_0304_0506_0708;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pinned(bytes: &[u8], parts: &[&str]) {
    assert_eq!(hex(bytes), parts.concat().replace(' ', ""));
}

#[test]
fn numbers_of_the_format_are_pinned() {
    assert_eq!((FORMAT_VERSION, VERSION_OVERHEAD_BYTES, INLINE_VALUE_BYTES_MAX), (2, 64, 4096));
    let families: Vec<_> = Family::ALL.into_iter().map(|family| (family as u32, family.name())).collect();
    let names = "meta heads revisions history tallies buckets leases lease_keys auth cluster";
    assert_eq!(families, (0..).zip(names.split(' ')).collect::<Vec<_>>());
    let names = [meta::FORMAT, meta::APPLIED, meta::MEMBERSHIP, meta::REVISION, meta::COMPACTED, meta::WALKED];
    let more = [meta::WALK_CURSOR, meta::BYTES, meta::CLUSTER_VERSION];
    let names: Vec<_> = names.iter().chain(&more).map(|name| String::from_utf8_lossy(name)).collect();
    let wanted = "format applied membership revision compacted walked walk_cursor bytes cluster_version";
    assert_eq!(names.join(" "), wanted);
}

#[test]
fn keys_are_pinned() {
    pinned(&keys::revision_key(Revision::new(FAR, 3)), &["0102030405060708", "0000000000000003"]);
    let history = keys::history_key(b"ab", Revision::new(2, 1));
    pinned(&history, &["00000002", "6162", "0000000000000002", "0000000000000001"]);
    pinned(&keys::lease_key(-2), &["fffffffffffffffe"]);
    pinned(&keys::lease_attachment_key(FAR, b"k"), &["0102030405060708", "6b"]);
    pinned(&keys::encode_position(LogPosition { index: 258, term: 3 }), &["0201000000000000", "0300000000000000"]);
    pinned(&keys::encode_i64(-1), &["ffffffffffffffff"]);
    pinned(&keys::encode_tally(1, b"k"), &["01", "6b"]);
    pinned(&keys::encode_tally(-1, b""), &["00"]);
}

#[test]
fn head_records_are_pinned() {
    let modified = Revision::new(9, 1);
    let value = HeadValue::Inline(Bytes::from_static(b"v"));
    let head = HeadRecord { modified, create_revision: 5, version: 2, lease: -1, value };
    let numbers = "0900000000000000 0100000000000000 0500000000000000 0200000000000000 ffffffffffffffff";
    pinned(&head.encode(), &["00", numbers, "76"]);
    let elsewhere = HeadRecord { value: HeadValue::Elsewhere { bytes: 258 }, ..head };
    pinned(&elsewhere.encode(), &["01", numbers, "02010000"]);
    let deleted = HeadRecord { modified, create_revision: 0, version: 0, lease: 0, value: HeadValue::Deleted };
    let zeros = "00".repeat(24);
    pinned(&deleted.encode(), &["02", "0900000000000000 0100000000000000", &zeros]);
}

#[test]
fn change_records_are_pinned() {
    let previous = Some(Previous { revision: Revision::new(7, 4), value_bytes: 258 });
    let (key, value) = (Bytes::from_static(b"key"), Some(Bytes::from_static(b"v")));
    let change = ChangeRecord { key, create_revision: 5, version: 2, lease: 3, previous, value };
    let numbers = "0500000000000000 0200000000000000 0300000000000000";
    let link = "0700000000000000 0400000000000000 02010000";
    pinned(&change.encode(), &["00", numbers, link, "03000000", "6b6579", "76"]);
    let unlinked = ChangeRecord { previous: None, ..change.clone() };
    pinned(&unlinked.encode(), &["00", numbers, &"00".repeat(20), "03000000", "6b6579", "76"]);
    let deletion = ChangeRecord { create_revision: 0, version: 0, lease: 0, value: None, ..change };
    pinned(&deletion.encode(), &["01", &"00".repeat(24), link, "03000000", "6b6579"]);
}

#[test]
fn lease_records_are_pinned() {
    let record = LeaseRecord { ttl_secs: 60, remaining_ttl_secs: 1 };
    pinned(&record.encode(), &["3c00000000000000", "0100000000000000"]);
}

#[test]
fn bucket_records_are_pinned() {
    let record = BucketRecord { live: 1, heads: 258 };
    pinned(&record.encode(), &["0100000000000000", "0201000000000000"]);
    assert_eq!(BucketRecord::decode(&record.encode()).unwrap(), record);
    assert!(BucketRecord::decode(&[0; 8]).is_err(), "one of format 1");
}

/// The rows of one small store, from end to end.
#[test]
fn rows_of_a_small_store_are_pinned() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_put(put_leased("k", 1)), c_put(put_leased("k", 0))]);
    let rows = |family| {
        let rows = member.rows(family).into_iter();
        rows.map(|(key, record)| format!("{} {}", hex(&key), hex(&record))).collect::<Vec<_>>().join("\n")
    };
    let leased = hex(b"leased");
    let (one, two, three) = ("0100000000000000", "0200000000000000", "0300000000000000");
    let (two_be, three_be) = ("0000000000000002", "0000000000000003");
    let zero = "0000000000000000";
    assert_eq!(rows(Family::Heads), format!("6b 00{three}{zero}{two}{two}{zero}{leased}"));
    let first = format!("{two_be}{zero} 00{two}{one}{one}{zero}{zero}00000000010000006b{leased}");
    let second = format!("{three_be}{zero} 00{two}{two}{zero}{two}{zero}06000000010000006b{leased}");
    assert_eq!(rows(Family::Revisions), format!("{first}\n{second}"));
    assert_eq!(rows(Family::History), format!("000000016b{two_be}{zero} "));
    assert_eq!(rows(Family::Tallies), format!("{two_be}{zero} 016b"));
    assert_eq!(rows(Family::Buckets), format!(" {one}{one}"));
    assert_eq!(rows(Family::Leases), format!("0000000000000001 3c00000000000000{zero}"));
    assert_eq!(rows(Family::LeaseKeys), "");
    let meta = member
        .rows(Family::Meta)
        .into_iter()
        .map(|(key, record)| format!("{}={}", String::from_utf8_lossy(&key), hex(&record)));
    let wanted = format!("applied={three}{one} bytes=8e00000000000000 format={two} revision={three}");
    assert_eq!(meta.collect::<Vec<_>>().join(" "), wanted);
}

fn some_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn some_revision() -> impl Strategy<Value = Revision> {
    (0..i64::MAX, 0..i64::MAX).prop_map(|(main, sub)| Revision::new(main, sub))
}

fn some_head() -> impl Strategy<Value = HeadRecord> {
    let value = prop_oneof![
        some_bytes(300).prop_map(HeadValue::Inline),
        any::<u32>().prop_map(|bytes| HeadValue::Elsewhere { bytes }),
        Just(HeadValue::Deleted),
    ];
    (some_revision(), any::<[i64; 3]>(), value).prop_map(|(modified, [create_revision, version, lease], value)| {
        HeadRecord { modified, create_revision, version, lease, value }
    })
}

fn some_change() -> impl Strategy<Value = ChangeRecord> {
    // A link to revision 0 is none: nothing is ever written there.
    let link = (1..i64::MAX, 0..i64::MAX, any::<u32>());
    let previous = prop::option::of(link.prop_map(|(main, sub, value_bytes)| {
        let revision = Revision::new(main, sub);
        Previous { revision, value_bytes }
    }));
    let value = prop::option::of(some_bytes(300));
    (some_bytes(40), any::<[i64; 3]>(), previous, value).prop_map(
        |(key, [create_revision, version, lease], previous, value)| ChangeRecord {
            key,
            create_revision,
            version,
            lease,
            previous,
            value,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_are_read_back(head in some_head()) {
        prop_assert_eq!(HeadRecord::decode(head.encode()).unwrap(), head);
    }

    #[test]
    fn changes_are_read_back(change in some_change()) {
        prop_assert_eq!(ChangeRecord::decode(change.encode()).unwrap(), change);
    }

    #[test]
    fn small_records_are_read_back(numbers in any::<[i64; 2]>(), sign in any::<bool>(), key in some_bytes(40)) {
        let [ttl_secs, remaining_ttl_secs] = numbers;
        let lease = LeaseRecord { ttl_secs, remaining_ttl_secs };
        prop_assert_eq!(LeaseRecord::decode(&lease.encode()).unwrap(), lease);
        prop_assert_eq!(keys::decode_i64(&keys::encode_i64(ttl_secs)).unwrap(), ttl_secs);
        let position = LogPosition { index: ttl_secs as u64, term: remaining_ttl_secs as u64 };
        prop_assert_eq!(keys::decode_position(&keys::encode_position(position)).unwrap(), position);
        let sign = if sign { 1 } else { -1 };
        let tally = keys::encode_tally(sign, &key);
        prop_assert_eq!(keys::parse_tally(&tally).unwrap(), (sign, key.as_ref()));
    }

    #[test]
    fn revisions_are_read_back_and_sort_as_numbers(a in some_revision(), b in some_revision(), key in some_bytes(40)) {
        prop_assert_eq!(keys::parse_revision_key(&keys::revision_key(a)).unwrap(), a);
        prop_assert_eq!(keys::revision_key(a).cmp(&keys::revision_key(b)), a.cmp(&b));
        prop_assert_eq!(keys::parse_history_revision(&keys::history_key(&key, a)).unwrap(), a);
        prop_assert_eq!(keys::history_key(&key, a).cmp(&keys::history_key(&key, b)), a.cmp(&b));
    }

    /// The histories of two keys never mix, not even when one key is the other with a revision behind it.
    #[test]
    fn histories_of_two_keys_do_not_overlap(key in some_bytes(20), other in some_bytes(20), at in some_revision()) {
        let other = if key == other { [&key[..], &keys::revision_key(at)].concat().into() } else { other };
        let (first, last) = (Revision::new(0, 0), Revision::new(i64::MAX, i64::MAX));
        let inside = |candidate: &[u8]| {
            keys::history_key(&key, first).as_ref() <= candidate && candidate <= keys::history_key(&key, last).as_ref()
        };
        prop_assert!(inside(&keys::history_key(&key, at)));
        prop_assert!(!inside(&keys::history_key(&other, at)), "{:?} in {:?}", other, key);
    }

    #[test]
    fn damaged_records_are_faults_and_never_panics(bytes in some_bytes(80)) {
        let _ = HeadRecord::decode(bytes.clone());
        let _ = ChangeRecord::decode(bytes.clone());
        let _ = LeaseRecord::decode(&bytes);
        let _ = (keys::parse_revision_key(&bytes), keys::parse_history_revision(&bytes), keys::parse_tally(&bytes));
        let _ = (keys::decode_position(&bytes), keys::decode_i64(&bytes));
    }

    #[test]
    fn cut_records_are_faults(head in some_head(), change in some_change(), cut in 1..41_usize) {
        let (head, change) = (head.encode(), change.encode());
        prop_assert!(HeadRecord::decode(head.slice(..cut.min(head.len() - 1).min(40))).is_err());
        prop_assert!(ChangeRecord::decode(change.slice(..cut.min(48))).is_err());
    }
}
