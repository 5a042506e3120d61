//! The Watch service: etcd's rules for requests and answers around the hub's streams.
//!
//! ```text
//!            request body                                        response body, polled by HTTP/2 when there is room
//!   client ───────────────▶ reader task: normalise, authorise ─▶ WatchStream ─▶ Frames ─▶ DATA frames ───────▶ client
//! ```
//!
//! The response is a body of our own and not a stream of messages: an event's bytes are made once for all watchers, and
//! many answers go into one frame ([`WatchServer`]). The generated trait is served too, for the gateway.
//!
//! Left out: who is allowed to watch what ([`Door`]), and what is published when (watch).

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::body::{Body as HttpBody, Frame};
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_store::{KeyRange, Rejection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{MESSAGE_OVERHEAD_BYTES, oversize};
use crate::watch::wire::{self, Frames};
use crate::watch::{End, Filters, Hub, Output, WatchCreate, WatchHandle, WatchStream};

/// What the header of an answer says beside the revision.
pub trait HeaderSource: Send + Sync + 'static {
    fn header(&self, revision: i64) -> pb::ResponseHeader;
}

/// Who may come in, and until when.
pub trait Door: Send + Sync + 'static {
    /// At the start of a stream. What it returns resolves when the stream has to end (`hasleader`, and there is none).
    fn open(
        &self,
        _metadata: &MetadataMap,
        _extensions: &http::Extensions,
    ) -> Result<Option<BoxFuture<'static, Status>>, Status> {
        Ok(None)
    }

    /// May the caller watch these keys? `range_end` is as it was sent: `\0` is everything from `key` on.
    fn authorize(
        &self,
        metadata: &MetadataMap,
        extensions: &http::Extensions,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), Status>;
}

/// Everybody, everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenDoor;

impl Door for OpenDoor {
    fn authorize(&self, _: &MetadataMap, _: &http::Extensions, _: &Bytes, _: &Bytes) -> Result<(), Status> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
}

/// A shorter interval is taken for this one.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Requests are small, and there may be ten thousand idle streams.
const REQUEST_BUFFER_BYTES: usize = 256;

const PERMISSION_DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

#[derive(Clone)]
pub struct WatchService(Arc<Inner>);

struct Inner {
    hub: Hub,
    headers: Arc<dyn HeaderSource>,
    door: Arc<dyn Door>,
    message_bytes_max: usize,
    progress_interval: Duration,
    shutdown: CancellationToken,
    /// Wakes the streams; starts with the first of them, on their runtime.
    herald: OnceLock<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(herald) = self.herald.get() {
            herald.abort();
        }
    }
}

impl WatchService {
    pub fn new(
        hub: Hub,
        headers: Arc<dyn HeaderSource>,
        door: Arc<dyn Door>,
        options: WatchOptions,
        shutdown: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            hub,
            headers,
            door,
            message_bytes_max: options.request_bytes_max + MESSAGE_OVERHEAD_BYTES,
            progress_interval: options.progress_interval.max(PROGRESS_INTERVAL_MIN),
            shutdown,
            herald: OnceLock::new(),
        }))
    }

    /// To be given to a tonic router.
    pub fn into_server(self) -> WatchServer {
        WatchServer(self)
    }

    fn session(&self, request: Request<Streaming<pb::WatchRequest>>) -> Result<Session, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let leave = self.0.door.open(&metadata, &extensions)?;
        self.0.herald.get_or_init(|| tokio::spawn(self.0.hub.herald()));
        let stream = self.0.hub.stream();
        let status = Arc::new(OnceLock::new());
        let caller = Caller { service: self.0.clone(), handle: stream.handle().clone(), metadata, extensions };
        let reader = tokio::spawn(read_requests(caller, requests, leave, status.clone()));
        Ok(Session { service: self.0.clone(), stream, reader, status, ticker: None, outputs: Vec::new() })
    }
}

// ---- requests ----

struct Caller {
    service: Arc<Inner>,
    handle: WatchHandle,
    metadata: MetadataMap,
    extensions: http::Extensions,
}

/// Lives as long as the session, which aborts it.
async fn read_requests(
    caller: Caller,
    mut requests: Streaming<pb::WatchRequest>,
    leave: Option<BoxFuture<'static, Status>>,
    status: Arc<OnceLock<Status>>,
) {
    let leave = async {
        match leave {
            Some(leave) => leave.await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        biased;
        () = caller.service.shutdown.cancelled() => Status::unavailable("etcdserver: server stopped"),
        end = leave => end,
        end = caller.serve(&mut requests) => end,
    };
    let _ = status.set(end);
    caller.handle.finish(End::Closed);
}

impl Caller {
    async fn serve(&self, requests: &mut Streaming<pb::WatchRequest>) -> Status {
        loop {
            match requests.message().await {
                Ok(Some(request)) => self.take(request),
                // The client has no more to ask; it goes on listening (etcd's way).
                Ok(None) => return std::future::pending().await,
                Err(status) if status.code() == Code::Cancelled => {
                    return Status::cancelled("etcdserver: watch canceled");
                }
                Err(status) => return oversize(status.message()).map_or(status, Status::resource_exhausted),
            }
            self.handle.room().await;
        }
    }

    fn take(&self, request: pb::WatchRequest) {
        use pb::watch_request::RequestUnion;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.handle.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.handle.progress(),
            None => {}
        }
    }

    fn create(&self, request: pb::WatchCreateRequest) {
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
        if request.start_revision < 0 {
            return self.handle.refuse(Rejection::Compacted.to_string());
        }
        // What is authorised is what was sent; what it means is decided after.
        let allowed = self.service.door.authorize(&self.metadata, &self.extensions, &key, &request.range_end);
        if let Err(status) = allowed {
            return self.handle.refuse(refusal(&status));
        }
        let unwanted = |filter: pb::watch_create_request::FilterType| request.filters.contains(&(filter as i32));
        self.handle.create(&WatchCreate {
            watch_id: request.watch_id,
            range: KeyRange::new(&key, &request.range_end),
            start_revision: request.start_revision,
            filters: Filters {
                no_put: unwanted(pb::watch_create_request::FilterType::Noput),
                no_delete: unwanted(pb::watch_create_request::FilterType::Nodelete),
            },
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
        });
    }
}

/// etcd names three reasons; anything else is a denial.
fn refusal(status: &Status) -> String {
    let (code, text) = match status.message() {
        text @ "etcdserver: invalid auth token" => ("Unauthenticated", text),
        text @ ("etcdserver: revision of auth store is old" | "etcdserver: user name is empty") => {
            ("InvalidArgument", text)
        }
        _ => return PERMISSION_DENIED.to_owned(),
    };
    format!("rpc error: code = {code} desc = {text}")
}

// ---- answers ----

/// One call: a stream of the hub, the task that reads its requests, and its clock.
struct Session {
    service: Arc<Inner>,
    stream: WatchStream,
    reader: JoinHandle<()>,
    status: Arc<OnceLock<Status>>,
    /// Runs while a watcher of the stream wants progress.
    ticker: Option<Pin<Box<Sleep>>>,
    outputs: Vec<Output>,
}

impl Session {
    /// Ready with outputs to take, or with the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            match self.stream.poll_outputs(cx, &mut self.outputs) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(end)) => return Poll::Ready(Err(self.end(end))),
                Poll::Pending => ready!(self.poll_tick(cx)),
            }
        }
    }

    fn end(&self, end: End) -> Status {
        match (self.status.get(), end) {
            (Some(status), _) => status.clone(),
            (None, End::Closed) => Status::unavailable("etcdserver: server stopped"),
            (None, End::Fault(reason)) => Status::internal(reason),
        }
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.stream.wants_ticks() {
            self.ticker = None;
            return Poll::Pending;
        }
        let interval = self.interval();
        let ticker = self.ticker.get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
        ready!(ticker.as_mut().poll(cx));
        ticker.as_mut().reset(Instant::now() + interval);
        self.stream.tick();
        Poll::Ready(())
    }

    /// Up to a tenth longer, so that streams opened together do not all speak together. The stream's number decides, not
    /// chance: every run is the same.
    fn interval(&self) -> Duration {
        let interval = self.service.progress_interval;
        interval + interval / 10 * (self.stream.number().wrapping_mul(0x9e37_79b9) >> 24) / 256
    }

    fn header(&self) -> impl Fn(i64) -> pb::ResponseHeader + '_ {
        |revision| self.service.headers.header(revision)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The response as HTTP/2 takes it.
struct SessionBody {
    session: Session,
    frames: Frames,
    ended: bool,
}

impl HttpBody for SessionBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(chunk) = this.frames.next_chunk() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.session.poll(cx)) {
                Ok(()) => {
                    let outputs = std::mem::take(&mut this.session.outputs);
                    let header = this.session.header();
                    for output in &outputs {
                        this.frames.push(output, &header, this.session.service.message_bytes_max);
                    }
                    this.frames.flush();
                }
                Err(status) => {
                    this.ended = true;
                    let mut trailers = http::HeaderMap::new();
                    status.add_header(&mut trailers)?;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }
}

/// The response as messages.
struct SessionMessages {
    session: Session,
    ready: std::collections::VecDeque<pb::WatchResponse>,
    ended: bool,
}

impl futures::Stream for SessionMessages {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(response) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.session.poll(cx)) {
                Ok(()) => {
                    let outputs = std::mem::take(&mut this.session.outputs);
                    let header = this.session.header();
                    for output in &outputs {
                        this.ready.extend(wire::messages(output, &header, this.session.service.message_bytes_max));
                    }
                }
                Err(status) => {
                    this.ended = true;
                    if status.code() != Code::Ok {
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
        }
    }
}

// ---- ways in ----

#[tonic::async_trait]
impl pb::watch_server::Watch for WatchService {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let session = self.session(request)?;
        let messages = SessionMessages { session, ready: std::collections::VecDeque::new(), ended: false };
        Ok(Response::new(Box::pin(messages)))
    }
}

/// The service `etcdserverpb.Watch` with a response body of its own.
#[derive(Clone)]
pub struct WatchServer(WatchService);

impl tonic::server::NamedService for WatchServer {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl<B> tower::Service<http::Request<B>> for WatchServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(self.0.answer(request).unwrap_or_else(Status::into_http)))
    }
}

impl WatchService {
    fn answer<B>(&self, request: http::Request<B>) -> Result<http::Response<tonic::body::Body>, Status>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            return Err(Status::unimplemented(""));
        }
        if request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("requests to Watch are not compressed"));
        }
        let size_max = Some(self.0.message_bytes_max);
        let request = request.map(|body| Streaming::new_request(RequestDecoder, body, None, size_max));
        let session = self.session(Request::from_http(request))?;
        let body = SessionBody { session, frames: Frames::default(), ended: false };
        let mut response = http::Response::new(tonic::body::Body::new(body));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        Ok(response)
    }
}

#[derive(Clone, Copy, Debug)]
struct RequestDecoder;

impl Decoder for RequestDecoder {
    type Item = pb::WatchRequest;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // A copy: the request must not hold on to the buffer it came in.
        let bytes = source.copy_to_bytes(source.remaining());
        let request = pb::WatchRequest::decode(bytes).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(request))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REQUEST_BUFFER_BYTES, REQUEST_BUFFER_BYTES)
    }
}
