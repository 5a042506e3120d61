//! The connections to one peer, and a call that never lasts longer than it is given.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate_proto::peer as pb;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::acknowledged::{Acknowledged, LOST};
use crate::net::Dial;
use crate::raft::silence::Silence;
use crate::raft::types::MemberId;

/// What the entries of one stream may be ahead of the peer's reading them.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// One message: a log read of [`super::super::log::LogOptions`], or one entry that is larger.
pub(super) const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Message of the refusal that a removed member meets. It stops when it reads it.
pub(crate) const REMOVED: &str = "the member has been permanently removed from the cluster";

pub(super) const CLUSTER_KEY: &str = "quorate-cluster";
pub(super) const FROM_KEY: &str = "quorate-from";
pub(super) const TO_KEY: &str = "quorate-to";

/// A gRPC client of a peer.
pub(crate) type Client = pb::peer_client::PeerClient<InterceptedService<Channel, Identify>>;

/// Says who calls, and whom.
#[derive(Clone, Debug)]
pub struct Identify {
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_KEY, self.cluster.clone());
        metadata.insert(FROM_KEY, self.from.clone());
        metadata.insert(TO_KEY, self.to.clone());
        Ok(request)
    }
}

pub(crate) fn id_text(id: u64) -> MetadataValue<Ascii> {
    format!("{id:x}").parse().expect("hexadecimal digits are ASCII")
}

/// Cancelled when other members say that this one may not take part any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expulsion {
    pub(crate) removed: CancellationToken,
    /// See [`super::acknowledged`].
    pub(crate) lost: CancellationToken,
}

/// One peer.
pub(crate) struct Link {
    pub(crate) id: MemberId,
    pub(crate) acknowledged: Arc<Acknowledged>,
    /// `host:port` of each peer URL.
    addresses: Vec<String>,
    dial: Dial,
    identify: Identify,
    control: Channel,
    bulk: Channel,
    /// Whether its process is known to be there: see [`super::super::vigil`].
    pub(crate) present: AtomicBool,
}

impl Link {
    pub(crate) fn control(&self) -> Client {
        client(self.control.clone(), self.identify.clone())
    }

    pub(crate) fn bulk(&self) -> Client {
        client(self.bulk.clone(), self.identify.clone())
    }

    /// For services of other rooms that are served on the peer port.
    pub(crate) fn channel(&self) -> InterceptedService<Channel, Identify> {
        InterceptedService::new(self.control.clone(), self.identify.clone())
    }

    pub(crate) fn is_present(&self) -> bool {
        self.present.load(Ordering::Relaxed)
    }

    /// Whether nobody listens at any of the peer's addresses: its machine answers, and refuses.
    pub(crate) async fn refuses(&self, patience: Duration) -> bool {
        for address in &self.addresses {
            match tokio::time::timeout(patience, self.dial.connect(address)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(Ok(_) | Err(_)) | Err(_) => return false,
            }
        }
        !self.addresses.is_empty()
    }
}

fn client(channel: Channel, identify: Identify) -> Client {
    pb::peer_client::PeerClient::with_interceptor(channel, identify)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// `call`, or a refusal when it has taken longer than `patience`.
pub(crate) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::new(Code::DeadlineExceeded, format!("no answer within {patience:?}"))),
    }
}

/// How the refusal begins that a member of another cluster meets.
pub(crate) const CLUSTER_MISMATCH: &str = "cluster ID mismatch";

/// Whether a refusal says that this member was removed.
pub(crate) fn says_removed(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.message() == REMOVED
}

/// All peers, each with its connections. A cheap handle.
#[derive(Clone)]
pub(crate) struct Links(Arc<Inner>);

struct Inner {
    cluster_id: u64,
    member_id: MemberId,
    dial: Dial,
    ping_interval: Duration,
    ping_timeout: Duration,
    expulsion: Expulsion,
    silence: Silence,
    /// Said once, whatever the number of attempts.
    said_mismatch: AtomicBool,
    links: Mutex<BTreeMap<MemberId, Arc<Link>>>,
}

impl Links {
    /// A connection whose peer is silent for longer than an election time-out is given up.
    pub(crate) fn new(
        cluster_id: u64,
        member_id: MemberId,
        dial: Dial,
        election_timeout: Duration,
        expulsion: Expulsion,
    ) -> Self {
        Self(Arc::new(Inner {
            cluster_id,
            member_id,
            dial,
            ping_interval: election_timeout / 2,
            ping_timeout: election_timeout / 2,
            expulsion,
            silence: Silence::default(),
            said_mismatch: AtomicBool::new(false),
            links: Mutex::default(),
        }))
    }

    pub(crate) fn silence(&self) -> &Silence {
        &self.0.silence
    }

    /// To be called with what calls ended in.
    pub(crate) fn heard(&self, status: &Status) {
        if status.message().starts_with(CLUSTER_MISMATCH) && !self.0.said_mismatch.swap(true, Ordering::Relaxed) {
            tracing::error!(
                reason = status.message(),
                "refused by a member of another cluster: --initial-cluster-token or --initial-cluster is not that of the cluster"
            );
        }
        if says_removed(status) {
            self.0.expulsion.removed.cancel();
        }
        if status.code() == Code::PermissionDenied && status.message().starts_with(LOST) {
            tracing::error!(reason = status.message(), "refused by another member");
            self.0.expulsion.lost.cancel();
        }
    }

    /// The link to a member that is reached by `peer_urls`; new ones when these have changed.
    pub(crate) fn to(&self, id: MemberId, peer_urls: &[String]) -> Arc<Link> {
        let addresses: Vec<String> = peer_urls.iter().map(|url| address(url)).collect();
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&id) {
            Some(link) if link.addresses == addresses => link.clone(),
            other => {
                let acknowledged =
                    other.map_or_else(|| Arc::new(Acknowledged::by(id)), |link| link.acknowledged.clone());
                let link = Arc::new(self.link(id, addresses, acknowledged));
                links.insert(id, link.clone());
                link
            }
        }
    }

    /// Whether the member is one that came back without what it had acknowledged, and how much that was.
    pub(crate) fn has_lost(&self, id: MemberId) -> Option<u64> {
        let acknowledged = self.acknowledged_by(id)?;
        acknowledged.has_lost().then(|| acknowledged.upto())
    }

    /// What is known of a member that has been called before.
    pub(crate) fn acknowledged_by(&self, id: MemberId) -> Option<Arc<Acknowledged>> {
        let links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&id).map(|link| link.acknowledged.clone())
    }

    fn link(&self, id: MemberId, addresses: Vec<String>, acknowledged: Arc<Acknowledged>) -> Link {
        let inner = &self.0;
        Link {
            id,
            acknowledged,
            dial: inner.dial.clone(),
            identify: Identify { cluster: id_text(inner.cluster_id), from: id_text(inner.member_id), to: id_text(id) },
            control: self.channel(&addresses),
            bulk: self.channel(&addresses),
            present: AtomicBool::new(false),
            addresses,
        }
    }

    fn channel(&self, addresses: &[String]) -> Channel {
        let (dial, addresses) = (self.0.dial.clone(), addresses.to_vec());
        let connector = tower::service_fn(move |_| {
            let (dial, addresses) = (dial.clone(), addresses.clone());
            async move { connect(&dial, &addresses).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://peer")
            .http2_keep_alive_interval(self.0.ping_interval)
            .keep_alive_timeout(self.0.ping_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_timeout(self.0.ping_timeout)
            .connect_with_connector_lazy(connector)
    }
}

/// The first address that answers.
async fn connect(dial: &Dial, addresses: &[String]) -> io::Result<crate::net::Connection> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL");
    for address in addresses {
        match dial.connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failure)
}

/// `host:port` of a URL; what is none stays as it is, and fails when it is dialled.
pub(crate) fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').to_owned()
}
