//! A learner has everything and is asked next to nothing.

use anyhow::Result;
use cluster_test::cluster::{Client, Cluster, Options};
use cluster_test::programs;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::v3electionpb::{LeaderRequest, election_client::ElectionClient};
use quorate_proto::v3lockpb::{LockRequest, lock_client::LockClient};
use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Status, Streaming};

const NOT_FOR_LEARNERS: &str = "etcdserver: rpc not supported for learner";
const NO_LEADER: &str = "etcdserver: no leader";

fn said<T>(answer: Result<T, Status>) -> String {
    answer.map_or_else(|refused| format!("{:?} {}", refused.code(), refused.message()), |_| "OK".to_owned())
}

/// What a stream says first.
fn stream<T: Send>(
    client: &Client,
    call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send,
) -> String {
    said(client.block_on(async { call.await?.into_inner().message().await }))
}

/// One request of each kind, by name, and what it is answered.
fn all_kinds(client: &Client) -> Vec<(&'static str, String)> {
    let range = |serializable| pb::RangeRequest { key: "k".into(), serializable, ..Default::default() };
    let watch = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    });
    let watch = tokio_stream::iter([pb::WatchRequest { request_union: Some(watch) }]).chain(tokio_stream::pending());
    let alive = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 1 }]);
    let mut lock = LockClient::new(client.channel());
    let mut election = ElectionClient::new(client.channel());
    vec![
        ("range", said(client.run(client.kv().range(range(false))))),
        ("serializable range", said(client.run(client.kv().range(range(true))))),
        ("range stream", stream(client, client.kv().range_stream(range(true)))),
        ("put", said(client.put("k", "v"))),
        ("txn", said(client.run(client.kv().txn(pb::TxnRequest::default())))),
        ("delete", said(client.run(client.kv().delete_range(pb::DeleteRangeRequest::default())))),
        ("compact", said(client.run(client.kv().compact(pb::CompactionRequest::default())))),
        ("watch", stream(client, client.watch().watch(watch))),
        ("lease grant", said(client.run(client.lease().lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 })))),
        ("lease revoke", said(client.run(client.lease().lease_revoke(pb::LeaseRevokeRequest { id: 1 })))),
        ("lease leases", said(client.run(client.lease().lease_leases(pb::LeaseLeasesRequest {})))),
        ("keep alive", stream(client, client.lease().lease_keep_alive(alive))),
        ("member list", said(client.members())),
        ("member add", said(client.run(client.cluster().member_add(pb::MemberAddRequest::default())))),
        ("status", said(client.run(client.maintenance().status(pb::StatusRequest {})))),
        ("hash", said(client.run(client.maintenance().hash_kv(pb::HashKvRequest::default())))),
        ("alarm", said(client.run(client.maintenance().alarm(pb::AlarmRequest::default())))),
        ("defragment", said(client.run(client.maintenance().defragment(pb::DefragmentRequest {})))),
        ("snapshot", stream(client, client.maintenance().snapshot(pb::SnapshotRequest {}))),
        ("auth status", said(client.run(client.auth().auth_status(pb::AuthStatusRequest {})))),
        ("user list", said(client.run(client.auth().user_list(pb::AuthUserListRequest {})))),
        ("lock", said(client.run(lock.lock(LockRequest { name: "l".into(), lease: 0 })))),
        ("leader", said(client.run(election.leader(LeaderRequest { name: "e".into() })))),
    ]
}

fn answers_of_a_learner(program: &std::path::Path) -> Result<Vec<(&'static str, String)>> {
    let mut cluster = Cluster::start(program, 1, &Options::quick())?;
    let learner = cluster.add(true)?;
    all_kinds(&cluster.members[learner].client()?).into_iter().map(Ok).collect()
}

#[test]
fn a_learner_refuses_what_etcds_learners_refuse() -> Result<()> {
    let ours = answers_of_a_learner(programs::quorate()?)?;
    assert_eq!(ours, answers_of_a_learner(programs::etcd()?)?);
    let served: Vec<_> = ours.iter().filter(|(_, said)| said == "OK").map(|(kind, _)| *kind).collect();
    assert_eq!(served, ["serializable range", "status", "snapshot"]);
    let refusal = format!("{:?} {NOT_FOR_LEARNERS}", Code::FailedPrecondition);
    assert_eq!(ours.iter().filter(|(_, said)| *said == refusal).count(), ours.len() - served.len());
    Ok(())
}

#[test]
fn a_learner_that_is_promoted_serves_and_votes() -> Result<()> {
    let mut cluster = Cluster::start(programs::quorate()?, 1, &Options::quick())?;
    cluster.members[0].client()?.put("before", "1")?;
    let learner = cluster.add(true)?;
    assert!(cluster.members[learner].status()?.is_learner);
    cluster.promote(learner)?;
    let client = cluster.members[learner].client()?;
    assert_eq!(client.get("before", false)?.kvs[0].value, "1");
    client.put("after", "2")?;
    assert!(!cluster.members[learner].status()?.is_learner);
    // Of two voters, each is needed.
    cluster.members[learner].kill();
    let refused = cluster.members[0].client()?.put("alone", "3").unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.members[learner].restart()?;
    cluster.members[0].client()?.put("together", "3")?;
    cluster.converged()
}

fn needs_leader<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

#[test]
fn who_asks_for_a_leader_is_refused_where_there_is_none() -> Result<()> {
    let mut cluster = Cluster::start(programs::quorate()?, 3, &Options::quick())?;
    let client = cluster.members[0].client()?;
    let create = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    });
    let watch = || {
        let create = pb::WatchRequest { request_union: Some(create.clone()) };
        tokio_stream::iter([create]).chain(tokio_stream::pending())
    };
    let mut needs = client.run(client.watch().watch(needs_leader(watch())))?;
    let mut needs_not = client.run(client.watch().watch(watch()))?;
    assert!(client.block_on(needs.message())?.is_some_and(|first| first.created));
    assert!(client.block_on(needs_not.message())?.is_some_and(|first| first.created));

    cluster.members[1].kill();
    cluster.members[2].kill();
    let refusal = client.block_on(needs.message()).unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, NO_LEADER));
    let serializable = || pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    let unary = client.run(client.kv().range(needs_leader(serializable()))).unwrap_err();
    assert_eq!((unary.code(), unary.message()), (Code::Unavailable, NO_LEADER));
    let stream = client.run(client.watch().watch(needs_leader(watch()))).map(|_| ()).unwrap_err();
    assert_eq!((stream.code(), stream.message()), (Code::Unavailable, NO_LEADER));
    // Who does not ask for a leader is served.
    client.run(client.kv().range(serializable()))?;

    cluster.members[1].spawn()?;
    cluster.members[2].spawn()?;
    cluster.members[1].wait_ready()?;
    cluster.members[2].wait_ready()?;
    cluster.members[1].client()?.put("k", "v")?;
    let event = client.block_on(needs_not.message())?;
    assert_eq!(event.map(|event| event.events.len()), Some(1), "the stream that did not ask for a leader lives on");
    client.run(client.kv().range(needs_leader(serializable())))?;
    cluster.converged()
}
