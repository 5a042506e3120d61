//! The gRPC services, one file each: wire messages in, commands and views below, wire messages out.
//!
//! Nothing is decided here but what can be said of a request on its own (empty keys, sizes, sort options); everything
//! else is decided by apply or by a view, so that a client gets the same answer from every member.

mod audit;
mod auth;
mod cluster;
mod concurrency;
mod election;
mod error;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
pub mod snapshot;
pub mod watch;

use std::sync::Arc;

use tonic::service::Routes;

use quorate_proto::peer::audit_server;
use quorate_proto::{etcdserverpb as pb, health as health_pb, v3electionpb, v3lockpb};
use tokio_util::sync::CancellationToken;

use crate::keepers::{CompactionHashes, Leases};
use crate::node::Node;
use crate::watch::Hub;
pub(crate) use error::{oversize, status};
use watch::{HeaderSource, OpenDoor, WatchOptions, WatchService};

/// What etcd allows a message beyond `--max-request-bytes`.
pub const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// What the services share.
#[derive(Clone)]
pub struct Services {
    pub node: Node,
    pub leases: Leases,
    pub hub: Hub,
    pub options: ServiceOptions,
    /// Ends streams when the member stops.
    pub shutdown: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
pub struct ServiceOptions {
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_interval: std::time::Duration,
    /// `--quota-backend-bytes`; negative is off.
    pub quota_bytes: i64,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
}

impl HeaderSource for Node {
    fn header(&self, revision: i64) -> pb::ResponseHeader {
        Node::header(self, revision)
    }
}

/// What members ask each other beside Raft's own, on the peer port: what only the leader can say of leases, and what each has.
pub fn peer_routes(services: &Services, compactions: CompactionHashes, raft: Routes) -> Routes {
    let lease = lease::LeaseService { services: services.clone(), forwards: false };
    let audit = audit::AuditService::new(services.node.clone(), compactions);
    let guard = services.node.raft();
    raft.add_service(guard.guard(pb::lease_server::LeaseServer::new(lease)))
        .add_service(guard.guard(audit_server::AuditServer::new(audit)))
}

/// Every service behind one router.
pub fn routes(services: &Services) -> Routes {
    let limit = services.options.request_bytes_max + MESSAGE_OVERHEAD_BYTES;
    macro_rules! server {
        ($server:path, $service:expr) => {
            <$server>::new($service).max_decoding_message_size(limit).max_encoding_message_size(i32::MAX as usize)
        };
    }
    let watch = WatchService::new(
        services.hub.clone(),
        Arc::new(services.node.clone()),
        Arc::new(OpenDoor),
        WatchOptions {
            request_bytes_max: services.options.request_bytes_max,
            progress_interval: services.options.watch_progress_interval,
        },
        services.shutdown.clone(),
    );
    let mut routes = Routes::builder();
    routes
        .add_service(server!(pb::kv_server::KvServer<_>, kv::KvService(services.clone())))
        .add_service(watch.into_server())
        .add_service(server!(
            pb::lease_server::LeaseServer<_>,
            lease::LeaseService { services: services.clone(), forwards: true }
        ))
        .add_service(server!(pb::cluster_server::ClusterServer<_>, cluster::ClusterService(services.clone())))
        .add_service(server!(
            pb::maintenance_server::MaintenanceServer<_>,
            maintenance::MaintenanceService(services.clone())
        ))
        .add_service(server!(pb::auth_server::AuthServer<_>, auth::AuthService(services.clone())))
        .add_service(server!(v3lockpb::lock_server::LockServer<_>, lock::LockService(services.clone())))
        .add_service(server!(
            v3electionpb::election_server::ElectionServer<_>,
            election::ElectionService(services.clone())
        ))
        .add_service(server!(
            health_pb::health_server::HealthServer<_>,
            health::HealthService { shutdown: services.shutdown.clone() }
        ));
    routes.routes()
}
