//! Whether all members have the same data, and what becomes of one that does not.
//!
//! ```text
//!  leader, every --corrupt-check-time       hash of now, here and everywhere ─┐
//!  leader, every --compact-hash-check-time  hash of a common compaction      ─┴▶ verdict ─▶ CORRUPT alarms, through the log
//!  a member that starts (InitialCorruptCheck) ─▶ does a majority have what it has? ─▶ serves, or ends
//!  every member: an alarm names it ─▶ it hands leadership over, and does not stand for election
//! ```
//!
//! Members are asked over the peer port ([`crate::rpc`]), each with a deadline. With a hash comes whether a member's own rows agree
//! with each other: what clients read is not what is hashed. An answer that did not come is never taken for a good one.
//!
//! Left out: mending. Remove the member and add it anew, then `alarm disarm`.

mod remember;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb::{self as pb, AlarmType};
use quorate_proto::log::proposal::Command;
use quorate_proto::peer::audit_client::AuditClient;
use quorate_proto::peer::{HashAnswer, HashRequest};
use quorate_store::StoreView;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::node::{Consistency, Node, RequestError};
pub use remember::CompactionHashes;
use verdict::{Asked, Bound, Entry, Verdict, judge, may_enter};

/// What a member may take to hash what it has.
pub(crate) const HASH_PATIENCE: Duration = Duration::from_secs(60);
/// Attempts in one period where members compact while they are asked.
const ATTEMPTS_MAX: usize = 3;
/// Before a check is made again that could not be made.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A member that may not serve yet says so this often.
const SAID_EVERY: Duration = Duration::from_secs(5);
/// Before a blamed leader tries to hand over again.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(500);

/// The hash of a frozen state at `revision`; with `thorough`, whether its rows agree with each other too.
pub(crate) async fn hash_of(view: Arc<StoreView>, revision: i64, thorough: bool) -> Result<HashAnswer, RequestError> {
    let hashed = tokio::task::spawn_blocking(move || {
        let hash = view.hash_kv(revision)?;
        let contradiction = if thorough { view.contradiction()? } else { None };
        Ok::<_, quorate_store::Failure>(HashAnswer {
            hash: hash.hash,
            compacted: hash.compacted,
            newest: view.revision(),
            contradiction: contradiction.unwrap_or_default(),
        })
    });
    Ok(hashed.await.map_err(|_| RequestError::Stopped)??)
}

fn own_id(node: &Node) -> u64 {
    node.identity().member_id
}

/// All other members, at the same time.
async fn ask_others(node: &Node, request: HashRequest) -> BTreeMap<u64, Asked> {
    let others = node.reader().members().into_iter().map(|member| member.id).filter(|id| *id != own_id(node));
    let asked = others.map(|id| async move { (id, ask(node, id, request).await) });
    futures::future::join_all(asked).await.into_iter().collect()
}

async fn ask(node: &Node, id: u64, request: HashRequest) -> Asked {
    let channel = node.raft().peer_channel(id).ok_or("it is no member any more")?;
    let mut client = AuditClient::new(channel);
    match tokio::time::timeout(HASH_PATIENCE, client.hash(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {HASH_PATIENCE:?}")),
    }
}

/// This member's hash of now, and everybody's of the same revision.
async fn hashes_of_now(node: &Node) -> Result<(HashAnswer, BTreeMap<u64, Asked>), RequestError> {
    let view = node.read_view(Consistency::Serializable).await?;
    let request = HashRequest { revision: view.revision(), applied: view.applied().index, at_compaction: false };
    let (own, others) = tokio::join!(hash_of(view, request.revision, true), ask_others(node, request));
    Ok((own?, others))
}

/// As the leader: compares what all members have now, every `interval`.
pub async fn keep_compared(node: Node, interval: Duration) {
    tracing::info!(?interval, "enabled corruption checking");
    loop {
        tokio::time::sleep(interval).await;
        if node.status().is_leader {
            match compare_now(&node).await {
                Ok(verdict) => {
                    tell_skipped(&verdict.skipped);
                    tracing::info!(number_of_peers_checked = verdict.compared, "finished peer corruption check");
                    raise(&node, &verdict).await;
                }
                Err(error) => tracing::warn!(%error, "failed to compare the members' data"),
            }
        }
    }
}

async fn compare_now(node: &Node) -> Result<Verdict, RequestError> {
    let mut attempts = 0;
    loop {
        let (own, others) = hashes_of_now(node).await?;
        // Whatever they have answered was committed by now.
        let after = node.read_view(Consistency::Linearizable).await?;
        let bound = Bound { newest: after.revision(), compacted: after.compacted() };
        let verdict = judge(own_id(node), &own, &others, Some(bound));
        attempts += 1;
        if !verdict.blamed.is_empty() || !verdict.compacted_meanwhile || attempts == ATTEMPTS_MAX {
            return Ok(verdict);
        }
    }
}

/// As the leader: compares the newest compaction that all members remember, every `interval`.
pub async fn keep_compactions_compared(node: Node, hashes: CompactionHashes, interval: Duration) {
    let mut checked = -1;
    loop {
        tokio::time::sleep(interval).await;
        if node.status().is_leader {
            checked = compare_compactions(&node, &hashes, checked).await;
        }
    }
}

/// Returns the newest revision that all members were found to agree at.
async fn compare_compactions(node: &Node, hashes: &CompactionHashes, checked: i64) -> i64 {
    let unchecked = hashes.newer_than(checked);
    let mut looked_at = 0;
    let mut agreed = checked;
    for (revision, own) in unchecked {
        looked_at += 1;
        let request = HashRequest { revision, applied: 0, at_compaction: true };
        let verdict = judge(own_id(node), &own, &ask_others(node, request).await, None);
        if !verdict.blamed.is_empty() {
            raise(node, &verdict).await;
            break;
        }
        if verdict.skipped.is_empty() {
            tracing::info!(
                revision,
                number_of_peers_checked = verdict.compared,
                "all members agree at this compaction"
            );
            agreed = revision;
            break;
        }
        tell_skipped(&verdict.skipped);
    }
    tracing::info!(number_of_hashes_checked = looked_at, "finished compaction hash check");
    agreed
}

fn tell_skipped(skipped: &[(u64, String)]) {
    for (id, reason) in skipped {
        tracing::warn!(member = format!("{id:x}"), reason, "a member could not be compared with the others");
    }
}

fn corrupt_members(node: &Node) -> BTreeSet<u64> {
    node.reader().alarms(AlarmType::Corrupt).iter().map(|alarm| alarm.member_id).collect()
}

/// Alarms that stand already are not raised again.
async fn raise(node: &Node, verdict: &Verdict) {
    for finding in &verdict.findings {
        tracing::error!(finding, "members have different data");
    }
    let raised = corrupt_members(node);
    for id in verdict.blamed.difference(&raised) {
        tracing::error!(member = format!("{id:x}"), "raising the CORRUPT alarm");
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            member_id: *id,
            alarm: AlarmType::Corrupt.into(),
        };
        if let Err(error) = node.propose_system(Command::Alarm(alarm)).await {
            tracing::warn!(%error, "failed to raise the CORRUPT alarm; the next check tries again");
        }
    }
}

/// Returns once a majority is known to have what this member has; an error when somebody has something else.
pub async fn may_serve(node: &Node) -> anyhow::Result<()> {
    let own_id = own_id(node);
    tracing::info!("starting initial corruption check");
    let mut said: Option<Instant> = None;
    loop {
        let (own, others) = hashes_of_now(node).await?;
        let members = node.reader().members();
        let voters = members.into_iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
        match may_enter(own_id, &own, &others, &voters) {
            Entry::Agrees => {
                tracing::info!("initial corruption checking passed; no corruption");
                return Ok(());
            }
            Entry::Differs => {
                let verdict = judge(own_id, &own, &others, None);
                verdict.findings.iter().for_each(|finding| tracing::error!(finding, "members have different data"));
                anyhow::bail!("{own_id:x} found data inconsistency with peers");
            }
            Entry::Unknown => {}
        }
        if said.is_none_or(|said| said.elapsed() > SAID_EVERY) {
            said = Some(Instant::now());
            tell_skipped(&judge(own_id, &own, &others, None).skipped);
            tracing::warn!("waiting until this member's data can be compared with those of a majority");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Whether member `own` leaves it to others to lead. Where all are blamed, nobody does: the alarm has to be taken back some day.
fn stands_aside(own: u64, voters: &BTreeSet<u64>, corrupt: &BTreeSet<u64>) -> bool {
    corrupt.contains(&own) && voters.iter().any(|id| !corrupt.contains(id))
}

/// Keeps this member from leading for as long as an alarm says that its data are wrong. `alarms` is notified when any come or go.
pub async fn stand_aside(node: Node, alarms: Arc<Notify>) {
    loop {
        let changed = alarms.notified();
        let status = node.status();
        let members = node.reader().members();
        let voters = members.into_iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
        let aside = stands_aside(own_id(&node), &voters, &corrupt_members(&node));
        node.raft().stand_for_election(!aside);
        if aside && status.is_leader {
            hand_over(&node).await;
            tokio::time::sleep(HAND_OVER_PAUSE).await;
            continue;
        }
        tokio::select! {
            () = changed => {}
            changed = node.raft().status_changed(status) => {
                if changed.is_none() {
                    return;
                }
            }
        }
    }
}

async fn hand_over(node: &Node) {
    let successor = node.raft().best_successor().filter(|id| node.raft().is_connected(*id));
    let Some(successor) = successor else { return };
    tracing::error!(to = format!("{successor:x}"), "this member's data are wrong: handing leadership over");
    node.raft().hand_over(successor).await;
}
