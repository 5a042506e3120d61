//! One of the two servers, asked: a request goes in, its answer in words comes out.
//!
//! What watchers are told comes by itself, so there are moments at which all of it is collected ([`Side::settle`]). etcd takes new
//! watchers from an earlier revision together, ten times a second; one more of these, on a stream of its own, tells by its
//! event that the others have had theirs. After that the marker is written, and what comes before its event is all there is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::answer::Answer;
use super::call::{Call, STREAMS};
use super::mask::merged;
use super::streams::{ANSWER_WITHIN, MARKER_KEY, WatchStream};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;

const MESSAGE_BYTES_MAX: usize = 64 << 20;
const BARRIER_WATCH_ID: i64 = 2;

pub(super) struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    watches: Channel,
    keep_alive: Option<KeepAlive>,
    pub(super) streams: Vec<WatchStream>,
    barrier: WatchStream,
    /// Of the last change of the marker.
    marked: i64,
}

type KeepAlive = (mpsc::Sender<pb::LeaseKeepAliveRequest>, Streaming<pb::LeaseKeepAliveResponse>);

/// What each server says when all is told.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) marker: Answer,
    pub(super) hash: Answer,
    /// Why the wait for a watcher has ended early.
    pub(super) failure: Option<String>,
}

impl Side {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())?;
        let channel = endpoint.connect().await.context("connect to the member")?;
        // Of their own, so that many events never stand in the way of an answer.
        let watches = endpoint.connect().await.context("connect to the member")?;
        let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let marked = put_marker(&mut kv).await.revision.context("write the marker")?;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(WatchStream::open(watches.clone()).await?);
        }
        Ok(Self {
            kv,
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            barrier: WatchStream::open(watches.clone()).await?,
            watches,
            keep_alive: None,
            streams,
            marked,
        })
    }

    pub(super) async fn send(&mut self, call: &Call) -> Answer {
        match tokio::time::timeout(ANSWER_WITHIN * 2, self.ask(call)).await {
            Ok(answer) => answer,
            Err(_) => Answer::note(format!("no answer within {:?}", ANSWER_WITHIN * 2)),
        }
    }

    async fn ask(&mut self, call: &Call) -> Answer {
        match call.clone() {
            Call::Range(request) => Answer::of(inner(self.kv.range(request).await)),
            Call::RangeStream(request) => self.range_stream(request).await,
            Call::Put(request) => Answer::of(inner(self.kv.put(request).await)),
            Call::DeleteRange(request) => Answer::of(inner(self.kv.delete_range(request).await)),
            Call::Txn(request) => Answer::of(inner(self.kv.txn(request).await)),
            Call::Compact(request) => Answer::of(inner(self.kv.compact(request).await)),
            Call::LeaseGrant(request) => Answer::of(inner(self.lease.lease_grant(request).await)),
            Call::LeaseRevoke(request) => Answer::of(inner(self.lease.lease_revoke(request).await)),
            Call::TimeToLive(request) => Answer::of(inner(self.lease.lease_time_to_live(request).await)),
            Call::Leases(request) => Answer::of(inner(self.lease.lease_leases(request).await)),
            Call::KeepAlive(request) => self.keep_alive(request).await,
            Call::AnonymousLease(request) => self.anonymous_lease(request).await,
            Call::HashKv(request) => Answer::of(inner(self.maintenance.hash_kv(request).await)),
            Call::Alarm(request) => Answer::of(inner(self.maintenance.alarm(request).await)),
            Call::WatchCreate(stream, request) => self.streams[stream].create(request).await,
            Call::WatchCancel(stream, request) => self.streams[stream].cancel(request).await,
            Call::WatchProgress(stream) => self.streams[stream].progress(self.marked).await,
            Call::WatchNothing(stream) => self.streams[stream].nothing().await,
            Call::WatchReopen(stream) => self.reopen(stream).await,
        }
    }

    /// Waits until all watchers have been told all. `barrier`: some may have begun at an earlier revision.
    pub(super) async fn settle(&mut self, barrier: bool) -> Settled {
        let failure = if barrier { self.pass_barrier().await.err() } else { None };
        let marker = put_marker(&mut self.kv).await;
        let revision = marker.revision.unwrap_or_default();
        // Named rather than "now", which etcd would take for the number of a compaction, had there been one at 0.
        let hash = self.ask(&Call::HashKv(pb::HashKvRequest { revision })).await;
        if marker.revision.is_none() {
            return Settled { marker, hash, failure };
        }
        self.marked = revision;
        for stream in self.streams.iter_mut().chain([&mut self.barrier]) {
            if let Err(text) = stream.until(revision).await {
                return Settled { marker, hash, failure: Some(failure.unwrap_or(text)) };
            }
        }
        Settled { marker, hash, failure }
    }

    pub(super) async fn drain(&mut self, within: Duration) {
        for stream in &mut self.streams {
            stream.drain(within).await;
        }
    }

    async fn pass_barrier(&mut self) -> Result<(), String> {
        let create = pb::WatchCreateRequest {
            key: MARKER_KEY.into(),
            start_revision: self.marked,
            watch_id: BARRIER_WATCH_ID,
            ..Default::default()
        };
        self.barrier.create(create).await;
        self.barrier.until_event_of(BARRIER_WATCH_ID).await?;
        self.barrier.cancel(pb::WatchCancelRequest { watch_id: BARRIER_WATCH_ID }).await;
        Ok(())
    }

    async fn range_stream(&mut self, request: pb::RangeRequest) -> Answer {
        let mut stream = match self.kv.range_stream(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Answer::refusal(&status),
        };
        let mut pieces = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(status) => return Answer::refusal(&status),
            }
        }
        merged(pieces).map_or_else(Answer::note, |whole| Answer::of(Ok(whole)))
    }

    async fn keep_alive(&mut self, request: pb::LeaseKeepAliveRequest) -> Answer {
        if self.keep_alive.is_none() {
            let (requests, receiver) = mpsc::channel(1);
            // Fails only where the receiver is gone.
            let _ = requests.send(request).await;
            match self.lease.lease_keep_alive(ReceiverStream::new(receiver)).await {
                Ok(answers) => self.keep_alive = Some((requests, answers.into_inner())),
                Err(status) => return Answer::refusal(&status),
            }
        } else if let Some((requests, _)) = &self.keep_alive {
            let _ = requests.send(request).await;
        }
        let Some((_, answers)) = &mut self.keep_alive else { return Answer::note("no stream") };
        let answer = answers.message().await;
        if !matches!(answer, Ok(Some(_))) {
            self.keep_alive = None;
        }
        match answer {
            Ok(Some(answer)) => Answer::of(Ok(answer)),
            Ok(None) => Answer::note("the stream ended"),
            Err(status) => Answer::refusal(&status),
        }
    }

    async fn anonymous_lease(&mut self, request: pb::LeaseGrantRequest) -> Answer {
        let mut granted = match inner(self.lease.lease_grant(request).await) {
            Ok(granted) => granted,
            Err(status) => return Answer::refusal(&status),
        };
        let revoked = Answer::of(inner(self.lease.lease_revoke(pb::LeaseRevokeRequest { id: granted.id }).await));
        // Which number it picks is up to the server, but for the sign.
        granted.id = granted.id.signum();
        let mut answer = Answer::of(Ok(granted));
        answer.text = format!("{}; {}", answer.text, revoked.text);
        answer
    }

    async fn reopen(&mut self, stream: usize) -> Answer {
        match WatchStream::open(self.watches.clone()).await {
            Ok(mut opened) => {
                opened.events = self.streams[stream].events;
                self.streams[stream] = opened;
                Answer::note("opened")
            }
            Err(error) => Answer::note(format!("not opened: {error:#}")),
        }
    }
}

async fn put_marker(kv: &mut KvClient<Channel>) -> Answer {
    let put = pb::PutRequest { key: MARKER_KEY.into(), ..Default::default() };
    Answer::of(inner(kv.put(put).await))
}

fn inner<M>(answer: Result<Response<M>, Status>) -> Result<M, Status> {
    answer.map(Response::into_inner)
}
