//! Apply, hazard by hazard: each of these has cost somebody a cluster.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::engine::Family;
use quorate_store::{Fault, LogPosition, Membership, Payload, Rejection, Response, Store};

use pb::AlarmType::{Corrupt, Nospace};
use pb::alarm_request::AlarmAction::{Activate, Deactivate};
use support::build::{
    Member, anonymous, batch, bytes, c_alarm, c_compact, c_delete, c_expire, c_grant, c_put, c_revoke, c_txn, delete,
    entry, op_delete, op_put, op_range, payload, put, put_leased, range,
};
use support::chance::Chance;
use support::generate;
use support::history::{History, Step};

mod support;

/// etcd's index stood still on such entries (#14382, #21636), and the log could then not be purged behind it.
#[test]
fn applied_position_moves_with_entries_that_change_no_data() {
    let mut member = Member::new();
    let fails = pb::TxnRequest { success: vec![op_put(put_leased("k", 9))], ..Default::default() };
    let idle = [
        Payload::Blank,
        payload(c_alarm(Activate, 1, Nospace)),
        payload(c_alarm(Activate, 1, Nospace)),
        payload(c_alarm(Deactivate, 2, Corrupt)),
        payload(Command::AuthEnable(pb::AuthEnableRequest {})),
        payload(c_revoke(7)),
        payload(c_expire(1, &[7, 8])),
        payload(c_expire(9, &[7, 8])),
        payload(Command::Txn(fails)),
        payload(Command::Txn(pb::TxnRequest::default())),
        payload(c_delete("k", "\0")),
        payload(c_compact(99)),
        payload(c_put(put("k", ""))),
        payload(Command::LeaseCheckpoint(pb::LeaseCheckpointRequest::default())),
        Payload::Membership(Membership::default()),
        batch(vec![]),
    ];
    for (index, payload) in (1..).zip(idle) {
        member.store.apply(&[entry(index, 1, payload)]).unwrap();
        assert_eq!(member.store.applied(), LogPosition { index, term: 1 });
        member.flush();
        member.crash();
        assert_eq!(member.store.applied(), LogPosition { index, term: 1 }, "after a crash");
        assert_eq!((member.revision(), member.keys(0)), (1, vec![]));
    }
}

#[test]
fn entries_out_of_order_are_a_fault_and_change_nothing() {
    let mut member = Member::new();
    member.ok(c_put(put("k", "1")));
    let next = |index, term| entry(index, term, payload(c_put(put("k", "2"))));
    for wrong in [
        vec![next(3, 1)],
        vec![next(1, 1)],
        vec![next(2, 0)],
        vec![next(2, 2), next(4, 2)],
        vec![next(2, 3), next(3, 2)],
    ] {
        assert!(matches!(member.store.apply(&wrong), Err(Fault::Entry { .. })), "{wrong:?}");
        assert_eq!((member.revision(), member.store.applied().index), (2, 1));
    }
    member.store.apply(&[next(2, 7)]).unwrap();
    assert_eq!(member.value("k", 0).as_deref(), Some("2"));
}

/// The crash keeps all of a group or nothing of it.
#[test]
fn an_unreadable_entry_undoes_the_whole_group() {
    let mut member = Member::new();
    let unknown = batch(vec![anonymous(c_put(put("a", "1"))), Default::default()]);
    for bad in [unknown, Payload::Batch(bytes("\u{1}nonsense"))] {
        let group = [entry(1, 1, payload(c_put(put("k", "1")))), entry(2, 1, bad)];
        assert!(matches!(member.store.apply(&group), Err(Fault::Entry { index: 2, .. })));
        assert_eq!((member.revision(), member.store.applied(), member.keys(0)), (1, LogPosition::default(), vec![]));
    }
}

fn entries(history: &History) -> Vec<quorate_store::Entry> {
    let groups = history
        .steps
        .iter()
        .filter_map(|step| if let Step::Group { entries, .. } = step { Some(entries) } else { None });
    (1..).zip(groups.flatten()).map(|(index, load)| entry(index, load.term, load.payload())).collect()
}

/// Nothing but the log decides: neither how entries are grouped, nor who reads meanwhile, nor when what is flushed.
#[test]
fn same_log_in_other_groups_gives_equal_bytes_and_equal_rejections() {
    for seed in 0..300 {
        let log = entries(&generate::history(seed, 60));
        let mut chance = Chance(seed);
        let (mut alone, mut whole, mut split) = (Member::new(), Member::new(), Member::new());
        let wanted: Vec<_> =
            log.iter().flat_map(|entry| alone.store.apply(std::slice::from_ref(entry)).unwrap().answers).collect();
        let own = whole.store.apply(&log).unwrap();
        assert_eq!(own.answers, wanted, "seed {seed}");
        let (mut answers, mut from) = (Vec::new(), 0);
        let old_view = split.view();
        while from < log.len() {
            let end = log.len().min(from + 1 + chance.below(5) as usize);
            answers.extend(split.store.apply(&log[from..end]).unwrap().answers);
            from = end;
            let _ = split.view().hash_kv(0);
            if chance.one_in(4) {
                split.flush();
            }
        }
        assert_eq!(answers, wanted, "seed {seed}");
        assert_eq!(old_view.revision(), 1);
        for member in [&whole, &split] {
            for (family, (own, other)) in Family::ALL.into_iter().zip(member.all_rows().iter().zip(&alone.all_rows())) {
                assert_eq!(own, other, "seed {seed}, {family:?}");
            }
        }
        assert!(split.view().hash().unwrap() == alone.view().hash().unwrap());
    }
}

/// A second life of the log on what a crash left gives the same bytes as the first.
#[test]
fn what_a_crash_lost_comes_back_byte_for_byte() {
    for seed in 0..100 {
        let log = entries(&generate::history(1_000 + seed, 60));
        let (mut plain, mut crashing) = (Member::new(), Member::new());
        plain.store.apply(&log).unwrap();
        crashing.log = log.clone();
        let half = log.len() / 2;
        crashing.store.apply(&log[..half / 2]).unwrap();
        crashing.flush();
        crashing.store.apply(&log[half / 2..half]).unwrap();
        crashing.crash();
        assert_eq!(crashing.store.applied().index as usize, half / 2);
        crashing.catch_up();
        assert_eq!(crashing.all_rows(), plain.all_rows(), "seed {seed}");
        drop(crashing.store);
        crashing.store = Store::open(crashing.engine.clone()).unwrap();
        assert_eq!(crashing.all_rows(), plain.all_rows(), "seed {seed}");
    }
}

/// One txn that ends etcd 3.7.3 for good: what it deletes, it then wants to know the old value of.
#[test]
fn delete_then_put_that_ignores_what_is_gone_is_refused_and_changes_nothing() {
    let keep_value = pb::PutRequest { ignore_value: true, ..put("b", "") };
    let keep_lease = pb::PutRequest { ignore_lease: true, ..put("b", "new") };
    for ignoring in [keep_value.clone(), keep_lease, pb::PutRequest { ignore_lease: true, ..keep_value }] {
        let mut member = Member::new();
        member.ok(c_grant(1));
        member.ok(c_put(put_leased("b", 1)));
        let before = member.all_rows();
        let ops = vec![op_put(put("c", "3")), op_delete(delete("a", "\0")), op_put(ignoring.clone())];
        let txn = pb::TxnRequest { success: ops.clone(), ..Default::default() };
        assert_eq!(quorate_store::validate_txn(&txn, 128), Ok(()), "the door lets it pass, as etcd's does");
        assert_eq!(member.refused(Command::Txn(txn)), Rejection::KeyNotFound);
        assert_eq!(
            member.refused(c_txn(vec![support::build::op_txn(support::build::txn(ops))])),
            Rejection::KeyNotFound
        );
        assert_eq!((member.revision(), member.keys(0)), (2, vec!["b".into()]));
        assert_eq!(member.view().lease_keys(1).unwrap(), [bytes("b")]);
        let untouched = |member: &Member| member.all_rows().into_iter().skip(1).collect::<Vec<_>>();
        assert_eq!(untouched(&member), before[1..], "everything but the applied position");
        member.ok(c_put(put("b", "goes on")));
        assert_eq!(member.revision(), 3);
    }
}

#[test]
fn delete_then_put_without_ignoring_anything_is_accepted() {
    let mut member = Member::new();
    member.ok(c_put(put("b", "1")));
    member.ok(c_txn(vec![op_delete(delete("a", "\0")), op_put(put("b", "2"))]));
    assert_eq!(member.revision(), 3);
    assert_eq!((member.value("b", 0), member.value("b", 2)), (Some("2".into()), Some("1".into())));
    let kv = member.view().range(&range("b", "", 0)).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.version), (3, 1), "created anew");
    assert_eq!(member.events(2), ["2 Put b -", "3 Delete b 1", "3 Put b -"]);
}

/// What etcd's watchers get as the previous value, found by comparing with it: never one from inside of the txn.
#[test]
fn watchers_are_told_the_value_from_before_the_txn_and_its_client_the_one_from_inside() {
    let mut member = Member::new();
    member.ok(c_put(put("b", "1")));
    let delete_all = pb::DeleteRangeRequest { prev_kv: true, ..delete("a", "\0") };
    let changed_then_deleted = vec![op_put(put("b", "2")), op_put(put("c", "2")), op_delete(delete_all)];
    let answer = member.ok(c_txn(changed_then_deleted));
    let quorate_store::Response::Txn(answer) = answer else { panic!("{answer:?}") };
    let Some(pb::response_op::Response::ResponseDeleteRange(deleted)) = &answer.responses[2].response else {
        panic!("{answer:?}")
    };
    assert_eq!(deleted.prev_kvs.iter().map(|kv| kv.value.clone()).collect::<Vec<_>>(), ["2", "2"]);
    let events = ["2 Put b -", "3 Put b 1", "3 Put c -", "3 Delete b 1", "3 Delete c -"];
    assert_eq!(member.events(2), events, "read later");
    let born_and_gone =
        vec![op_delete(delete("d", "")), op_put(put("b", "3")), op_delete(delete("a", "\0")), op_put(put("c", "4"))];
    member.ok(c_txn(born_and_gone));
    assert_eq!(member.events(4), ["4 Put b -", "4 Delete b -", "4 Put c -"]);
}

#[test]
fn a_failing_operation_undoes_the_whole_txn() {
    let mut member = Member::new();
    member.ok(c_put(put("a", "1")));
    for last in [
        op_put(put_leased("z", 404)),
        op_range(range("a", "", 77)),
        op_range(range("a", "", -5)),
        op_put(pb::PutRequest { ignore_value: true, ..put("nobody", "") }),
        pb::RequestOp::default(),
    ] {
        let rejected = member.apply(c_txn(vec![op_put(put("b", "2")), op_delete(delete("a", "")), last.clone()]));
        assert!(rejected.is_err(), "{last:?}");
        assert_eq!((member.revision(), member.keys(0)), (2, vec!["a".into()]), "{last:?}");
    }
}

#[test]
fn what_changes_nothing_takes_no_revision() {
    let mut member = Member::new();
    member.ok(c_put(put("a", "1")));
    member.ok(c_delete("x", "z"));
    member.ok(c_txn(vec![op_range(range("a", "", 0)), op_delete(delete("b", "\0"))]));
    member.ok(c_txn(vec![]));
    member.ok(c_grant(5));
    member.ok(c_revoke(5));
    assert_eq!(member.revision(), 2);
    member.ok(c_put(put("a", "1")));
    assert_eq!(member.revision(), 3, "the same value again is a change");
}

#[test]
fn a_range_in_a_txn_sees_what_came_before_it_and_nothing_after() {
    let mut member = Member::new();
    member.ok(c_put(put("a", "old")));
    let all = || op_range(range("\0", "\0", 0));
    let ops =
        vec![all(), op_put(put("b", "1")), all(), op_delete(delete("a", "")), all(), op_range(range("\0", "\0", 2))];
    let Response::Txn(answer) = member.ok(c_txn(ops)) else { unreachable!("a txn") };
    let seen = |at: usize| match &answer.responses[at].response {
        Some(pb::response_op::Response::ResponseRange(range)) => {
            let keys = range.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
            (keys.collect::<Vec<_>>().join(" "), range.count, range.header.as_ref().unwrap().revision)
        }
        other => unreachable!("{other:?}"),
    };
    assert_eq!(seen(0), ("a".into(), 1, 2));
    assert_eq!(seen(2), ("a b".into(), 2, 3));
    assert_eq!(seen(4), ("b".into(), 1, 3));
    assert_eq!(seen(5), ("a".into(), 1, 3), "the revision before the txn stays as it was");
    assert_eq!(member.events(3), ["3 Put b -", "3 Delete a old"], "in the order of the operations");
}

#[test]
fn out_of_space_lets_through_what_frees_it_and_nothing_that_takes_it() {
    let mut member = Member::new();
    member.ok(c_grant(1));
    member.ok(c_put(put("a", "1")));
    member.ok(c_alarm(Activate, 3, Nospace));
    let nested = support::build::op_txn(support::build::txn(vec![op_put(put("b", "1"))]));
    for takes in [c_put(put("b", "1")), c_grant(2), c_txn(vec![op_put(put("b", "1"))]), c_txn(vec![nested])] {
        assert_eq!(member.refused(takes), Rejection::NoSpace);
    }
    member.ok(c_txn(vec![op_range(range("a", "", 0))]));
    member.ok(c_delete("a", ""));
    member.ok(c_compact(3));
    member.ok(c_revoke(1));
    member.ok(c_alarm(Activate, 4, Nospace));
    member.ok(c_alarm(Deactivate, 3, Nospace));
    assert_eq!(member.refused(c_put(put("b", "1"))), Rejection::NoSpace, "the other member still says so");
    member.ok(c_alarm(Deactivate, 4, Nospace));
    member.ok(c_put(put("b", "1")));
}

#[test]
fn corrupt_stops_all_data_but_not_the_way_out() {
    let mut member = Member::new();
    member.ok(c_grant(1));
    member.ok(c_alarm(Activate, 3, Corrupt));
    let checkpoint = Command::LeaseCheckpoint(pb::LeaseCheckpointRequest::default());
    let all =
        [c_put(put("b", "1")), c_delete("b", ""), c_txn(vec![]), c_compact(1), c_grant(2), c_revoke(1), checkpoint];
    for stopped in all {
        assert_eq!(member.refused(stopped), Rejection::Corrupt);
    }
    assert_eq!(member.view().corrupt(), Err(Rejection::Corrupt));
    member.flush();
    member.crash();
    assert_eq!(member.view().corrupt(), Err(Rejection::Corrupt), "a restart does not mend it");
    member.ok(Command::AuthUserAdd(pb::AuthUserAddRequest { name: "root".into(), ..Default::default() }));
    member.ok(c_alarm(Deactivate, 3, Corrupt));
    member.ok(c_put(put("b", "1")));
}
