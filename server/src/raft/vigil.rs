//! Watches over the process of each peer, so that a dead leader is replaced at once.
//!
//! ```text
//!   presence stream ══ open ═══════╳ broken ─▶ connect: refused ─▶ it is dead: stop waiting for its lease, elect
//!                                              connect: anything else ─▶ not known: the election time-out decides
//! ```
//!
//! The machine of a process that has died resets its connections and refuses new ones. Both together are no proof, and need not
//! be: who stops waiting for a leader's lease only asks for a pre-vote, which a majority has to grant, and every member of it
//! grants only what its own connections tell. Safety is that of any election. The survivor with the highest id begins; the
//! others follow one after the other, in case that its log is not the longest. Source: the Raft dissertation, 4.2.3 (leases
//! against disruption) and 9.6 (pre-vote).

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use quorate_proto::peer as pb;
use tonic::Status;

use super::measure;
use super::peers::Link;
use super::types::MemberId;
use super::{Inner, Raft};

/// Between the elections that survivors start, each by its rank.
const RANK_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts to open a presence stream.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that is refused may take to be.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(200);

/// Follows the membership: one watch over each other member.
pub(super) async fn keep(raft: Weak<Inner>) {
    let mut watches = std::collections::BTreeMap::new();
    let Some(mut metrics) = raft.upgrade().map(|raft| raft.core.server_metrics()) else { return };
    loop {
        let peers = metrics.borrow_watched().membership_config.clone();
        let Some(strong) = raft.upgrade() else { return };
        let peers: std::collections::BTreeMap<MemberId, Vec<String>> =
            peers.nodes().filter(|(id, _)| **id != strong.id).map(|(id, peer)| (*id, peer.peer_urls.clone())).collect();
        drop(strong);
        watches.retain(|id, (urls, task): &mut (Vec<String>, tokio::task::JoinHandle<()>)| {
            let stays = peers.get(id) == Some(urls);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, urls) in peers {
            watches.entry(id).or_insert_with(|| (urls.clone(), tokio::spawn(look_after(raft.clone(), id, urls))));
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    for (_, task) in watches.into_values() {
        task.abort();
    }
}

async fn look_after(raft: Weak<Inner>, id: MemberId, urls: Vec<String>) {
    tokio::join!(watch(raft.clone(), id, urls.clone()), measure::ping(raft, id, urls));
}

async fn watch(raft: Weak<Inner>, id: MemberId, urls: Vec<String>) {
    let mut was_there = false;
    loop {
        let Some(strong) = raft.upgrade().map(Raft) else { return };
        let link = strong.0.links.to(id, &urls);
        drop(strong);
        let ended = presence(&raft, &link, &mut was_there).await;
        link.present.store(false, Ordering::Relaxed);
        if let Err(status) = ended
            && let Some(raft) = raft.upgrade()
        {
            raft.links.heard(&status);
        }
        if was_there && link.refuses(REFUSAL_PATIENCE).await {
            was_there = false;
            let Some(strong) = raft.upgrade().map(Raft) else { return };
            strong.replace_dead_leader(&link).await;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Returns when the stream ends.
async fn presence(raft: &Weak<Inner>, link: &Link, was_there: &mut bool) -> Result<(), Status> {
    let mut stream = link.control().presence(pb::PresenceRequest {}).await?.into_inner();
    while stream.message().await?.is_some() {
        *was_there = true;
        link.present.store(true, Ordering::Relaxed);
        // There is somebody to be reached again.
        if let Some(raft) = raft.upgrade() {
            let _ = raft.core.trigger().reset_backoff([link.id]).await;
        }
    }
    Ok(())
}

impl Raft {
    /// The process of the member behind `link` is gone. If it led, elects another one.
    async fn replace_dead_leader(&self, link: &Link) {
        let dead = link.id;
        let Some(rank) = self.rank_without(dead) else { return };
        tracing::info!(member = format!("{dead:x}"), rank, "the process of a member is gone");
        let mut pause = RANK_PAUSE * rank;
        while let Some(vote) = self.vote_of_leader(dead) {
            // Named as the one who takes over, the dead one will not; what this does is to end the wait for its lease.
            let over = TransferLeaderRequest::new(vote, dead, None);
            if self.core().handle_transfer_leader(over).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = RANK_PAUSE * 2;
            if self.vote_of_leader(dead).is_some() && self.core().trigger().elect(true).await.is_err() {
                return;
            }
            tokio::time::sleep(RANK_PAUSE).await;
            if !link.refuses(REFUSAL_PATIENCE).await {
                return;
            }
        }
    }
}
