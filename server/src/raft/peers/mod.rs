//! Peers: what members say to each other, both ends of it.
//!
//! ```text
//!   openraft ─▶ network ─▶ link ══ control ══▶ service ─▶ openraft      heartbeats, votes, ReadIndex, proposals
//!                               ══ bulk ═════▶                          entries and snapshots
//! ```
//!
//! Two connections to each peer, so that a heartbeat never waits behind entries. Both are opened when they are needed, looked
//! after by HTTP/2 pings, and opened again when they were lost. Every call names cluster, sender and receiver; what went astray is
//! refused ([`service`]), and so is a peer that has lost what it acknowledged ([`acknowledged`]). Left out: whether a peer that is not to be reached is dead ([`super::vigil`]).

mod acknowledged;
mod link;
mod network;
mod service;
pub(super) mod wire;

use std::time::Duration;

use crate::net::Dial;
use quorate_proto::peer as pb;

pub(super) use acknowledged::{LOST, advice};
pub use link::Identify;
pub(super) use link::{Expulsion, Link, Links, within};
pub(super) use network::Peers;
pub use service::Door;
pub(super) use service::{PeerService, guarded};

/// Who the cluster is, by the word of the member at `peer_urls`; `None` when it does not answer. For one that is no member yet.
pub async fn ask_cluster(dial: &Dial, peer_urls: &[String], patience: Duration) -> Option<pb::ClusterAnswer> {
    let links = Links::new(0, 0, dial.clone(), patience, Expulsion::default());
    within(patience, links.to(0, peer_urls).control().cluster(pb::ClusterRequest {})).await.ok()
}
