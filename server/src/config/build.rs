//! From settings to [`Config`]: checks, defaults that depend on other flags, and the notices that go with them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    AutoCompaction, ClusterState, Config, Discovery, FeatureGates, LogFormat, Notice, Surroundings, Url, bootstrap,
    check, discovery, flag::Stage, go::Nanos, table::FLAGS, value::Settings,
};

/// etcd's values where a flag says 0.
const QUOTA_BYTES_DEFAULT: i64 = 2 * 1024 * 1024 * 1024;
const COMPACTION_BATCH_DEFAULT: u64 = 1000;
const COMPACTION_SLEEP_DEFAULT: Duration = Duration::from_millis(10);
const PROGRESS_NOTIFY_DEFAULT: Duration = Duration::from_secs(600);
const WARNING_UNARY_DEFAULT: Duration = Duration::from_millis(300);

/// Those that switch all of a stage do so for these, too.
const GATES_THAT_WORK: [&str; 4] =
    ["CompactHashCheck", "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist"];

const DEFAULT_NAME: &str = "default";
const BCRYPT_COST_DEFAULT: u32 = 10;
const BCRYPT_COSTS: std::ops::RangeInclusive<u64> = 4..=31;

pub(super) fn config(
    settings: &Settings,
    from_file: bool,
    around: &Surroundings<'_>,
    mut notices: Vec<Notice>,
) -> Result<Config, String> {
    check::check(settings, from_file)?;
    check::refuse(settings)?;
    let feature_gates = settings.gates("feature-gates");
    let unused = unused(settings, &feature_gates);
    warn(settings, &unused, &mut notices);
    let (initial_advertise_peer_urls, advertise_client_urls) = advertised(settings, around, &mut notices)?;
    let discovery = discovery::of(settings)?;
    let initial_cluster = initial_cluster(settings, from_file, &initial_advertise_peer_urls)?;
    let election_timeout = Duration::from_millis(settings.uint("election-timeout"));
    Ok(Config {
        name: settings.text("name"),
        data_dir: data_dir(settings, &mut notices),
        wal_dir: Some(settings.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        snapshot_count: settings.uint("snapshot-count"),
        snapshot_catchup_entries: settings.uint("snapshot-catchup-entries"),
        heartbeat_interval: settings.heartbeat("heartbeat-interval").interval(election_timeout),
        election_timeout,
        listen_peer_urls: settings.urls("listen-peer-urls"),
        listen_client_urls: settings.urls("listen-client-urls"),
        listen_client_http_urls: settings.urls("listen-client-http-urls"),
        listen_metrics_urls: settings.urls("listen-metrics-urls"),
        initial_advertise_peer_urls,
        advertise_client_urls,
        initial_cluster,
        initial_cluster_state: match settings.text("initial-cluster-state").as_str() {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: match &discovery {
            Some(Discovery::Service(service)) => service.token.clone(),
            Some(Discovery::Srv(_)) | None => settings.text("initial-cluster-token"),
        },
        discovery,
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        pre_vote: settings.bool("pre-vote"),
        force_new_cluster: settings.bool("force-new-cluster"),
        quota_backend_bytes: quota(settings.int("quota-backend-bytes")),
        max_txn_ops: settings.uint("max-txn-ops"),
        max_request_bytes: settings.uint("max-request-bytes"),
        max_concurrent_streams: streams(settings.uint("max-concurrent-streams")),
        auto_compaction: auto_compaction(settings)?,
        compaction_batch_limit: batch_limit(settings.int("compaction-batch-limit")),
        compaction_sleep_interval: or_default(settings, "compaction-sleep-interval", COMPACTION_SLEEP_DEFAULT)?,
        watch_progress_notify_interval: or_default(
            settings,
            "watch-progress-notify-interval",
            PROGRESS_NOTIFY_DEFAULT,
        )?,
        warning_unary_request_duration: or_default(settings, "warning-unary-request-duration", WARNING_UNARY_DEFAULT)?,
        grpc_keepalive_min_time: duration(settings, "grpc-keepalive-min-time")?,
        grpc_keepalive_interval: duration(settings, "grpc-keepalive-interval")?,
        grpc_keepalive_timeout: duration(settings, "grpc-keepalive-timeout")?,
        socket_reuse_port: settings.bool("socket-reuse-port"),
        socket_reuse_address: settings.bool("socket-reuse-address"),
        enable_grpc_gateway: settings.bool("enable-grpc-gateway"),
        cors: settings.list("cors").into_iter().collect(),
        host_whitelist: settings.list("host-whitelist").into_iter().collect(),
        bcrypt_cost: bcrypt_cost(settings.uint("bcrypt-cost"), &mut notices),
        extensive_metrics: settings.text("metrics") == "extensive",
        log_level: settings.level("log-level"),
        log_format: match settings.text("log-format").as_str() {
            "console" => LogFormat::Console,
            _ => LogFormat::Json,
        },
        log_outputs: settings.list("log-outputs"),
        corrupt_check_time: duration(settings, "corrupt-check-time")?,
        compact_hash_check_time: duration(settings, "compact-hash-check-time")?,
        downgrade_check_time: duration(settings, "downgrade-check-time")?,
        feature_gates,
        unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
        worker_threads: usize::try_from(settings.uint("worker-threads"))
            .map_err(|_| "--worker-threads is too large".to_owned())?,
        require_tls: settings.bool("require-tls"),
        unused,
        notices,
    })
}

fn quota(bytes: i64) -> i64 {
    if bytes == 0 { QUOTA_BYTES_DEFAULT } else { bytes }
}

/// 0 is no limit, as in Go's gRPC.
fn streams(most: u64) -> u32 {
    u32::try_from(most).ok().filter(|most| *most > 0).unwrap_or(u32::MAX)
}

fn batch_limit(limit: i64) -> u64 {
    if limit <= 0 { COMPACTION_BATCH_DEFAULT } else { limit.unsigned_abs() }
}

pub(super) fn duration(settings: &Settings, name: &str) -> Result<Duration, String> {
    let nanos = settings.nanos(name);
    match u64::try_from(nanos.0) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => Err(format!("--{name} must not be negative (set to {nanos})")),
    }
}

fn or_default(settings: &Settings, name: &str, default: Duration) -> Result<Duration, String> {
    if settings.nanos(name) == Nanos(0) { Ok(default) } else { duration(settings, name) }
}

fn unused(settings: &Settings, gates: &FeatureGates) -> Vec<String> {
    let without_effect = |stage: Stage| matches!(stage, Stage::Accepted | Stage::Ignored);
    let flags = FLAGS.iter().filter(|flag| without_effect(flag.stage) && settings.is_set(flag.name));
    let gates = gates.named().filter(|(name, _)| !GATES_THAT_WORK.contains(name));
    let gates = gates.map(|(name, on)| format!("feature-gates={name}={on}"));
    flags.map(|flag| flag.name.to_owned()).chain(gates).collect()
}

fn warn(settings: &Settings, unused: &[String], notices: &mut Vec<Notice>) {
    if !unused.is_empty() {
        let flags = unused.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(" ");
        notices.push(Notice::new("warn", "these flags have no effect yet").with("flags", flags));
    }
    if settings.text("name") == DEFAULT_NAME {
        let message = "it isn't recommended to use default name, please set a value for --name. Note that etcd might \
                       run into issue when multiple members have the same default name";
        notices.push(Notice::new("warn", message).with("name", DEFAULT_NAME));
    }
    for name in ["listen-client-urls", "listen-client-http-urls", "listen-peer-urls"] {
        let open: Vec<Url> = settings.urls(name).into_iter().filter(|url| !url.is_local()).collect();
        if !open.is_empty() {
            let message = format!(
                "--{name} is PLAINTEXT: whoever reaches it can read and change everything. TLS is not built yet; \
                 --require-tls refuses to start like this"
            );
            notices.push(Notice::new("warn", message).with("urls", super::url::join(&open)));
        }
    }
}

/// The advertised peer and client URLs. Where the default is advertised and every address is listened on, etcd puts in
/// the address of the machine.
fn advertised(
    settings: &Settings,
    around: &Surroundings<'_>,
    notices: &mut Vec<Notice>,
) -> Result<(Vec<Url>, Vec<Url>), String> {
    let mut used = None;
    let mut resolved = |listen: &str, advertise: &str, default: &str| {
        let urls = settings.urls(advertise);
        let bound = settings.urls(listen).into_iter().next().filter(|url| url.host() == "0.0.0.0");
        match (urls.as_slice(), bound, (around.default_host)()) {
            ([url], Some(bound), Some(ip)) if url.as_str() == default => {
                used = Some(ip);
                Ok(vec![url.with_host(ip, bound.port().unwrap_or_default())?])
            }
            _ => Ok::<_, String>(urls),
        }
    };
    let peer = resolved("listen-peer-urls", "initial-advertise-peer-urls", "http://localhost:2380")?;
    let client = resolved("listen-client-urls", "advertise-client-urls", "http://localhost:2379")?;
    if let Some(ip) = used {
        notices.push(Notice::new("info", "detected default host for advertise").with("host", ip.to_string()));
    }
    Ok((peer, client))
}

fn initial_cluster(
    settings: &Settings,
    from_file: bool,
    advertised: &[Url],
) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut text = check::initial_cluster_text(settings, from_file);
    let name = settings.text("name");
    let pairs = |name: &str| advertised.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    // etcd compares with the default's text, so that writing the default is the same as leaving it out.
    if name != DEFAULT_NAME && text == "default=http://localhost:2380" {
        text = pairs(if name.is_empty() { DEFAULT_NAME } else { &name });
    }
    if !settings.list("discovery-endpoints").is_empty() {
        // Until it is found, the cluster is this member.
        text = pairs(&name);
    }
    bootstrap::read_cluster(&text)
}

fn data_dir(settings: &Settings, notices: &mut Vec<Notice>) -> PathBuf {
    let dir = settings.text("data-dir");
    if !dir.is_empty() {
        return dir.into();
    }
    let dir = format!("{}.etcd", settings.text("name"));
    notices.push(Notice::new("warn", "'data-dir' was empty; using default").with("data-dir", &dir));
    dir.into()
}

fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, String> {
    let revisions = settings.text("auto-compaction-mode") == "revision";
    Ok(match (check::retention(&settings.text("auto-compaction-retention"), revisions)?, revisions) {
        (0, _) => AutoCompaction::Off,
        (revisions, true) => AutoCompaction::Revision(revisions),
        (nanos, false) => AutoCompaction::Periodic(Duration::from_nanos(nanos.unsigned_abs())),
    })
}

fn bcrypt_cost(cost: u64, notices: &mut Vec<Notice>) -> u32 {
    match u32::try_from(cost) {
        Ok(valid) if BCRYPT_COSTS.contains(&cost) => valid,
        _ => {
            let notice = Notice::new("warn", "use default bcrypt cost instead of the invalid given cost");
            let notice = notice.with("min-cost", BCRYPT_COSTS.start().to_string());
            let notice = notice.with("max-cost", BCRYPT_COSTS.end().to_string());
            let notice = notice.with("default-cost", BCRYPT_COST_DEFAULT.to_string());
            notices.push(notice.with("given-cost", cost.to_string()));
            BCRYPT_COST_DEFAULT
        }
    }
}
