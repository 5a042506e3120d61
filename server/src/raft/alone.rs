//! `--force-new-cluster`: a member goes on as a cluster of itself alone, with the data it has. For when most of the others are
//! lost for good.
//!
//! ```text
//!   log   ... committed ├ not known to be committed ┤ membership: this member alone, of a term of its own ┤
//!                        └ what others may have acknowledged: it is kept      └ the newest, so the one that counts
//! ```
//!
//! One entry at the end of the log does it all, before Raft starts: this member is its only voter, elects itself as any lone
//! voter does, and commits what stands there. Applying it is what applying a removal always is: who is not in it is remembered as
//! removed, and refused when it calls; this member votes, whether it did before or not. A crash leaves the log with that entry or
//! without it, and a log that ends with it is left alone, so this can be done any number of times.
//!
//! etcd drops what it does not know to be committed. Here it stays: a member learns late that an entry is committed, so what was
//! acknowledged last would be lost with it. Left out is only the member's own removal, if it was not yet committed: that is
//! decided now.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use openraft::alias::{LeaderIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, StorageHelper};
use openraft::vote::{RaftLeaderId, RaftVote};
use openraft::{EntryPayload, RaftLogReader};

use super::codec::Codec;
use super::log::LogStore;
use super::machine::Machine;
use super::types::{Entry, LogId, MemberId, Membership, Peer, StoredMembership, TypeConfig};

/// Makes `id` the only member, by its log. Before Raft is started on the two.
pub(super) async fn leave_others(
    id: MemberId,
    log: &mut LogStore<TypeConfig, Codec>,
    machine: &mut Machine,
) -> anyhow::Result<()> {
    reach_state(log, machine).await?;
    let Some(known) = own_membership(id, log, machine).await? else {
        tracing::warn!("--force-new-cluster has no effect: this member has no data yet");
        return Ok(());
    };
    let others: Vec<MemberId> = known.nodes().map(|(other, _)| *other).filter(|other| *other != id).collect();
    if others.is_empty() && known.voter_ids().eq([id]) {
        tracing::info!("--force-new-cluster has no effect: this member is alone already");
        return Ok(());
    }
    let peer = known.get_node(&id).cloned().context("find this member among the members")?;
    append_alone(id, peer, log).await?;
    let removed = others.iter().map(|other| format!("{other:x}")).collect::<Vec<_>>().join(",");
    tracing::warn!(removed, "forced: this member is a cluster of its own now, and the others are removed for ever");
    Ok(())
}

/// The log may end before the state: what it lacks is applied, flushed, and needed no more.
async fn reach_state(log: &mut LogStore<TypeConfig, Codec>, machine: &mut Machine) -> anyhow::Result<()> {
    let (applied, last) = (machine.applied_state().await?.0, log.get_log_state().await?.last_log_id);
    let next = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index() + 1);
    if next(&applied) > next(&last) {
        log.purge(applied.context("find what was applied")?).await?;
        return Ok(());
    }
    // As Raft would refuse to start: what is appended must not hide it.
    ensure!(
        last >= applied,
        "the Raft log ends with {last:?}, and the state with {applied:?}: they are not of one history"
    );
    Ok(())
}

/// The newest membership that has this member. `None`: it was never part of anything.
async fn own_membership(
    id: MemberId,
    log: &mut LogStore<TypeConfig, Codec>,
    machine: &mut Machine,
) -> anyhow::Result<Option<StoredMembership>> {
    let committed = log.read_committed().await?.max(machine.applied_state().await?.0);
    let memberships = StorageHelper::<TypeConfig, _, _>::new(log, machine).with_id(id).get_membership().await?;
    let (before, newest) = (memberships.committed(), memberships.effective());
    if newest.log_id().is_none() {
        return Ok(None);
    }
    if newest.get_node(&id).is_some() {
        return Ok(Some(StoredMembership::clone(newest)));
    }
    if before.get_node(&id).is_some() && *newest.log_id() > committed {
        drop_removal(newest, log).await?;
        return Ok(Some(StoredMembership::clone(before)));
    }
    bail!(
        "--force-new-cluster: by its own log {id:x} is no member, it was removed, or added and has not received that yet: \
         force a member that is one"
    )
}

/// Cuts the log before this member's own removal.
async fn drop_removal(removal: &StoredMembership, log: &mut LogStore<TypeConfig, Codec>) -> anyhow::Result<()> {
    let at = removal.log_id().as_ref().context("find the removal in the log")?.index();
    let before = match at.checked_sub(1) {
        None => None,
        Some(before) => {
            let purged = log.get_log_state().await?.last_purged_log_id.filter(|purged| purged.index() == before);
            let entries = log.try_get_log_entries(before..at).await?;
            Some(purged.or(entries.first().map(|entry| entry.log_id)).context("find the entry before the removal")?)
        }
    };
    tracing::warn!(index = at + 1, "cut the log before the removal of this member, which is not known to be committed");
    Ok(log.truncate_after(before).await?)
}

/// A vote for itself and the entry, both of a term that was nobody's. Durable on return.
async fn append_alone(id: MemberId, peer: Peer, log: &mut LogStore<TypeConfig, Codec>) -> anyhow::Result<()> {
    let last = log.get_log_state().await?.last_log_id;
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id().term);
    let term = 1 + voted.max(last.as_ref().map_or(0, |last| last.committed_leader_id().term));
    // Not one that a majority has granted: the election comes yet.
    let vote = VoteOf::<TypeConfig>::from_leader_id(LeaderIdOf::<TypeConfig>::new(term, id), false);
    log.save_vote(&vote).await?;
    let peer = Peer { will_vote: false, ..peer };
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, peer)]))?;
    let at = LogId::new_term_index(term, last.map_or(0, |last| last.index() + 1));
    log.blocking_append([Entry::new(at, EntryPayload::Membership(alone))]).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
