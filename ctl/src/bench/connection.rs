//! A gRPC client as small as it can be: bare HTTP/2, messages framed by hand, everything on the caller's thread.
//!
//! The load runs on the processors of the server it measures, and what the client takes the server does not get. A tonic client
//! takes 20-30 us of processor a request, more than the server. Left out: TLS, compression, deadlines (the driver has one for all),
//! reconnecting (a lost connection is a failure of every operation after it, and is shown as such).

use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use prost::Message;
use tokio::net::TcpStream;

use super::failure::Failure;
use super::frame::{Deframer, frame};
use super::socket::Socket;

/// Large enough that no window is ever waited for.
const WINDOW_BYTES: u32 = 64 << 20;
/// Unary answers shorter than this give their window back when they end, which costs nothing.
const RELEASE_BYTES: usize = 1 << 20;

/// What is asked of the server, and its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    Status,
}

impl Method {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Range, "/etcdserverpb.KV/Range"),
        (Self::Put, "/etcdserverpb.KV/Put"),
        (Self::DeleteRange, "/etcdserverpb.KV/DeleteRange"),
        (Self::Txn, "/etcdserverpb.KV/Txn"),
        (Self::Watch, "/etcdserverpb.Watch/Watch"),
        (Self::LeaseGrant, "/etcdserverpb.Lease/LeaseGrant"),
        (Self::LeaseRevoke, "/etcdserverpb.Lease/LeaseRevoke"),
        (Self::LeaseKeepAlive, "/etcdserverpb.Lease/LeaseKeepAlive"),
        (Self::Status, "/etcdserverpb.Maintenance/Status"),
    ];
}

/// One connection; a clone is another handle to it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// By [`Method`], in the order of [`Method::ALL`].
    uris: Arc<[Uri]>,
    headers: HeaderMap,
}

impl Connection {
    /// `endpoint` is `host:port` or `http://host:port`.
    pub(crate) async fn open(endpoint: &str) -> Result<Self> {
        if endpoint.starts_with("https://") {
            bail!("{endpoint}: the load is sent in plaintext only");
        }
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        let socket = TcpStream::connect(address).await.with_context(|| format!("connect to --endpoint {address}"))?;
        socket.set_nodelay(true).context("set TCP_NODELAY")?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        let (sender, connection) =
            builder.handshake(Socket(socket)).await.with_context(|| format!("speak HTTP/2 to {address}"))?;
        // Its end is seen by every stream on it.
        tokio::spawn(connection);
        let uri = |path| Uri::builder().scheme("http").authority(address).path_and_query(path).build();
        let uris = Method::ALL.iter().map(|(_, path)| uri(*path)).collect::<Result<Vec<_>, _>>();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(Self { sender, uris: uris.with_context(|| format!("read the endpoint {endpoint}"))?.into(), headers })
    }

    /// One request, one answer, status `OK`.
    pub(crate) async fn unary<A: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Failure> {
        let (response, _) = self.send(method, frame(request), true).await?;
        let (head, mut body) = response.await?.into_parts();
        let (mut deframer, mut unreleased) = (Deframer::default(), 0);
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            unreleased += chunk.len();
            if unreleased > RELEASE_BYTES {
                body.flow_control().release_capacity(std::mem::take(&mut unreleased))?;
            }
            deframer.push(chunk);
        }
        let trailers = body.trailers().await?;
        check_status(head.status, trailers.as_ref().unwrap_or(&head.headers))?;
        let Some(message) = deframer.next_message()? else {
            return Err(Failure::Transport("status OK and no message".to_owned()));
        };
        if !deframer.is_empty() {
            return Err(Failure::Transport("more than one message in answer to one request".to_owned()));
        }
        decode(message)
    }

    /// Opens a stream in both directions, with its first message.
    pub(crate) async fn stream<A: Message + Default>(
        &mut self,
        method: Method,
        first: &impl Message,
    ) -> Result<(Sender, Receiver<A>), Failure> {
        let (response, sender) = self.send(method, frame(first), false).await?;
        let receiver = Receiver { state: Incoming::Asked(response), deframer: Deframer::default(), of: PhantomData };
        Ok((Sender(sender), receiver))
    }

    async fn send(
        &mut self,
        method: Method,
        body: Bytes,
        last: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uris[method as usize].clone();
        *request.headers_mut() = self.headers.clone();
        let (response, mut stream) = self.sender.send_request(request, false)?;
        stream.send_data(body, last)?;
        Ok((response, stream))
    }
}

/// The sending half of a stream. Dropped, it resets the stream where the server has not ended it.
#[derive(Debug)]
pub(crate) struct Sender(SendStream<Bytes>);

impl Sender {
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), Failure> {
        Ok(self.0.send_data(frame(message), false)?)
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) struct Receiver<A> {
    state: Incoming,
    deframer: Deframer,
    of: PhantomData<A>,
}

#[derive(Debug)]
enum Incoming {
    /// A server sends the head with its first message.
    Asked(ResponseFuture),
    Open(RecvStream, http::StatusCode, HeaderMap),
}

impl<A: Message + Default> Receiver<A> {
    /// The next message; `None` when the server ended the stream with status `OK`.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, Failure> {
        loop {
            if let Some(message) = self.deframer.next_message()? {
                return decode(message).map(Some);
            }
            match &mut self.state {
                Incoming::Asked(response) => {
                    let (head, body) = response.await?.into_parts();
                    self.state = Incoming::Open(body, head.status, head.headers);
                }
                Incoming::Open(body, status, headers) => {
                    let Some(chunk) = body.data().await else {
                        let trailers = body.trailers().await?;
                        check_status(*status, trailers.as_ref().unwrap_or(headers))?;
                        return Ok(None);
                    };
                    let chunk = chunk?;
                    body.flow_control().release_capacity(chunk.len())?;
                    self.deframer.push(chunk);
                }
            }
        }
    }

    /// As [`Self::next`], where an end is a failure.
    pub(crate) async fn expect(&mut self) -> Result<A, Failure> {
        self.next().await?.ok_or_else(|| Failure::Transport("the server ended the stream".to_owned()))
    }
}

fn decode<A: Message + Default>(message: Bytes) -> Result<A, Failure> {
    A::decode(message).map_err(|error| Failure::Transport(format!("read the answer: {error}")))
}

/// `fields` are the trailers, or the head where the server answered with nothing else.
fn check_status(status: http::StatusCode, fields: &HeaderMap) -> Result<(), Failure> {
    if status != http::StatusCode::OK {
        return Err(Failure::Transport(format!("HTTP status {status}")));
    }
    let Some(code) = fields.get("grpc-status") else {
        return Err(Failure::Transport("an answer without grpc-status".to_owned()));
    };
    if code.as_bytes() == b"0" {
        return Ok(());
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let code = text(code).parse().map_err(|_| Failure::Transport(format!("grpc-status {code:?}")))?;
    let message = fields.get("grpc-message").map(text).unwrap_or_default();
    Err(Failure::Status { code, message })
}

#[cfg(test)]
mod tests;
