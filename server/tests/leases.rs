//! Leases of a whole member, through gRPC, on a clock that is moved ahead.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::{LeaseExpire, proposal::Command};
use quorate_proto::mvccpb::event::EventType;
use quorate_server::node::RequestError;
use quorate_store::Rejection;
use support::client::{op_delete, op_put, plain, says};
use support::clock::{jump, still, until};
use support::member::Place;
use tonic::Code;

const NOT_FOUND: &str = "etcdserver: requested lease not found";

#[tokio::test]
async fn a_lease_ends_with_its_time_and_its_keys_in_one_revision() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(7, 60).await.unwrap();
    for key in ["c", "a", "b"] {
        client.put_leased(key, "v", 7).await.unwrap();
    }
    let mut watching = client.watch_all(0).await;
    jump(50).await;
    still("the lease is alive", || member.leases.len() == 1).await;
    jump(10).await;
    let gone: Vec<_> = watching.events().await.iter().map(plain).collect();
    let delete = |key: &str| (EventType::Delete, key.to_owned(), 5);
    assert_eq!(gone, [delete("a"), delete("b"), delete("c")]);
    assert_eq!(client.time_to_live(7).await.ttl, -1);
    member.stop().await;
}

#[tokio::test]
async fn a_keep_alive_moves_the_end() {
    let member = Place::memory().start().await;
    member.client.grant(7, 60).await.unwrap();
    let mut stream = member.client.keep_alive().await;
    for _ in 0..10 {
        jump(50).await;
        assert_eq!(stream.renew(7).await, 60);
        assert!(member.client.time_to_live(7).await.ttl > 50);
    }
    jump(60).await;
    until("the lease has ended", || member.leases.is_empty()).await;
    assert_eq!((member.leases.renewed(), member.leases.expired()), (10, 1));
    member.stop().await;
}

#[tokio::test]
async fn a_keep_alive_of_a_revoked_or_unknown_lease_answers_zero_and_the_stream_goes_on() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(7, 60).await.unwrap();
    client.grant(8, 60).await.unwrap();
    let mut stream = client.keep_alive().await;
    assert_eq!(stream.renew(7).await, 60);
    client.revoke(7).await.unwrap();
    assert_eq!(stream.renew(7).await, 0);
    assert_eq!(stream.renew(12_345).await, 0);
    assert_eq!(stream.renew(8).await, 60);
    member.stop().await;
}

#[tokio::test]
async fn a_keep_alive_that_races_an_expiry_waits_for_its_outcome() {
    let place = Place::memory();
    let member = place.start().await;
    member.client.grant(7, 60).await.unwrap();
    place.engine().close();
    jump(60).await;
    until("the expiry is in the log", || member.node.proposals_pending() > 0).await;
    let mut stream = member.client.keep_alive().await;
    stream.ask(7);
    let answer = tokio::spawn(async move { stream.answers.message().await.unwrap().unwrap().ttl });
    still("no answer yet", || !answer.is_finished()).await;
    place.engine().open();
    assert_eq!(answer.await.unwrap(), 0);
    member.stop().await;
}

#[tokio::test]
async fn a_keep_alive_does_not_wait_for_apply() {
    let place = Place::memory();
    let member = place.start().await;
    member.client.grant(7, 60).await.unwrap();
    place.engine().close();
    let client = member.client.clone();
    let put = tokio::spawn(async move { client.put("k", "v").await });
    until("the put waits to be applied", || member.node.proposals_pending() == 1).await;
    assert_eq!(member.client.keep_alive().await.renew(7).await, 60);
    place.engine().open();
    put.await.unwrap().unwrap();
    member.stop().await;
}

#[tokio::test]
async fn an_expiry_of_an_old_term_is_rejected_and_the_lease_lives_on() {
    let member = Place::memory().start().await;
    member.client.grant(7, 60).await.unwrap();
    member.client.put_leased("k", "v", 7).await.unwrap();
    let term = member.raft.status().term;
    for leader_term in [term - 1, term + 1, 0] {
        let expire = Command::LeaseExpire(LeaseExpire { leader_term, ids: vec![7] });
        let outcome = member.node.propose_system(expire).await;
        assert_eq!(outcome, Err(RequestError::Rejected(Rejection::NotLeader)));
    }
    assert_eq!(member.client.time_to_live(7).await.keys, ["k"]);
    let expire = Command::LeaseExpire(LeaseExpire { leader_term: term, ids: vec![7, 99] });
    member.node.propose_system(expire).await.unwrap();
    assert_eq!(member.client.get("k").await.unwrap(), None);
    member.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_leases_and_gives_them_their_time_again_and_an_election_time_out() {
    const ELECTION_SECS: i64 = 40;
    let place = Place::memory().with(|settings| settings.election_timeout = Duration::from_secs(40));
    let member = place.start().await;
    member.client.grant(7, 100).await.unwrap();
    member.client.put_leased("k", "v", 7).await.unwrap();
    jump(90).await;
    assert!(member.client.time_to_live(7).await.ttl <= 10);
    member.stop().await;
    place.engine().crash();
    jump(3_600).await;

    let member = place.start().await;
    let left = || member.leases.time_to_live(7).unwrap().remaining_secs;
    until("the keeper leads", || left() > 100 + ELECTION_SECS - 10).await;
    let lease = member.client.time_to_live(7).await;
    assert_eq!((lease.granted_ttl, lease.keys), (100, vec!["k".into()]));
    jump(130).await;
    still("the lease is alive", || member.leases.len() == 1).await;
    jump(10).await;
    until("the lease has ended", || member.leases.is_empty()).await;
    assert_eq!(member.client.get("k").await.unwrap(), None);
    member.stop().await;
}

#[tokio::test]
async fn a_put_moves_a_key_from_one_lease_to_another() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(1, 60).await.unwrap();
    client.grant(2, 60).await.unwrap();
    client.put_leased("k", "v", 1).await.unwrap();
    client.put_leased("k", "w", 2).await.unwrap();
    assert!(client.time_to_live(1).await.keys.is_empty());
    assert_eq!(client.time_to_live(2).await.keys, ["k"]);
    let revision = client.revision().await;
    assert_eq!(client.revoke(1).await.unwrap(), revision, "a lease without keys changes no revision");
    assert!(client.get("k").await.unwrap().is_some());
    client.revoke(2).await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), None);
    member.stop().await;
}

#[tokio::test]
async fn a_put_with_lease_zero_detaches_and_one_that_ignores_its_lease_does_not() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(1, 60).await.unwrap();
    for key in ["detached", "kept", "deleted"] {
        client.put_leased(key, "v", 1).await.unwrap();
    }
    client.put("detached", "w").await.unwrap();
    let request = pb::PutRequest { ignore_lease: true, ..support::client::put("kept", "w", 0) };
    client.kv.clone().put(request).await.unwrap();
    client.delete("deleted").await.unwrap();
    client.put("deleted", "again").await.unwrap();
    assert_eq!(client.time_to_live(1).await.keys, ["kept"]);
    client.revoke(1).await.unwrap();
    let left: Vec<_> = client.all().await.unwrap().kvs.into_iter().map(|kv| kv.key).collect();
    assert_eq!(left, ["deleted", "detached"]);
    member.stop().await;
}

#[tokio::test]
async fn a_txn_moves_keys_between_leases_and_fails_whole_where_a_lease_is_missing() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(1, 60).await.unwrap();
    client.grant(2, 60).await.unwrap();
    client.txn(vec![op_put("a", "v", 1), op_put("b", "v", 1), op_put("c", "v", 1)]).await.unwrap();
    client.txn(vec![op_put("a", "w", 2), op_put("b", "w", 0), op_delete("c")]).await.unwrap();
    assert!(client.time_to_live(1).await.keys.is_empty());
    assert_eq!(client.time_to_live(2).await.keys, ["a"]);
    let before = client.revision().await;
    let missing = client.txn(vec![op_put("a", "x", 0), op_put("b", "x", 99)]).await;
    assert_eq!(says(missing), (Code::NotFound, NOT_FOUND.into()));
    assert_eq!(says(client.put_leased("a", "x", 99).await), (Code::NotFound, NOT_FOUND.into()));
    assert_eq!((client.revision().await, client.time_to_live(2).await.keys), (before, vec!["a".into()]));
    member.stop().await;
}

#[tokio::test]
async fn a_revoke_deletes_its_keys_sorted_in_one_revision() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(1, 60).await.unwrap();
    let mut keys: Vec<String> = (0..300).map(|n| format!("k{}", (n * 7_919) % 300)).collect();
    for key in &keys {
        client.put_leased(key, "v", 1).await.unwrap();
    }
    let mut watching = client.watch_all(0).await;
    let revision = client.revoke(1).await.unwrap();
    keys.sort();
    let expected: Vec<_> = keys.into_iter().map(|key| (EventType::Delete, key, revision)).collect();
    let gone: Vec<_> = watching.events().await.iter().map(plain).collect();
    assert_eq!(gone, expected);
    assert_eq!(says(client.revoke(1).await), (Code::NotFound, NOT_FOUND.into()));
    member.stop().await;
}

#[tokio::test]
async fn a_short_ttl_is_raised_to_what_an_election_may_take_and_a_long_one_refused() {
    for (election_ms, least) in [(1_000, 2), (100, 1), (1_500, 3), (50_000, 75)] {
        let place = Place::memory().with(|settings| settings.election_timeout = Duration::from_millis(election_ms));
        let member = place.start().await;
        for ttl in [-5, 0, 1, least] {
            assert_eq!(member.client.grant(0, ttl).await.unwrap().ttl, least.max(ttl), "{election_ms} ms");
        }
        assert_eq!(member.client.grant(0, 9_000_000_000).await.unwrap().ttl, 9_000_000_000);
        let refused = says(member.client.grant(0, 9_000_000_001).await);
        assert_eq!(refused, (Code::OutOfRange, "etcdserver: too large lease TTL".into()));
        assert_eq!(member.leases.len(), 5);
        member.stop().await;
    }
}

#[tokio::test]
async fn an_id_is_refused_while_it_is_used_and_free_again_after() {
    let member = Place::memory().start().await;
    let client = &member.client;
    assert_eq!(client.grant(7, 50).await.unwrap().id, 7);
    client.put_leased("k", "v", 7).await.unwrap();
    let again = says(client.grant(7, 90).await);
    assert_eq!(again, (Code::FailedPrecondition, "etcdserver: lease already exists".into()));
    jump(50).await;
    until("the lease has ended", || member.leases.is_empty()).await;
    client.grant(7, 90).await.unwrap();
    let lease = client.time_to_live(7).await;
    assert_eq!((lease.ttl > 80, lease.granted_ttl, lease.keys.len()), (true, 90, 0));
    client.revoke(7).await.unwrap();
    client.grant(7, 30).await.unwrap();
    jump(30).await;
    until("the lease has ended", || member.leases.is_empty()).await;
    member.stop().await;
}

#[tokio::test]
async fn ids_of_the_servers_choice_are_positive_and_differ() {
    let member = Place::memory().start().await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(member.client.grant(0, 60).await.unwrap().id);
    }
    assert!(ids.iter().all(|id| *id > 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    member.stop().await;
}

#[tokio::test]
async fn leases_are_listed_soonest_first() {
    let member = Place::memory().start().await;
    for (id, ttl) in [(1, 300), (2, 100), (3, 200)] {
        member.client.grant(id, ttl).await.unwrap();
    }
    assert_eq!(member.client.leases().await, [2, 3, 1]);
    jump(80).await;
    member.client.keep_alive().await.renew(2).await;
    assert_eq!(member.client.leases().await, [2, 3, 1]);
    jump(50).await;
    member.client.keep_alive().await.renew(2).await;
    assert_eq!(member.client.leases().await, [3, 2, 1]);
    member.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_lease_is_told_with_its_keys_in_order() {
    let member = Place::memory().start().await;
    let client = &member.client;
    client.grant(7, 1_000).await.unwrap();
    for key in ["z", "a", "m"] {
        client.put_leased(key, "v", 7).await.unwrap();
    }
    jump(300).await;
    let lease = client.time_to_live(7).await;
    assert_eq!((lease.id, lease.granted_ttl), (7, 1_000));
    assert!((690..700).contains(&lease.ttl), "{}", lease.ttl);
    assert_eq!(lease.keys, ["a", "m", "z"]);
    assert_eq!(lease.header.unwrap().revision, 4);
    let request = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    let without = client.lease.clone().lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((without.granted_ttl, without.keys.len()), (1_000, 0));
    let missing = client.time_to_live(8).await;
    assert_eq!((missing.id, missing.ttl, missing.granted_ttl, missing.keys.len()), (8, -1, 0, 0));
    member.stop().await;
}

#[tokio::test]
async fn ten_thousand_leases_due_at_once_end_in_a_few_log_entries() {
    const LEASES: i64 = 10_000;
    let member = Place::memory().start().await;
    let grants = (1..=LEASES).map(|id| {
        let node = member.node.clone();
        async move {
            let grant = pb::LeaseGrantRequest { id, ttl: 600 };
            node.propose(&Default::default(), Command::LeaseGrant(grant)).await.unwrap()
        }
    });
    futures::future::join_all(grants).await;
    assert_eq!(member.leases.len() as i64, LEASES);
    let before = member.raft.applied().index;
    jump(600).await;
    until("all of them have ended", || member.leases.is_empty()).await;
    let entries = member.raft.applied().index - before;
    assert!(entries <= 12, "{entries} entries");
    assert_eq!(member.leases.expired() as i64, LEASES);
    member.stop().await;
}

#[tokio::test]
async fn keep_alive_streams_end_when_the_member_stops() {
    let member = Place::memory().start().await;
    member.client.grant(7, 60).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = member.client.keep_alive().await;
        assert_eq!(stream.renew(7).await, 60);
        streams.push(stream);
    }
    member.stopping();
    for mut stream in streams {
        while let Ok(Some(_)) = stream.answers.message().await {}
    }
    member.stop().await;
}

#[tokio::test]
async fn leases_go_on_while_clients_fill_every_place() {
    let place = Place::memory().with(|settings| settings.request_timeout = Duration::from_secs(3_600));
    let member = place.start().await;
    member.client.grant(7, 600).await.unwrap();
    member.client.grant(8, 6_000).await.unwrap();
    place.engine().close();
    let flood: Vec<_> = (0..quorate_server::node::limits::PROPOSALS_IN_FLIGHT_MAX)
        .map(|n| {
            let node = member.node.clone();
            let put = support::client::put(&format!("k{}", n % 100), "v", 0);
            tokio::spawn(async move { node.propose(&Default::default(), Command::Put(put)).await })
        })
        .collect();
    let full = quorate_server::node::limits::PROPOSALS_IN_FLIGHT_MAX;
    until("every place is taken", || member.node.proposals_pending() == full).await;
    let (code, text) = says(member.client.put("one", "more").await);
    assert_eq!((code, text.as_str()), (Code::Unknown, "etcdserver: too many requests"));
    jump(600).await;
    until("an expiry is in the log", || member.node.proposals_pending() == full + 1).await;
    let client = member.client.clone();
    let revoke = tokio::spawn(async move { client.revoke(8).await });
    until("a revocation is in the log", || member.node.proposals_pending() == full + 2).await;
    place.engine().open();
    for put in flood {
        put.await.unwrap().unwrap();
    }
    revoke.await.unwrap().unwrap();
    until("both have ended and every place is free", || {
        member.leases.is_empty() && member.node.proposals_pending() == 0
    })
    .await;
    member.client.put("one", "more").await.unwrap();
    member.stop().await;
}
