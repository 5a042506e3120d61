//! What a member is started with, whom it tells, and what openraft is told of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_store::{Effects, Installed};
use quorate_tuning::{HEARTBEATS_PER_ELECTION_MIN, Interval};

use super::log::{Fs, OnFault, SyncStats};
use crate::net::Dial;

/// How long a snapshot may take on its way; a large state over a slow link takes minutes.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

pub struct RaftSettings {
    pub cluster_id: u64,
    pub member_id: u64,
    /// How other members are reached.
    pub dial: Dial,
    /// After which a request is given up for which no leader is found.
    pub request_timeout: Duration,
    /// Directory of the log's segments.
    pub log_directory: PathBuf,
    /// What the log sees of the disk.
    pub log_files: Arc<dyn Fs>,
    pub log_segment_bytes: u32,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Interval,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--snapshot-count`: entries between two flushes of the state.
    pub snapshot_entries: u64,
    /// `--snapshot-catchup-entries`: entries kept in the log behind a flush.
    pub catchup_entries: u64,
    /// False for `--unsafe-no-fsync`.
    pub fsync: bool,
    /// `--force-new-cluster`: all other members are removed, by this one's word alone.
    pub force_new_cluster: bool,
    /// `--compaction-batch-limit`.
    pub compaction_entries_per_step: usize,
    /// `--compaction-sleep-interval`.
    pub compaction_pause: Duration,
}

/// Those who are told what happens below. All are called on the threads where it happens: they must be short.
pub struct RaftHooks {
    /// What a group of entries changed: visible already, nobody answered yet.
    pub publish: Arc<dyn Fn(&Effects) + Send + Sync>,
    /// Entries applied, and in how long.
    pub on_applied: Arc<dyn Fn(usize, Duration) + Send + Sync>,
    /// Another member's state in place of the own one: visible already, nothing applied since.
    pub on_installed: Arc<dyn Fn(&Installed) + Send + Sync>,
    /// A small message to another member and back took so long.
    pub on_round_trip: Arc<dyn Fn(u64, Duration) + Send + Sync>,
    /// A batch that reached the disk.
    pub on_sync: Arc<dyn Fn(&SyncStats) + Send + Sync>,
    /// Why this member can no longer vouch for its data. Nothing may be answered after it: [`crate::fault::stop`] does not
    /// return.
    pub on_fault: OnFault,
}

impl RaftSettings {
    /// A silent leader is replaced within 0.6-1.3 election time-outs: a member waits for the leader's lease (the longer
    /// of the two bounds, half a time-out) and then a random time between the bounds.
    ///
    /// What openraft calls the heartbeat interval is how long a heartbeat may take: when they are sent is up to [`super::pace`].
    pub(super) fn config(&self) -> Config {
        let Times { election_min_ms, election_max_ms, probe_ms } = Times::of(self.election_timeout);
        Config {
            cluster_name: "quorate".into(),
            election_timeout_min: election_min_ms,
            election_timeout_max: election_max_ms,
            heartbeat_interval: (self.election_timeout.as_millis() as u64 / u64::from(HEARTBEATS_PER_ELECTION_MIN))
                .clamp(1, election_min_ms - 1),
            enable_heartbeat: false,
            install_snapshot_timeout: SNAPSHOT_TIMEOUT.as_millis() as u64,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries.max(1)),
            max_in_snapshot_log_to_keep: self.catchup_entries,
            purge_batch_size: 256,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            enable_elect: false,
            allow_log_reversion: Some(false),
            quorum_loss_probe_interval: Some(probe_ms),
            ..Config::default()
        }
    }
}

/// What is made of `--election-timeout`, in milliseconds.
pub(super) struct Times {
    pub(super) election_min_ms: u64,
    /// A leader's lease, too.
    pub(super) election_max_ms: u64,
    /// See [`super::silence`].
    pub(super) probe_ms: u64,
}

impl Times {
    pub(super) fn of(election_timeout: Duration) -> Self {
        let election_ms = election_timeout.as_millis() as u64;
        let election_min_ms = (election_ms / 4).max(2);
        let election_max_ms = (election_ms / 2).max(election_min_ms + 1);
        Self { election_min_ms, election_max_ms, probe_ms: election_ms.max(3 * election_min_ms) }
    }
}
