//! Every command, every rejection, and where the revision moves.

use super::*;

#[test]
fn a_new_state_is_off_and_at_revision_1() {
    let auth = AuthState::load(&Disk::default()).unwrap();
    assert_eq!(auth, AuthState::new());
    assert_eq!((auth.is_enabled(), auth.revision()), (false, 1));
    assert_eq!(auth.status(), pb::AuthStatusResponse { header: None, enabled: false, auth_revision: 1 });
}

#[test]
fn enable_wants_root_with_role_root() {
    let mut member = Member::default();
    member.refused(Rejection::RootUserNotExist, AuthState::enable);
    member.user("root", &[]);
    member.refused(Rejection::RootRoleNotExist, AuthState::enable);
    member.run(|auth, overlay| auth.user_grant_role(&grant_role("root", "root"), overlay)).unwrap();
    member.enable();
    assert!(member.auth.is_enabled());
}

#[test]
fn the_switch_moves_the_revision_only_when_it_goes_off() {
    let mut member = Member::default();
    member.user("root", &["root"]);
    assert_eq!(member.auth.revision(), 3);
    member.run(|auth, overlay| auth.disable(overlay));
    assert_eq!(member.auth.revision(), 3, "off already");
    member.enable();
    member.enable();
    assert_eq!(member.auth.revision(), 3);
    member.run(|auth, overlay| auth.disable(overlay));
    assert_eq!(member.auth.revision(), 4);
    assert!(member.auth.user("root").is_some(), "users stay");
}

#[test]
fn user_add_needs_a_new_name() {
    let mut member = Member::default();
    member.refused(Rejection::UserEmpty, |auth, overlay| auth.user_add(&user_add(""), overlay));
    member.user("alice", &[]);
    assert_eq!(member.auth.revision(), 2);
    member.refused(Rejection::UserAlreadyExist, |auth, overlay| auth.user_add(&user_add("alice"), overlay));
    let alice = member.auth.user("alice").unwrap();
    assert_eq!((alice.hashed_password.as_ref(), alice.no_password), (&b"hash"[..], false));
}

#[test]
fn a_user_without_password_never_gets_one() {
    let mut member = Member::default();
    let options = Some(authpb::UserAddOptions { no_password: true });
    let request = pb::AuthUserAddRequest { options, ..user_add("cn") };
    member.run(|auth, overlay| auth.user_add(&request, overlay)).unwrap();
    member.run(|auth, overlay| auth.user_change_password(&change_password("cn", "aGFzaA=="), overlay)).unwrap();
    let user = member.auth.user("cn").unwrap();
    assert!(user.no_password && user.hashed_password.is_empty());
    assert_eq!(member.auth.revision(), 3, "the change counts although it changed nothing");
}

#[test]
fn a_hash_that_is_no_base64_is_refused() {
    let mut member = Member::default();
    let request = pb::AuthUserAddRequest { hashed_password: "!".into(), ..user_add("alice") };
    member.refused(Rejection::InvalidAuthManagement, |auth, overlay| auth.user_add(&request, overlay));
    member.user("alice", &[]);
    let request = change_password("alice", "!");
    member.refused(Rejection::InvalidAuthManagement, |auth, overlay| auth.user_change_password(&request, overlay));
}

#[test]
fn change_password_replaces_the_hash_and_keeps_the_roles() {
    let mut member = Member::default();
    member.role("work", &[]);
    member.user("alice", &["work"]);
    let before = member.auth.revision();
    member.run(|auth, overlay| auth.user_change_password(&change_password("alice", "bmV3"), overlay)).unwrap();
    let alice = member.auth.user("alice").unwrap();
    assert_eq!((alice.hashed_password.as_ref(), &alice.roles[..]), (&b"new"[..], &["work".to_owned()][..]));
    assert_eq!(member.auth.revision(), before + 1);
    let request = change_password("bob", "bmV3");
    member.refused(Rejection::UserNotFound, |auth, overlay| auth.user_change_password(&request, overlay));
}

#[test]
fn root_cannot_be_deleted_while_authentication_is_on() {
    let mut member = member_with(&[]);
    member.role("root", &[]);
    let invalid = Rejection::InvalidAuthManagement;
    member.refused(invalid.clone(), |auth, overlay| auth.user_delete(&user_delete("root"), overlay));
    member.refused(invalid.clone(), |auth, overlay| auth.role_delete(&role_delete("root"), overlay));
    member.refused(invalid, |auth, overlay| auth.user_revoke_role(&revoke_role("root", "root"), overlay));

    member.run(|auth, overlay| auth.disable(overlay));
    member.run(|auth, overlay| auth.user_revoke_role(&revoke_role("root", "root"), overlay)).unwrap();
    member.run(|auth, overlay| auth.role_delete(&role_delete("root"), overlay)).unwrap();
    member.run(|auth, overlay| auth.user_delete(&user_delete("root"), overlay)).unwrap();
    member.refused(Rejection::RootUserNotExist, AuthState::enable);
}

#[test]
fn another_holder_can_lose_the_role_root_while_authentication_is_on() {
    let mut member = member_with(&[]);
    member.run(|auth, overlay| auth.user_grant_role(&grant_role("alice", "root"), overlay)).unwrap();
    assert_eq!(member.check("alice", Access::Admin), Ok(()));
    member.run(|auth, overlay| auth.user_revoke_role(&revoke_role("alice", "root"), overlay)).unwrap();
    assert_eq!(member.check("alice", Access::Admin), Err(Rejection::PermissionDenied));
}

#[test]
fn a_deleted_user_that_comes_back_has_no_roles() {
    let mut member = member_with(&[permission(Type::Read, b"k", b"")]);
    member.run(|auth, overlay| auth.user_delete(&user_delete("alice"), overlay)).unwrap();
    member.refused(Rejection::UserNotFound, |auth, overlay| auth.user_delete(&user_delete("alice"), overlay));
    assert_eq!(member.check("alice", Access::AnyUser), Err(Rejection::PermissionDenied));
    member.user("alice", &[]);
    assert!(!member.may_read("alice", b"k", b""));
}

#[test]
fn grant_role_needs_both_and_counts_once() {
    let mut member = Member::default();
    member.role("work", &[]);
    let request = grant_role("alice", "work");
    member.refused(Rejection::UserNotFound, |auth, overlay| auth.user_grant_role(&request, overlay));
    member.user("alice", &[]);
    let none = grant_role("alice", "none");
    member.refused(Rejection::RoleNotFound, |auth, overlay| auth.user_grant_role(&none, overlay));
    member.run(|auth, overlay| auth.user_grant_role(&request, overlay)).unwrap();
    let before = member.auth.revision();
    member.run(|auth, overlay| auth.user_grant_role(&request, overlay)).unwrap();
    assert_eq!(member.auth.revision(), before, "granted already");
}

#[test]
fn the_role_root_is_granted_without_being_added() {
    let mut member = Member::default();
    member.user("root", &["root"]);
    assert!(member.auth.user("root").unwrap().is_root());
    assert_eq!(member.auth.role_get(&pb::AuthRoleGetRequest { role: "root".into() }), Err(Rejection::RoleNotFound));
    member.refused(Rejection::RoleNotFound, |auth, overlay| auth.role_delete(&role_delete("root"), overlay));
}

#[test]
fn revoke_role_needs_a_granted_one() {
    let mut member = Member::default();
    member.role("work", &[]);
    let request = revoke_role("alice", "work");
    member.refused(Rejection::UserNotFound, |auth, overlay| auth.user_revoke_role(&request, overlay));
    member.user("alice", &[]);
    member.refused(Rejection::RoleNotGranted, |auth, overlay| auth.user_revoke_role(&request, overlay));
    member.run(|auth, overlay| auth.user_grant_role(&grant_role("alice", "work"), overlay)).unwrap();
    member.run(|auth, overlay| auth.user_revoke_role(&request, overlay)).unwrap();
    assert_eq!(member.auth.user("alice").unwrap().roles, Vec::<String>::new());
}

#[test]
fn role_add_needs_a_new_name() {
    let mut member = Member::default();
    member.refused(Rejection::RoleEmpty, |auth, overlay| auth.role_add(&role_add(""), overlay));
    member.role("work", &[]);
    assert_eq!(member.auth.revision(), 2);
    member.refused(Rejection::RoleAlreadyExist, |auth, overlay| auth.role_add(&role_add("work"), overlay));
}

#[test]
fn a_deleted_role_is_taken_from_its_users_in_one_revision() {
    let mut member = member_with(&[permission(Type::Readwrite, b"k", b"")]);
    member.user("bob", &["work"]);
    let before = member.auth.revision();
    member.run(|auth, overlay| auth.role_delete(&role_delete("work"), overlay)).unwrap();
    assert_eq!(member.auth.revision(), before + 1);
    member.refused(Rejection::RoleNotFound, |auth, overlay| auth.role_delete(&role_delete("work"), overlay));
    member.role("work", &[permission(Type::Readwrite, b"k", b"")]);
    for user in ["alice", "bob"] {
        assert!(!member.may_read(user, b"k", b""), "a role of the same name is another role");
    }
}

#[test]
fn grant_permission_refuses_what_names_no_range() {
    let mut member = Member::default();
    let nothing = pb::AuthRoleGrantPermissionRequest { name: "work".into(), perm: None };
    member.refused(Rejection::PermissionNotGiven, |auth, overlay| auth.role_grant_permission(&nothing, overlay));
    for (key, range_end) in
        [(&b""[..], &b""[..]), (b"", b"k"), (b"", b"\0"), (b"b", b"b"), (b"b", b"a"), (b"\0", b"\0a")]
    {
        let request = grant("work", &permission(Type::Read, key, range_end));
        let why = if key == b"\0" { Rejection::RoleNotFound } else { Rejection::InvalidAuthManagement };
        member.refused(why, |auth, overlay| auth.role_grant_permission(&request, overlay));
    }
    member.role(
        "work",
        &[permission(Type::Read, b"a", b""), permission(Type::Read, b"a", b"\0"), permission(Type::Read, b"\0", b"\0")],
    );
}

#[test]
fn revoke_permission_wants_the_exact_range() {
    let mut member = Member::default();
    let request = revoke("work", b"a", b"c");
    member.refused(Rejection::RoleNotFound, |auth, overlay| auth.role_revoke_permission(&request, overlay));
    member.role("work", &[permission(Type::Read, b"a", b"c"), permission(Type::Read, b"a", b"")]);
    for (key, range_end) in [(&b"a"[..], &b"b"[..]), (b"b", b"c"), (b"a", b"\0")] {
        let request = revoke("work", key, range_end);
        let why = Rejection::PermissionNotGranted;
        member.refused(why, |auth, overlay| auth.role_revoke_permission(&request, overlay));
    }
    member.run(|auth, overlay| auth.role_revoke_permission(&request, overlay)).unwrap();
    assert_eq!(member.auth.role("work").unwrap().permissions, [permission(Type::Read, b"a", b"")]);
    member.refused(Rejection::PermissionNotGranted, |auth, overlay| auth.role_revoke_permission(&request, overlay));
}

#[test]
fn lists_are_in_byte_order_and_gets_find_only_what_is_there() {
    let mut member = Member::default();
    for name in ["b", "a", "B", "ä"] {
        member.role(name, &[]);
        member.user(name, &["b", name]);
    }
    let ordered = ["B", "a", "b", "ä"].map(str::to_owned);
    assert_eq!(member.auth.user_list().users, ordered);
    assert_eq!(member.auth.role_list().roles, ordered);
    let user = |name: &str| member.auth.user_get(&pb::AuthUserGetRequest { name: name.into() });
    assert_eq!(user("a").unwrap().roles, ["a", "b"]);
    assert_eq!(user("none"), Err(Rejection::UserNotFound));
    let role = |name: &str| member.auth.role_get(&pb::AuthRoleGetRequest { role: name.into() });
    assert_eq!(role("a").unwrap().perm, []);
    assert_eq!(role("none"), Err(Rejection::RoleNotFound));
}

#[test]
fn the_role_root_shows_everything_whatever_was_granted_to_it() {
    let mut member = Member::default();
    member.role("root", &[permission(Type::Read, b"k", b"")]);
    let shown = member.auth.role_get(&pb::AuthRoleGetRequest { role: "root".into() }).unwrap().perm;
    assert_eq!(shown, [permission(Type::Readwrite, b"", b"\0")]);
}
