//! What went wrong elsewhere, as promises.

use quorate_proto::etcdserverpb::request_op::Request;

use super::*;

const DENIED: Result<(), Rejection> = Err(Rejection::PermissionDenied);

#[test]
fn cve_2026_33413_nothing_answers_who_is_not_a_user() {
    let member = member_with(&[permission(Type::Readwrite, b"k", b"")]);
    for access in [Access::AnyUser, Access::Admin, Access::LeaseWrite(7), Access::LeaseRead(7)] {
        assert_eq!(member.check_at("", 0, access), Err(Rejection::UserEmpty));
        assert_ne!(member.check("gone", access), Ok(()));
    }
    assert_eq!(member.check("alice", Access::Admin), DENIED, "compaction, alarms, members");
}

#[test]
fn cve_2026_33413_an_empty_transaction_does_not_answer_who_is_not_a_user() {
    let member = member_with(&[]);
    for txn in [pb::TxnRequest::default(), nest(pb::TxnRequest::default(), 3)] {
        assert_eq!(member.check_at("", 0, Access::Txn(&txn)), Err(Rejection::UserEmpty));
        assert_eq!(member.check("gone", Access::Txn(&txn)), DENIED);
        assert_eq!(member.check("alice", Access::Txn(&txn)), Ok(()));
    }
}

#[test]
fn cve_2026_33343_a_nested_transaction_is_held_against_rights() {
    let member = member_with(&[permission(Type::Readwrite, b"mine", b"")]);
    for depth in 1..=8 {
        for request in [
            Request::RequestRange(range(b"theirs", b"")),
            Request::RequestPut(put(b"theirs")),
            Request::RequestDeleteRange(delete(b"theirs", b"")),
        ] {
            assert_eq!(member.check("alice", Access::Txn(&nest(succeed(request.clone()), depth))), DENIED);
            assert_eq!(member.check("alice", Access::Txn(&nest(fail(request), depth))), DENIED);
        }
    }
}

#[test]
fn cve_2026_44283_a_put_in_a_transaction_shows_no_previous_value_without_read() {
    let member = member_with(&[permission(Type::Write, b"k", b"")]);
    let request = Request::RequestPut(pb::PutRequest { prev_kv: true, ..put(b"k") });
    for depth in 0..=8 {
        assert_eq!(member.check("alice", Access::Txn(&nest(succeed(request.clone()), depth))), DENIED);
    }
    let request = Request::RequestDeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete(b"k", b"") });
    assert_eq!(member.check("alice", Access::Txn(&succeed(request))), DENIED);
}

#[test]
fn cve_2026_44283_a_put_in_a_transaction_attaches_to_no_lease_of_anothers_keys() {
    let mut member = member_with(&[permission(Type::Readwrite, b"k", b"")]);
    member.disk.attach(7, b"theirs");
    let request = Request::RequestPut(pb::PutRequest { lease: 7, ..put(b"k") });
    for depth in 0..=8 {
        assert_eq!(member.check("alice", Access::Txn(&nest(fail(request.clone()), depth))), DENIED);
    }
}

#[test]
fn ghsa_xg4h_6gfc_h4m8_the_right_to_one_key_watches_one_key() {
    let member = member_with(&[permission(Type::Read, b"k", b"")]);
    let watch = |key, range_end| member.check("alice", Access::Range(&keys_of(key, range_end)));
    assert_eq!(watch(b"k", b""), Ok(()));
    assert_eq!(watch(b"k", b"k\0"), Ok(()));
    for range_end in [&b"\0"[..], b"k\0\0", b"l", b"\xff"] {
        assert_eq!(watch(b"k", range_end), DENIED);
    }
    assert_eq!(keys_of(b"k", b"\0"), KeyRange::AtLeast(bytes(b"k")), "what is checked is what is watched");
}

#[test]
fn cve_2021_28235_no_password_in_clear_is_taken_from_the_log() {
    let mut member = member_with(&[]);
    let invalid = Rejection::InvalidAuthManagement;
    for no_password in [false, true] {
        let options = Some(authpb::UserAddOptions { no_password });
        let request = pb::AuthUserAddRequest { password: "secret".into(), options, ..user_add("bob") };
        member.refused(invalid.clone(), |auth, overlay| auth.user_add(&request, overlay));
    }
    let request =
        pb::AuthUserChangePasswordRequest { password: "secret".into(), ..change_password("alice", "aGFzaA==") };
    member.refused(invalid, |auth, overlay| auth.user_change_password(&request, overlay));
}

#[test]
fn cve_2021_28235_the_text_form_shows_no_hash() {
    let shown = format!("{:?}", member_with(&[]).auth);
    assert!(shown.contains("alice") && !shown.contains("hash"), "{shown}");
}

/// etcd #14571: a new member had no rights cached, denied what the others permitted, and diverged.
#[test]
fn issue_14571_a_member_from_a_snapshot_judges_like_the_others() {
    let member = member_with(&[permission(Type::Write, b"a", b"c"), permission(Type::Write, b"c", b"\0")]);
    let joined = Member { disk: member.disk.clone(), auth: AuthState::load(&member.disk).unwrap() };
    for (user, key) in [("alice", b"b"), ("alice", b"z"), ("alice", b"A"), ("root", b"A"), ("bob", b"b")] {
        let put = put(key);
        assert_eq!(joined.check(user, Access::Put(&put)), member.check(user, Access::Put(&put)));
    }
    assert_eq!(joined.auth, member.auth);
}

/// etcd #11651: members that counted revisions differently judged one entry differently.
#[test]
fn issue_11651_the_revision_after_a_restart_is_the_one_before_it() {
    let mut member = member_with(&[permission(Type::Write, b"k", b"")]);
    let established = member.auth.revision();
    member.auth = AuthState::load(&member.disk).unwrap();
    assert_eq!(member.check_at("alice", established, Access::Put(&put(b"k"))), Ok(()));
    member.run(|auth, overlay| auth.role_add(&role_add("unrelated"), overlay)).unwrap();
    let restarted = AuthState::load(&member.disk).unwrap();
    assert_eq!(restarted.revision(), established + 1);
    let answer = member.check_at("alice", established, Access::Put(&put(b"k")));
    assert_eq!(answer, Err(Rejection::AuthOldRevision));
}

/// Between door and apply: what was established against older rights is refused, whoever is first.
#[test]
fn rights_taken_between_door_and_apply_are_taken() {
    let mut member = member_with(&[permission(Type::Write, b"k", b"")]);
    let established = member.auth.revision();
    assert_eq!(member.check_at("alice", established, Access::Put(&put(b"k"))), Ok(()), "at the door");
    member.run(|auth, overlay| auth.user_revoke_role(&revoke_role("alice", "work"), overlay)).unwrap();
    let applied = member.check_at("alice", established, Access::Put(&put(b"k")));
    assert_eq!(applied, Err(Rejection::AuthOldRevision));
    assert_eq!(member.check("alice", Access::Put(&put(b"k"))), DENIED);
}

#[test]
fn switching_it_off_and_on_leaves_no_old_request_valid() {
    let mut member = member_with(&[permission(Type::Write, b"k", b"")]);
    let established = member.auth.revision();
    member.run(|auth, overlay| auth.disable(overlay));
    member.enable();
    let answer = member.check_at("alice", established, Access::Put(&put(b"k")));
    assert_eq!(answer, Err(Rejection::AuthOldRevision));
    assert_eq!(member.check_at("", 0, Access::Put(&put(b"k"))), Err(Rejection::UserEmpty), "admitted while it was off");
}
