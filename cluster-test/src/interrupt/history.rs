//! What a member has: contents, history, hash; over a client's API.

use anyhow::{Context as _, Result, bail};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{KeyValue, event::EventType};
use tonic::transport::Channel;

use super::Change;

/// Of one answer with history; more is asked for by its end, so this is only a guard against a member that hangs.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);
const MESSAGE_BYTES_MAX: usize = 256 << 20;

pub struct Contents {
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
}

/// Everything, linearizable.
pub async fn contents(channel: &Channel) -> Result<Contents> {
    let mut kv = pb::kv_client::KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let answer = kv.range(all).await.context("read everything")?.into_inner();
    Ok(Contents { revision: answer.header.context("find the header")?.revision, kvs: answer.kvs })
}

pub async fn hash_kv(channel: &Channel, revision: i64) -> Result<pb::HashKvResponse> {
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let answer = maintenance.hash_kv(pb::HashKvRequest { revision }).await;
    Ok(answer.context("ask for the hash")?.into_inner())
}

/// Every change from revision `from` up to and including `until`, with what each replaced.
pub async fn since(channel: &Channel, from: i64, until: i64) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    if from.max(2) > until {
        return Ok(changes);
    }
    let mut watch = pb::watch_client::WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let create = pb::WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: from.max(2),
        prev_kv: true,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    // The stream of requests has to stay open: its end would end the watch.
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(create).await.context("ask for a watch")?;
    let requests_open = requests;
    let stream = watch.watch(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.context("open a watch")?;
    let mut answers = stream.into_inner();
    while changes.last().is_none_or(|change| change.revision < until) {
        let answer = tokio::time::timeout(ANSWER_WITHIN, answers.message()).await;
        let answer = answer.with_context(|| format!("wait for history up to {until}"))?.context("read history")?;
        let answer = answer.context("read history: the stream ended")?;
        if answer.canceled {
            bail!("the watch was canceled: {:?}, compacted at {}", answer.cancel_reason, answer.compact_revision);
        }
        for event in answer.events {
            let kv = event.kv.context("find the key of an event")?;
            let deletion = event.r#type == EventType::Delete as i32;
            changes.push(Change { revision: kv.mod_revision, deletion, kv, prev_kv: event.prev_kv });
        }
    }
    drop(requests_open);
    // The last answer may go beyond what was asked for; nobody writes now, so it does not.
    Ok(changes)
}
