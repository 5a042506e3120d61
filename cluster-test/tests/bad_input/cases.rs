//! The cases: every RPC with fields missing, huge, negative, reversed and malformed.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{authpb, v3electionpb, v3lockpb};
use tonic::Status;

use crate::send::{Sender, line};
use pb::request_op::Request as Op;

/// Name of a case, and the answer.
pub type Answers = Vec<(String, String)>;

const HUGE: i64 = i64::MAX;

pub async fn run(url: &str) -> Result<Answers> {
    let sender = Sender::connect(url).await?;
    for key in ["a", "b", "c"] {
        let put = pb::PutRequest { key: key.into(), value: "1".into(), ..Default::default() };
        sender.send("/etcdserverpb.KV/Put", put).await.context("put a key")?;
    }
    let mut run = Run { sender, answers: Vec::new() };
    run.kv().await;
    run.txn().await;
    run.lease().await;
    run.watch().await;
    run.maintenance().await;
    run.cluster().await;
    run.auth().await;
    run.recipes().await;
    run.malformed().await;
    Ok(run.answers)
}

struct Run {
    sender: Sender,
    answers: Answers,
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "x".into(), ..Default::default() }
}

fn branch(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() }
}

impl Run {
    async fn case<M: prost::Message>(&mut self, name: &str, path: &str, message: M) {
        let answer = self.sender.send(path, message).await;
        self.note(name, answer);
    }

    fn note<T>(&mut self, name: &str, answer: Result<T, Status>) {
        self.answers.push((name.to_owned(), line(answer)));
    }

    async fn kv(&mut self) {
        let path = "/etcdserverpb.KV/Range";
        self.case("range: nothing", path, pb::RangeRequest::default()).await;
        self.case("range: end without key", path, pb::RangeRequest { range_end: "b".into(), ..Default::default() })
            .await;
        self.case("range: reversed", path, pb::RangeRequest { range_end: "A".into(), ..range() }).await;
        self.case("range: negative revision", path, pb::RangeRequest { revision: -7, ..range() }).await;
        self.case("range: future revision", path, pb::RangeRequest { revision: HUGE, ..range() }).await;
        self.case("range: least revision", path, pb::RangeRequest { revision: i64::MIN, ..range() }).await;
        self.case("range: negative limit", path, pb::RangeRequest { limit: -1, range_end: vec![0].into(), ..range() })
            .await;
        self.case("range: huge limit", path, pb::RangeRequest { limit: HUGE, range_end: vec![0].into(), ..range() })
            .await;
        self.case("range: unknown order", path, pb::RangeRequest { sort_order: 9, ..range() }).await;
        self.case("range: unknown target", path, pb::RangeRequest { sort_target: -4, ..range() }).await;
        let filtered = pb::RangeRequest { min_mod_revision: -9, max_create_revision: i64::MIN, ..range() };
        self.case("range: filters below everything", path, filtered).await;
        let path = "/etcdserverpb.KV/RangeStream";
        self.case("stream: nothing", path, pb::RangeRequest::default()).await;
        self.case("stream: order", path, pb::RangeRequest { sort_order: 2, ..range() }).await;
        self.case("stream: filter", path, pb::RangeRequest { min_mod_revision: 1, ..range() }).await;
        self.case("stream: future revision", path, pb::RangeRequest { revision: HUGE, ..range() }).await;
        let path = "/etcdserverpb.KV/Put";
        self.case("put: nothing", path, pb::PutRequest::default()).await;
        self.case("put: value and ignore_value", path, pb::PutRequest { ignore_value: true, ..put("a") }).await;
        let both = pb::PutRequest { ignore_lease: true, lease: 5, ..put("a") };
        self.case("put: lease and ignore_lease", path, both).await;
        let absent = pb::PutRequest { ignore_lease: true, ..put("absent") };
        self.case("put: ignore_lease of no key", path, absent).await;
        self.case("put: no such lease", path, pb::PutRequest { lease: 77, ..put("a") }).await;
        self.case("put: negative lease", path, pb::PutRequest { lease: -77, ..put("a") }).await;
        self.case("put: too large", path, pb::PutRequest { value: vec![1; 1_600_000].into(), ..put("a") }).await;
        let path = "/etcdserverpb.KV/DeleteRange";
        self.case("delete: nothing", path, pb::DeleteRangeRequest::default()).await;
        let reversed = pb::DeleteRangeRequest { key: "z".into(), range_end: "a".into(), prev_kv: true };
        self.case("delete: reversed", path, reversed).await;
        let path = "/etcdserverpb.KV/Compact";
        self.case("compact: future", path, pb::CompactionRequest { revision: HUGE, physical: true }).await;
        self.case("compact: negative", path, pb::CompactionRequest { revision: -1, physical: false }).await;
        self.case("compact: least", path, pb::CompactionRequest { revision: i64::MIN, physical: false }).await;
        self.case("compact: zero", path, pb::CompactionRequest { revision: 0, physical: true }).await;
        self.case("compact: zero again", path, pb::CompactionRequest { revision: 0, physical: true }).await;
        self.case("compact: three", path, pb::CompactionRequest { revision: 3, physical: true }).await;
        self.case("range: compacted", "/etcdserverpb.KV/Range", pb::RangeRequest { revision: 2, ..range() }).await;
    }

    async fn txn(&mut self) {
        let path = "/etcdserverpb.KV/Txn";
        self.case("txn: nothing", path, pb::TxnRequest::default()).await;
        self.case("txn: empty op", path, branch(vec![pb::RequestOp { request: None }])).await;
        let compare = pb::Compare::default();
        self.case("txn: compare without key", path, pb::TxnRequest { compare: vec![compare], ..Default::default() })
            .await;
        let compare = pb::Compare { key: "a".into(), target: 99, result: -3, ..Default::default() };
        self.case("txn: unknown compare", path, pb::TxnRequest { compare: vec![compare], ..Default::default() }).await;
        self.case("txn: put without key", path, branch(vec![op(Op::RequestPut(put("")))])).await;
        let delete = pb::DeleteRangeRequest::default();
        self.case("txn: delete without key", path, branch(vec![op(Op::RequestDeleteRange(delete))])).await;
        self.case("txn: range without key", path, branch(vec![op(Op::RequestRange(Default::default()))])).await;
        let future = pb::RangeRequest { revision: HUGE, ..range() };
        self.case("txn: range in the future", path, branch(vec![op(Op::RequestRange(future.clone()))])).await;
        let mixed = branch(vec![op(Op::RequestPut(put("a"))), op(Op::RequestRange(future))]);
        self.case("txn: put, then range in the future", path, mixed).await;
        let past = pb::RangeRequest { revision: 1, ..range() };
        self.case(
            "txn: put, then range compacted",
            path,
            branch(vec![op(Op::RequestPut(put("a"))), op(Op::RequestRange(past))]),
        )
        .await;
        let negative = pb::RangeRequest { revision: -5, ..range() };
        self.case(
            "txn: put, then negative",
            path,
            branch(vec![op(Op::RequestPut(put("a"))), op(Op::RequestRange(negative))]),
        )
        .await;
        self.case("txn: twice", path, branch(vec![op(Op::RequestPut(put("a"))), op(Op::RequestPut(put("a")))])).await;
        let nested = branch(vec![op(Op::RequestPut(put("a")))]);
        let twice = branch(vec![op(Op::RequestTxn(nested.clone())), op(Op::RequestPut(put("a")))]);
        self.case("txn: twice, once nested", path, twice).await;
        let inside = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: false };
        let overlap = branch(vec![op(Op::RequestTxn(nested)), op(Op::RequestDeleteRange(inside))]);
        self.case("txn: nested put in a deleted range", path, overlap).await;
        let no_lease = pb::PutRequest { lease: 99, ..put("a") };
        self.case("txn: no such lease", path, branch(vec![op(Op::RequestPut(put("b"))), op(Op::RequestPut(no_lease))]))
            .await;
        let many = (0..129).map(|n| op(Op::RequestPut(put(&format!("k{n}"))))).collect();
        self.case("txn: too many", path, branch(many)).await;
        let mut deep = branch(vec![op(Op::RequestPut(put("deep")))]);
        for _ in 0..20 {
            deep = branch(vec![op(Op::RequestTxn(deep))]);
        }
        self.case("txn: twenty deep", path, deep).await;
    }

    async fn lease(&mut self) {
        let path = "/etcdserverpb.Lease/LeaseGrant";
        self.case("lease: zero", path, pb::LeaseGrantRequest::default()).await;
        self.case("lease: negative ttl", path, pb::LeaseGrantRequest { ttl: i64::MIN, id: 0 }).await;
        self.case("lease: huge ttl", path, pb::LeaseGrantRequest { ttl: HUGE, id: 0 }).await;
        self.case("lease: own id", path, pb::LeaseGrantRequest { ttl: 100, id: 4242 }).await;
        self.case("lease: own id again", path, pb::LeaseGrantRequest { ttl: 100, id: 4242 }).await;
        self.case("lease: negative id", path, pb::LeaseGrantRequest { ttl: 100, id: -4242 }).await;
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        self.case("revoke: zero", path, pb::LeaseRevokeRequest::default()).await;
        self.case("revoke: unknown", path, pb::LeaseRevokeRequest { id: i64::MIN }).await;
        self.case("revoke: negative id", path, pb::LeaseRevokeRequest { id: -4242 }).await;
        self.case("ttl: zero", "/etcdserverpb.Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest::default()).await;
        let unknown = pb::LeaseTimeToLiveRequest { id: -1, keys: true };
        self.case("ttl: unknown", "/etcdserverpb.Lease/LeaseTimeToLive", unknown).await;
        for id in [0, -1, HUGE] {
            let answer = self.keep_alive(id).await;
            self.answers.push((format!("keep alive: {id}"), answer));
        }
    }

    async fn keep_alive(&self, id: i64) -> String {
        let mut lease = pb::lease_client::LeaseClient::new(self.sender.channel());
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        match lease.lease_keep_alive(requests).await {
            Ok(answers) => match answers.into_inner().message().await {
                Ok(Some(answer)) => format!("id {} ttl {}", answer.id, answer.ttl),
                Ok(None) => "the stream ended".into(),
                Err(status) => line::<()>(Err(status)),
            },
            Err(status) => line::<()>(Err(status)),
        }
    }

    async fn watch(&mut self) {
        use pb::watch_request::RequestUnion::{CancelRequest, CreateRequest, ProgressRequest};
        let create = |create: pb::WatchCreateRequest| pb::WatchRequest { request_union: Some(CreateRequest(create)) };
        let on = |key: &str| pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
        let progress = pb::WatchRequest { request_union: Some(ProgressRequest(pb::WatchProgressRequest {})) };
        let cases = [
            ("watch: nothing", vec![create(on(""))]),
            ("watch: reversed", vec![create(pb::WatchCreateRequest { range_end: "A".into(), ..on("z") })]),
            ("watch: negative start", vec![create(pb::WatchCreateRequest { start_revision: -3, ..on("a") })]),
            ("watch: least start", vec![create(pb::WatchCreateRequest { start_revision: i64::MIN, ..on("a") })]),
            ("watch: huge start", vec![create(pb::WatchCreateRequest { start_revision: HUGE, ..on("a") })]),
            ("watch: compacted", vec![create(pb::WatchCreateRequest { start_revision: 1, ..on("a") })]),
            ("watch: own id", vec![create(pb::WatchCreateRequest { watch_id: 7, ..on("a") })]),
            ("watch: negative id", vec![create(pb::WatchCreateRequest { watch_id: -7, ..on("a") })]),
            (
                "watch: same id twice",
                vec![
                    create(pb::WatchCreateRequest { watch_id: 7, ..on("a") }),
                    create(pb::WatchCreateRequest { watch_id: 7, ..on("b") }),
                ],
            ),
            ("watch: unknown filter", vec![create(pb::WatchCreateRequest { filters: vec![0, 1, 77, -1], ..on("a") })]),
            ("watch: progress at once", vec![progress.clone()]),
            ("watch: empty request, then one", vec![pb::WatchRequest { request_union: None }, create(on("a"))]),
            (
                "watch: cancel of nothing, then one",
                vec![
                    pb::WatchRequest { request_union: Some(CancelRequest(pb::WatchCancelRequest { watch_id: 99 })) },
                    create(on("a")),
                ],
            ),
        ];
        for (name, requests) in cases {
            let answer = self.watch_answers(requests).await;
            self.answers.push((name.to_owned(), answer));
        }
    }

    /// What comes within half a second, without what differs from member to member.
    async fn watch_answers(&self, requests: Vec<pb::WatchRequest>) -> String {
        let mut watch = pb::watch_client::WatchClient::new(self.sender.channel());
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        for request in requests {
            let _ = sender.send(request).await;
        }
        let within = std::time::Duration::from_millis(500);
        // A server may send its headers with the first message only: where there is none, there is no stream either.
        let stream = watch.watch(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut answers = match tokio::time::timeout(within, stream).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return line::<()>(Err(status)),
            Err(_) => return String::new(),
        };
        let mut lines = Vec::new();
        while let Ok(answer) = tokio::time::timeout(within, answers.message()).await {
            match answer {
                Ok(Some(answer)) => lines.push(format!(
                    "id {} created {} canceled {} compacted {} reason {:?} events {}",
                    answer.watch_id,
                    answer.created,
                    answer.canceled,
                    answer.compact_revision,
                    answer.cancel_reason,
                    answer.events.len()
                )),
                Ok(None) => break,
                Err(status) => {
                    lines.push(line::<()>(Err(status)));
                    break;
                }
            }
        }
        drop(sender);
        lines.join("; ")
    }

    async fn maintenance(&mut self) {
        let path = "/etcdserverpb.Maintenance/HashKV";
        self.case("hashkv: compacted", path, pb::HashKvRequest { revision: 1 }).await;
        self.case("hashkv: future", path, pb::HashKvRequest { revision: HUGE }).await;
        self.case("hashkv: negative", path, pb::HashKvRequest { revision: -3 }).await;
        let path = "/etcdserverpb.Maintenance/Alarm";
        self.case("alarm: get unknown", path, pb::AlarmRequest { action: 0, member_id: 0, alarm: 77 }).await;
        self.case("alarm: activate none", path, pb::AlarmRequest { action: 1, member_id: 0, alarm: 0 }).await;
        self.case("alarm: deactivate what is not", path, pb::AlarmRequest { action: 2, member_id: 9, alarm: 1 }).await;
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        self.case("move leader: nobody", path, pb::MoveLeaderRequest { target_id: 0 }).await;
        self.case("move leader: unknown", path, pb::MoveLeaderRequest { target_id: u64::MAX }).await;
        let path = "/etcdserverpb.Maintenance/Downgrade";
        self.case("downgrade: unknown action", path, pb::DowngradeRequest { action: 9, version: "3.6".into() }).await;
        self.case("downgrade: no version", path, pb::DowngradeRequest { action: 0, version: String::new() }).await;
        self.case("downgrade: no number", path, pb::DowngradeRequest { action: 0, version: "three.six".into() }).await;
        self.case("downgrade: too far", path, pb::DowngradeRequest { action: 0, version: "3.4.0".into() }).await;
    }

    async fn cluster(&mut self) {
        let path = "/etcdserverpb.Cluster/MemberAdd";
        self.case("member add: nothing", path, pb::MemberAddRequest::default()).await;
        let urls = |url: &str| vec![url.to_owned()];
        self.case("member add: no url", path, pb::MemberAddRequest { peer_urls: urls("nonsense"), is_learner: true })
            .await;
        self.case("member add: no host", path, pb::MemberAddRequest { peer_urls: urls("http://"), is_learner: true })
            .await;
        self.case("member remove: unknown", "/etcdserverpb.Cluster/MemberRemove", pb::MemberRemoveRequest { id: 5 })
            .await;
        let path = "/etcdserverpb.Cluster/MemberUpdate";
        self.case("member update: nothing", path, pb::MemberUpdateRequest::default()).await;
        let unknown = pb::MemberUpdateRequest { id: 5, peer_urls: urls("http://127.0.0.1:9") };
        self.case("member update: unknown", path, unknown).await;
        self.case("member promote: unknown", "/etcdserverpb.Cluster/MemberPromote", pb::MemberPromoteRequest { id: 5 })
            .await;
    }

    async fn auth(&mut self) {
        self.case("auth enable: no root", "/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {}).await;
        self.case("auth disable: off", "/etcdserverpb.Auth/AuthDisable", pb::AuthDisableRequest {}).await;
        self.case("authenticate: off", "/etcdserverpb.Auth/Authenticate", pb::AuthenticateRequest::default()).await;
        self.case("user add: nothing", "/etcdserverpb.Auth/UserAdd", pb::AuthUserAddRequest::default()).await;
        self.case("user get: nothing", "/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest::default()).await;
        self.case("user delete: nothing", "/etcdserverpb.Auth/UserDelete", pb::AuthUserDeleteRequest::default()).await;
        let path = "/etcdserverpb.Auth/UserChangePassword";
        self.case("user change password: nothing", path, pb::AuthUserChangePasswordRequest::default()).await;
        self.case("user grant: nothing", "/etcdserverpb.Auth/UserGrantRole", pb::AuthUserGrantRoleRequest::default())
            .await;
        self.case(
            "user revoke: nothing",
            "/etcdserverpb.Auth/UserRevokeRole",
            pb::AuthUserRevokeRoleRequest::default(),
        )
        .await;
        self.case("role add: nothing", "/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest::default()).await;
        self.case("role get: nothing", "/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest::default()).await;
        self.case("role delete: nothing", "/etcdserverpb.Auth/RoleDelete", pb::AuthRoleDeleteRequest::default()).await;
        let path = "/etcdserverpb.Auth/RoleGrantPermission";
        self.case("role grant: nothing", path, pb::AuthRoleGrantPermissionRequest::default()).await;
        let perm = Some(authpb::Permission { perm_type: 44, key: Bytes::new(), range_end: "b".into() });
        let unknown = pb::AuthRoleGrantPermissionRequest { name: "nobody".into(), perm };
        self.case("role grant: unknown", path, unknown).await;
        let path = "/etcdserverpb.Auth/RoleRevokePermission";
        self.case("role revoke: nothing", path, pb::AuthRoleRevokePermissionRequest::default()).await;
    }

    async fn recipes(&mut self) {
        let no_lease = v3lockpb::LockRequest { name: "l".into(), lease: 987 };
        self.case("lock: no such lease", "/v3lockpb.Lock/Lock", no_lease).await;
        self.case("unlock: nothing", "/v3lockpb.Lock/Unlock", v3lockpb::UnlockRequest::default()).await;
        let no_lease = v3electionpb::CampaignRequest { name: "e".into(), lease: 987, value: "v".into() };
        self.case("campaign: no such lease", "/v3electionpb.Election/Campaign", no_lease).await;
        self.case("leader: nobody", "/v3electionpb.Election/Leader", v3electionpb::LeaderRequest { name: "e".into() })
            .await;
        let path = "/v3electionpb.Election/Proclaim";
        self.case("proclaim: nothing", path, v3electionpb::ProclaimRequest::default()).await;
        let leader = Some(v3electionpb::LeaderKey { name: "e".into(), key: "e/1".into(), rev: 1, lease: 0 });
        self.case("proclaim: not leader", path, v3electionpb::ProclaimRequest { leader, value: "v".into() }).await;
        self.case("resign: nothing", "/v3electionpb.Election/Resign", v3electionpb::ResignRequest::default()).await;
    }

    async fn malformed(&mut self) {
        for (name, bytes) in [
            ("a field cut short", &[0x0a, 0x7f, b'x'][..]),
            ("an unknown wire type", &[0x0f]),
            ("a number without end", &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("the field number zero", &[0x00, 0x01]),
        ] {
            let answer = self.sender.raw("/etcdserverpb.KV/Range", Bytes::copy_from_slice(bytes)).await;
            // The words are those of the library that decodes; the code is what clients go by.
            let code = answer.map_or_else(|status| format!("{:?}", status.code()), |_| "ok".into());
            self.answers.push((format!("malformed: {name}"), code));
        }
        let answer = self.sender.raw("/etcdserverpb.KV/Range", vec![0; 3 << 20].into()).await;
        self.note("malformed: a message above the limit", answer);
        let answer = self.sender.raw("/etcdserverpb.KV/Nothing", Bytes::new()).await;
        let code = answer.map_or_else(|status| format!("{:?}", status.code()), |_| "ok".into());
        self.answers.push(("an unknown method".into(), code));
    }
}

/// An alarm request of no known action: real etcd answers nil, panics in its header, and is gone.
pub async fn alarm_of_unknown_action(url: &str) -> Result<()> {
    let sender = Sender::connect(url).await?;
    let alarm = pb::AlarmRequest { action: 9, member_id: 1, alarm: 1 };
    sender.send("/etcdserverpb.Maintenance/Alarm", alarm).await.context("ask for no known action")?;
    ensure!(line(sender.send("/etcdserverpb.KV/Range", range()).await) == "ok", "the member does not answer any more");
    Ok(())
}

/// A delete takes a key and a put brings it back under one revision, which then is compacted to: real etcd drops what was put,
/// and is gone when the key is read.
pub async fn compaction_that_loses_a_key(url: &str) -> Result<()> {
    let sender = Sender::connect(url).await?;
    sender.send("/etcdserverpb.KV/Put", put("k")).await?;
    let all = pb::DeleteRangeRequest { key: "a".into(), range_end: vec![0].into(), prev_kv: false };
    let txn = branch(vec![op(Op::RequestDeleteRange(all)), op(Op::RequestPut(put("k")))]);
    sender.send("/etcdserverpb.KV/Txn", txn).await?;
    sender.send("/etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 3, physical: true }).await?;
    let mut kv = pb::kv_client::KvClient::new(sender.channel());
    let found = kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await?.into_inner();
    let version = found.kvs.first().context("find the key")?;
    ensure!(version.mod_revision == 3 && version.value == "x", "found {version:?}");
    Ok(())
}

/// The delete empties the range that the put then wants to keep something of.
pub async fn fatal_to_etcd(url: &str) -> Result<()> {
    let sender = Sender::connect(url).await?;
    sender.send("/etcdserverpb.KV/Put", put("k")).await?;
    let delete = || {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "a".into(),
            range_end: vec![0].into(),
            prev_kv: false,
        }))
    };
    for keep in [
        pb::PutRequest { ignore_lease: true, ..put("k") },
        pb::PutRequest { ignore_value: true, value: Bytes::new(), ..put("k") },
    ] {
        let answer = sender.send("/etcdserverpb.KV/Txn", branch(vec![delete(), op(Op::RequestPut(keep))])).await;
        let answer = line(answer);
        ensure!(answer == "InvalidArgument: etcdserver: key not found", "answered {answer}");
    }
    let mut kv = pb::kv_client::KvClient::new(sender.channel());
    let found = kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await?.into_inner();
    ensure!(found.count == 1 && found.header.context("find the header")?.revision == 2, "something has changed");
    let plain = branch(vec![delete(), op(Op::RequestPut(put("k")))]);
    sender.send("/etcdserverpb.KV/Txn", plain).await.context("the same without keeping anything is fine")?;
    Ok(())
}
