//! Leases in apply: what they hold, and how it goes.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::engine::Family;
use quorate_store::{Effects, EventKind, LeaseEffect, LeaseRecord, Rejection};

use support::build::{
    Member, bytes, c_compact, c_delete, c_expire, c_grant, c_put, c_revoke, c_txn, entry, op_delete, op_put, payload,
    put, put_leased,
};

mod support;

fn effects(member: &mut Member, term: u64, command: Command) -> Effects {
    let index = member.store.applied().index + 1;
    member.log.push(entry(index, term, payload(command)));
    let applied = member.store.apply(&member.log[index as usize - 1..]).unwrap();
    assert!(applied.answers[0][0].is_ok(), "{:?}", applied.answers);
    applied.effects
}

fn attached(member: &Member, lease: i64) -> Vec<Bytes> {
    member.view().lease_keys(lease).unwrap()
}

#[test]
fn revoke_deletes_the_keys_in_one_revision_in_key_order() {
    let mut member = Member::new();
    member.ok(c_grant(1));
    for key in ["m", "\u{7f}", "a", "z", "aa", "b"] {
        member.ok(c_put(put_leased(key, 1)));
    }
    let before = member.revision();
    let effects = effects(&mut member, 1, c_revoke(1));
    assert_eq!(member.revision(), before + 1);
    let [revision] = &effects.revisions[..] else { panic!("{effects:?}") };
    let keys: Vec<_> = revision.events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!(keys, ["a", "aa", "b", "m", "z", "\u{7f}"].map(bytes));
    assert!(revision.events.iter().all(|event| event.kind == EventKind::Delete && event.prev_kv.is_some()));
    assert_eq!(effects.leases, [LeaseEffect::Revoked { id: 1 }]);
    assert_eq!(member.refused(c_revoke(1)), Rejection::LeaseNotFound);
}

#[test]
fn a_put_moves_its_key_from_lease_to_lease() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_grant(2), c_put(put_leased("k", 1)), c_put(put_leased("k", 2))]);
    assert_eq!((attached(&member, 1), attached(&member, 2)), (vec![], vec![bytes("k")]));
    member.ok(c_revoke(1));
    assert_eq!(member.keys(0), ["k"], "the lease it has left takes nothing with it");
    member.ok(c_put(put("k", "plain")));
    assert_eq!(attached(&member, 2), [] as [Bytes; 0], "lease 0 detaches");
    member.ok(c_revoke(2));
    assert_eq!(member.keys(0), ["k"]);
    assert!(member.rows(Family::LeaseKeys).is_empty());
}

#[test]
fn a_txn_moves_keys_between_leases_and_a_failing_one_does_not() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_grant(2), c_put(put_leased("a", 1)), c_put(put_leased("b", 1))]);
    let moves = || vec![op_put(put_leased("a", 2)), op_delete(support::build::delete("b", ""))];
    let missing = op_put(put_leased("c", 3));
    let failing = moves().into_iter().chain([missing]).collect();
    assert_eq!(member.refused(c_txn(failing)), Rejection::LeaseNotFound);
    assert_eq!(attached(&member, 1), [bytes("a"), bytes("b")]);
    member.ok(c_txn(moves()));
    assert_eq!((attached(&member, 1), attached(&member, 2)), (vec![], vec![bytes("a")]));
}

#[test]
fn ignored_lease_stays_and_a_deleted_key_leaves_it() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_put(put_leased("k", 1))]);
    member.ok(c_put(pb::PutRequest { ignore_lease: true, ..put("k", "other") }));
    assert_eq!(attached(&member, 1), [bytes("k")]);
    member.ok(c_delete("k", ""));
    assert_eq!(attached(&member, 1), [] as [Bytes; 0]);
    member.ok(c_put(put("k", "new")));
    member.ok(c_revoke(1));
    assert_eq!(member.keys(0), ["k"]);
}

#[test]
fn a_lease_granted_again_under_an_old_id_holds_nothing() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_put(put_leased("k", 1)), c_revoke(1), c_grant(1)]);
    assert_eq!(attached(&member, 1), [] as [Bytes; 0]);
    member.ok(c_put(put("k", "free")));
    member.ok(c_revoke(1));
    assert_eq!(member.keys(0), ["k"]);
}

/// An old leader's clock says nothing about leases that were renewed elsewhere (#12528, #15247).
#[test]
fn expiry_found_by_another_term_s_leader_expires_nothing() {
    let mut member = Member::new();
    member.apply_all(vec![c_grant(1), c_put(put_leased("k", 1))]);
    let old = entry(3, 8, payload(c_expire(7, &[1])));
    let answers = member.store.apply(&[old]).unwrap().answers;
    assert_eq!(answers, [[Err(Rejection::NotLeader)]]);
    assert_eq!((member.keys(0), attached(&member, 1)), (vec!["k".into()], vec![bytes("k")]));
    member.store.apply(&[entry(4, 8, payload(c_expire(8, &[99, 1, 1, 0])))]).unwrap();
    assert!(member.keys(0).is_empty());
    assert_eq!(member.revision(), 3);
}

#[test]
fn mass_expiry_takes_one_revision_a_lease_and_leaves_nothing_behind() {
    const LEASES: i64 = 500;
    let mut member = Member::new();
    for id in 1..=LEASES {
        let keys = (0..10).map(|key| c_put(put_leased(&format!("{key}/{id:04}"), id)));
        member.apply_all([c_grant(id)].into_iter().chain(keys).collect());
    }
    let before = member.revision();
    let ids: Vec<_> = (1..=LEASES).rev().chain([LEASES + 1]).collect();
    let effects = effects(&mut member, 1, c_expire(1, &ids));
    assert_eq!(member.revision(), before + LEASES);
    assert_eq!(effects.revisions.len() as i64, LEASES);
    assert!(effects.revisions.iter().all(|revision| revision.events.len() == 10));
    assert_eq!(effects.leases[0], LeaseEffect::Revoked { id: LEASES }, "in the order asked for");
    assert!(member.keys(0).is_empty() && member.rows(Family::Leases).is_empty());
    assert!(member.rows(Family::LeaseKeys).is_empty());
    member.ok(c_compact(member.revision()));
    member.walk();
    assert_eq!(member.rows(Family::Heads).len(), 10, "the deletions of the compacted revision itself");
}

#[test]
fn lease_ids_of_every_sign_are_kept_apart() {
    let mut member = Member::new();
    let ids = [1, -1, i64::MAX, i64::MIN, 0x0100];
    for id in ids {
        member.apply_all(vec![c_grant(id), c_put(put_leased(&format!("k{id}"), id))]);
    }
    for id in ids {
        assert_eq!(attached(&member, id), [bytes(&format!("k{id}"))]);
        assert_eq!(member.view().lease(id).unwrap(), Some(LeaseRecord { ttl_secs: 60, remaining_ttl_secs: 0 }));
    }
    for id in ids {
        member.ok(c_revoke(id));
        assert!(!member.keys(0).contains(&format!("k{id}")));
    }
    assert!(member.keys(0).is_empty());
}

#[test]
fn a_checkpoint_is_kept_over_a_crash_and_of_no_effect_on_a_lease_that_is_gone() {
    let mut member = Member::new();
    let checkpoint = |id, remaining_ttl| {
        let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
        Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })
    };
    member.apply_all(vec![c_grant(1), checkpoint(1, 17), checkpoint(2, 17)]);
    member.flush();
    member.crash();
    let leases = member.view().leases().unwrap();
    assert_eq!(leases, [(1, LeaseRecord { ttl_secs: 60, remaining_ttl_secs: 17 })]);
}
