//! Those who watch while a row writes: every event must come, once, in order, to each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_client::proto::etcdserverpb as pb;
use quorate_client::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_client::proto::mvccpb::Event;
use quorate_client::proto::mvccpb::event::EventType;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::connection::{Connection, Method, Receiver, Sender};
use crate::bench::drive::{Bench, in_time};
use crate::bench::failure::Failure;
use crate::bench::recorder::Recorder;

/// How long nothing may come before what is missing counts as lost.
const EVENT_WITHIN: Duration = Duration::from_secs(10);
/// When the value was due, in front of it.
pub(super) const STAMP_BYTES: usize = 8;

/// What one watcher watches.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) key: Bytes,
    /// Empty for the one key.
    pub(super) range_end: Bytes,
    pub(super) prev_kv: bool,
}

/// What is expected, what has come, and when.
#[derive(Debug)]
pub(super) struct Sink {
    recorder: Arc<Recorder>,
    epoch: Instant,
    /// Whether values carry the time from which their delivery is measured.
    stamped: bool,
    expected: AtomicU64,
    delivered: AtomicU64,
    complete: Notify,
}

impl Sink {
    /// To be called before the write, whose events may overtake its answer.
    pub(super) fn expect(&self, events: u64) {
        self.expected.fetch_add(events, Ordering::Relaxed);
    }

    /// The write was not done.
    pub(super) fn expect_not(&self, events: u64) {
        self.expected.fetch_sub(events, Ordering::Relaxed);
        self.complete.notify_waiters();
    }

    /// `value` with the time in front, from which its delivery is measured.
    pub(super) fn stamp(&self, from: Instant, value: &[u8]) -> Bytes {
        let mut stamped = BytesMut::with_capacity(value.len().max(STAMP_BYTES));
        let nanoseconds = from.saturating_duration_since(self.epoch).as_nanos();
        stamped.put_u64(u64::try_from(nanoseconds).expect("a run ends within 500 years"));
        stamped.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
        stamped.freeze()
    }

    /// Until all that is expected has come.
    pub(super) async fn complete(&self) {
        loop {
            // Before the look: what comes between the two wakes it.
            let notified = self.complete.notified();
            if self.delivered.load(Ordering::Relaxed) >= self.expected.load(Ordering::Relaxed) {
                return;
            }
            notified.await;
        }
    }

    fn delivered(&self, events: &[Event]) {
        let count = u64::try_from(events.len()).expect("64 bits");
        if self.stamped {
            let now = self.epoch.elapsed();
            for event in events {
                let stamp = event.kv.as_ref().and_then(|kv| kv.value.first_chunk::<STAMP_BYTES>());
                match stamp {
                    Some(stamp) => {
                        self.recorder.done(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*stamp))));
                    }
                    None => self.recorder.failed(&Failure::wrong("an event without the value that was put")),
                }
            }
        } else {
            self.recorder.count("events", count);
        }
        let delivered = self.delivered.fetch_add(count, Ordering::Relaxed) + count;
        if delivered >= self.expected.load(Ordering::Relaxed) {
            self.complete.notify_waiters();
        }
    }
}

/// All watchers of a row. Dropped, their streams end.
#[derive(Debug)]
pub(super) struct Watchers {
    pub(super) sink: Arc<Sink>,
    streams: JoinSet<()>,
}

impl Watchers {
    /// Watches from now on; returns when the server has confirmed every watcher.
    pub(super) async fn open(bench: &Bench, watched: Vec<Watched>, stamped: bool) -> Result<Self> {
        let sink = Arc::new(Sink {
            recorder: Arc::clone(&bench.recorder),
            epoch: Instant::now(),
            stamped,
            expected: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            complete: Notify::new(),
        });
        let mut streams = JoinSet::new();
        for stream in 0..bench.row.streams {
            let own: Vec<_> = watched.iter().skip(stream).step_by(bench.row.streams).cloned().collect();
            let opened = in_time(Stream::open(bench.connection(stream), own)).await;
            let opened = opened.with_context(|| format!("open watch stream {stream} of {}", bench.row.streams))?;
            streams.spawn(opened.follow(Arc::clone(&sink)));
        }
        Ok(Self { sink, streams })
    }

    /// Waits for the last events. Those that do not come, or come too often, are failures.
    pub(super) async fn close(mut self) {
        let sink = &self.sink;
        let mut seen = u64::MAX;
        // As long as something comes, more may.
        while seen != sink.delivered.load(Ordering::Relaxed) {
            seen = sink.delivered.load(Ordering::Relaxed);
            if timeout(EVENT_WITHIN, sink.complete()).await.is_ok() {
                break;
            }
        }
        let (expected, delivered) = (sink.expected.load(Ordering::Relaxed), sink.delivered.load(Ordering::Relaxed));
        if expected != delivered {
            sink.recorder.failed(&Failure::wrong(format!("{delivered} events came, {expected} were expected")));
        }
        self.streams.abort_all();
    }
}

/// One stream and its watchers: the n-th has watch ID n + 1, for 0 lets the server choose.
struct Stream {
    // Held so that the stream stays open.
    _sender: Sender,
    receiver: Receiver<pb::WatchResponse>,
    watched: Vec<Watched>,
    /// The revision of the last event of each.
    seen: Vec<i64>,
    connection: Connection,
}

impl Stream {
    async fn open(mut connection: Connection, watched: Vec<Watched>) -> Result<Self, Failure> {
        let mut requests = (1..).zip(&watched).map(|(watch_id, one)| pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: one.key.clone(),
                range_end: one.range_end.clone(),
                prev_kv: one.prev_kv,
                watch_id,
                ..Default::default()
            })),
        });
        let first = requests.next().ok_or_else(|| Failure::wrong("a stream without watchers"))?;
        let (mut sender, mut receiver) = connection.stream::<pb::WatchResponse>(Method::Watch, &first).await?;
        for request in requests {
            sender.send(&request)?;
        }
        for _ in 0..watched.len() {
            let answer = receiver.expect().await?;
            if !answer.created || answer.canceled {
                let (created, reason) = (answer.created, answer.cancel_reason);
                return Err(Failure::wrong(format!("a watcher was not created: created {created}, {reason:?}")));
            }
        }
        let seen = vec![0; watched.len()];
        Ok(Self { _sender: sender, receiver, watched, seen, connection })
    }

    async fn follow(mut self, sink: Arc<Sink>) {
        loop {
            match self.receiver.expect().await {
                Ok(answer) => {
                    if let Err(failure) = self.check(&answer) {
                        sink.recorder.failed(&failure);
                    }
                    sink.delivered(&answer.events);
                }
                Err(failure) => {
                    sink.recorder.failed(&failure);
                    drop(self.connection);
                    return;
                }
            }
        }
    }

    fn check(&mut self, answer: &pb::WatchResponse) -> Result<(), Failure> {
        if answer.canceled {
            return Err(Failure::wrong(format!("a watcher was cancelled: {:?}", answer.cancel_reason)));
        }
        let place = usize::try_from(answer.watch_id - 1).ok().filter(|place| *place < self.watched.len());
        let place = place.ok_or_else(|| Failure::wrong(format!("events for watcher {}", answer.watch_id)))?;
        let (watched, seen) = (&self.watched[place], &mut self.seen[place]);
        for event in &answer.events {
            let kv = event.kv.as_ref().ok_or_else(|| Failure::wrong("an event without a key"))?;
            let inside = if watched.range_end.is_empty() {
                kv.key == watched.key
            } else {
                kv.key >= watched.key && kv.key < watched.range_end
            };
            if !inside {
                return Err(Failure::wrong("an event of a key that is not watched"));
            }
            if kv.mod_revision <= *seen {
                return Err(Failure::wrong(format!("an event at revision {}, after {seen}", kv.mod_revision)));
            }
            *seen = kv.mod_revision;
            let created = event.r#type() == EventType::Put && kv.version == 1;
            if event.prev_kv.is_some() != (watched.prev_kv && !created) {
                return Err(Failure::wrong("an event with the wrong idea of what was before"));
            }
        }
        Ok(())
    }
}
