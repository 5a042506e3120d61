//! The configuration: command line, `ETCD_*` environment and configuration file become one typed [`Config`], by etcd
//! 3.7.3's rules.
//!
//! ```text
//! argv ── arguments ──┐                      check (etcd's rules)
//! ETCD_* ─────────────┼─> Settings ─────────> refuse (not built yet) ──> Config
//! --config-file ─ file┘    by table::FLAGS
//! ```
//!
//! One table ([`FLAGS`]) drives the parser, the environment, `--help`, the documents and the tests. What asks for
//! security that is not built yet refuses to start; what else has no effect yet is named in one warning.
//!
//! Left out on purpose: making sense of what is on disk. Whether the initial cluster fits is asked by whoever finds an
//! empty data directory ([`Config::verify_bootstrap`]). Nothing here logs: [`Config::notices`] is for whoever starts
//! the log.

mod arguments;
mod bootstrap;
mod build;
mod check;
mod discovery;
mod file;
mod flag;
mod gates;
mod go;
mod heartbeat;
mod help;
mod table;
#[cfg(test)]
mod tests;
mod url;
mod value;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use quorate_tuning::Interval;

use self::{arguments::Line, value::Settings};
pub use self::{
    bootstrap::resolve,
    discovery::{Discovery, ServiceDiscovery, SrvDiscovery},
    flag::{Flag, Group, Kind, Stage},
    gates::{FeatureGates, GATES, Gate, GateStage},
    table::FLAGS,
    url::{Scheme, Url},
    version::{ETCD_CLUSTER_VERSION, ETCD_STORAGE_VERSION, ETCD_VERSION, GIT_SHA, QUORATE_VERSION},
};

/// What the process is to do.
#[derive(Debug)]
pub enum Start {
    Run(Box<Config>),
    /// `--help` and `--version`, for the standard output.
    Print {
        text: String,
        exit_code: u8,
    },
    Fail {
        failure: Failure,
        exit_code: u8,
    },
}

impl Start {
    /// From this process: its arguments, environment and files.
    pub fn from_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let arguments: Vec<String> = std::env::args_os().skip(1).map(lossy).collect();
        let around = Surroundings {
            env: std::env::vars_os().map(|(key, value)| (lossy(key), lossy(value))).collect(),
            read_file: &|path| std::fs::read_to_string(path).map_err(|e| bootstrap::go_io_error(&e)),
            default_host: &default_host,
        };
        Self::read(&arguments, &around)
    }

    /// `arguments` without the program's name.
    pub fn read(arguments: &[String], around: &Surroundings<'_>) -> Self {
        if let Some(verb @ ("gateway" | "grpc-proxy")) = arguments.first().map(String::as_str) {
            return Self::Fail { failure: Failure::Plain(format!("etcd {verb} is not built yet\n")), exit_code: 1 };
        }
        let settings = match arguments::read_line(arguments) {
            Line::Go(settings) => settings,
            Line::Help => return Self::Print { text: help::text(), exit_code: 0 },
            Line::Fail(failure, exit_code) => return Self::Fail { failure, exit_code },
        };
        if settings.bool("version") {
            return Self::Print { text: version::text(), exit_code: 0 };
        }
        match configure(settings, around) {
            Ok(config) => Self::Run(Box::new(config)),
            Err(failure) => Self::Fail { failure, exit_code: 1 },
        }
    }
}

/// What a configuration is read from besides the command line.
pub struct Surroundings<'a> {
    pub env: Vec<(String, String)>,
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
    /// The address by which other machines reach this one.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

impl Surroundings<'_> {
    /// Neither environment nor files, on a machine without a network: for tests and simulations.
    pub fn none() -> Self {
        Self { env: Vec::new(), read_file: &|_| Err("no such file or directory".into()), default_host: &|| None }
    }
}

/// Connecting a datagram socket sends nothing: it asks the routing table. The address is one of those kept for
/// documentation.
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn configure(mut settings: Settings, around: &Surroundings<'_>) -> Result<Config, Failure> {
    let mut notices = Vec::new();
    let mut path = settings.text("config-file");
    if path.is_empty() {
        let from_env = around.env.iter().find(|(key, _)| key == "ETCD_CONFIG_FILE");
        path = from_env.map(|(_, path)| path.clone()).unwrap_or_default();
    }
    let from_file = !path.is_empty();
    if from_file {
        let text = (around.read_file)(&path).map_err(|e| Failure::unverified(format!("open {path}: {e}")))?;
        let (read, unknown) =
            file::read(&text).map_err(|e| Failure::unverified(format!("configuration file {path}: {e}")))?;
        settings = read;
        notices.push(Notice::new("info", LOADED).with("path", &path));
        if !unknown.is_empty() {
            let notice = Notice::new("warn", "the configuration file has keys that are not known and do nothing");
            notices.push(notice.with("keys", unknown.join(",")).with("path", &path));
        }
    } else {
        arguments::read_env(&mut settings, &around.env, &mut notices)?;
    }
    build::config(&settings, from_file, around, notices).map_err(Failure::unverified)
}

const LOADED: &str = "loaded server configuration, other configuration command line flags and environment variables \
    will be ignored if provided";

/// Why the process does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Complete text for the standard error, as etcd's `flag` package writes it.
    Plain(String),
    /// A line of the log.
    Logged(Notice),
}

impl Failure {
    fn unverified(error: String) -> Self {
        Failure::Logged(Notice::new("warn", "failed to verify flags").with("error", error))
    }
}

/// A line for the log, from before there is one. Levels and field names are etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// info, warn or fatal
    pub level: &'static str,
    pub message: String,
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    fn new(level: &'static str, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), fields: Vec::new() }
    }

    fn with(mut self, field: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((field, value.into()));
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    Periodic(Duration),
    /// Keeps this many revisions.
    Revision(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl LogLevel {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => LogLevel::Debug,
            "info" | "" => LogLevel::Info,
            "warn" | "warning" => LogLevel::Warn,
            "error" => LogLevel::Error,
            "dpanic" | "panic" => LogLevel::Panic,
            "fatal" => LogLevel::Fatal,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::Panic => "panic",
            LogLevel::Fatal => "fatal",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Console,
}

/// One member's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where the raft log is; none: inside the data directory.
    pub wal_dir: Option<PathBuf>,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    pub heartbeat_interval: Interval,
    pub election_timeout: Duration,

    pub listen_peer_urls: Vec<Url>,
    pub listen_client_urls: Vec<Url>,
    /// Not empty: HTTP is served here only, and the client URLs are for gRPC.
    pub listen_client_http_urls: Vec<Url>,
    pub listen_metrics_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    /// Empty until it is discovered; with a discovery service, this member alone until then.
    pub initial_cluster: BTreeMap<String, Vec<Url>>,
    pub initial_cluster_state: ClusterState,
    /// With a discovery service, its token.
    pub initial_cluster_token: String,
    pub discovery: Option<Discovery>,
    pub strict_reconfig_check: bool,
    pub pre_vote: bool,
    pub force_new_cluster: bool,

    /// etcd's default is filled in; negative: no quota.
    pub quota_backend_bytes: i64,
    pub max_txn_ops: u64,
    pub max_request_bytes: u64,
    pub max_concurrent_streams: u32,
    pub auto_compaction: AutoCompaction,
    pub compaction_batch_limit: u64,
    pub compaction_sleep_interval: Duration,
    pub watch_progress_notify_interval: Duration,
    pub warning_unary_request_duration: Duration,

    pub grpc_keepalive_min_time: Duration,
    /// Zero: no pings.
    pub grpc_keepalive_interval: Duration,
    /// Zero: an answer is not waited for.
    pub grpc_keepalive_timeout: Duration,
    pub socket_reuse_port: bool,
    pub socket_reuse_address: bool,
    pub enable_grpc_gateway: bool,
    /// Sorted; `*` or empty: all.
    pub cors: BTreeSet<String>,
    /// Sorted; `*` or empty: all.
    pub host_whitelist: BTreeSet<String>,
    pub bcrypt_cost: u32,

    /// `--metrics=extensive`
    pub extensive_metrics: bool,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// default, stderr, stdout, systemd/journal or files.
    pub log_outputs: Vec<String>,

    /// How often the leader compares what the members have; zero: never.
    pub corrupt_check_time: Duration,
    /// How often the leader compares hashes of compactions, with the gate `CompactHashCheck`.
    pub compact_hash_check_time: Duration,
    /// How often the leader looks whether a downgrade is over; zero: never.
    pub downgrade_check_time: Duration,
    pub feature_gates: FeatureGates,
    pub unsafe_no_fsync: bool,
    /// Zero: to be chosen.
    pub worker_threads: usize,
    pub require_tls: bool,

    /// The flags that were set and have no effect yet. [`Config::notices`] has a warning that names them.
    pub unused: Vec<String>,
    /// For the log, once there is one.
    pub notices: Vec<Notice>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Plain(text) => f.write_str(text.trim_end()),
            Failure::Logged(notice) => {
                f.write_str(&notice.message)?;
                notice.fields.iter().try_for_each(|(name, value)| write!(f, ", {name}: {value}"))
            }
        }
    }
}
