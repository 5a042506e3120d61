//! Who may ask for what, and what a refusal says.

use quorate_proto::etcdserverpb::request_op::Request;

use super::*;

const DENIED: Result<(), Rejection> = Err(Rejection::PermissionDenied);

#[test]
fn while_it_is_off_everything_is_permitted() {
    let mut member = member_with(&[]);
    member.run(|auth, overlay| auth.disable(overlay));
    let (put, delete, txn) = (put(b"k"), delete(b"k", b"\0"), succeed(Request::RequestRange(range(b"k", b""))));
    for access in [
        Access::AnyUser,
        Access::Admin,
        Access::Range(&KeyRange::AtLeast(Bytes::from_static(b"\0"))),
        Access::Put(&put),
        Access::DeleteRange(&delete),
        Access::Txn(&txn),
        Access::LeaseWrite(1),
        Access::LeaseRead(1),
        Access::UserGet("root"),
        Access::RoleGet("root"),
    ] {
        assert_eq!(member.check_at("", 0, access), Ok(()), "{access:?}");
        assert_eq!(member.check_at("nobody", 1, access), Ok(()), "{access:?}");
    }
}

#[test]
fn root_may_do_everything() {
    let mut member = member_with(&[]);
    member.disk.attach(1, b"k");
    let (put, delete) = (pb::PutRequest { lease: 1, prev_kv: true, ..put(b"k") }, delete(b"\0", b"\0"));
    let txn = nest(succeed(Request::RequestDeleteRange(delete.clone())), 8);
    for access in [
        Access::AnyUser,
        Access::Admin,
        Access::Range(&KeyRange::AtLeast(Bytes::from_static(b"\0"))),
        Access::Put(&put),
        Access::DeleteRange(&delete),
        Access::Txn(&txn),
        Access::LeaseWrite(1),
        Access::LeaseRead(1),
        Access::UserGet("alice"),
        Access::RoleGet("work"),
    ] {
        assert_eq!(member.check("root", access), Ok(()), "{access:?}");
    }
}

#[test]
fn an_old_revision_is_refused_before_rights_are_looked_at() {
    let member = member_with(&[permission(Type::Readwrite, b"k", b"")]);
    let (old, put, delete, txn) = (member.auth.revision() - 1, put(b"k"), delete(b"k", b""), pb::TxnRequest::default());
    for access in
        [Access::Range(&keys_of(b"k", b"")), Access::Put(&put), Access::DeleteRange(&delete), Access::Txn(&txn)]
    {
        for user in ["alice", "root", "nobody"] {
            assert_eq!(member.check_at(user, old, access), Err(Rejection::AuthOldRevision), "{access:?}");
        }
        assert_eq!(member.check("alice", access), Ok(()), "{access:?}");
        assert_eq!(member.check_at("alice", old + 2, access), Ok(()), "the door may be ahead: {access:?}");
    }
}

#[test]
fn nobody_is_told_that_the_user_name_is_empty() {
    let member = member_with(&[]);
    let (put, delete, txn) = (put(b"k"), delete(b"k", b""), pb::TxnRequest::default());
    for access in [
        Access::AnyUser,
        Access::Admin,
        Access::Range(&keys_of(b"k", b"")),
        Access::Put(&put),
        Access::DeleteRange(&delete),
        Access::Txn(&txn),
        Access::LeaseWrite(1),
        Access::LeaseRead(1),
        Access::UserGet(""),
        Access::RoleGet(""),
    ] {
        assert_eq!(member.check_at("", 0, access), Err(Rejection::UserEmpty), "{access:?}");
        assert_eq!(member.check("", access), Err(Rejection::UserEmpty), "{access:?}");
    }
    assert_eq!(member.check_at("alice", 0, Access::Put(&put)), Err(Rejection::UserEmpty), "etcd's sign for nobody");
}

#[test]
fn an_unknown_user_is_denied_and_not_found_where_root_is_wanted() {
    let member = member_with(&[]);
    let (put, txn) = (put(b"k"), pb::TxnRequest::default());
    for access in [Access::AnyUser, Access::Range(&keys_of(b"k", b"")), Access::Put(&put), Access::Txn(&txn)] {
        assert_eq!(member.check("nobody", access), DENIED, "{access:?}");
    }
    assert_eq!(member.check("nobody", Access::LeaseWrite(1)), DENIED);
    for access in [Access::Admin, Access::UserGet("alice"), Access::RoleGet("work")] {
        assert_eq!(member.check("nobody", access), Err(Rejection::UserNotFound), "{access:?}");
    }
}

#[test]
fn root_needs_the_role_and_not_the_name() {
    let mut member = Member::default();
    member.user("root", &["root"]);
    member.user("admin", &["root"]);
    member.enable();
    assert_eq!(member.check("admin", Access::Admin), Ok(()));
    assert!(member.may_read("admin", b"\0", b"\0"));
    assert_eq!(member.check_at("root", 1, Access::Admin), Ok(()), "what root changes would shut it out");
}

#[test]
fn one_sees_oneself_and_the_roles_one_has() {
    let mut member = member_with(&[]);
    member.role("other", &[]);
    assert_eq!(member.check("alice", Access::UserGet("alice")), Ok(()));
    assert_eq!(member.check("alice", Access::UserGet("root")), DENIED);
    assert_eq!(member.check("alice", Access::RoleGet("work")), Ok(()));
    assert_eq!(member.check("alice", Access::RoleGet("other")), DENIED);
    assert_eq!(member.check("alice", Access::Admin), DENIED);
}

#[test]
fn put_needs_write_and_its_previous_value_read() {
    let member = member_with(&[permission(Type::Write, b"w", b""), permission(Type::Readwrite, b"k", b"")]);
    let previous = |key| pb::PutRequest { prev_kv: true, ..put(key) };
    assert_eq!(member.check("alice", Access::Put(&put(b"w"))), Ok(()));
    assert_eq!(member.check("alice", Access::Put(&previous(b"w"))), DENIED);
    assert_eq!(member.check("alice", Access::Put(&previous(b"k"))), Ok(()));
    assert_eq!(member.check("alice", Access::Put(&put(b"x"))), DENIED);
}

#[test]
fn delete_needs_write_and_its_previous_values_read() {
    let member = member_with(&[permission(Type::Write, b"a", b"m"), permission(Type::Read, b"a", b"c")]);
    let previous = |key, end| pb::DeleteRangeRequest { prev_kv: true, ..delete(key, end) };
    assert_eq!(member.check("alice", Access::DeleteRange(&delete(b"a", b"m"))), Ok(()));
    assert_eq!(member.check("alice", Access::DeleteRange(&previous(b"a", b"c"))), Ok(()));
    assert_eq!(member.check("alice", Access::DeleteRange(&previous(b"a", b"d"))), DENIED);
    assert_eq!(member.check("alice", Access::DeleteRange(&delete(b"a", b"\0"))), DENIED);
}

#[test]
fn a_lease_is_attached_only_by_whom_may_write_all_its_keys() {
    let mut member = member_with(&[permission(Type::Write, b"a", b"c")]);
    member.disk.attach(1, b"a");
    member.disk.attach(2, b"a");
    member.disk.attach(2, b"x");
    let with = |lease| pb::PutRequest { lease, ..put(b"b") };
    for (lease, answer) in [(0, Ok(())), (1, Ok(())), (2, DENIED), (3, Ok(()))] {
        assert_eq!(member.check("alice", Access::Put(&with(lease))), answer, "lease {lease}");
        if lease != 0 {
            assert_eq!(member.check("alice", Access::LeaseWrite(lease)), answer, "lease {lease}");
        }
    }
}

#[test]
fn a_lease_shows_its_keys_to_whom_may_read_them_all() {
    let mut member = member_with(&[permission(Type::Read, b"a", b"c")]);
    member.disk.attach(1, b"b");
    member.disk.attach(2, b"b");
    member.disk.attach(2, b"c");
    assert_eq!(member.check("alice", Access::LeaseRead(1)), Ok(()));
    assert_eq!(member.check("alice", Access::LeaseRead(2)), DENIED);
    assert_eq!(member.check("alice", Access::LeaseWrite(1)), DENIED);
    let old = member.auth.revision() - 1;
    assert_eq!(member.check_at("alice", old, Access::LeaseRead(1)), Err(Rejection::AuthOldRevision));
    assert_eq!(member.check_at("alice", old, Access::LeaseRead(3)), Ok(()), "nothing to protect");
}

#[test]
fn a_lease_that_cannot_be_read_is_a_fault_and_not_a_yes() {
    let member = member_with(&[permission(Type::Write, b"a", b"")]);
    let put = pb::PutRequest { lease: 1, ..put(b"a") };
    let broken = |_| Err(Fault::Engine("gone".into()));
    let answer = member.auth.check("alice", member.auth.revision(), Access::Put(&put), &broken);
    assert!(matches!(answer, Err(Failure::Fault(Fault::Engine(_)))));
    let root = member.auth.check("root", member.auth.revision(), Access::Put(&put), &broken);
    assert!(root.is_ok(), "whose answer does not depend on it");
}

#[test]
fn a_lease_is_looked_at_once_in_a_transaction() {
    let member = member_with(&[permission(Type::Write, b"a", b"z")]);
    let put = operation(Request::RequestPut(pb::PutRequest { lease: 1, ..put(b"b") }));
    let txn = pb::TxnRequest { success: vec![put.clone(); 64], failure: vec![put; 64], ..Default::default() };
    let asked = std::cell::Cell::new(0);
    let attached = |_| {
        asked.set(asked.get() + 1);
        Ok(vec![bytes(b"c")])
    };
    assert!(member.auth.check("alice", member.auth.revision(), Access::Txn(&txn), &attached).is_ok());
    assert_eq!(asked.get(), 1);
}

#[test]
fn every_part_of_a_transaction_counts_at_every_depth() {
    let member = member_with(&[permission(Type::Readwrite, b"a", b"m")]);
    let parts = |key: &[u8]| {
        [
            pb::TxnRequest { compare: vec![compare(key, b"")], ..Default::default() },
            succeed(Request::RequestRange(range(key, b""))),
            fail(Request::RequestRange(range(key, b""))),
            succeed(Request::RequestPut(put(key))),
            fail(Request::RequestPut(put(key))),
            succeed(Request::RequestDeleteRange(delete(key, b""))),
            fail(Request::RequestDeleteRange(delete(key, b""))),
        ]
    };
    for depth in 0..=8 {
        for (good, bad) in parts(b"b").into_iter().zip(parts(b"x")) {
            assert_eq!(member.check("alice", Access::Txn(&nest(good, depth))), Ok(()));
            assert_eq!(member.check("alice", Access::Txn(&nest(bad, depth))), DENIED);
        }
    }
}

#[test]
fn a_compare_over_a_range_needs_the_whole_range() {
    let member = member_with(&[permission(Type::Read, b"a", b"m")]);
    for (range_end, answer) in [(&b""[..], Ok(())), (b"m", Ok(())), (b"n", DENIED), (b"\0", DENIED)] {
        let txn = pb::TxnRequest { compare: vec![compare(b"a", range_end)], ..Default::default() };
        assert_eq!(member.check("alice", Access::Txn(&txn)), answer);
    }
}

#[test]
fn an_operation_without_request_needs_nothing() {
    let member = member_with(&[]);
    let txn = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
    assert_eq!(member.check("alice", Access::Txn(&txn)), Ok(()), "apply refuses it for what it is");
}

#[test]
fn depth_costs_no_stack() {
    let member = member_with(&[]);
    let mut txn = nest(succeed(Request::RequestPut(put(b"k"))), 20_000);
    assert_eq!(member.check("alice", Access::Txn(&txn)), DENIED);
    // Dropping it would recurse: taken apart from the outside.
    while let Some(Request::RequestTxn(inner)) = txn.success.pop().or(txn.failure.pop()).and_then(|op| op.request) {
        txn = inner;
    }
}

#[test]
fn an_empty_range_needs_the_key_it_begins_with() {
    let member = member_with(&[permission(Type::Readwrite, b"b", b"d")]);
    for (key, range_end) in [(&b"c"[..], &b"a"[..]), (b"c", b"c"), (b"b", b"\0\0")] {
        assert!(member.may_read("alice", key, range_end) && member.may_write("alice", key, range_end));
    }
    for (key, range_end) in [(&b"d"[..], &b"c"[..]), (b"z", b"b"), (b"a", b"a")] {
        assert!(!member.may_read("alice", key, range_end) && !member.may_write("alice", key, range_end));
    }
}

#[test]
fn an_empty_key_is_nobodys() {
    let member = member_with(&[permission(Type::Readwrite, b"\0", b"\0")]);
    for range_end in [&b""[..], b"\0", b"z"] {
        assert!(!member.may_read("alice", b"", range_end) && !member.may_write("alice", b"", range_end));
    }
}
