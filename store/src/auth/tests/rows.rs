//! What is on disk, and what is refused to be read from it.

use super::*;

const STATE: &[u8] = &[0];

fn disk_with(key: &[u8], record: &[u8]) -> Disk {
    let mut disk = member_with(&[permission(Type::Read, b"k", b"")]).disk;
    disk.rows.insert((Family::Auth, bytes(key)), bytes(record));
    disk
}

#[test]
fn the_layout_is_pinned() {
    let rows = member_with(&[permission(Type::Readwrite, b"k", b"z")]).disk.rows;
    let rows: Vec<(&[u8], &[u8])> = rows.iter().map(|((_, key), record)| (key.as_ref(), record.as_ref())).collect();
    let expected: [(&[u8], &[u8]); 4] = [
        (b"\x00", b"\x01\x07\0\0\0\0\0\0\0"),
        (b"\x01alice", b"\x0a\x05alice\x12\x04hash\x1a\x04work\x22\x00"),
        (b"\x01root", b"\x0a\x04root\x12\x04hash\x1a\x04root\x22\x00"),
        (b"\x02work", b"\x0a\x04work\x12\x08\x08\x02\x12\x01k\x1a\x01z"),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn deleted_rows_are_gone() {
    let mut member = member_with(&[]);
    member.run(|auth, overlay| auth.user_delete(&user_delete("alice"), overlay)).unwrap();
    member.run(|auth, overlay| auth.role_delete(&role_delete("work"), overlay)).unwrap();
    let keys: Vec<&[u8]> = member.disk.rows.keys().map(|(_, key)| key.as_ref()).collect();
    assert_eq!(keys, [STATE, b"\x01root"]);
}

#[test]
fn damage_is_a_fault_and_never_a_right() {
    let damaged: [(&[u8], &[u8]); 13] = [
        (STATE, b""),
        (STATE, b"\x02\x07\0\0\0\0\0\0\0"),
        (STATE, b"\x01\0\0\0\0\0\0\0\0"),
        (STATE, b"\x01\x07\0\0\0\0\0\0\0\0"),
        (b"\x00x", b""),
        (b"\x03", b""),
        (b"", b""),
        (b"\x01alice", b"\x0a\x04root\x1a\x04root"),
        (b"\x01alice", b"\x0a\xff"),
        (b"\x01", b""),
        (b"\x01\xff", b"\x0a\x01\xff"),
        (b"\x01alice", b"\x0a\x05alice\x1a\x01b\x1a\x01a"),
        (b"\x02work", b"\x0a\x04work\x12\x03\x12\x01b\x12\x03\x12\x01a"),
    ];
    for (key, record) in damaged {
        let loaded = AuthState::load(&disk_with(key, record));
        assert!(matches!(loaded, Err(Fault::Data(_))), "{key:?} {record:?}: {loaded:?}");
    }
}

#[test]
fn a_clone_is_not_changed_with_the_original() {
    let mut member = member_with(&[permission(Type::Read, b"k", b"")]);
    let before = member.clone();
    member.run(|auth, overlay| auth.role_revoke_permission(&revoke("work", b"k", b""), overlay)).unwrap();
    assert!(before.may_read("alice", b"k", b"") && !member.may_read("alice", b"k", b""));
}

#[test]
fn attached_keys_are_those_of_one_lease() {
    let mut disk = Disk::default();
    for (lease, key) in [(1, &b"a"[..]), (2, b"b"), (2, b"c"), (3, b"d"), (-1, b"e"), (i64::MAX, b"f")] {
        disk.attach(lease, key);
    }
    let keys = |lease| lease::attached(&disk, lease).unwrap();
    assert_eq!(keys(2), ["b", "c"]);
    assert_eq!(keys(-1), ["e"]);
    assert_eq!(keys(i64::MAX), ["f"]);
    assert_eq!(keys(4), Vec::<Bytes>::new());
}
