//! Compared with what etcd 3.7.3 was seen to serve under /metrics.

use super::*;

/// Of etcd 3.7.3 with `--metrics=extensive`, as far as this member has them.
const GOLDEN: &str = "\
    etcd_cluster_version gauge
    etcd_debugging_auth_revision gauge
    etcd_debugging_lease_granted_total counter
    etcd_debugging_lease_renewed_total counter
    etcd_debugging_lease_revoked_total counter
    etcd_debugging_mvcc_compact_revision gauge
    etcd_debugging_mvcc_current_revision gauge
    etcd_debugging_mvcc_db_compaction_keys_total counter
    etcd_debugging_mvcc_events_total counter
    etcd_debugging_mvcc_keys_total gauge
    etcd_debugging_mvcc_pending_events_total gauge
    etcd_debugging_mvcc_slow_watcher_total gauge
    etcd_debugging_mvcc_total_put_size_in_bytes gauge
    etcd_debugging_mvcc_watch_stream_total gauge
    etcd_debugging_mvcc_watcher_total gauge
    etcd_debugging_server_lease_expired_total counter
    etcd_disk_backend_commit_duration_seconds histogram
    etcd_disk_wal_fsync_duration_seconds histogram
    etcd_disk_wal_write_bytes_total gauge
    etcd_disk_wal_write_duration_seconds histogram
    etcd_mvcc_db_open_read_transactions gauge
    etcd_mvcc_db_total_size_in_bytes gauge
    etcd_mvcc_db_total_size_in_use_in_bytes gauge
    etcd_mvcc_delete_total counter
    etcd_mvcc_put_total counter
    etcd_mvcc_range_total counter
    etcd_mvcc_txn_total counter
    etcd_network_client_grpc_received_bytes_total counter
    etcd_network_client_grpc_sent_bytes_total counter
    etcd_network_peer_round_trip_time_seconds histogram
    etcd_server_feature_enabled gauge
    etcd_server_go_version gauge
    etcd_server_has_leader gauge
    etcd_server_health_failures counter
    etcd_server_health_success counter
    etcd_server_heartbeat_send_failures_total counter
    etcd_server_id gauge
    etcd_server_is_leader gauge
    etcd_server_is_learner gauge
    etcd_server_leader_changes_seen_total counter
    etcd_server_learner_promote_successes counter
    etcd_server_proposals_applied_total gauge
    etcd_server_proposals_committed_total gauge
    etcd_server_proposals_failed_total counter
    etcd_server_proposals_pending gauge
    etcd_server_quota_backend_bytes gauge
    etcd_server_read_indexes_failed_total counter
    etcd_server_slow_apply_total counter
    etcd_server_slow_read_indexes_total counter
    etcd_server_snapshot_apply_in_progress_total gauge
    etcd_server_version gauge
    grpc_server_handled_total counter
    grpc_server_handling_seconds histogram
    grpc_server_msg_received_total counter
    grpc_server_msg_sent_total counter
    grpc_server_started_total counter
    os_fd_limit gauge
    os_fd_used gauge
    process_cpu_seconds_total counter
    process_max_fds gauge
    process_open_fds gauge
    process_resident_memory_bytes gauge
    process_start_time_seconds gauge
    process_virtual_memory_bytes gauge
";

#[test]
fn names_and_types_are_those_of_etcd() {
    let metrics = filled(true);
    let text = metrics.render();
    for line in GOLDEN.lines() {
        assert!(text.contains(&format!("# TYPE {}\n", line.trim())), "{line}");
    }
    // etcd shows this one only while there is an alarm.
    let etcd_too = |name: &str| {
        name.starts_with("quorate_")
            || name == "etcd_debugging_server_alarms"
            || GOLDEN.lines().any(|line| line.trim().starts_with(&format!("{name} ")))
    };
    assert!(TYPES.iter().all(|(name, _)| etcd_too(name)));
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.is_sorted());
}

fn filled(extensive: bool) -> Arc<Metrics> {
    let metrics = Metrics::new(extensive);
    metrics.server_version.become_only(&[("server_version", "3.7.3")]);
    metrics.go_version.become_only(&[("server_go_version", "none")]);
    metrics.cluster_version.become_only(&[("cluster_version", "3.6")]);
    metrics.cluster_version.become_only(&[("cluster_version", "3.7")]);
    metrics.server_id.become_only(&[("server_id", "8e9e05c52164694d")]);
    metrics.feature_enabled.set(&[("name", "AllAlpha"), ("stage", "ALPHA")], 0);
    metrics.round_trip.observe("91bc3c398fb3c146", Duration::from_micros(150));
    metrics.heartbeat_interval.set(Duration::from_millis(100));
    metrics
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|have| have == line), "{line}");
}

#[test]
fn labels_buckets_and_values_are_those_of_etcd() {
    let metrics = filled(true);
    metrics.wal_fsync.observe(Duration::from_millis(3));
    metrics.wal_fsync.observe(Duration::from_secs(9));
    metrics.on_scrape(|metrics| metrics.quota_backend_bytes.set(2_147_483_648));
    let put = metrics.grpc.method("/etcdserverpb.KV/Put").unwrap();
    put.started.inc();
    put.handled(0, Duration::from_micros(884));
    put.handled(99, Duration::from_secs(99));
    let text = metrics.render();
    for line in [
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_server_version{server_version=\"3.7.3\"} 1",
        "etcd_server_id{server_id=\"8e9e05c52164694d\"} 1",
        "etcd_server_feature_enabled{name=\"AllAlpha\",stage=\"ALPHA\"} 0",
        "etcd_server_quota_backend_bytes 2147483648",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"91bc3c398fb3c146\",le=\"0.0001\"} 0",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"91bc3c398fb3c146\",le=\"0.0002\"} 1",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"91bc3c398fb3c146\",le=\"3.2768\"} 1",
        "etcd_network_peer_round_trip_time_seconds_count{To=\"91bc3c398fb3c146\"} 1",
        "quorate_raft_heartbeat_interval_seconds 0.1",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 1",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 2",
        "etcd_disk_wal_fsync_duration_seconds_sum 9.003",
        "etcd_disk_wal_fsync_duration_seconds_count 2",
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"Unknown\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        "grpc_server_handling_seconds_bucket{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"0.005\"} 1",
        "grpc_server_handling_seconds_bucket{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"2.5\"} 1",
        "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
    ] {
        has(&text, line);
    }
    let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(resident.parse::<f64>().unwrap() > 1e5);
}

/// etcd 3.7.3 has 45 methods there before the first call, each with 17 codes; locks and elections come with their first
/// call.
#[test]
fn every_grpc_method_of_etcd_stands_there_from_the_start() {
    let metrics = Metrics::new(false);
    let count = |text: &str, name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    let text = metrics.render();
    assert_eq!(count(&text, "grpc_server_started_total"), 45);
    assert_eq!(count(&text, "grpc_server_handled_total"), 765);
    assert!(!text.contains("grpc_server_handling_seconds"));
    metrics.grpc.method("/v3lockpb.Lock/Lock").unwrap().started.inc();
    assert_eq!(count(&metrics.render(), "grpc_server_started_total"), 46);
    assert!(metrics.grpc.method("/etcdserverpb.KV/Nothing").is_none());
}
