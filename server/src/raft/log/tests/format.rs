//! The bytes: pinned, and worth only what they prove.

use super::super::format::{
    Carry, HEAD_BYTES, HeaderError, Kind, Parsed, Position, RECORD_HEADER_BYTES, SegmentHeader, decode_entry_id,
    decode_head, decode_high_water, decode_log_id_option, decode_vote, encode_head, encode_high_water, encode_log_id,
    encode_log_id_option, encode_vote, is_zero, parse_record, push_record, seed_of, testimony,
};
use super::world::{id, vote};

const AT: Position = Position { segment: 3, offset: 5000 };
const UPTO: Position = Position { segment: 3, offset: 4900 };

/// A head at its place in an otherwise empty segment.
fn with_head(place: u32, says: Position, seed: u32) -> Vec<u8> {
    let mut head = Vec::new();
    push_record(&mut head, seed, &mut 77, Kind::Head, &encode_head(says, UPTO));
    let mut bytes = vec![0; 8192];
    bytes[place as usize..place as usize + head.len()].copy_from_slice(&head);
    bytes
}

#[test]
fn a_head_testifies_only_with_the_salt_of_its_segment_and_at_its_place() {
    let seed = seed_of(1);
    let bytes = with_head(AT.offset, AT, seed);
    assert_eq!(testimony(&bytes, 4096, 3, seed), Some(UPTO));
    assert_eq!(testimony(&bytes, 4096, 3, seed_of(2)), None);
    assert_eq!(testimony(&bytes, 4096, 4, seed), None);
    assert_eq!(testimony(&with_head(AT.offset + 1, AT, seed), 4096, 3, seed), None);
    // The last place where a head fits.
    let last = 8192 - (RECORD_HEADER_BYTES + HEAD_BYTES) as u32;
    let says = Position { segment: 3, offset: last };
    assert_eq!(testimony(&with_head(last, says, seed), 4096, 3, seed), Some(UPTO));
}

#[test]
fn numbers_on_disk_never_change() {
    let mut bytes = Vec::new();
    let mut chain = 0x0102_0304;
    push_record(&mut bytes, seed_of(9), &mut chain, Kind::Entry, b"payload");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&bytes), "2fb11a310403020107000000030000007061796c6f6164");
    let header = SegmentHeader { segment: 5, capacity: 64 << 20, salt: 9 };
    assert_eq!(hex(&header.encode()[..36]), "51524c4f4753454701000000050000000000000400000000090000000000000067bcac5d");
    let kinds = [Kind::Head, Kind::Carry, Kind::Entry, Kind::Vote, Kind::Committed, Kind::Truncate, Kind::Purge];
    assert_eq!(kinds.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(hex(&encode_log_id(&id(1, 2))), "010000000000000000000000000000000200000000000000");
}

#[test]
fn what_is_encoded_is_decoded() {
    let ids = [None, Some(id(1, 0)), Some(id(u64::MAX, u64::MAX))];
    for log_id in ids {
        for last in ids {
            let carry = Carry { vote: Some(vote(4)), committed: log_id, purged: last, last, first: 7 };
            let mut bytes = Vec::new();
            carry.encode(&mut bytes);
            assert_eq!(Carry::decode(&bytes), Some(carry));
            assert_eq!(Carry::decode(&bytes[1..]), None);
        }
        let mut bytes = Vec::new();
        encode_log_id_option(log_id.as_ref(), &mut bytes);
        assert_eq!(decode_log_id_option(&bytes), Some(log_id));
    }
    let mut bytes = Vec::new();
    encode_vote(&vote(3), &mut bytes);
    assert_eq!(decode_vote(&bytes), Some(vote(3)));
    assert_eq!(decode_entry_id(&encode_log_id(&id(5, 6))), Some(id(5, 6)));
    assert_eq!(decode_head(&encode_head(AT, UPTO)), Some((AT, UPTO)));
    let header = SegmentHeader { segment: 5, capacity: 1 << 31, salt: u64::MAX };
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
}

#[test]
fn the_newer_intact_slot_speaks() {
    let mut block = vec![0; 4096];
    assert_eq!(decode_high_water(&block, 1), None);
    for turn in 6..9 {
        let upto = Position { segment: 1, offset: 5000 + turn as u32 };
        let (offset, slot) = encode_high_water(turn, upto, 1);
        block[offset as usize..offset as usize + slot.len()].copy_from_slice(&slot);
        assert_eq!(decode_high_water(&block, 1), Some((turn, upto)));
    }
    block[512] ^= 1;
    assert_eq!(decode_high_water(&block, 1), Some((7, Position { segment: 1, offset: 5007 })));
}

#[test]
fn no_bytes_make_it_panic() {
    let mut rng = super::world::Rng(1);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.below(80)).map(|_| rng.next() as u8).collect();
        let _ = (Carry::decode(&bytes), decode_vote(&bytes), decode_log_id_option(&bytes), decode_head(&bytes));
        let _ = (decode_high_water(&bytes, 1), testimony(&bytes, 0, 1, 1), decode_entry_id(&bytes));
        assert!(matches!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged(_))));
        assert!(!matches!(parse_record(&bytes, 1), Parsed::Record(_)));
    }
    assert!(is_zero(&[0; 33]) && !is_zero(&[[0; 32].as_slice(), &[1]].concat()) && is_zero(&[]));
}
