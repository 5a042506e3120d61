//! A watch stream and what came over it, by watcher.
//!
//! ```text
//!  create    ─▶ waits for `created`
//!  cancel,   ─▶ waits for the answer to a second request, one that is always refused: what is answered to the
//!  progress     first has come by then, or never comes
//!  until     ─▶ waits for the change of a key of our own, the marker: what has happened before it has been told by then
//!               to all watchers that were up to date (side.rs deals with those that were not)
//! ```
//!
//! How events were put together into messages is up to the server; their order by watcher, and their content, is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::Event;
use quorate_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::answer::{Answer, in_words};
use super::mask::Mask as _;
use pb::watch_request::RequestUnion;

/// A key that no generated request writes.
pub(super) const MARKER_KEY: &str = "marker";
const MARKER_WATCH_ID: i64 = 1_000_000;
/// Nothing takes so long.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Everything that watchers were told, by watch ID.
pub(super) type Told = BTreeMap<i64, Vec<String>>;

pub(super) struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: mpsc::UnboundedReceiver<Result<pb::WatchResponse, Status>>,
    reader: JoinHandle<()>,
    pub(super) told: Told,
    pub(super) events: u64,
    /// Watchers that a compaction has ended, and that have not been cancelled as well.
    pub(super) ended: BTreeSet<i64>,
    /// Watchers that have been created for a revision still to come, with that revision.
    future: BTreeMap<i64, i64>,
    /// Whether progress was asked for while there was a watcher of the future or an ended one.
    pub(super) owed: bool,
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl WatchStream {
    pub(super) async fn open(channel: Channel) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(8);
        let create = pb::WatchCreateRequest { key: MARKER_KEY.into(), watch_id: MARKER_WATCH_ID, ..Default::default() };
        // Before the stream is there: a server may say nothing at all before it is asked something.
        requests.send(request(RequestUnion::CreateRequest(create))).await.context("ask for the marker")?;
        let mut client = pb::watch_client::WatchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut stream = client.watch(ReceiverStream::new(receiver)).await.context("open a watch stream")?.into_inner();
        let (sender, answers) = mpsc::unbounded_channel();
        // Read at once: what is left lying would stop the server from sending on.
        let reader = tokio::spawn(async move {
            loop {
                let answer = match stream.message().await {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let last = answer.is_err();
                if sender.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let mut stream = Self {
            requests,
            answers,
            reader,
            told: Told::new(),
            events: 0,
            ended: BTreeSet::new(),
            future: BTreeMap::new(),
            owed: false,
        };
        stream.answer_to_create().await.map_err(anyhow::Error::msg).context("watch the marker")?;
        Ok(stream)
    }

    pub(super) async fn create(&mut self, create: pb::WatchCreateRequest) -> Answer {
        let start = create.start_revision;
        self.send(RequestUnion::CreateRequest(create)).await;
        match self.answer_to_create().await {
            Ok(answer) => {
                if !answer.canceled {
                    self.future.insert(answer.watch_id, start);
                }
                Answer::of(Ok(answer))
            }
            Err(text) => Answer::note(text),
        }
    }

    pub(super) async fn cancel(&mut self, cancel: pb::WatchCancelRequest) -> Answer {
        self.ended.remove(&cancel.watch_id);
        self.future.remove(&cancel.watch_id);
        self.send(RequestUnion::CancelRequest(cancel)).await;
        self.echoed().await
    }

    /// `revision`: the newest one.
    pub(super) async fn progress(&mut self, revision: i64) -> Answer {
        self.owed |= !self.ended.is_empty() || self.future.values().any(|start| *start > revision);
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        self.echoed().await
    }

    pub(super) async fn nothing(&mut self) -> Answer {
        // Fails only where the stream has ended, which the echo tells.
        let _ = self.requests.send(pb::WatchRequest { request_union: None }).await;
        self.echoed().await
    }

    /// Reads up to and including the change of the marker at `revision`.
    pub(super) async fn until(&mut self, revision: i64) -> Result<(), String> {
        loop {
            let answer = self.next().await?;
            let of_marker = answer.watch_id == MARKER_WATCH_ID;
            let at = answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
            self.note(answer);
            if of_marker && at >= Some(revision) {
                return Ok(());
            }
        }
    }

    /// Reads up to the first event of one watcher.
    pub(super) async fn until_event_of(&mut self, watch_id: i64) -> Result<(), String> {
        loop {
            let answer = self.next().await?;
            let found = answer.watch_id == watch_id && !answer.events.is_empty();
            self.note(answer);
            if found {
                return Ok(());
            }
        }
    }

    /// Reads what comes within a time.
    pub(super) async fn drain(&mut self, within: Duration) {
        while let Ok(Some(Ok(answer))) = tokio::time::timeout(within, self.answers.recv()).await {
            self.note(answer);
        }
    }

    async fn send(&self, union: RequestUnion) {
        // Fails only where the stream has ended, which whoever waits for the answer learns with the reason.
        let _ = self.requests.send(request(union)).await;
    }

    async fn answer_to_create(&mut self) -> Result<pb::WatchResponse, String> {
        loop {
            let answer = self.next().await?;
            if answer.created {
                return Ok(answer);
            }
            self.note(answer);
        }
    }

    /// What is answered before the refusal of a range that is none.
    async fn echoed(&mut self) -> Answer {
        let empty = pb::WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() };
        self.send(RequestUnion::CreateRequest(empty)).await;
        let mut said = Vec::new();
        let mut revision = None;
        loop {
            match self.next().await {
                Ok(answer) if answer.created => break,
                Ok(mut answer) if answer.canceled && answer.compact_revision == 0 => {
                    answer.mask();
                    revision = answer.header.as_ref().map(|header| header.revision);
                    said.push(format!("{answer:?}"));
                }
                Ok(answer) => self.note(answer),
                Err(text) => {
                    said.push(text);
                    break;
                }
            }
        }
        Answer { revision, ..Answer::note(if said.is_empty() { "no answer".into() } else { said.join("; ") }) }
    }

    async fn next(&mut self) -> Result<pb::WatchResponse, String> {
        match tokio::time::timeout(ANSWER_WITHIN, self.answers.recv()).await {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(status))) => Err(format!("the stream ended: {}", in_words(&status))),
            Ok(None) => Err("the stream ended".into()),
            Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
        }
    }

    fn note(&mut self, mut answer: pb::WatchResponse) {
        answer.mask();
        if answer.compact_revision != 0 {
            self.ended.insert(answer.watch_id);
        }
        let lines: Vec<String> = if answer.events.is_empty() {
            vec![format!("{answer:?}")]
        } else {
            answer.events.iter().filter(|event| !is_marker(event)).map(|event| format!("{event:?}")).collect()
        };
        if answer.watch_id != MARKER_WATCH_ID && !lines.is_empty() {
            self.events += if answer.events.is_empty() { 0 } else { lines.len() as u64 };
            self.told.entry(answer.watch_id).or_default().extend(lines);
        }
    }
}

/// In which order the watchers of one stream are told of one revision is up to the server: when one of them has told the marker,
/// all before it has been told, but the marker itself may still be on its way to others.
fn is_marker(event: &Event) -> bool {
    event.r#type() == EventType::Put && event.kv.as_ref().is_some_and(|kv| kv.key == MARKER_KEY)
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}
