//! Metrics as the member's rooms fill them: counted where things happen, or read from the rooms on a scrape.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use quorate_proto::etcdserverpb::AlarmType;
use quorate_store::{Effects, EventKind, LeaseEffect};

use crate::config::{Config, ETCD_VERSION};
use crate::raft::SyncStats;
use crate::rpc::Services;
use crate::telemetry::Metrics;

/// A group of entries that takes longer than this to apply is counted as slow (etcd's number).
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// What a group of entries changed, in numbers.
pub(crate) fn count_effects(metrics: &Metrics, effects: &Effects) {
    for event in effects.revisions.iter().flat_map(|revision| revision.events.iter()) {
        match event.kind {
            EventKind::Put => {
                metrics.put_total.inc();
                metrics.put_size.add((event.kv.key.len() + event.kv.value.len()) as i64);
                if event.prev_kv.is_none() {
                    metrics.keys_total.inc();
                }
            }
            EventKind::Delete => {
                metrics.delete_total.inc();
                metrics.keys_total.dec();
            }
        }
    }
    for lease in &effects.leases {
        match lease {
            LeaseEffect::Granted { .. } => metrics.lease_granted.inc(),
            LeaseEffect::Revoked { .. } => metrics.lease_revoked.inc(),
            LeaseEffect::Checkpointed { .. } => {}
        }
    }
}

pub(crate) fn count_applied(metrics: &Metrics, took: Duration) {
    metrics.backend_commit.observe(took);
    if took > SLOW_APPLY {
        metrics.slow_apply.inc();
    }
}

/// etcd's label is the peer's ID in hexadecimal.
pub(crate) fn count_round_trip(metrics: &Metrics, to: u64, took: Duration) {
    metrics.round_trip.observe(&format!("{to:x}"), took);
}

pub(crate) fn count_sync(metrics: &Metrics, sync: &SyncStats) {
    metrics.wal_write.observe(sync.write);
    metrics.wal_fsync.observe(sync.sync);
    metrics.wal_write_bytes.add(sync.bytes as i64);
}

/// Sets what never changes and registers what is read on a scrape.
pub(crate) fn watch(metrics: &Metrics, services: Services, config: &Config) {
    metrics.server_version.become_only(&[("server_version", ETCD_VERSION)]);
    metrics.go_version.become_only(&[("server_go_version", "none: Rust")]);
    let member = services.node.identity().member_id;
    metrics.server_id.become_only(&[("server_id", &format!("{member:x}"))]);
    metrics.quota_backend_bytes.set(config.quota_backend_bytes);
    if let Ok(view) = services.node.reader().view()
        && let Ok(keys) = view.count(&quorate_store::KeyRange::AtLeast(bytes::Bytes::from_static(b"\0")), 0)
    {
        metrics.keys_total.set(keys);
    }
    let last_leader = Mutex::new(None);
    metrics.on_scrape(move |metrics| scrape(metrics, &services, &last_leader));
}

fn scrape(metrics: &Metrics, services: &Services, last_leader: &Mutex<Option<(u64, Option<u64>)>>) {
    let (node, reader, status) = (&services.node, services.node.reader(), services.node.status());
    metrics.has_leader.set_bool(status.leader.is_some());
    metrics.is_leader.set_bool(status.is_leader);
    metrics.is_learner.set_bool(status.is_learner);
    metrics.proposals_applied.set_u64(status.applied_index);
    metrics.proposals_committed.set_u64(status.committed_index);
    metrics.proposals_pending.set_u64(node.proposals_pending());
    metrics.heartbeat_interval.set(status.heartbeat_interval);
    metrics.election_timeout.set(status.election_timeout);
    let mut last = last_leader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if status.leader.is_some() && *last != Some((status.term, status.leader)) {
        *last = Some((status.term, status.leader));
        metrics.leader_changes_seen.inc();
    }
    drop(last);

    metrics.current_revision.set(reader.revision());
    metrics.compact_revision.set(reader.compacted());
    metrics.db_total_size.set_u64(reader.physical_bytes());
    metrics.db_total_size_in_use.set(reader.logical_bytes());
    metrics.auth_revision.set_u64(reader.auth().revision());
    let version = reader.cluster_version();
    let minor = version.rsplit_once('.').map_or("", |(minor, _)| minor);
    metrics.cluster_version.become_only(&[("cluster_version", minor)]);
    for (kind, name) in [(AlarmType::Nospace, "NOSPACE"), (AlarmType::Corrupt, "CORRUPT")] {
        for alarm in reader.alarms(kind) {
            metrics.alarms.set(&[("server_id", &format!("{:x}", alarm.member_id)), ("alarm_type", name)], 1);
        }
    }

    let hub = services.hub.stats();
    metrics.watch_stream_total.set(hub.streams as i64);
    metrics.watcher_total.set(hub.watchers as i64);
    metrics.slow_watcher_total.set(hub.slow_watchers as i64);
    metrics.lease_renewed.raise_to(services.leases.renewed());
}

/// Counts the requests of every gRPC method that is known by name.
pub(crate) async fn count_requests(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let Some(method) = metrics.grpc.method(request.uri().path()) else { return next.run(request).await };
    let started = std::time::Instant::now();
    method.started.inc();
    let response = next.run(request).await;
    let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    method.handled(code.unwrap_or(0), started.elapsed());
    response
}
