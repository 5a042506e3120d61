//! What etcd's `Config.Validate` refuses, in its order and words; then what Quorate cannot do yet.

use quorate_tuning::HEARTBEATS_PER_ELECTION_MIN;

use super::{
    flag::Stage,
    gates::FeatureGates,
    go::{self, Nanos},
    table::FLAGS,
    url::{self, Scheme, Url},
    value::Settings,
};

const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;

pub(super) fn check(settings: &Settings, from_file: bool) -> Result<(), String> {
    if settings.text("discovery-fallback") == "proxy" {
        return Err("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"".into());
    }
    check_log(settings)?;
    check_urls(settings)?;
    check_bootstrap_flags(settings, from_file)?;
    check_times(settings)?;
    if !from_file && settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        return Err("--advertise-client-urls is required when --listen-client-urls is set explicitly".into());
    }
    match settings.text("auto-compaction-mode").as_str() {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".into()),
        mode => return Err(format!("unknown auto-compaction-mode {mode:?}")),
    }
    if settings.bool("enable-distributed-tracing") {
        check_sampling(settings.int("distributed-tracing-sampling-rate"))?;
    }
    check_gates(&settings.gates("feature-gates"))?;
    let interval = settings.nanos("compact-hash-check-time");
    if interval <= Nanos(0) {
        return Err(format!("--compact-hash-check-time must be >0 (set to {interval})"));
    }
    check_tls_versions(settings)
}

fn check_log(settings: &Settings) -> Result<(), String> {
    match settings.text("logger").as_str() {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
        logger => return Err(format!("unknown logger option {logger:?}")),
    }
    let outputs = settings.list("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".into());
    }
    let files = outputs.iter().filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout")).count();
    if settings.bool("enable-log-rotation") && files != 1 && (outputs.len() == 1 || files > 1) {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is defined".into());
    }
    match settings.text("log-format").as_str() {
        "json" | "console" | "" => Ok(()),
        format => Err(format!("unknown log format: {format}, supported values json, console")),
    }
}

fn check_urls(settings: &Settings) -> Result<(), String> {
    for name in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"] {
        for url in settings.urls(name) {
            let bindable = url.scheme().is_socket_file() || url.host() == "localhost" || url.ip().is_some();
            if !bindable {
                return Err(format!("expected IP in URL for binding ({url})"));
            }
        }
    }
    for (name, form) in [
        ("initial-advertise-peer-urls", r#"must be "host:port""#),
        (
            "advertise-client-urls",
            r#"must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket""#,
        ),
    ] {
        let urls = settings.urls(name);
        if let Some(url) = urls.iter().find(|url| !url.scheme().is_socket_file() && url.host().is_empty()) {
            return Err(format!("--{name} {:?} {form} (unexpected empty host ({url}))", url::join(&urls)));
        }
    }
    Ok(())
}

fn check_bootstrap_flags(settings: &Settings, from_file: bool) -> Result<(), String> {
    let endpoints = settings.list("discovery-endpoints");
    let cluster = initial_cluster_text(settings, from_file);
    let set = [!cluster.is_empty(), settings.asks("discovery-srv"), !endpoints.is_empty()];
    if set.iter().filter(|set| **set).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                    \"discovery-endpoints\" or \"discovery-srv\""
            .into());
    }
    if settings.asks("discovery-token") == endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".into());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".into());
    }
    Ok(())
}

/// The default of `--initial-cluster` gives way to discovery.
pub(super) fn initial_cluster_text(settings: &Settings, from_file: bool) -> String {
    let text = settings.text("initial-cluster");
    let discovers = settings.asks("discovery-srv")
        || !settings.list("discovery-endpoints").is_empty()
        || (settings.asks("discovery-srv-name") && !from_file);
    let is_default = !settings.is_set("initial-cluster");
    if discovers && is_default { String::new() } else { text }
}

fn check_times(settings: &Settings) -> Result<(), String> {
    let heartbeat = settings.heartbeat("heartbeat-interval").longest_ms()?;
    let election = settings.uint("election-timeout");
    if election == 0 {
        return Err(format!("--election-timeout must be >0 (set to {election}ms)"));
    }
    if heartbeat.saturating_mul(u64::from(HEARTBEATS_PER_ELECTION_MIN)) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_TIMEOUT_MS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms"
        ));
    }
    Ok(())
}

fn check_sampling(rate: i64) -> Result<(), String> {
    let problem = match rate {
        ..0 => "tracing sampling rate must be positive",
        1_000_001.. => "tracing sampling rate must be less than 1000000",
        _ => return Ok(()),
    };
    Err(format!("distributed tracing configurition is not valid: ({problem})"))
}

fn check_gates(gates: &FeatureGates) -> Result<(), String> {
    if gates.enabled("LeaseCheckpointPersist") && !gates.enabled("LeaseCheckpoint") {
        return Err(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".into()
        );
    }
    Ok(())
}

fn check_tls_versions(settings: &Settings) -> Result<(), String> {
    let (lowest, highest) = (settings.text("tls-min-version"), settings.text("tls-max-version"));
    let rank = |version: &str| match version {
        "" => Ok(0),
        "TLS1.2" => Ok(2),
        "TLS1.3" => Ok(3),
        _ => Err(format!("unexpected TLS version {version:?} (must be one of: TLS1.2, TLS1.3)")),
    };
    let (low, high) = (rank(&lowest)?, rank(&highest)?);
    if high != 0 && low > high {
        return Err(format!("min version ({lowest}) is greater than max version ({highest})"));
    }
    if low == 3 && !settings.list("cipher-suites").is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
    }
    Ok(())
}

/// Starting without what these ask for would be unsafe.
pub(super) fn refuse(settings: &Settings) -> Result<(), String> {
    let refused = FLAGS.iter().filter(|flag| flag.stage == Stage::Refused && settings.asks(flag.name));
    let tls = refused.map(|flag| format!("--{}", flag.name)).collect::<Vec<_>>();
    if !tls.is_empty() {
        return Err(format!("{}: {NO_TLS}", tls.join(", ")));
    }
    for name in [
        "listen-client-urls",
        "listen-client-http-urls",
        "listen-metrics-urls",
        "listen-peer-urls",
        "initial-advertise-peer-urls",
    ] {
        refuse_tls_url(name, &settings.urls(name))?;
    }
    refuse_tls_discovery(settings)?;
    refuse_tokens(&settings.text("auth-token"))?;
    refuse_plaintext(settings)
}

const NO_TLS: &str = "TLS is not built yet, and Quorate does not use plaintext where TLS was asked for";

fn refuse_tls_discovery(settings: &Settings) -> Result<(), String> {
    let endpoints = settings.list("discovery-endpoints");
    if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.trim().starts_with("https:")) {
        return Err(format!("--discovery-endpoints has {endpoint}: {NO_TLS}"));
    }
    if !settings.bool("discovery-insecure-transport") {
        return Err(format!("--discovery-insecure-transport=false: {NO_TLS}"));
    }
    Ok(())
}

pub(super) fn refuse_tls_url(name: &str, urls: &[Url]) -> Result<(), String> {
    match urls.iter().find(|url| url.scheme().is_tls()) {
        Some(url) => Err(format!("--{name} has {url}: {NO_TLS}")),
        None => Ok(()),
    }
}

fn refuse_tokens(auth_token: &str) -> Result<(), String> {
    match auth_token.split(',').next().unwrap_or_default() {
        "simple" | "" => Ok(()),
        "jwt" => Err("--auth-token=jwt: only 'simple' tokens are built yet".into()),
        // What etcd says for every other kind.
        _ => Err("auth: invalid auth options".into()),
    }
}

fn refuse_plaintext(settings: &Settings) -> Result<(), String> {
    if !settings.bool("require-tls") {
        return Ok(());
    }
    for name in ["listen-client-urls", "listen-client-http-urls", "listen-peer-urls"] {
        if let Some(url) = settings.urls(name).iter().find(|url| url.scheme() == Scheme::Http) {
            return Err(format!("--require-tls is set, and --{name} has {url}, which is plaintext"));
        }
    }
    Ok(())
}

/// The retention of `--auto-compaction-mode=periodic` and `revision`: a number of hours or of revisions, or a duration.
pub(super) fn retention(text: &str, revisions: bool) -> Result<i64, String> {
    let plain = text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok().filter(|n| *n >= 0);
    let hours = |n: i64| n.checked_mul(3_600_000_000_000);
    match (plain, revisions) {
        (Some(n), true) => Ok(n),
        (Some(n), false) => hours(n).ok_or(format!("--auto-compaction-retention of {n} hours is too long")),
        (None, _) => {
            let Nanos(nanos) =
                go::parse_duration(text).map_err(|e| format!("error parsing CompactionRetention: {e}"))?;
            if revisions || nanos < 0 {
                let expected = if revisions { "a number of revisions" } else { "a duration that is not negative" };
                return Err(format!("--auto-compaction-retention must be {expected} (set to {text:?})"));
            }
            Ok(nanos)
        }
    }
}
