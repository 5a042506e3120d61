//! What may happen to the chunks of a snapshot on their way: every kind of damage is found, named, and costs nothing
//! but the transfer.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use bytes::{BufMut, Bytes, BytesMut};
use quorate_store::engine::Family;
use quorate_store::snapshot::{CHUNK_BYTES, CHUNK_OVERHEAD_BYTES, rows};
use quorate_store::{InstallError, LogPosition, SnapshotHead, TransferError};

use support::build::{Member, c_compact, c_delete, c_grant, c_put, put, put_leased};

mod support;

/// A little of everything, with a value of many chunks in the middle.
fn sender() -> Member {
    let mut member = Member::new();
    member.ok(c_grant(7));
    for number in 0..40 {
        member.ok(c_put(put(&format!("key-{:02}", number % 20), &number.to_string())));
    }
    member.ok(c_put(put_leased("leased", 7)));
    member.ok(c_put(put("large", &"x".repeat(5000))));
    member.ok(c_delete("key-03", "key-07"));
    member.ok(c_compact(20));
    member
}

fn chunks(member: &Member, chunk_bytes: usize) -> Vec<Bytes> {
    member.store.reader().snapshot().unwrap().with_chunk_bytes(chunk_bytes).map(Result::unwrap).collect()
}

/// Gives `chunks` to a member that lags behind. Whatever comes of it, what it serves is as before.
fn receive(chunks: &[Bytes]) -> Result<(), TransferError> {
    let mut member = Member::new();
    member.ok(c_put(put("before", "the snapshot")));
    let before = member.all_rows();
    let reader = member.store.reader();
    let received = chunks.split_first().ok_or(TransferError::Cut { chunks: 0 }).and_then(|(head, rest)| {
        let mut sink = reader.receive(head)?;
        let pushed = rest.iter().try_for_each(|chunk| sink.push(chunk).map(drop));
        let finished = sink.finish();
        // The first error is the one that stays.
        assert_eq!(pushed.as_ref().err(), finished.as_ref().err().filter(|_| pushed.is_err()));
        finished.map(drop)
    });
    assert_eq!(member.all_rows(), before);
    received
}

fn with(mut chunks: Vec<Bytes>, change: impl FnOnce(&mut Vec<Bytes>)) -> Result<(), TransferError> {
    change(&mut chunks);
    receive(&chunks)
}

#[test]
fn a_stream_has_a_head_rows_of_one_size_and_an_end() {
    let member = sender();
    for chunk_bytes in [1, 100, 5000, CHUNK_BYTES] {
        let all = chunks(&member, chunk_bytes);
        assert_eq!(all.iter().map(|chunk| chunk[0]).collect::<Vec<_>>(), {
            let mut kinds = vec![2; all.len()];
            (kinds[0], kinds[all.len() - 1]) = (1, 3);
            kinds
        });
        let rows = &all[1..all.len() - 1];
        let (last, full) = rows.split_last().unwrap();
        assert!(full.iter().all(|chunk| chunk.len() == chunk_bytes + CHUNK_OVERHEAD_BYTES));
        assert!(last.len() <= chunk_bytes + CHUNK_OVERHEAD_BYTES);
        receive(&all).unwrap();
    }
    let head = SnapshotHead::decode(&chunks(&member, 100)[0]).unwrap();
    assert_eq!(head.position, member.store.applied());
    assert_eq!((head.revision, head.compacted), (member.revision(), 20));
    let nothing = chunks(&Member::new(), 100);
    assert_eq!(nothing.len(), 2, "a head and an end");
}

/// The bytes are pinned: members of different releases must understand each other.
#[test]
fn the_format_is_what_it_was() {
    let mut member = Member::new();
    member.ok(c_put(put("k", "v")));
    let all = chunks(&member, 1 << 20);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let estimated = all[0].len() - 8..all[0].len();
    assert_eq!(
        hex(&all[0][..13]) + " " + &hex(&all[0][17..estimated.start]),
        "01000000000000000000000000 51554f525846455201000000020000000000000001000000000000000100000000000000\
         0200000000000000ffffffffffffffff",
    );
    let payload = hex(&all[1][CHUNK_OVERHEAD_BYTES..]);
    assert!(
        payload.starts_with("00070000006170706c69656410000000010000000000000001000000000000000005000000"),
        "{payload}"
    );
    let end = hex(&all[2][CHUNK_OVERHEAD_BYTES..]);
    assert!(end.starts_with("0a000400000000000000010100000000000000020100000000000000030000000000000000"), "{end}");
    assert_eq!(end.len(), 2 * (1 + 10 * 9 + 8 + 32));
    assert_eq!(crc32c::crc32c(&all.concat()), 302_480_771, "all of it, in one number");
}

#[test]
fn every_flipped_bit_is_damage() {
    let all = chunks(&sender(), 1000);
    for (number, chunk) in all.iter().enumerate() {
        for place in (0..chunk.len()).filter(|place| *place < 40 || place % 13 == 0) {
            let mut bytes = chunk.to_vec();
            bytes[place] ^= 1 << (place % 8);
            let result = with(all.clone(), |chunks| chunks[number] = bytes.into());
            assert_eq!(result, Err(TransferError::Damaged { chunk: number as u64 }), "byte {place}");
        }
    }
}

#[test]
fn every_cut_is_named() {
    let all = chunks(&sender(), 1000);
    for (number, chunk) in all.iter().enumerate() {
        for bytes in (0..chunk.len()).filter(|bytes| *bytes < 40 || bytes % 13 == 0) {
            let result = with(all.clone(), |chunks| chunks[number].truncate(bytes));
            let chunk = number as u64;
            let expected = if bytes < CHUNK_OVERHEAD_BYTES {
                TransferError::Short { chunk, bytes }
            } else {
                TransferError::Damaged { chunk }
            };
            assert_eq!(result, Err(expected), "{bytes} bytes");
        }
    }
    for count in 0..all.len() {
        let result = with(all.clone(), |chunks| chunks.truncate(count));
        assert_eq!(result, Err(TransferError::Cut { chunks: count as u64 }));
    }
}

#[test]
fn chunks_that_are_missing_repeated_or_out_of_order_are_named() {
    let all = chunks(&sender(), 500);
    let last = all.len() - 1;
    for at in 1..last {
        let (due, got) = (at as u64, at as u64 + 1);
        assert_eq!(with(all.clone(), |chunks| drop(chunks.remove(at))), Err(TransferError::Missing { due, got }));
        assert_eq!(with(all.clone(), |chunks| chunks.swap(at, at + 1)), Err(TransferError::Missing { due, got }));
        let again = with(all.clone(), |chunks| chunks.insert(at + 1, chunks[at].clone()));
        assert_eq!(again, Err(TransferError::Repeated { due: got, got: due }));
    }
    let again = with(all.clone(), |chunks| chunks.push(chunks[last].clone()));
    assert_eq!(again, Err(TransferError::Repeated { due: last as u64 + 1, got: last as u64 }));
    let headless = with(all.clone(), |chunks| drop(chunks.remove(0)));
    assert_eq!(headless, Err(TransferError::Missing { due: 0, got: 1 }));
}

#[test]
fn chunks_of_two_transfers_cannot_be_mixed() {
    let mut member = sender();
    let one = chunks(&member, 500);
    member.ok(c_put(put("a", "later")));
    let other = chunks(&member, 500);
    for at in 1..one.len().min(other.len()) {
        let mixed: Vec<_> = one[..at].iter().chain(&other[at..]).cloned().collect();
        assert_eq!(receive(&mixed), Err(TransferError::Foreign { chunk: at as u64 }));
    }
    // The same state twice gives the same chunks: a transfer of one state may be taken over by another.
    assert_eq!(chunks(&member, 500), other);
}

#[test]
fn what_is_no_snapshot_or_a_newer_one_is_refused_at_its_head() {
    let all = chunks(&sender(), 500);
    let head = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = all[0][CHUNK_OVERHEAD_BYTES..].to_vec();
        change(&mut payload);
        receive(&[chunk(1, 0, 0, &payload)])
    };
    assert_eq!(head(&|_| ()), Err(TransferError::Cut { chunks: 1 }), "unchanged");
    assert_eq!(head(&|payload| payload[0] = b'q'), Err(TransferError::Magic));
    assert_eq!(head(&Vec::clear), Err(TransferError::Magic));
    assert_eq!(head(&|payload| payload.truncate(11)), Err(TransferError::Magic));
    assert_eq!(head(&|payload| payload[8] = 2), Err(TransferError::Format(2)));
    assert_eq!(head(&|payload| payload[12] = 9), Err(TransferError::StateFormat(9)));
    assert!(matches!(head(&|payload| payload.truncate(50)), Err(TransferError::Contents { chunk: 0, .. })));
    let kind = |kind| receive(&[chunk(kind, 0, 0, b"")]);
    assert_eq!(kind(2), Err(TransferError::Kind { chunk: 0, kind: 2 }));
    assert_eq!(kind(9), Err(TransferError::Kind { chunk: 0, kind: 9 }));
}

/// A chunk of whatever is asked for, with the right checksum.
fn chunk(kind: u8, number: u64, before: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    out.put_u64_le(number);
    out.put_u32_le(before);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), payload);
    out.put_u32_le(crc);
    out.put_slice(payload);
    out.freeze()
}

/// Chunks with the right checksums and other payloads: what a sender with a fault in it would send.
fn forged(change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> Result<(), TransferError> {
    let all = chunks(&sender(), 1 << 20);
    let mut parts: Vec<_> = all.iter().map(|chunk| (chunk[0], chunk[CHUNK_OVERHEAD_BYTES..].to_vec())).collect();
    change(&mut parts);
    let mut before = 0;
    let mut chain = Vec::new();
    for (number, (kind, payload)) in parts.into_iter().enumerate() {
        let chunk = chunk(kind, number as u64, before, &payload);
        before = u32::from_le_bytes(chunk[CHUNK_OVERHEAD_BYTES - 4..CHUNK_OVERHEAD_BYTES].try_into().unwrap());
        chain.push(chunk);
    }
    receive(&chain)
}

#[test]
fn a_sender_with_a_fault_in_it_is_found_out() {
    forged(|_| ()).unwrap();
    let totals = |result: Result<(), TransferError>| matches!(result, Err(TransferError::Totals { .. }));
    assert!(totals(forged(|parts| parts[2].1[2] ^= 1)), "rows of the first family");
    assert!(totals(forged(|parts| parts[2].1[1] ^= 1)), "the number of the first family");
    assert!(totals(forged(|parts| parts[2].1[1 + 10 * 9] ^= 1)), "bytes");
    assert_eq!(forged(|parts| *parts[2].1.last_mut().unwrap() ^= 1), Err(TransferError::Digest));
    let one_value = |parts: &mut Vec<(u8, Vec<u8>)>| {
        let place = parts[1].1.iter().rposition(|byte| *byte == b'x').unwrap();
        parts[1].1[place] = b'y';
    };
    assert_eq!(forged(one_value), Err(TransferError::Digest));
    let contents = |result: Result<(), TransferError>| matches!(result, Err(TransferError::Contents { .. }));
    assert!(contents(forged(|parts| parts[2].1[0] = 11)), "an end of eleven families");
    assert!(contents(forged(|parts| parts[2].1.truncate(20))), "a short end");
    assert!(contents(forged(|parts| parts[1].1[0] = 77)), "a family that is not known");
    assert!(contents(forged(|parts| parts[1].1.truncate(1000))), "an end in the middle of a row");
    let twice = |parts: &mut Vec<(u8, Vec<u8>)>| parts.insert(1, parts[1].clone());
    assert!(contents(forged(twice)), "all rows twice");
    let after_end = |parts: &mut Vec<(u8, Vec<u8>)>| parts.push(parts[1].clone());
    assert_eq!(forged(after_end), Err(TransferError::AfterEnd { chunk: 3 }));
    let head_again = |parts: &mut Vec<(u8, Vec<u8>)>| parts.insert(1, parts[0].clone());
    assert_eq!(forged(head_again), Err(TransferError::Kind { chunk: 1, kind: 1 }));
}

#[test]
fn a_head_that_announces_another_state_is_found_out() {
    use sha2::{Digest, Sha256};
    let forged = |place: usize| {
        forged(|parts| {
            parts[0].1[place] ^= 1;
            let sha256 = Sha256::new().chain_update(&parts[0].1).chain_update(&parts[1].1).finalize();
            let end = parts[2].1.len() - 32;
            parts[2].1.truncate(end);
            parts[2].1.extend_from_slice(&sha256);
        })
    };
    let numbers = 8 + 4 + 8;
    for (what, place) in [("applied position", 0), ("applied position", 8), ("revision", 16), ("compacted", 24)] {
        let error = forged(numbers + place).unwrap_err().to_string();
        assert!(error.contains("announces") && error.contains(what), "{error}");
    }
    forged(numbers + 32).unwrap(); // what it takes on the disk is an estimate
}

#[test]
fn a_snapshot_of_what_is_applied_is_refused_before_and_after_the_transfer() {
    let mut from = sender();
    let mut to = Member::new();
    to.store.apply(&from.log).unwrap();
    let applied = to.store.applied();
    let refused = to.store.reader().receive(&chunks(&from, 500)[0]).err();
    assert_eq!(refused, Some(TransferError::Old { offered: applied, applied }));

    from.ok(c_put(put("a", "1")));
    let received = support::install::transfer(&from.store.reader(), &to.store.reader(), 500).unwrap();
    let twice = support::install::transfer(&from.store.reader(), &to.store.reader(), 500).unwrap();
    to.store.install(received).unwrap();
    let here = to.all_rows();
    let LogPosition { index, .. } = to.store.applied();
    match to.store.install(twice) {
        Err(InstallError::Old { offered, applied }) => assert_eq!((offered.index, applied.index), (index, index)),
        other => panic!("{other:?}"),
    }
    assert_eq!(to.all_rows(), here);
    to.ok_next(c_put(put("a", "2")));
}

#[test]
fn a_snapshot_of_another_log_is_refused() {
    let from = sender();
    let mut to = Member::new();
    let many = (0..from.log.len() - 1).map(|_| c_put(put("a", "b"))).collect();
    to.apply_all(many);
    let received = support::install::transfer(&from.store.reader(), &to.store.reader(), 500).unwrap();
    let before = to.all_rows();
    match to.store.install(received) {
        Err(error @ InstallError::Contradiction { .. }) => assert_eq!(
            error.to_string(),
            "the snapshot cannot follow what is applied here: its revision is 44, and here it is 45"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(to.all_rows(), before);
}

#[test]
fn rows_read_back_as_they_were_written() {
    let mut out = BytesMut::new();
    let written = [(Family::Meta, "a", ""), (Family::Heads, "", "value"), (Family::Cluster, "k", "v")];
    for (family, key, value) in written {
        rows::put(&mut out, family, key.as_bytes(), value.as_bytes());
    }
    let whole = out.freeze();
    for cut in 0..=whole.len() {
        let mut bytes = whole.slice(..cut);
        let mut read = 0;
        while let Some(row) = rows::take(&mut bytes) {
            let (family, key, value) = written[read];
            assert_eq!((row.family(), &row.key[..], &row.value[..]), (Some(family), key.as_bytes(), value.as_bytes()));
            read += 1;
        }
        assert_eq!(read == written.len(), cut == whole.len());
    }
}
