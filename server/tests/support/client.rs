//! gRPC clients, and requests in few words.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) kv: pb::kv_client::KvClient<Channel>,
    pub(crate) lease: pb::lease_client::LeaseClient<Channel>,
    pub(crate) watch: pb::watch_client::WatchClient<Channel>,
    pub(crate) maintenance: pb::maintenance_client::MaintenanceClient<Channel>,
}

type Answer<T> = Result<T, Status>;

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            kv: pb::kv_client::KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: pb::lease_client::LeaseClient::new(channel.clone()),
            watch: pb::watch_client::WatchClient::new(channel.clone()),
            maintenance: pb::maintenance_client::MaintenanceClient::new(channel),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Answer<i64> {
        self.put_leased(key, value, 0).await
    }

    /// Answers the revision.
    pub(crate) async fn put_leased(&self, key: &str, value: &str, lease: i64) -> Answer<i64> {
        let answer = self.kv.clone().put(put(key, value, lease)).await.map(Response::into_inner)?;
        Ok(answer.header.unwrap().revision)
    }

    /// Of one key: value and modification revision.
    pub(crate) async fn get(&self, key: &str) -> Answer<Option<(String, i64)>> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = self.kv.clone().range(request).await?.into_inner();
        Ok(answer.kvs.first().map(|kv| (String::from_utf8_lossy(&kv.value).into_owned(), kv.mod_revision)))
    }

    /// Everything there is.
    pub(crate) async fn all(&self) -> Answer<pb::RangeResponse> {
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        self.kv.clone().range(all).await.map(Response::into_inner)
    }

    pub(crate) async fn revision(&self) -> i64 {
        self.all().await.unwrap().header.unwrap().revision
    }

    pub(crate) async fn delete(&self, key: &str) -> Answer<pb::DeleteRangeResponse> {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv.clone().delete_range(request).await.map(Response::into_inner)
    }

    pub(crate) async fn txn(&self, success: Vec<pb::RequestOp>) -> Answer<pb::TxnResponse> {
        let request = pb::TxnRequest { success, ..Default::default() };
        self.kv.clone().txn(request).await.map(Response::into_inner)
    }

    pub(crate) async fn compact(&self, revision: i64) -> Answer<pb::CompactionResponse> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv.clone().compact(request).await.map(Response::into_inner)
    }

    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Answer<pb::LeaseGrantResponse> {
        self.lease.clone().lease_grant(pb::LeaseGrantRequest { id, ttl }).await.map(Response::into_inner)
    }

    pub(crate) async fn revoke(&self, id: i64) -> Answer<i64> {
        let answer = self.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id }).await?.into_inner();
        Ok(answer.header.unwrap().revision)
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> pb::LeaseTimeToLiveResponse {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        self.lease.clone().lease_time_to_live(request).await.unwrap().into_inner()
    }

    pub(crate) async fn leases(&self) -> Vec<i64> {
        let answer = self.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
        answer.leases.into_iter().map(|lease| lease.id).collect()
    }

    pub(crate) async fn alarms(&self, action: pb::alarm_request::AlarmAction) -> Vec<pb::AlarmMember> {
        let request = pb::AlarmRequest { action: action.into(), member_id: 0, alarm: pb::AlarmType::None.into() };
        self.maintenance.clone().alarm(request).await.unwrap().into_inner().alarms
    }

    pub(crate) async fn set_alarm(&self, on: bool, member_id: u64, alarm: pb::AlarmType) -> Answer<pb::AlarmResponse> {
        use pb::alarm_request::AlarmAction::{Activate, Deactivate};
        let action = if on { Activate } else { Deactivate };
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        self.maintenance.clone().alarm(request).await.map(Response::into_inner)
    }

    pub(crate) async fn keep_alive(&self) -> KeepAlive {
        let (requests, receiver) = mpsc::unbounded_channel();
        let answers = self.lease.clone().lease_keep_alive(UnboundedReceiverStream::new(receiver)).await;
        KeepAlive { requests, answers: answers.unwrap().into_inner() }
    }

    /// Watches every key from `revision` on.
    pub(crate) async fn watch_all(&self, start_revision: i64) -> Watching {
        let (requests, receiver) = mpsc::unbounded_channel();
        let create =
            pb::WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), start_revision, ..Default::default() };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        requests.send(pb::WatchRequest { request_union: Some(create) }).unwrap();
        let mut answers = self.watch.clone().watch(UnboundedReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        Watching { _requests: requests, answers }
    }
}

pub(crate) struct KeepAlive {
    pub(crate) requests: mpsc::UnboundedSender<pb::LeaseKeepAliveRequest>,
    pub(crate) answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    pub(crate) fn ask(&self, id: i64) {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).unwrap();
    }

    /// Answers the TTL.
    pub(crate) async fn renew(&mut self, id: i64) -> i64 {
        self.ask(id);
        let answer = self.answers.message().await.unwrap().unwrap();
        assert_eq!(answer.id, id);
        answer.ttl
    }
}

pub(crate) struct Watching {
    _requests: mpsc::UnboundedSender<pb::WatchRequest>,
    pub(crate) answers: Streaming<pb::WatchResponse>,
}

impl Watching {
    /// The events of the next answer that has any.
    pub(crate) async fn events(&mut self) -> Vec<Event> {
        loop {
            let answer = self.answers.message().await.unwrap().expect("the stream goes on");
            if !answer.events.is_empty() {
                return answer.events;
            }
        }
    }
}

/// What happened to which key at which revision.
pub(crate) fn plain(event: &Event) -> (EventType, String, i64) {
    let kv = event.kv.as_ref().unwrap();
    (event.r#type(), String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)
}

pub(crate) fn put(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), lease, ..Default::default() }
}

pub(crate) fn op_put(key: &str, value: &str, lease: i64) -> pb::RequestOp {
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key, value, lease))) }
}

pub(crate) fn op_delete(key: &str) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(delete)) }
}

pub(crate) fn says<T>(answer: Answer<T>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}
