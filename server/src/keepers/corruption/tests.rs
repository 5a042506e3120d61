//! Who is blamed, and who may enter.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::peer::HashAnswer;

use super::remember::Remembered;
use super::stands_aside;
use super::verdict::{Asked, Bound, Entry, Verdict, WHOLE_CLUSTER, judge, may_enter};

const OWN: u64 = 1;

fn hash(hash: u32) -> HashAnswer {
    HashAnswer { hash, compacted: 3, newest: 9, contradiction: String::new() }
}

fn said(hash_is: u32) -> Asked {
    Ok(hash(hash_is))
}

fn silent() -> Asked {
    Err("no answer".into())
}

fn compacted(to: i64, hash_is: u32) -> Asked {
    Ok(HashAnswer { compacted: to, ..hash(hash_is) })
}

/// The own answer, and those of members 2, 3, ...
fn verdict(own: u32, others: &[Asked]) -> Verdict {
    judge(OWN, &hash(own), &by_id(others), None)
}

fn by_id(others: &[Asked]) -> BTreeMap<u64, Asked> {
    (2..).zip(others.iter().cloned()).collect()
}

fn blamed(own: u32, others: &[Asked]) -> Vec<u64> {
    verdict(own, others).blamed.into_iter().collect()
}

#[test]
fn the_same_hash_everywhere_blames_nobody() {
    let all = verdict(5, &[said(5), said(5)]);
    assert_eq!((all.blamed.len(), all.compared, all.skipped.len()), (0, 2, 0));
    assert!(blamed(5, &[]).is_empty());
}

#[test]
fn the_minority_is_blamed_and_the_one_that_asks_is_no_better_than_others() {
    assert_eq!(blamed(5, &[said(6), said(5)]), [2]);
    assert_eq!(blamed(6, &[said(5), said(5)]), [OWN]);
    assert_eq!(blamed(5, &[said(5), said(6), said(7), said(5)]), [3, 4]);
    assert_eq!(blamed(7, &[said(5), said(5), said(6), said(5)]), [OWN, 4]);
}

#[test]
fn without_a_majority_of_all_members_the_whole_cluster_is_named() {
    assert_eq!(blamed(5, &[said(6)]), [WHOLE_CLUSTER]);
    assert_eq!(blamed(5, &[said(6), said(7)]), [WHOLE_CLUSTER]);
    assert_eq!(blamed(5, &[said(6), silent()]), [WHOLE_CLUSTER], "two of three is a majority of members, one is not");
    assert_eq!(blamed(5, &[said(5), said(6), said(6)]), [WHOLE_CLUSTER]);
    assert_eq!(blamed(5, &[said(5), said(6), silent(), silent()]), [WHOLE_CLUSTER]);
    assert_eq!(blamed(5, &[said(5), said(6), said(5), silent()]), [3]);
}

#[test]
fn who_does_not_answer_is_neither_blamed_nor_passed() {
    let verdict = verdict(5, &[silent(), said(5), silent()]);
    assert_eq!((verdict.blamed.len(), verdict.compared), (0, 1));
    assert_eq!(verdict.skipped, [(2, "no answer".to_owned()), (4, "no answer".to_owned())]);
    let alone = judge(OWN, &hash(5), &by_id(&[silent(), silent()]), None);
    assert_eq!((alone.blamed.len(), alone.compared, alone.skipped.len()), (0, 0, 2));
}

#[test]
fn hashes_under_different_compactions_are_not_compared() {
    let verdict = verdict(5, &[compacted(4, 6), compacted(2, 7), said(5)]);
    assert_eq!((verdict.blamed.len(), verdict.compared, verdict.skipped.len()), (0, 1, 2));
    assert!(verdict.compacted_meanwhile);
    assert!(!super::verdict::judge(OWN, &hash(5), &by_id(&[silent()]), None).compacted_meanwhile);
}

#[test]
fn who_contradicts_itself_is_blamed_whatever_its_hash() {
    let damaged = || Ok(HashAnswer { contradiction: "a key".into(), ..hash(5) });
    assert_eq!(blamed(5, &[damaged(), said(5)]), [2]);
    assert_eq!(blamed(5, &[damaged(), said(6)]), [2, 3], "its log of changes is as good as its hash");
    assert_eq!(blamed(5, &[damaged()]), [2]);
    let own = HashAnswer { contradiction: "a key".into(), ..hash(5) };
    assert_eq!(judge(OWN, &own, &by_id(&[said(5), silent()]), None).blamed, BTreeSet::from([OWN]));
}

#[test]
fn nobody_may_be_ahead_of_the_cluster() {
    let bound = |newest, compacted| Some(Bound { newest, compacted });
    let others = by_id(&[Ok(HashAnswer { newest: 12, ..hash(5) }), compacted(7, 5)]);
    assert_eq!(judge(OWN, &hash(5), &others, bound(12, 7)).blamed, BTreeSet::new());
    assert_eq!(judge(OWN, &hash(5), &others, bound(11, 7)).blamed, BTreeSet::from([2]));
    assert_eq!(judge(OWN, &hash(5), &others, bound(12, 6)).blamed, BTreeSet::from([3]));
    assert_eq!(judge(OWN, &hash(5), &others, None).blamed, BTreeSet::new());
}

#[test]
fn a_member_enters_with_a_majority_and_not_against_one() {
    let voters = |count: u64| (1..=count).collect::<BTreeSet<u64>>();
    let enters = |own, others: &[Asked], voters: &BTreeSet<u64>| may_enter(OWN, &hash(own), &by_id(others), voters);
    assert_eq!(enters(5, &[], &voters(1)), Entry::Agrees);
    assert_eq!(enters(5, &[said(5), silent()], &voters(3)), Entry::Agrees);
    assert_eq!(enters(5, &[said(5), said(6)], &voters(3)), Entry::Agrees, "the other one is the one");
    assert_eq!(enters(6, &[said(5), said(5)], &voters(3)), Entry::Differs);
    assert_eq!(enters(6, &[said(5), silent()], &voters(3)), Entry::Differs);
    assert_eq!(enters(6, &[said(5)], &voters(2)), Entry::Differs);
    assert_eq!(enters(5, &[silent(), silent()], &voters(3)), Entry::Unknown, "an error is no pass");
    assert_eq!(enters(5, &[compacted(4, 6), silent()], &voters(3)), Entry::Unknown);
    // A learner is let in by voters alone.
    let learner = BTreeSet::from([2, 3, 4]);
    assert_eq!(enters(5, &[said(5), said(5), silent()], &learner), Entry::Agrees);
    assert_eq!(enters(5, &[said(5), silent(), silent()], &learner), Entry::Unknown);
    let damaged = HashAnswer { contradiction: "a key".into(), ..hash(5) };
    assert_eq!(may_enter(OWN, &damaged, &by_id(&[said(5), said(5)]), &voters(3)), Entry::Differs);
}

#[test]
fn who_is_blamed_stands_aside_while_somebody_else_may_lead() {
    let voters = BTreeSet::from([1, 2, 3]);
    let aside = |corrupt: &[u64]| stands_aside(OWN, &voters, &corrupt.iter().copied().collect());
    assert!(aside(&[OWN]) && aside(&[OWN, 2]));
    assert!(!aside(&[]) && !aside(&[2]) && !aside(&[WHOLE_CLUSTER]));
    assert!(!aside(&[1, 2, 3]), "somebody has to lead, for the alarm to be taken back");
    assert!(!stands_aside(OWN, &BTreeSet::from([OWN]), &BTreeSet::from([OWN])));
}

#[test]
fn the_newest_hashes_are_remembered_and_given_newest_first() {
    let mut remembered = Remembered::default();
    for revision in [30, 10, 20] {
        remembered.insert(revision, hash(u32::try_from(revision).unwrap()));
    }
    let revisions = |remembered: &Remembered, after| -> Vec<i64> {
        remembered.newer_than(after).into_iter().map(|(revision, _)| revision).collect()
    };
    assert_eq!(revisions(&remembered, -1), [30, 20, 10]);
    assert_eq!(revisions(&remembered, 20), [30]);
    assert!(revisions(&remembered, 30).is_empty());
    (100..200).for_each(|revision| remembered.insert(revision, hash(0)));
    assert_eq!(remembered.get(30), None);
    assert_eq!(revisions(&remembered, -1), (190..200).rev().collect::<Vec<_>>());
}
