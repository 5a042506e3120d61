//! What a member can find of damage that its disk does not see: rows that are whole, and wrong.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use bytes::Bytes;
use quorate_proto::log::{DowngradeInfoSet, proposal::Command};
use quorate_store::engine::{Batch, Engine, Family};
use quorate_store::keys::{self, ChangeRecord, HeadRecord, HeadValue};
use quorate_store::{Response, Revision};

use support::build::{Member, c_compact, c_delete, c_put, put};

mod support;

fn member() -> Member {
    let mut member = Member::new();
    let large = "v".repeat(keys::INLINE_VALUE_BYTES_MAX + 1);
    let commands = [c_put(put("a", "1")), c_put(put("a", "2")), c_put(put("b", &large)), c_put(put("c", "1"))];
    member.apply_all(commands.into());
    member.ok(c_delete("c", ""));
    member
}

fn write(member: &Member, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::default();
    change(&mut batch);
    member.engine.write(batch).unwrap();
}

fn head(member: &Member, key: &str) -> HeadRecord {
    HeadRecord::decode(member.engine.get(Family::Heads, key.as_bytes()).unwrap().unwrap()).unwrap()
}

#[test]
fn what_is_as_it_was_written_does_not_contradict_itself() {
    let mut member = member();
    assert_eq!(member.view().contradiction().unwrap(), None);
    member.ok(c_compact(6));
    assert_eq!(member.view().contradiction().unwrap(), None);
    member.walk();
    assert_eq!(member.view().contradiction().unwrap(), None);
}

#[test]
fn a_newest_version_that_its_change_does_not_confirm_is_found() {
    type Alter = fn(&mut HeadRecord);
    let alterations: [(&str, Alter, &str); 6] = [
        ("a", |head| head.value = HeadValue::Inline(Bytes::from_static(b"3")), "has another value"),
        ("a", |head| head.value = HeadValue::Deleted, "has another value"),
        ("b", |head| head.value = HeadValue::Elsewhere { bytes: 7 }, "has another value"),
        ("c", |head| head.value = HeadValue::Inline(Bytes::new()), "has another value"),
        ("a", |head| head.version = 9, "has another version or lease"),
        ("a", |head| head.modified = Revision::new(4, 0), "is of another key"),
    ];
    for (key, alter, says) in alterations {
        let member = member();
        let mut altered = head(&member, key);
        alter(&mut altered);
        write(&member, |batch| batch.put(Family::Heads, key, altered.encode()));
        let found = member.view().contradiction().unwrap().unwrap();
        assert!(found.contains(says) && found.contains(&format!("{key:?}")), "{key}: {found}");
    }
    let member = member();
    write(&member, |batch| batch.delete(Family::Revisions, keys::revision_key(head(&member, "b").modified)));
    assert!(member.view().contradiction().unwrap().unwrap().contains("is not there"));
}

#[test]
fn a_hash_tells_two_histories_apart_by_one_value() {
    let (whole, altered) = (member(), member());
    let at = head(&altered, "a").modified;
    let row = altered.engine.get(Family::Revisions, &keys::revision_key(at)).unwrap().unwrap();
    let change = ChangeRecord { value: Some(Bytes::from_static(b"3")), ..ChangeRecord::decode(row).unwrap() };
    assert_eq!(whole.view().hash_kv(0).unwrap(), altered.view().hash_kv(0).unwrap());
    write(&altered, |batch| batch.put(Family::Revisions, keys::revision_key(at), change.encode()));
    assert_ne!(whole.view().hash_kv(0).unwrap().hash, altered.view().hash_kv(0).unwrap().hash);
    let before = at.main - 1;
    assert_eq!(whole.view().hash_kv(before).unwrap(), altered.view().hash_kv(before).unwrap());
}

#[test]
fn a_downgrade_is_kept_over_a_crash_until_it_is_taken_back() {
    let mut member = Member::new();
    let set = |enabled| Command::DowngradeInfoSet(DowngradeInfoSet { enabled, version: "3.6.0".into() });
    for (enabled, leads_to) in [(true, Some("3.6.0")), (true, Some("3.6.0")), (false, None), (false, None)] {
        assert_eq!(member.ok(set(enabled)), Response::DowngradeInfoSet);
        assert_eq!(member.store.reader().downgrade().as_deref(), leads_to);
        member.flush();
        member.crash();
        assert_eq!(member.store.reader().downgrade().as_deref(), leads_to, "after a crash");
    }
}
