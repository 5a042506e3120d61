//! Automatic compaction: the leader proposes one now and then, by revision or by age.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::Rejection;
use tokio::time::Instant;

use crate::node::{Node, RequestError};

/// Between two looks in revision mode (etcd's number).
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// In periodic mode, compaction runs once an hour at most (etcd's rule).
const PERIOD_MAX: Duration = Duration::from_secs(3_600);
/// Samples of the revision in one period (etcd's number).
const SAMPLES_PER_PERIOD: u32 = 10;
/// After a proposal that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// `--auto-compaction-mode` with `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    Off,
    /// Keeps what is younger than this.
    Periodic(Duration),
    /// Keeps so many revisions.
    Revision(i64),
}

pub async fn keep_compacted(node: Node, mode: CompactionMode) {
    match mode {
        CompactionMode::Off => {}
        CompactionMode::Periodic(retention) => periodic(node, retention).await,
        CompactionMode::Revision(retention) => loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            compact(&node, node.reader().revision() - retention).await;
        },
    }
}

async fn periodic(node: Node, retention: Duration) {
    let every = retention.min(PERIOD_MAX).max(Duration::from_millis(10));
    let mut samples: VecDeque<(Instant, i64)> = VecDeque::new();
    let mut last = Instant::now();
    loop {
        samples.push_back((Instant::now(), node.reader().revision()));
        tokio::time::sleep(every / SAMPLES_PER_PERIOD).await;
        let now = Instant::now();
        let mut old = None;
        while let Some((taken, revision)) = samples.front().copied().filter(|(taken, _)| now - *taken >= retention) {
            samples.pop_front();
            old = Some((taken, revision));
        }
        let Some((taken, revision)) = old else { continue };
        if now - last >= every && compact(&node, revision).await {
            last = now;
        } else {
            // Not done: the sample still counts.
            samples.push_front((taken, revision));
        }
    }
}

/// Whether nothing at or below `revision` is left to compact.
async fn compact(node: &Node, revision: i64) -> bool {
    if !node.status().is_leader || revision <= node.reader().compacted().max(0) {
        return node.status().is_leader;
    }
    let command = Command::Compaction(pb::CompactionRequest { revision, physical: false });
    match node.propose_system(command).await {
        Ok(_) => {
            tracing::info!(revision, "compacted automatically");
            true
        }
        Err(RequestError::Rejected(Rejection::Compacted)) => true,
        Err(error) => {
            tracing::warn!(revision, %error, "failed to compact automatically; trying again");
            tokio::time::sleep(RETRY_INTERVAL).await;
            false
        }
    }
}
