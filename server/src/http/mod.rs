//! One port for everything: gRPC over HTTP/2, and over HTTP/1 or 2 what is asked of it by hand or by probes.
//!
//! ```text
//!   listener ─▶ connection (h1 or h2, whichever the first bytes say) ─▶ router ─┬▶ gRPC services
//!                                                                               └▶ /version /health /livez /readyz /metrics
//! ```
//!
//! Bodies and headers are those of Go's `net/http`, as far as somebody may look at them.
//!
//! Left out: TLS and the JSON gateway, which come with later releases, and peers, who have a port of their own.

mod door;
mod health;
mod listen;
mod oversize;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use serde::Serialize;
use tonic::Status;
use tonic::service::Routes;

use crate::config::ETCD_VERSION;
use crate::node::Node;
use crate::observe::count_requests;
use crate::telemetry::Metrics;

pub use listen::{Connections, Listener, bind};

#[derive(Clone)]
struct Shared {
    node: Node,
    metrics: Arc<Metrics>,
}

#[derive(Serialize)]
struct Versions<'a> {
    etcdserver: &'a str,
    etcdcluster: &'a str,
    storage: &'a str,
}

/// What a client port serves.
pub fn client_router(node: Node, metrics: Arc<Metrics>, services: Routes) -> Router {
    let own = probes()
        .route("/version", only_get(version))
        .with_state(Shared { node: node.clone(), metrics: metrics.clone() });
    let door = door::Door::new(node, metrics.clone());
    services
        .into_axum_router()
        .layer(axum::middleware::from_fn_with_state(door, door::pass))
        .layer(axum::middleware::map_response(oversize::as_etcd_says_it))
        .layer(axum::middleware::from_fn_with_state(metrics, count_requests))
        .merge(own)
        .fallback(nowhere)
}

/// What a peer port serves: the other members, and the version for whoever looks.
pub fn peer_router(node: Node, metrics: Arc<Metrics>, peers: Routes) -> Router {
    let shared = Shared { node, metrics };
    peers.into_axum_router().merge(Router::new().route("/version", get(version)).with_state(shared))
}

/// What `--listen-metrics-urls` serve.
pub fn metrics_router(node: Node, metrics: Arc<Metrics>) -> Router {
    probes().with_state(Shared { node, metrics }).fallback(not_found)
}

fn probes() -> Router<Shared> {
    Router::new()
        .route("/metrics", any(metrics))
        .route("/health", only_get(health::health))
        .route("/livez", only_get(health::livez))
        .route("/livez/{check}", only_get(health::livez_check))
        .route("/readyz", only_get(health::readyz))
        .route("/readyz/{check}", only_get(health::readyz_check))
}

/// Not HEAD either, which comes with `get`.
fn only_get<H, T>(handler: H) -> MethodRouter<Shared>
where
    H: Handler<T, Shared>,
    T: 'static,
{
    get(handler).head(not_allowed).fallback(not_allowed)
}

async fn not_allowed() -> Response {
    let refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".into());
    ([(header::ALLOW, "GET")], refusal).into_response()
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n".into())
}

/// A path that leads to no service is an error of gRPC to who speaks gRPC, and a page that is not there to others.
async fn nowhere(request: Request) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !content_type.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return not_found().await;
    }
    let path = request.uri().path().trim_start_matches('/');
    let service = path.rsplit_once('/').map_or(path, |(service, _)| service);
    Status::unimplemented(format!("unknown service {service}")).into_http()
}

/// As Go's `http.Error` writes it.
fn plain(status: StatusCode, text: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, text).into_response()
}

async fn version(State(shared): State<Shared>) -> Response {
    let cluster = shared.node.reader().cluster_version();
    let (etcdcluster, storage) =
        if cluster.is_empty() { ("not_decided", "unknown") } else { (cluster.as_str(), cluster.as_str()) };
    let versions = Versions { etcdserver: ETCD_VERSION, etcdcluster, storage };
    axum::Json(versions).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
