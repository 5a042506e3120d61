//! How requests come in, wait together, are refused and given up: the member's node, from outside.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::log::proposal::Command;
use quorate_server::node::limits::{PROPOSALS_IN_FLIGHT_MAX, PROPOSALS_PER_ENTRY_MAX};
use quorate_server::node::{Consistency, RequestError};
use quorate_store::{Rejection, Response};
use support::client::{Client, op_delete, op_put, put, says};
use support::clock::{jump, still, until};
use support::member::{Member, Place};
use tonic::Code;

fn revision(response: &Response) -> i64 {
    match response {
        Response::Put(put) => put.header.as_ref().unwrap().revision,
        other => panic!("{other:?}"),
    }
}

async fn all_given_back(member: &Member) {
    until("every place is free", || member.node.proposals_pending() == 0).await;
}

#[tokio::test]
async fn many_proposals_become_few_log_entries() {
    let member = Place::memory().start().await;
    let before = member.raft.applied().index;
    let puts = (0..5_000).map(|n| {
        let member = &member;
        async move { revision(&member.put(&format!("k{n}"), "v").await.unwrap()) }
    });
    let mut revisions = join_all(puts).await;
    let entries = member.raft.applied().index - before;
    assert!(entries as usize <= 5_000 / PROPOSALS_PER_ENTRY_MAX + 2, "{entries} entries");
    revisions.sort_unstable();
    assert!(revisions.into_iter().eq(2..5_002), "every put has a revision of its own");
    member.stop().await;
}

#[tokio::test]
async fn an_entry_is_bounded_in_bytes() {
    let member = Place::memory().start().await;
    let before = member.raft.applied().index;
    let value = "x".repeat(1 << 20);
    join_all((0..10).map(|n| member.put(["a", "b"][n % 2], &value))).await;
    let entries = member.raft.applied().index - before;
    assert!((4..=10).contains(&entries), "{entries} entries of 4 MiB at most");
    member.stop().await;
}

#[tokio::test]
async fn reads_that_wait_share_a_round_and_a_view() {
    let member = Place::memory().start().await;
    let reads = (0..1_000).map(|_| member.node.read_view(Consistency::Linearizable));
    let views = join_all(reads).await;
    let mut different: Vec<_> = views.into_iter().map(Result::unwrap).collect();
    different.dedup_by(|a, b| Arc::ptr_eq(a, b));
    assert!(different.len() <= 2, "{} views", different.len());
    member.stop().await;
}

#[tokio::test]
async fn a_linearizable_read_waits_for_what_is_committed_and_a_serializable_one_does_not() {
    let place = Place::memory();
    let member = place.start().await;
    member.put("k", "1").await.unwrap();
    place.engine().close();
    let writing = tokio::spawn({
        let client = member.client.clone();
        async move { client.put("k", "2").await }
    });
    until("the put is in the log", || member.raft.status().committed_index > member.raft.applied().index).await;
    let node = member.node.clone();
    let reading = tokio::spawn(async move { node.read_view(Consistency::Linearizable).await.unwrap().revision() });
    assert_eq!(member.node.read_view(Consistency::Serializable).await.unwrap().revision(), 2);
    still("the read waits", || !reading.is_finished()).await;
    place.engine().open();
    assert_eq!(writing.await.unwrap().unwrap(), 3);
    assert_eq!(reading.await.unwrap(), 3);
    member.stop().await;
}

/// What every client saw of the register `key`: (revision, value), which must be one history.
#[derive(Default)]
struct History {
    acked: AtomicI64,
    begun: AtomicI64,
    values: Mutex<BTreeMap<i64, String>>,
}

impl History {
    fn saw(&self, revision: i64, value: String) {
        let mut values = self.values.lock().unwrap();
        let known = values.entry(revision).or_insert_with(|| value.clone());
        assert_eq!(*known, value, "two values at revision {revision}");
    }

    async fn write(&self, client: &Client, value: String) {
        let before = self.acked.load(Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        let revision = client.put("key", &value).await.unwrap();
        assert!(revision > before, "revision {revision} after {before} was acknowledged");
        self.acked.fetch_max(revision, Ordering::SeqCst);
        self.saw(revision, value);
    }

    async fn read(&self, client: &Client) {
        let before = self.acked.load(Ordering::SeqCst);
        let answer = client.all().await.unwrap();
        let revision = answer.header.unwrap().revision;
        let most = 1 + self.begun.load(Ordering::SeqCst);
        assert!((before..=most).contains(&revision), "read {revision}, acknowledged {before}, possible {most}");
        let kv = &answer.kvs[0];
        assert_eq!(kv.mod_revision, revision, "this key alone is written");
        self.acked.fetch_max(revision, Ordering::SeqCst);
        self.saw(revision, String::from_utf8(kv.value.to_vec()).unwrap());
    }
}

/// As `--worker-threads` may say; most members have one.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_read_sees_less_than_was_acknowledged_before_it() {
    let member = Place::rocks().start().await;
    let history = Arc::new(History::default());
    history.write(&member.client, "first".into()).await;
    let tasks = (0..24).map(|task| {
        let (history, client) = (history.clone(), member.client.clone());
        tokio::spawn(async move {
            for n in 0..150 {
                match task % 3 {
                    0 => history.write(&client, format!("{task}/{n}")).await,
                    _ => history.read(&client).await,
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let seen = history.values.lock().unwrap().len();
    assert!(seen >= 8 * 150, "{seen}");
    member.stop().await;
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_with_etcds_error() {
    let member = Place::memory().with(|settings| settings.request_bytes_max = 10_000).start().await;
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    let before = member.client.revision().await;
    assert_eq!(says(member.client.put("k", &"x".repeat(10_001)).await), too_large);
    let ops = (0..20).map(|n| op_put(&format!("k{n}"), &"x".repeat(600), 0)).collect();
    assert_eq!(says(member.client.txn(ops).await), too_large);
    assert_eq!((member.client.revision().await, member.node.proposals_pending()), (before, 0));
    member.client.put("k", &"x".repeat(9_900)).await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn the_limit_of_clients_requests_does_not_bind_the_cluster_itself() {
    let member = Place::memory().with(|settings| settings.request_bytes_max = 100).start().await;
    for id in 1..=200 {
        member.client.grant(id, 60).await.unwrap();
    }
    jump(60).await;
    until("all of them have ended", || member.leases.is_empty()).await;
    member.stop().await;
}

#[tokio::test]
async fn no_flag_lets_in_what_the_log_cannot_take() {
    let member = Place::memory().with(|settings| settings.request_bytes_max = 100 << 20).start().await;
    let huge = "x".repeat(70 << 20);
    assert_eq!(member.put("k", &huge).await, Err(RequestError::TooLarge));
    member.put("k", &huge[..40 << 20]).await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn too_many_requests_are_refused_and_nothing_of_them_is_kept() {
    let place = Place::memory();
    let member = place.start().await;
    place.engine().close();
    let flood: Vec<_> = (0..PROPOSALS_IN_FLIGHT_MAX)
        .map(|_| {
            let (node, put) = (member.node.clone(), put("k", "v", 0));
            tokio::spawn(async move { node.propose(&Default::default(), Command::Put(put)).await })
        })
        .collect();
    until("every place is taken", || member.node.proposals_pending() == PROPOSALS_IN_FLIGHT_MAX).await;
    for _ in 0..1_000 {
        assert_eq!(member.put("k", "w").await, Err(RequestError::TooManyRequests));
    }
    let refused = says(member.client.put("k", "w").await);
    assert_eq!(refused, (Code::Unknown, "etcdserver: too many requests".into()));
    place.engine().open();
    let last = join_all(flood).await.into_iter().map(|put| revision(&put.unwrap().unwrap())).max().unwrap();
    assert_eq!(last as u64, 1 + PROPOSALS_IN_FLIGHT_MAX, "each of those let in was executed, no other");
    all_given_back(&member).await;
    assert_eq!(revision(&member.put("k", "w").await.unwrap()), last + 1);
    member.stop().await;
}

#[tokio::test]
async fn callers_that_go_away_leave_nothing_behind() {
    let place = Place::memory();
    let member = place.start().await;
    member.put("k", "v").await.unwrap();
    place.engine().close();
    for _ in 0..5 {
        let puts = join_all((0..200).map(|n| member.put(["a", "b"][n % 2], "v")));
        let reads = join_all((0..200).map(|_| member.node.read_view(Consistency::Linearizable)));
        let confirmations = join_all((0..200).map(|_| member.node.confirm_leadership()));
        let gone = tokio::time::timeout(Duration::from_millis(5), futures::future::join3(puts, reads, confirmations));
        assert!(gone.await.is_err());
    }
    place.engine().open();
    all_given_back(&member).await;
    assert_eq!(member.put("k", "w").await.map(|_| ()), Ok(()));
    assert!(member.node.read_view(Consistency::Linearizable).await.is_ok());
    member.stop().await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_may_have_been_executed() {
    let place = Place::memory();
    let member = place.start().await;
    place.engine().close();
    let client = member.client.clone();
    let writing = tokio::spawn(async move { client.put("k", "v").await });
    until("the put is in the log", || member.raft.status().committed_index > member.raft.applied().index).await;
    let client = member.client.clone();
    let reading = tokio::spawn(async move { client.get("k").await });
    still("both wait", || !writing.is_finished() && !reading.is_finished()).await;
    jump(7).await;
    let timed_out = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!(says(writing.await.unwrap()), timed_out);
    assert_eq!(says(reading.await.unwrap()), timed_out);
    assert_eq!(member.node.proposals_pending(), 1, "its place is taken as long as it may be executed");
    place.engine().open();
    all_given_back(&member).await;
    assert_eq!(member.client.get("k").await.unwrap(), Some(("v".into(), 2)));
    member.stop().await;
}

#[tokio::test]
async fn a_member_that_stops_answers_who_waits() {
    let place = Place::memory();
    let member = place.start().await;
    let node = member.node.clone();
    member.stop().await;
    let put = node.propose(&Default::default(), Command::Put(put("k", "v", 0))).await;
    assert_eq!(put, Err(RequestError::Stopped));
    assert!(matches!(node.read_view(Consistency::Linearizable).await, Err(RequestError::Stopped)));
    assert_eq!(node.confirm_leadership().await, Err(RequestError::Stopped));
}

#[tokio::test]
async fn above_the_quota_the_alarm_is_raised_and_only_what_takes_no_space_passes() {
    let member = Place::memory().with(|settings| settings.quota_bytes = Some(20_000)).start().await;
    let client = &member.client;
    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    let mut keys = 0;
    let refused = loop {
        match client.put(&format!("k{keys:03}"), &"x".repeat(500)).await {
            Ok(_) => keys += 1,
            Err(error) => break says::<()>(Err(error)),
        }
    };
    assert_eq!(refused, no_space);
    assert!((20..40).contains(&keys), "{keys} keys");
    let raised = client.alarms(AlarmAction::Get).await;
    let member_id = member.node.identity().member_id;
    assert_eq!(raised, [pb::AlarmMember { member_id, alarm: pb::AlarmType::Nospace.into() }]);

    assert_eq!(says(client.put("small", "").await), no_space);
    assert_eq!(says(client.grant(7, 60).await), no_space);
    assert_eq!(says(client.txn(vec![op_put("small", "", 0)]).await), no_space);
    client.get("k000").await.unwrap().unwrap();
    client.txn(vec![op_delete("k000")]).await.unwrap();
    let mut revision = client.revision().await;
    for key in 1..keys {
        revision = client.delete(&format!("k{key:03}")).await.unwrap().header.unwrap().revision;
    }
    client.compact(revision).await.unwrap();
    assert_eq!(says(client.put("small", "").await), no_space, "until the alarm is disarmed");
    client.set_alarm(false, member_id, pb::AlarmType::Nospace).await.unwrap();
    assert!(client.alarms(AlarmAction::Get).await.is_empty());
    client.put("small", "").await.unwrap();
    client.grant(7, 60).await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_quota_that_is_off_refuses_nothing() {
    let member = Place::memory().start().await;
    for n in 0..50 {
        member.client.put(&format!("k{n}"), &"x".repeat(100_000)).await.unwrap();
    }
    assert!(member.client.alarms(AlarmAction::Get).await.is_empty());
    member.stop().await;
}

#[tokio::test]
async fn a_corrupt_member_refuses_changes_until_it_is_disarmed() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.put("k", "v").await.unwrap();
    client.grant(7, 60).await.unwrap();
    let member_id = member.node.identity().member_id;
    client.set_alarm(true, member_id, pb::AlarmType::Corrupt).await.unwrap();
    let corrupt = (Code::DataLoss, "etcdserver: corrupt cluster".to_owned());
    assert_eq!(says(client.put("k", "w").await), corrupt);
    assert_eq!(says(client.delete("k").await), corrupt);
    jump(60).await;
    still("a lease does not end where nothing may change", || member.leases.len() == 1).await;
    client.set_alarm(false, member_id, pb::AlarmType::Corrupt).await.unwrap();
    jump(1).await;
    until("the lease has ended", || member.leases.is_empty()).await;
    client.put("k", "w").await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_rejection_is_the_answer_of_the_log_and_not_an_unknown_outcome() {
    let member = Place::memory().start().await;
    let missing = pb::PutRequest { lease: 99, ..put("k", "v", 0) };
    let outcome = member.node.propose(&Default::default(), Command::Put(missing)).await;
    assert_eq!(outcome, Err(RequestError::Rejected(Rejection::LeaseNotFound)));
    assert!(!outcome.unwrap_err().may_have_been_executed());
    member.stop().await;
}
