//! etcd's metrics that a member has, by etcd's names, types and buckets, and few of our own (`quorate_`). One table makes the fields of [`Metrics`] and
//! the text.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    cells::{Counter, DurationGauge, Figure, Gauge, Histogram, LabelledGauge, LabelledHistogram, heading},
    grpc::Grpc,
    process,
};

/// From a millisecond up to eight seconds: etcd's buckets for whatever waits for a disk.
fn disk() -> Histogram {
    Histogram::doubling(Duration::from_millis(1), 14)
}

/// From a tenth of a millisecond up to three seconds: etcd's buckets for the way to another member and back.
fn round_trip() -> Histogram {
    Histogram::doubling(Duration::from_micros(100), 16)
}

type Collector = Box<dyn Fn(&Metrics) + Send + Sync>;

macro_rules! metrics {
    ($($field:ident: $kind:ident $new:expr, $name:literal, $help:literal;)*) => {
        /// Counted by everyone, through one `Arc`.
        pub struct Metrics {
            $(pub $field: $kind,)*
            pub grpc: Grpc,
            collectors: Mutex<Vec<Collector>>,
        }

        impl Metrics {
            /// `extensive`: with a histogram for each gRPC method.
            pub fn new(extensive: bool) -> Arc<Self> {
                Arc::new(Self { $($field: $new,)* grpc: Grpc::new(extensive), collectors: Mutex::default() })
            }

            fn families(&self) -> Vec<(&'static str, String)> {
                vec![$(family(&self.$field, $name, $help),)*]
            }
        }

        #[cfg(test)]
        const TYPES: &[(&str, &str)] = &[$(($name, <$kind as Figure>::KIND),)*];
    };
}

metrics! {
    cluster_version: LabelledGauge LabelledGauge::default(), "etcd_cluster_version", "The version the members agree on.";
    server_version: LabelledGauge LabelledGauge::default(), "etcd_server_version", "The etcd version this member stands in for.";
    go_version: LabelledGauge LabelledGauge::default(), "etcd_server_go_version", "Not Go.";
    server_id: LabelledGauge LabelledGauge::default(), "etcd_server_id", "The ID of this member, in hexadecimal.";
    feature_enabled: LabelledGauge LabelledGauge::default(), "etcd_server_feature_enabled", "Which feature gates are on.";
    alarms: LabelledGauge LabelledGauge::default(), "etcd_debugging_server_alarms", "Which alarms are raised, by member.";

    has_leader: Gauge Gauge::default(), "etcd_server_has_leader", "1 if there is a leader.";
    is_leader: Gauge Gauge::default(), "etcd_server_is_leader", "1 if this member is the leader.";
    is_learner: Gauge Gauge::default(), "etcd_server_is_learner", "1 if this member is a learner.";
    leader_changes_seen: Counter Counter::default(), "etcd_server_leader_changes_seen_total", "Changes of the leader.";
    proposals_applied: Gauge Gauge::default(), "etcd_server_proposals_applied_total", "The last entry applied.";
    proposals_committed: Gauge Gauge::default(), "etcd_server_proposals_committed_total", "The last entry committed.";
    proposals_pending: Gauge Gauge::default(), "etcd_server_proposals_pending", "Changes waiting for the raft log.";
    proposals_failed: Counter Counter::default(), "etcd_server_proposals_failed_total", "Changes that failed.";
    heartbeat_send_failures: Counter Counter::default(), "etcd_server_heartbeat_send_failures_total", "Heartbeats that were late.";
    slow_apply: Counter Counter::default(), "etcd_server_slow_apply_total", "Changes that took long to apply.";
    slow_read_indexes: Counter Counter::default(), "etcd_server_slow_read_indexes_total", "Confirmations of leadership that were late.";
    read_indexes_failed: Counter Counter::default(), "etcd_server_read_indexes_failed_total", "Confirmations of leadership that failed.";
    snapshot_apply_in_progress: Gauge Gauge::default(), "etcd_server_snapshot_apply_in_progress_total", "1 while a snapshot is installed.";
    learner_promote_successes: Counter Counter::default(), "etcd_server_learner_promote_successes", "Learners promoted while this member led.";
    quota_backend_bytes: Gauge Gauge::default(), "etcd_server_quota_backend_bytes", "The largest size of the state.";
    health_success: Counter Counter::default(), "etcd_server_health_success", "Health checks answered well.";
    health_failures: Counter Counter::default(), "etcd_server_health_failures", "Health checks answered badly.";
    lease_expired: Counter Counter::default(), "etcd_debugging_server_lease_expired_total", "Leases that ran out.";

    wal_fsync: Histogram disk(), "etcd_disk_wal_fsync_duration_seconds", "How long the raft log waited for the disk.";
    wal_write: Histogram disk(), "etcd_disk_wal_write_duration_seconds", "How long writing to the raft log took.";
    wal_write_bytes: Gauge Gauge::default(), "etcd_disk_wal_write_bytes_total", "Bytes written to the raft log.";
    backend_commit: Histogram disk(), "etcd_disk_backend_commit_duration_seconds", "How long writing a batch of changes to the state took.";

    put_total: Counter Counter::default(), "etcd_mvcc_put_total", "Puts.";
    delete_total: Counter Counter::default(), "etcd_mvcc_delete_total", "Deletes.";
    range_total: Counter Counter::default(), "etcd_mvcc_range_total", "Ranges.";
    txn_total: Counter Counter::default(), "etcd_mvcc_txn_total", "Transactions.";
    db_total_size: Gauge Gauge::default(), "etcd_mvcc_db_total_size_in_bytes", "Size of the state.";
    db_total_size_in_use: Gauge Gauge::default(), "etcd_mvcc_db_total_size_in_use_in_bytes", "Size of the state that is in use.";
    db_open_reads: Gauge Gauge::default(), "etcd_mvcc_db_open_read_transactions", "Reads under way.";
    keys_total: Gauge Gauge::default(), "etcd_debugging_mvcc_keys_total", "Keys.";
    current_revision: Gauge Gauge::default(), "etcd_debugging_mvcc_current_revision", "The newest revision.";
    compact_revision: Gauge Gauge::default(), "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction.";
    compaction_keys: Counter Counter::default(), "etcd_debugging_mvcc_db_compaction_keys_total", "Versions deleted by compaction.";
    put_size: Gauge Gauge::default(), "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of the keys and values put.";
    watcher_total: Gauge Gauge::default(), "etcd_debugging_mvcc_watcher_total", "Watchers.";
    watch_stream_total: Gauge Gauge::default(), "etcd_debugging_mvcc_watch_stream_total", "Watch streams.";
    slow_watcher_total: Gauge Gauge::default(), "etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.";
    pending_events: Gauge Gauge::default(), "etcd_debugging_mvcc_pending_events_total", "Events waiting to be sent.";
    events_total: Counter Counter::default(), "etcd_debugging_mvcc_events_total", "Events sent.";
    lease_granted: Counter Counter::default(), "etcd_debugging_lease_granted_total", "Leases granted.";
    lease_revoked: Counter Counter::default(), "etcd_debugging_lease_revoked_total", "Leases revoked.";
    lease_renewed: Counter Counter::default(), "etcd_debugging_lease_renewed_total", "Leases renewed while this member led.";
    auth_revision: Gauge Gauge::default(), "etcd_debugging_auth_revision", "The revision of users and roles.";

    client_received_bytes: Counter Counter::default(), "etcd_network_client_grpc_received_bytes_total", "Bytes received from clients.";
    client_sent_bytes: Counter Counter::default(), "etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.";
    round_trip: LabelledHistogram LabelledHistogram::new("To", round_trip), "etcd_network_peer_round_trip_time_seconds", "How long a small message took to another member and back.";

    heartbeat_interval: DurationGauge DurationGauge::default(), "quorate_raft_heartbeat_interval_seconds", "Between two heartbeats, whenever this member leads.";
    election_timeout: DurationGauge DurationGauge::default(), "quorate_raft_election_timeout_seconds", "How long a leader may be silent.";
}

impl Metrics {
    /// Called on every scrape, for gauges that are cheaper to read than to keep.
    pub fn on_scrape(&self, collector: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collector));
    }

    /// All of it as Prometheus text, by name.
    pub fn render(&self) -> String {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|collect| collect(self));
        let mut families = self.families();
        families.extend(self.grpc.families());
        families.extend(process::families());
        families.sort_by_key(|(name, _)| *name);
        families.into_iter().map(|(_, text)| text).collect()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn family<F: Figure>(figure: &F, name: &'static str, help: &str) -> (&'static str, String) {
    let mut out = String::new();
    figure.write(name, "", &mut out);
    if !out.is_empty() {
        let samples = std::mem::take(&mut out);
        heading(&mut out, name, help, F::KIND);
        out.push_str(&samples);
    }
    (name, out)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
