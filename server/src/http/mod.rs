//! One port for everything: gRPC over HTTP/2, and over HTTP/1 or 2 what is asked of it by hand or by probes.
//!
//! ```text
//!   listener ─▶ connection (h1 or h2, whichever the first bytes say) ─▶ router ─┬▶ gRPC services
//!                                                                               └▶ /version /health /livez /readyz /metrics
//! ```
//!
//! Left out: TLS and the JSON gateway, which come with later releases, and peers, who have a port of their own.

mod door;
mod health;
mod listen;
mod oversize;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::service::Routes;

use crate::config::{ETCD_STORAGE_VERSION, ETCD_VERSION};
use crate::node::Node;
use crate::observe::count_requests;
use crate::telemetry::Metrics;

pub use listen::{Connections, Listener, bind};

#[derive(Clone)]
struct Shared {
    node: Node,
    metrics: Arc<Metrics>,
}

/// What a client port serves.
pub fn client_router(node: Node, metrics: Arc<Metrics>, services: Routes) -> Router {
    let own =
        probes().route("/version", get(version)).with_state(Shared { node: node.clone(), metrics: metrics.clone() });
    let door = door::Door::new(node, metrics.clone());
    services
        .into_axum_router()
        .layer(axum::middleware::from_fn_with_state(door, door::pass))
        .layer(axum::middleware::map_response(oversize::as_etcd_says_it))
        .layer(axum::middleware::from_fn_with_state(metrics, count_requests))
        .merge(own)
}

/// What a peer port serves: the other members, and the version for whoever looks.
pub fn peer_router(node: Node, metrics: Arc<Metrics>, peers: Routes) -> Router {
    let shared = Shared { node, metrics };
    peers.into_axum_router().merge(Router::new().route("/version", get(version)).with_state(shared))
}

/// What `--listen-metrics-urls` serve.
pub fn metrics_router(node: Node, metrics: Arc<Metrics>) -> Router {
    probes().with_state(Shared { node, metrics })
}

fn probes() -> Router<Shared> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/livez/{check}", get(health::livez_check))
        .route("/readyz", get(health::readyz))
        .route("/readyz/{check}", get(health::readyz_check))
}

async fn version(State(shared): State<Shared>) -> Response {
    let cluster = shared.node.reader().cluster_version();
    let cluster = if cluster.is_empty() { "not_decided".to_owned() } else { cluster };
    let text = serde_json::json!({
        "etcdserver": ETCD_VERSION, "etcdcluster": cluster, "storage": ETCD_STORAGE_VERSION,
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
