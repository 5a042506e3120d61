//! Compaction: what it must forget, what it must keep, and that no crash in it is ever seen.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use quorate_proto::log::proposal::Command;
use quorate_store::engine::Family;
use quorate_store::{Failure, KeyspaceHash, Rejection};

use support::build::{
    Member, c_compact, c_delete, c_put, c_txn, delete, entry, everything, op_delete, op_put, payload, put, range,
};
use support::generate;
use support::history::{History, Step};

mod support;

fn hash(member: &Member, revision: i64) -> KeyspaceHash {
    member.view().hash_kv(revision).unwrap()
}

fn compacted(result: Result<impl std::fmt::Debug, Failure>) -> bool {
    matches!(result, Err(Failure::Rejected(Rejection::Compacted)))
}

/// etcd derived it from the newest key left, and went backwards (#17780).
#[test]
fn revision_is_stored_and_not_derived_from_what_compaction_left() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_delete("k", ""), c_put(put("l", "1")), c_delete("l", "")]);
    member.ok(c_compact(5));
    member.walk();
    member.flush();
    member.crash();
    assert_eq!((member.revision(), member.view().compacted()), (5, 5));
    member.ok(c_put(put("m", "1")));
    assert_eq!(member.revision(), 6);
    member.ok(c_compact(6));
    member.walk();
    assert_eq!(member.rows(Family::Revisions).len(), 1, "nothing of k and l is left");
    member.flush();
    member.crash();
    assert_eq!((member.revision(), member.view().compacted()), (6, 6));
}

#[test]
fn keeps_the_newest_version_at_the_cut_and_every_later_one() {
    let mut member = Member::new();
    for value in 1..=6 {
        member.ok(c_put(put("k", &value.to_string())));
    }
    member.ok(c_compact(4));
    for walked in [false, true] {
        if walked {
            member.walk();
        }
        assert!(compacted(member.view().range(&range("k", "", 3))), "walked: {walked}");
        let values: Vec<_> = (4..=7).map(|revision| member.value("k", revision).unwrap()).collect();
        assert_eq!(values, ["3", "4", "5", "6"], "walked: {walked}");
    }
    let left: Vec<_> = member.rows(Family::History).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left.len(), 3);
}

#[test]
fn a_live_key_untouched_since_long_before_the_cut_stays() {
    let mut member = Member::new();
    member.ok(c_put(put("old", "1")));
    for _ in 0..10 {
        member.ok(c_put(put("busy", "x")));
    }
    for cut in [5, 9, 12] {
        member.ok(c_compact(cut));
        member.walk();
        assert_eq!(member.value("old", 0).as_deref(), Some("1"));
        assert_eq!(member.value("old", cut).as_deref(), Some("1"));
    }
}

/// The newest version at C may stand in the head alone: what overwrites the head must not take it along.
#[test]
fn compact_then_overwrite_then_read_at_the_cut() {
    for value in ["small", &"x".repeat(10_000)] {
        for walk_first in [false, true] {
            let mut member = Member::new();
            member.apply_all(vec![c_put(put("k", value)), c_put(put("other", "1")), c_compact(3)]);
            if walk_first {
                member.walk();
            }
            member.apply_all(vec![c_put(put("k", "new")), c_delete("k", ""), c_put(put("k", "newer"))]);
            member.walk();
            assert_eq!(member.value("k", 3).as_deref(), Some(value));
            assert_eq!(member.value("k", 4).as_deref(), Some("new"));
            assert_eq!(member.value("k", 5), None);
            assert_eq!(member.events(3)[0], "3 Put other -");
            assert_eq!(member.events(4), [format!("4 Put k {value}"), "5 Delete k new".into(), "6 Put k -".into()]);
            member.flush();
            member.crash();
            assert_eq!(member.value("k", 3).as_deref(), Some(value));
        }
    }
}

/// A watch from exactly C is legal, and C may be a deletion (#18089, #19179).
#[test]
fn a_deletion_at_the_cut_is_seen_from_there_and_dropped_by_the_next_compaction() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_put(put("k", "2")), c_delete("k", ""), c_put(put("l", "1"))]);
    let whole = hash(&member, 4);
    member.ok(c_compact(4));
    let unwalked = hash(&member, 0);
    member.walk();
    assert_eq!(hash(&member, 0), unwalked);
    assert_ne!(hash(&member, 4).hash, whole.hash, "versions behind the cut no longer count");
    assert_eq!(member.events(4), ["4 Delete k -", "5 Put l -"]);
    assert_eq!(member.keys(4), [] as [String; 0]);
    assert!(compacted(member.view().events(3, 5, &[everything()], 9)));
    assert_eq!(member.rows(Family::Heads).len(), 2);
    assert_eq!(member.rows(Family::History).len(), 0);

    member.ok(c_compact(5));
    assert_eq!(member.events(5), ["5 Put l -"]);
    member.walk();
    assert_eq!(member.rows(Family::Heads).len(), 1, "of k nothing is left");
    assert_eq!(member.rows(Family::Revisions).len(), 1);
    member.ok(c_put(put("k", "anew")));
    assert_eq!(member.view().range(&range("k", "", 0)).unwrap().kvs[0].version, 1);
}

#[test]
fn one_key_deleted_and_put_in_one_txn_at_the_cut() {
    for walk_between in [false, true] {
        let mut member = Member::new();
        member.ok(c_put(put("k", "1")));
        member.ok(c_txn(vec![op_delete(delete("k", "\0")), op_put(put("k", "2"))]));
        member.ok(c_put(put("l", "1")));
        member.ok(c_compact(3));
        if walk_between {
            member.walk();
        }
        assert_eq!(member.value("k", 3).as_deref(), Some("2"));
        assert_eq!(member.events(3), ["3 Delete k -", "3 Put k -", "4 Put l -"]);
        member.ok(c_put(put("k", "3")));
        assert_eq!(member.value("k", 3).as_deref(), Some("2"));
        member.ok(c_compact(4));
        member.walk();
        assert_eq!(member.value("k", 4).as_deref(), Some("2"));
        assert_eq!(member.value("k", 0).as_deref(), Some("3"));
        assert_eq!(member.rows(Family::History).len(), 1);
    }
}

#[test]
fn one_key_put_and_deleted_in_one_txn_at_the_cut() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_put(put("l", "1"))]);
    member.ok(c_txn(vec![op_put(put("k", "2")), op_delete(delete("k", "\0"))]));
    member.ok(c_compact(4));
    let before = hash(&member, 0);
    member.walk();
    assert_eq!(hash(&member, 0), before);
    assert_eq!(member.keys(4), [] as [String; 0]);
    member.apply_all(vec![c_put(put("z", "1")), c_compact(5)]);
    member.walk();
    assert_eq!((member.rows(Family::Heads).len(), member.rows(Family::Revisions).len()), (1, 1));
}

/// The new version links to a deletion that may be gone when somebody asks what it replaced.
#[test]
fn a_key_created_again_after_its_deletion_was_dropped_shows_no_older_version() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_delete("k", ""), c_put(put("l", "1")), c_put(put("k", "2"))]);
    member.ok(c_compact(4));
    let before = member.events(4);
    member.walk();
    assert_eq!(member.events(4), before);
    assert_eq!(before, ["4 Put l -", "5 Put k -"]);
}

#[test]
fn refuses_what_is_compacted_and_what_is_to_come() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_put(put("k", "2"))]);
    assert_eq!(member.refused(c_compact(4)), Rejection::FutureRevision);
    assert_eq!(member.refused(c_compact(-1)), Rejection::Compacted);
    member.ok(c_compact(0));
    assert_eq!(member.refused(c_compact(0)), Rejection::Compacted);
    member.ok(c_compact(3));
    assert_eq!(member.refused(c_compact(2)), Rejection::Compacted);
    assert_eq!(member.refused(c_compact(3)), Rejection::Compacted);
    assert_eq!(member.view().compacted(), 3);
}

/// Commands of a random history, with a compaction now and then; no users and no alarms.
fn busy(seed: u64) -> Vec<Command> {
    let History { steps } = generate::history(seed, 120);
    let groups =
        steps.into_iter().filter_map(|step| if let Step::Group { entries, .. } = step { Some(entries) } else { None });
    let proposals = groups.flatten().flat_map(|entry| match entry.what {
        support::history::What::Proposals(proposals) => proposals,
        support::history::What::Blank | support::history::What::Members(_) => Vec::new(),
    });
    let data = |command: &Command| {
        matches!(
            command,
            Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compaction(_)
                | Command::LeaseGrant(_)
        )
    };
    proposals.filter_map(|proposal| proposal.command).filter(data).collect()
}

/// Crashes after every single step of the walk, with and without a flush before it.
#[test]
fn a_crash_in_any_step_of_the_walk_is_not_seen_afterwards() {
    for seed in 0..40 {
        let commands = busy(seed);
        let mut plain = Member::new();
        plain.apply_all(commands.clone());
        let unwalked = hash(&plain, 0);
        plain.walk();
        assert_eq!(hash(&plain, 0), unwalked, "seed {seed}");

        let mut crashing = Member::new();
        crashing.apply_all(commands);
        crashing.flush();
        let mut steps = 0;
        while !crashing.store.compact_step(1).unwrap() {
            steps += 1;
            if steps % 2 == 0 {
                crashing.flush();
            }
            crashing.crash();
            assert_eq!(hash(&crashing, 0), unwalked, "seed {seed}, step {steps}");
            assert_eq!(crashing.keys(0), plain.keys(0));
            if steps % 2 == 1 {
                crashing.store.compact_step(1).unwrap();
                crashing.flush();
            }
        }
        assert_eq!(crashing.all_rows(), plain.all_rows(), "seed {seed} after {steps} steps");
    }
}

/// Every live key was deleted in the hashed revision, and one put again: etcd 3.7.3 takes none for alive, and says this.
#[test]
fn a_hash_at_a_revision_that_deletes_and_puts_a_key_is_etcds() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("c", "1")), c_put(put("d", "1")), c_put(put("c", "3")), c_put(put("d", "2"))]);
    member.ok(c_compact(4));
    member.ok(c_txn(vec![op_delete(delete("a", "\0")), op_put(put("c", "4"))]));
    for walked in [false, true] {
        if walked {
            member.walk();
        }
        assert_eq!(
            hash(&member, 0),
            KeyspaceHash { hash: 1_274_489_228, revision: 6, compacted: 4 },
            "walked: {walked}"
        );
    }
}

/// etcd 3.7.3 takes the key for deleted, drops what was put, and ends when it is read.
#[test]
fn compaction_to_a_revision_that_deletes_and_puts_a_key_keeps_it() {
    let mut member = Member::new();
    member.ok(c_put(put("k", "1")));
    member.ok(c_txn(vec![op_delete(delete("a", "\0")), op_put(put("k", "2"))]));
    member.ok(c_compact(3));
    let before = hash(&member, 3);
    member.walk();
    member.flush();
    member.crash();
    assert_eq!((member.value("k", 0), hash(&member, 3)), (Some("2".into()), before));
    member.ok(c_put(put("k", "3")));
    assert_eq!((member.value("k", 3), member.value("k", 0)), (Some("2".into()), Some("3".into())));
}

/// Compact hashes are compared between members whose walks have come to different places.
#[test]
fn hashes_do_not_tell_how_far_the_walk_has_come() {
    for seed in 100..160 {
        let commands = busy(seed);
        let (mut eager, mut lazy, mut slow) = (Member::new(), Member::new(), Member::new());
        for command in commands {
            for member in [&mut eager, &mut lazy, &mut slow] {
                let _ = member.apply(command.clone());
            }
            eager.walk();
            slow.store.compact_step(1).unwrap();
            let from = eager.view().compacted().max(1);
            for revision in [0, from, eager.revision()] {
                let wanted = hash(&lazy, revision);
                assert_eq!(
                    (hash(&eager, revision), hash(&slow, revision)),
                    (wanted, wanted),
                    "seed {seed} at {revision}"
                );
            }
        }
        lazy.walk();
        slow.walk();
        assert_eq!(lazy.store.reader().logical_bytes(), eager.store.reader().logical_bytes());
        assert_eq!(slow.store.reader().logical_bytes(), eager.store.reader().logical_bytes());
    }
}

#[test]
fn a_second_compaction_while_the_first_is_walked_is_served_too() {
    let mut member = Member::new();
    for round in 0..20 {
        member.ok(c_put(put(&format!("k{}", round % 3), "x")));
    }
    member.ok(c_compact(10));
    assert!(!member.store.compact_step(2).unwrap());
    member.ok(c_put(put("k0", "y")));
    member.ok(c_compact(21));
    assert!(compacted(member.view().range(&range("k0", "", 20))));
    member.flush();
    member.crash();
    assert!(!member.store.compaction_done());
    member.walk();
    assert!(member.store.compaction_done());
    assert_eq!(member.rows(Family::Revisions).len(), 4, "three keys at 21, one change since");
    assert!(member.rows(Family::Tallies).is_empty());
}

#[test]
fn a_view_taken_before_still_reads_what_compaction_drops() {
    let mut member = Member::new();
    member.apply_all(vec![c_put(put("k", "1")), c_put(put("k", "2")), c_delete("k", "")]);
    let view = member.view();
    member.ok(c_compact(4));
    member.walk();
    assert_eq!(view.range(&range("k", "", 2)).unwrap().kvs[0].value.as_ref(), b"1");
    assert_eq!(view.events(2, 4, &[everything()], usize::MAX).unwrap().revisions.len(), 3);
}

#[test]
fn compaction_gives_back_every_logical_byte_of_what_is_gone() {
    let mut member = Member::new();
    let empty = member.store.reader().logical_bytes();
    for round in 0..50 {
        member.ok(c_put(put("k", &"v".repeat(round * 100))));
        member.ok(c_delete("k", ""));
    }
    assert!(member.store.reader().logical_bytes() > 100_000);
    member.apply_all(vec![c_compact(member.revision())]);
    member.walk();
    assert_eq!(member.store.reader().logical_bytes(), 64 + 1, "one deletion, of a key of one byte");
    member.apply_all(vec![c_put(put("z", "")), c_delete("z", ""), c_put(put("z", ""))]);
    member.ok(c_compact(member.revision()));
    member.walk();
    assert_eq!((member.store.reader().logical_bytes(), empty), (64 + 1, 64));
}

#[test]
fn an_entry_applied_between_two_steps_is_not_walked_over() {
    let mut member = Member::new();
    for _ in 0..6 {
        member.ok(c_put(put("k", "x")));
    }
    member.ok(c_compact(4));
    while !member.store.compact_step(1).unwrap() {
        let index = member.store.applied().index + 1;
        member.store.apply(&[entry(index, 1, payload(c_put(put("k", "y"))))]).unwrap();
    }
    let readable: Vec<_> = (4..=member.revision()).map(|revision| member.value("k", revision).is_some()).collect();
    assert!(readable.iter().all(|readable| *readable), "{readable:?}");
}
