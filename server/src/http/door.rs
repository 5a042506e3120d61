//! What of the services is answered at all: a learner serves next to nothing, and who asks for a leader (`hasleader`) is not
//! served where there is none.
//!
//! A stream that asked for a leader ends when there has been none for some time: its client goes to another member, rather than
//! wait for events that cannot come. Not at once, since opening a stream anew costs more than waiting for an election.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use hyper::body::Frame;
use tokio::sync::watch;
use tonic::Status;

use crate::node::{Node, RequestError};
use crate::rpc;
use crate::telemetry::Metrics;

/// etcd's name and word.
const REQUIRE_LEADER: (&str, &str) = ("hasleader", "true");
/// Of ranges only those that need no leader, which is for the service to see.
const SERVED_BY_LEARNERS: [&str; 3] =
    ["/etcdserverpb.KV/Range", "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"];
/// Looks, one election time-out apart, that have to find no leader before streams end (etcd's number).
const LOOKS_WITHOUT_LEADER: u32 = 3;

#[derive(Clone)]
pub(super) struct Door {
    node: Node,
    metrics: Arc<Metrics>,
    /// Changes when streams that asked for a leader have to end.
    leaderless: watch::Receiver<()>,
}

impl Door {
    pub(super) fn new(node: Node, metrics: Arc<Metrics>) -> Self {
        let (says, leaderless) = watch::channel(());
        tokio::spawn(look_for_leader(node.clone(), says));
        Self { node, metrics, leaderless }
    }
}

/// Ends when the last door is gone.
async fn look_for_leader(node: Node, says: watch::Sender<()>) {
    let mut looks = 0;
    loop {
        tokio::select! {
            () = says.closed() => return,
            () = tokio::time::sleep(node.settings().election_timeout) => {}
        }
        looks = if node.status().leader.is_none() { looks + 1 } else { 0 };
        if looks >= LOOKS_WITHOUT_LEADER {
            says.send_replace(());
        }
    }
}

/// The door of the client port. Paths that lead nowhere are not its business.
pub(super) async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    let needs_leader = request.headers().get(REQUIRE_LEADER.0).is_some_and(|word| word == REQUIRE_LEADER.1);
    let is_learner = door.node.is_learner();
    if !needs_leader && !is_learner {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let Some(method) = door.metrics.grpc.method(path) else { return next.run(request).await };
    if is_learner && !SERVED_BY_LEARNERS.contains(&path) {
        return refusal(RequestError::NotForLearners);
    }
    if !needs_leader {
        return next.run(request).await;
    }
    if door.node.status().leader.is_none() {
        return refusal(RequestError::NoLeader);
    }
    if !method.is_stream() {
        return next.run(request).await;
    }
    let mut leaderless = door.leaderless.clone();
    leaderless.mark_unchanged();
    let mut lost: BoxFuture<'static, ()> = Box::pin(async move {
        if leaderless.changed().await.is_err() {
            pending().await
        }
    });
    tokio::select! {
        response = next.run(request) => response.map(|body| Body::new(Led { body, lost, ended: false })),
        () = &mut lost => refusal(RequestError::NoLeader),
    }
}

fn refusal(error: RequestError) -> Response {
    rpc::status(error).into_http()
}

/// The answers of a stream, for as long as there is a leader.
struct Led {
    body: Body,
    lost: BoxFuture<'static, ()>,
    ended: bool,
}

impl hyper::body::Body for Led {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.lost.as_mut().poll(cx).is_ready() {
            // What produces the answers ends with them.
            (this.ended, this.body) = (true, Body::empty());
            return Poll::Ready(Some(trailers(&rpc::status(RequestError::NoLeader)).map_err(axum::Error::new)));
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
