//! How permissions add up, inside a role and across roles.

use super::*;

#[test]
fn the_same_range_is_replaced() {
    let mut member = member_with(&[permission(Type::Readwrite, b"a", b"c"), permission(Type::Read, b"a", b"c")]);
    assert_eq!(member.auth.role("work").unwrap().permissions, [permission(Type::Read, b"a", b"c")]);
    assert!(member.may_read("alice", b"a", b"c") && !member.may_write("alice", b"b", b""));
    let before = member.auth.revision();
    let request = grant("work", &permission(Type::Read, b"a", b"c"));
    member.run(|auth, overlay| auth.role_grant_permission(&request, overlay)).unwrap();
    assert_eq!(member.auth.revision(), before + 1, "counts although nothing changed");
}

/// etcd looks only at the first permission of a key, and would keep the right that the last grant took away.
#[test]
fn the_same_range_is_replaced_among_others_from_the_same_key() {
    let member = member_with(&[
        permission(Type::Read, b"a", b"b"),
        permission(Type::Readwrite, b"a", b"c"),
        permission(Type::Read, b"a", b"c"),
    ]);
    let expected = [permission(Type::Read, b"a", b"b"), permission(Type::Read, b"a", b"c")];
    assert_eq!(member.auth.role("work").unwrap().permissions, expected);
    assert!(!member.may_write("alice", b"a", b""));
}

#[test]
fn permissions_are_listed_by_key_then_as_granted() {
    let granted = [(&b"c"[..], &b""[..]), (b"a", b"z"), (b"b", b""), (b"a", b""), (b"a", b"\0")];
    let member = member_with(&granted.map(|(key, range_end)| permission(Type::Read, key, range_end)));
    let listed = [(&b"a"[..], &b"z"[..]), (b"a", b""), (b"a", b"\0"), (b"b", b""), (b"c", b"")];
    let listed = listed.map(|(key, range_end)| permission(Type::Read, key, range_end));
    assert_eq!(member.auth.role("work").unwrap().permissions, listed);
}

#[test]
fn overlapping_and_touching_ranges_are_one() {
    let member = member_with(&[
        permission(Type::Read, b"a", b"d"),
        permission(Type::Read, b"c", b"f"),
        permission(Type::Read, b"f", b"h"),
    ]);
    assert!(member.may_read("alice", b"a", b"h") && member.may_read("alice", b"b", b"g"));
    assert!(!member.may_read("alice", b"a", b"h\0") && !member.may_read("alice", b"h", b""));
}

#[test]
fn a_gap_of_one_key_is_a_gap() {
    let split = [permission(Type::Read, b"a", b"b"), permission(Type::Read, b"b\0", b"c")];
    assert!(!member_with(&split).may_read("alice", b"a", b"c"));
    let filled = [split[0].clone(), permission(Type::Read, b"b", b""), split[1].clone()];
    assert!(member_with(&filled).may_read("alice", b"a", b"c"));
}

#[test]
fn roles_add_up() {
    let mut member = member_with(&[permission(Type::Read, b"a", b"c")]);
    member.role("more", &[permission(Type::Read, b"c", b"e"), permission(Type::Write, b"a", b"")]);
    assert!(!member.may_read("alice", b"a", b"e"));
    member.run(|auth, overlay| auth.user_grant_role(&grant_role("alice", "more"), overlay)).unwrap();
    assert!(member.may_read("alice", b"a", b"e") && member.may_write("alice", b"a", b""));
    member.run(|auth, overlay| auth.user_revoke_role(&revoke_role("alice", "work"), overlay)).unwrap();
    assert!(!member.may_read("alice", b"a", b"") && member.may_read("alice", b"c", b"e"));
}

#[test]
fn read_and_write_do_not_mix() {
    let member = member_with(&[permission(Type::Read, b"r", b""), permission(Type::Write, b"w", b"")]);
    assert!(member.may_read("alice", b"r", b"") && !member.may_write("alice", b"r", b""));
    assert!(member.may_write("alice", b"w", b"") && !member.may_read("alice", b"w", b""));
}

#[test]
fn revoking_one_of_two_overlapping_permissions_leaves_the_other() {
    let mut member = member_with(&[permission(Type::Readwrite, b"a", b"c"), permission(Type::Readwrite, b"b", b"d")]);
    member.run(|auth, overlay| auth.role_revoke_permission(&revoke("work", b"a", b"c"), overlay)).unwrap();
    assert!(member.may_read("alice", b"b", b"d") && !member.may_read("alice", b"a", b""));
}

#[test]
fn a_permission_without_end_reaches_everything_behind() {
    let member = member_with(&[permission(Type::Read, b"k", b"\0"), permission(Type::Read, b"a", b"b")]);
    for (key, range_end) in [(&b"k"[..], &b"\0"[..]), (b"k", b"z"), (b"\xff\xff", b"\0"), (b"m", b"")] {
        assert!(member.may_read("alice", key, range_end));
    }
    for (key, range_end) in [(&b"j"[..], &b"\0"[..]), (b"\0", b"\0"), (b"a", b"\0"), (b"j", b"k")] {
        assert!(!member.may_read("alice", key, range_end));
    }
}

#[test]
fn the_whole_keyspace_is_a_range_like_any_other() {
    let member = member_with(&[permission(Type::Readwrite, b"\0", b"\0")]);
    for (key, range_end) in [(&b"\0"[..], &b"\0"[..]), (b"\0", b""), (b"a", b"b"), (b"\xff", b"\0")] {
        assert!(member.may_read("alice", key, range_end) && member.may_write("alice", key, range_end));
    }
    assert_eq!(member.check("alice", Access::Admin), Err(Rejection::PermissionDenied), "but not the role root");
}

#[test]
fn a_type_of_a_newer_release_grants_nothing() {
    let mut unknown = permission(Type::Read, b"k", b"");
    unknown.perm_type = 7;
    let member = member_with(&[unknown]);
    assert!(!member.may_read("alice", b"k", b"") && !member.may_write("alice", b"k", b""));
}
