//! Peers: what members say to each other, both ends of it.
//!
//! ```text
//!   openraft ─▶ network ─▶ link ══ control ══▶ service ─▶ openraft      heartbeats, votes, ReadIndex, proposals
//!                               ══ bulk ═════▶                          entries and snapshots
//! ```
//!
//! Two connections to each peer, so that a heartbeat never waits behind entries. Both are opened when they are needed, looked
//! after by HTTP/2 pings, and opened again when they were lost. Every call names cluster, sender and receiver; what went astray is
//! refused ([`service`]). Left out: whether a peer that is not to be reached is dead ([`super::vigil`]).

mod link;
mod network;
mod service;
pub(super) mod wire;

use std::time::Duration;

use quorate_proto::peer as pb;
use tokio_util::sync::CancellationToken;

use crate::net::Dial;

pub use link::Identify;
pub(super) use link::{Link, Links, within};
pub(super) use network::Peers;
pub use service::Door;
pub(super) use service::{PeerService, guarded};

/// Who the cluster is, by the word of the member at `peer_urls`; `None` when it does not answer. For one that is no member yet.
pub async fn ask_cluster(dial: &Dial, peer_urls: &[String], patience: Duration) -> Option<pb::ClusterAnswer> {
    let links = Links::new(0, 0, dial.clone(), patience, CancellationToken::new());
    within(patience, links.to(0, peer_urls).control().cluster(pb::ClusterRequest {})).await.ok()
}
