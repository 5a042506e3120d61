//! The client library, as far as it goes in this release: one connection, keys and values, status.
//!
//! For any etcd v3 server. Balancing, watches, leases, locks and retries come with a later release; what is here keeps
//! its shape then.

mod error;
mod kv;

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use tonic::transport::{Channel, Endpoint};

pub use error::{Error, Phase};
pub use kv::KeyValue;
pub use quorate_proto as proto;
pub use quorate_proto::etcdserverpb::StatusResponse as Status;

/// How long the connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one member. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: String,
    channel: Channel,
}

impl Client {
    /// `endpoint` is `host:port` or `http://host:port`.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let fail = |phase| move |reason: tonic::transport::Error| Error::connection(endpoint, phase, &reason);
        let target = Endpoint::from_shared(url).map_err(fail(Phase::Endpoint))?;
        let target = target.connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT).tcp_nodelay(true);
        let channel = target.connect().await.map_err(fail(Phase::Connect))?;
        Ok(Self { endpoint: endpoint.to_owned(), channel })
    }

    /// What the member says of itself.
    pub async fn status(&self) -> Result<Status, Error> {
        let mut maintenance = pb::maintenance_client::MaintenanceClient::new(self.channel.clone());
        let answer = maintenance.status(pb::StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    fn refused(&self, status: tonic::Status) -> Error {
        Error::status(&self.endpoint, status)
    }
}
