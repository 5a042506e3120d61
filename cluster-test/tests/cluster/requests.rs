//! Every kind of request through a member that does not lead.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Client, Cluster, Options};
use cluster_test::programs;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient};
use quorate_proto::{etcdserverpb as pb, mvccpb};
use tonic::Code;

use crate::start;

fn follower(cluster: &Cluster) -> Result<Client> {
    cluster.members[cluster.follower()?].client()
}

#[test]
fn members_get_the_ids_that_etcd_gives() -> Result<()> {
    let options = Options::quick().and("--initial-cluster-token=of-this-test");
    let etcd = Cluster::start(programs::etcd()?, 3, &options)?;
    let ports: Vec<u16> = etcd.members.iter().map(|member| member.peer_port()).collect();
    let ids = |cluster: &Cluster| -> Result<_> {
        let list = cluster.members[0].client()?.members()?;
        let members: Vec<_> =
            list.members.into_iter().map(|member| (member.id, member.name, member.peer_urls)).collect();
        Ok((list.header.context("find the header")?.cluster_id, members))
    };
    let expected = ids(&etcd)?;
    drop(etcd);
    let ours = Cluster::start_at(programs::quorate()?, &ports, &options)?;
    assert_eq!(ids(&ours)?, expected);
    ours.converged()
}

#[test]
fn what_one_member_has_acknowledged_the_next_one_reads() -> Result<()> {
    const ROUNDS: usize = 150;
    let cluster = start(3, &Options::default())?;
    let clients = cluster.members.iter().map(|member| member.client()).collect::<Result<Vec<_>>>()?;
    for round in 0..ROUNDS {
        let (writer, reader) = (&clients[round % 3], &clients[(round + 1 + round / 3 % 2) % 3]);
        let value = round.to_string();
        let written = writer.put("k", &value)?.header.unwrap_or_default().revision;
        let read = reader.get("k", false)?;
        ensure!(
            read.kvs[0].value == value.as_bytes() && read.kvs[0].mod_revision == written,
            "round {round}: put {value} at {written}, read {:?}",
            read.kvs
        );
    }
    cluster.converged()
}

#[test]
fn keys_are_written_read_and_compacted_through_a_follower() -> Result<()> {
    let cluster = start(3, &Options::default())?;
    let client = follower(&cluster)?;
    client.put("a", "1")?;
    client.put("a", "2")?;
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = |value: &str| {
        let put = pb::PutRequest { key: "a".into(), value: value.to_owned().into(), ..Default::default() };
        op(pb::request_op::Request::RequestPut(put))
    };
    let compare = pb::Compare {
        target: pb::compare::CompareTarget::Value.into(),
        key: "a".into(),
        target_union: Some(pb::compare::TargetUnion::Value("2".into())),
        ..Default::default()
    };
    let txn = pb::TxnRequest { compare: vec![compare], success: vec![put("3")], failure: vec![put("wrong")] };
    let txn = client.run(client.kv().txn(txn))?;
    assert!(txn.succeeded);
    assert_eq!(client.get("a", false)?.kvs[0].value, "3");
    assert_eq!(client.get("a", true)?.kvs[0].value, "3", "what was answered is applied where it was asked");
    let delete = pb::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
    let deleted = client.run(client.kv().delete_range(delete))?;
    assert_eq!((deleted.deleted, &deleted.prev_kvs[0].value[..]), (1, &b"3"[..]));
    client.run(client.kv().compact(pb::CompactionRequest { revision: 3, physical: true }))?;
    let old = |revision| pb::RangeRequest { key: "a".into(), revision, ..Default::default() };
    assert_eq!(client.run(client.kv().range(old(3)))?.kvs[0].value, "2");
    let refused = client.run(client.kv().range(old(2))).unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
    );
    cluster.converged()
}

#[test]
fn leases_are_kept_alive_and_end_through_a_follower() -> Result<()> {
    let cluster = start(3, &Options::default())?;
    let client = follower(&cluster)?;
    let granted = client.run(client.lease().lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 7 }))?;
    assert_eq!((granted.id, granted.ttl), (7, 60));
    let put = pb::PutRequest { key: "leased".into(), lease: 7, ..Default::default() };
    client.run(client.kv().put(put))?;
    let alive = client.block_on(async {
        let once = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
        client.lease().lease_keep_alive(once).await?.into_inner().message().await
    })?;
    assert_eq!(alive.context("find the answer")?.ttl, 60);
    let left = client.run(client.lease().lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 7, keys: true }))?;
    assert_eq!((left.granted_ttl, left.keys), (60, vec!["leased".into()]));
    assert!((50..=60).contains(&left.ttl), "{} s left of 60", left.ttl);
    let leases = client.run(client.lease().lease_leases(pb::LeaseLeasesRequest {}))?;
    assert_eq!(leases.leases, [pb::LeaseStatus { id: 7 }]);
    client.run(client.lease().lease_revoke(pb::LeaseRevokeRequest { id: 7 }))?;
    assert_eq!(client.get("leased", false)?.kvs, []);
    let gone = client.run(client.lease().lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 7, keys: false }))?;
    assert_eq!(gone.ttl, -1);
    cluster.converged()
}

#[test]
fn a_watch_on_a_follower_sees_what_other_members_are_asked() -> Result<()> {
    const EVENTS: i64 = 30;
    let cluster = start(3, &Options::default())?;
    let client = follower(&cluster)?;
    let others = cluster.members.iter().map(|member| member.client()).collect::<Result<Vec<_>>>()?;
    let create = pb::WatchCreateRequest { key: "w".into(), start_revision: 2, ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let mut events = client.run(client.watch().watch(tokio_stream::iter([request])))?;
    for round in 0..EVENTS {
        others[round as usize % others.len()].put("w", &round.to_string())?;
    }
    let seen: Vec<mvccpb::Event> = client.block_on(async {
        let mut seen = Vec::new();
        while seen.len() < EVENTS as usize {
            let message = tokio::time::timeout(Duration::from_secs(20), events.message()).await??;
            seen.extend(message.context("the watch ended")?.events);
        }
        anyhow::Ok(seen)
    })?;
    for (round, event) in seen.iter().enumerate() {
        let kv = event.kv.as_ref().context("find the key of an event")?;
        assert_eq!((kv.value.as_ref(), kv.mod_revision), (round.to_string().as_bytes(), round as i64 + 2));
    }
    cluster.converged()
}

#[test]
fn a_lock_taken_through_one_member_is_waited_for_at_another() -> Result<()> {
    let cluster = start(3, &Options::default())?;
    let (first, second) = (cluster.members[0].client()?, cluster.members[1].client()?);
    let lock = |client: &Client| {
        let mut service = LockClient::new(client.channel());
        async move { service.lock(LockRequest { name: "l".into(), lease: 0 }).await }
    };
    let held = first.run(lock(&first))?;
    // In a tuple: what a call gives is waited for, and this one waits for the lock.
    let (mut waiting,) = second.block_on(async { (tokio::spawn(lock(&second)),) });
    // The one that waits has its key there, or the lock would not be handed over to it.
    let keys = pb::RangeRequest { key: "l/".into(), range_end: "l0".into(), ..Default::default() };
    while first.run(first.kv().range(keys.clone()))?.kvs.len() < 2 {}
    assert!(!waiting.is_finished(), "two hold the lock");
    let mut service = LockClient::new(first.channel());
    first.run(service.unlock(UnlockRequest { key: held.key.clone() }))?;
    let next = second.block_on(&mut waiting)??.into_inner();
    assert_ne!(next.key, held.key);
    let mut service = LockClient::new(second.channel());
    second.run(service.unlock(UnlockRequest { key: next.key }))?;
    cluster.converged()
}

#[test]
fn five_members_serve_through_each_of_them() -> Result<()> {
    let cluster = start(5, &Options::default())?;
    for (index, member) in cluster.members.iter().enumerate() {
        let client = member.client()?;
        client.put(&format!("k{index}"), "v")?;
        assert_eq!(client.members()?.members.len(), 5);
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), count_only: true, ..Default::default() };
    for member in &cluster.members {
        let client = member.client()?;
        assert_eq!(client.run(client.kv().range(all.clone()))?.count, 5);
    }
    cluster.converged()
}
