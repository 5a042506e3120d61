//! Histories that are right, and histories that are broken in one place: the checker must tell them apart.

use quorate_proto::mvccpb::KeyValue;

use super::*;

fn put(key: &str, value: &str, revision: Option<i64>, invoked: u64, completed: u64) -> Operation {
    let outcome = revision.map_or(Outcome::Unknown, |revision| Outcome::Acknowledged { revision, worked: true });
    Operation {
        value: value.into(),
        effect: Effect::Put { keys: vec![key.into()], lease: 0 },
        guard: None,
        invoked,
        completed: revision.map(|_| completed),
        outcome,
    }
}

fn delete(from: &str, until: &str, revision: Option<i64>, time: u64) -> Operation {
    let outcome = revision.map_or(Outcome::Unknown, |revision| Outcome::Acknowledged { revision, worked: true });
    let effect = Effect::Delete { from: from.into(), until: until.into() };
    let completed = revision.map(|_| time + 1);
    Operation { value: format!("delete at {time}"), effect, guard: None, invoked: time, completed, outcome }
}

/// The change of a put, with what it replaced.
fn change(key: &str, value: &str, revision: i64, before: Option<&KeyValue>) -> Change {
    let (create_revision, version) = before.map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
    let kv = KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision,
        mod_revision: revision,
        version,
        lease: 0,
    };
    Change { revision, deletion: false, kv, prev_kv: before.cloned() }
}

fn deletion(key: &str, revision: i64, before: &KeyValue) -> Change {
    let kv = KeyValue { key: key.to_owned().into(), mod_revision: revision, ..Default::default() };
    Change { revision, deletion: true, kv, prev_kv: Some(before.clone()) }
}

fn check(operations: Vec<Operation>, changes: &[Change]) -> Result<usize> {
    let mut model = Model::default();
    model.invoked(operations);
    model.check(changes.to_vec())
}

fn right() -> (Vec<Operation>, Vec<Change>) {
    let first = change("a", "1", 2, None);
    let second = change("a", "2", 3, Some(&first.kv));
    let third = change("b", "3", 4, None);
    let gone = deletion("a", 5, &second.kv);
    let operations = vec![
        put("a", "1", Some(2), 0, 10),
        put("a", "2", Some(3), 11, 20),
        put("b", "3", None, 15, 0),
        delete("a", "b", Some(5), 30),
        put("c", "never", None, 31, 0),
    ];
    (operations, vec![first, second, third, gone])
}

#[test]
fn a_right_history_passes_and_unknown_writes_are_counted_where_they_happened() {
    let (operations, changes) = right();
    assert_eq!(check(operations, &changes).unwrap(), 1);
}

#[test]
fn an_acknowledged_write_that_is_lost_is_found() {
    let (operations, mut changes) = right();
    changes.truncate(3);
    assert!(check(operations, &changes).unwrap_err().to_string().contains("lost"));
}

#[test]
fn a_write_that_happened_twice_is_found() {
    let (operations, mut changes) = right();
    let again = change("b", "3", 6, Some(&changes[2].kv));
    changes.push(again);
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_write_that_nobody_asked_for_is_found() {
    let (operations, mut changes) = right();
    changes.push(change("x", "phantom", 6, None));
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_refused_write_that_happened_is_found() {
    let (mut operations, mut changes) = right();
    operations[4].outcome = Outcome::Refused;
    changes.push(change("c", "never", 6, None));
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_hole_in_the_revisions_is_found() {
    let (operations, mut changes) = right();
    changes.remove(2);
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_wrong_previous_value_is_found() {
    let (operations, mut changes) = right();
    changes[1].prev_kv = None;
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_wrong_version_is_found() {
    let (operations, mut changes) = right();
    changes[1].kv.version = 1;
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_write_with_the_revision_of_another_is_found() {
    let (mut operations, changes) = right();
    operations[0].outcome = Outcome::Acknowledged { revision: 3, worked: true };
    operations[1].outcome = Outcome::Acknowledged { revision: 2, worked: true };
    assert!(check(operations, &changes).is_err());
}

#[test]
fn revisions_against_real_time_are_found() {
    let (mut operations, changes) = right();
    // The second was answered before the first was asked, and has the greater revision.
    (operations[0].invoked, operations[0].completed) = (50, Some(60));
    assert!(check(operations, &changes).unwrap_err().to_string().contains("before it was asked"));
}

#[test]
fn a_guard_that_did_not_hold_is_found() {
    let (mut operations, changes) = right();
    operations[1].guard = Some(("a".into(), 99));
    assert!(check(operations, &changes).is_err());
}

#[test]
fn half_a_transaction_is_found() {
    let (mut operations, changes) = right();
    operations[0].effect = Effect::Put { keys: vec!["a".into(), "b".into()], lease: 0 };
    assert!(check(operations, &changes).is_err());
}

#[test]
fn a_delete_that_left_a_key_is_found() {
    let (mut operations, changes) = right();
    operations[3].effect = Effect::Delete { from: "a".into(), until: "c".into() };
    assert!(check(operations, &changes).is_err());
}

#[test]
fn contents_that_differ_from_history_are_found() {
    let (operations, changes) = right();
    let mut model = Model::default();
    model.invoked(operations);
    model.check(changes.clone()).unwrap();
    assert!(model.check_contents(&[changes[2].kv.clone()]).is_ok());
    assert!(model.check_contents(&[]).is_err());
    assert!(model.check_contents(&[changes[2].kv.clone(), changes[1].kv.clone()]).is_err());
}

#[test]
fn what_is_forgotten_does_not_change_the_hash() {
    // One revision with two keys, of which the first stands and the second was changed and then deleted.
    let a = change("a", "1", 2, None);
    let b = change("b", "1", 2, None);
    let b_again = change("b", "2", 3, Some(&b.kv));
    let b_gone = deletion("b", 4, &b_again.kv);
    let c = change("c", "4", 5, None);
    let changes = vec![a, b, b_again, b_gone, c];
    let both = Operation {
        effect: Effect::Put { keys: vec!["a".into(), "b".into()], lease: 0 },
        ..put("a", "1", Some(2), 0, 1)
    };
    let operations =
        vec![both, put("b", "2", Some(3), 2, 3), delete("b", "c", Some(4), 4), put("c", "4", Some(5), 6, 7)];
    let mut model = Model::default();
    model.invoked(operations);
    model.check(changes.clone()).unwrap();
    for compacted in 0..=5 {
        model.forget(compacted);
        assert_eq!(
            crate::interrupt::hashkv::hash(&model.history, compacted, 5),
            crate::interrupt::hashkv::hash(&changes, compacted, 5),
            "compacted at {compacted}"
        );
    }
    assert_eq!(model.history.len(), 3, "{:?}", model.history);
}
