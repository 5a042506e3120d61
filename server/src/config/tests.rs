//! What etcd 3.7.3 was seen to do, as data: `scripts/etcd` builds the program these answers come from.

mod refusals;

use std::net::IpAddr;

use super::*;

fn start_with(arguments: &[&str], env: &[(&str, &str)], file: &str) -> Start {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let read_file = |path: &str| match path {
        "c.yml" => Ok(file.to_owned()),
        _ => Err("no such file or directory".to_owned()),
    };
    let around = Surroundings {
        env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        read_file: &read_file,
        default_host: &|| Some(IpAddr::from([10, 1, 2, 3])),
    };
    Start::read(&arguments, &around)
}

fn start(arguments: &[&str]) -> Start {
    start_with(arguments, &[], "")
}

fn run(start: Start) -> Config {
    match start {
        Start::Run(config) => *config,
        other => panic!("does not run: {other:?}"),
    }
}

fn config(arguments: &[&str]) -> Config {
    run(start(arguments))
}

/// The exit code and the first line of what is wrong.
fn failure(start: Start) -> (u8, String) {
    match start {
        Start::Fail { failure: Failure::Plain(text), exit_code } => {
            (exit_code, text.lines().next().unwrap_or_default().to_owned())
        }
        Start::Fail { failure: Failure::Logged(notice), exit_code } => {
            (exit_code, notice.fields.first().map(|(_, value)| value.clone()).unwrap_or_default())
        }
        other => panic!("does not fail: {other:?}"),
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn texts(urls: &[Url]) -> String {
    super::url::join(urls)
}

/// A value that each kind takes and that no check refuses.
fn harmless(flag: &Flag) -> &'static str {
    match (flag.kind, flag.name) {
        (_, "initial-cluster") => "default=http://localhost:2380",
        (_, "auto-compaction-mode") => "revision",
        (_, "tls-min-version" | "tls-max-version") => "TLS1.3",
        (_, "logger") => "zap",
        (_, "log-format") => "console",
        (_, "auto-compaction-retention" | "bcrypt-cost") => "5",
        (_, "heartbeat-interval") => "50",
        (_, "election-timeout") => "5000",
        (_, "auth-token") => "simple",
        (Kind::Bool, _) => "true",
        (Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Heartbeat, _) => "7",
        (Kind::Duration, _) => "7s",
        (Kind::Urls | Kind::Origins, _) => "http://127.0.0.1:7777",
        (Kind::OneOf(valid) | Kind::ManyOf(valid), _) => valid[0],
        (Kind::Level, _) => "debug",
        (Kind::Gates, _) => "InitialCorruptCheck=true",
        (Kind::Text | Kind::Hosts | Kind::Set | Kind::List | Kind::Ignored, _) => "x",
    }
}

/// The names of ETCD-SURFACE 3.1, read out of etcd 3.7.3's flag set.
const ETCD_FLAGS: &str = "advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention \
    auto-tls backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bcrypt-cost \
    bootstrap-defrag-threshold-megabytes cert-file cipher-suites client-cert-allowed-hostname client-cert-auth \
    client-cert-file client-crl-file client-key-file compact-hash-check-time compaction-batch-limit \
    compaction-sleep-interval config-file corrupt-check-time cors data-dir discovery-cacert discovery-cert \
    discovery-dial-timeout discovery-endpoints discovery-fallback discovery-insecure-skip-tls-verify \
    discovery-insecure-transport discovery-keepalive-time discovery-keepalive-timeout discovery-key discovery-password \
    discovery-request-timeout discovery-srv discovery-srv-name discovery-token discovery-user \
    distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate \
    distributed-tracing-service-name downgrade-check-time election-timeout enable-distributed-tracing \
    enable-grpc-gateway enable-log-rotation enable-pprof feature-gates force-new-cluster grpc-keepalive-interval \
    grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist initial-advertise-peer-urls \
    initial-cluster initial-cluster-state initial-cluster-token initial-election-tick-advance key-file \
    listen-client-http-urls listen-client-urls listen-metrics-urls listen-peer-urls log-format log-level log-outputs \
    log-rotation-config-json logger max-concurrent-streams max-learners max-request-bytes max-snapshots max-txn-ops \
    max-wals memory-mlock metrics name peer-auto-tls peer-cert-allowed-cn peer-cert-allowed-hostname peer-cert-file \
    peer-client-cert-auth peer-client-cert-file peer-client-key-file peer-crl-file peer-key-file \
    peer-skip-client-san-verification peer-trusted-ca-file pre-vote quota-backend-bytes raft-read-timeout \
    raft-write-timeout self-signed-cert-validity snapshot-catchup-entries snapshot-count socket-reuse-address \
    socket-reuse-port strict-reconfig-check tls-max-version tls-min-version trusted-ca-file unsafe-no-fsync \
    v2-deprecation version wal-dir warning-apply-duration warning-unary-request-duration watch-progress-notify-interval \
    cluster-active-size cluster-remove-delay cluster-sync-interval config force max-result-buffer max-retry-attempts \
    peer-heartbeat-interval peer-election-timeout retry-interval snapshot v vv test.coverprofile test.outputdir";

#[test]
fn the_table_has_every_flag_of_etcd_and_two_of_its_own() {
    let mut etcd: Vec<&str> = words(ETCD_FLAGS);
    let mut own: Vec<&str> = FLAGS.iter().filter(|f| f.group != Group::Quorate).map(|f| f.name).collect();
    etcd.sort_unstable();
    own.sort_unstable();
    assert_eq!(own, etcd);
    let extra: Vec<&str> = FLAGS.iter().filter(|f| f.group == Group::Quorate).map(|f| f.name).collect();
    assert_eq!(extra, ["worker-threads", "require-tls"]);
}

#[test]
fn every_flag_is_read_in_every_notation() {
    for flag in FLAGS.iter().filter(|flag| !matches!(flag.name, "config-file" | "version")) {
        let (name, value) = (flag.name, harmless(flag));
        let mut notations = vec![vec![format!("--{name}={value}")], vec![format!("-{name}={value}")]];
        match flag.kind {
            Kind::Bool | Kind::Ignored => notations.push(vec![format!("-{name}")]),
            _ => notations.push(vec![format!("--{name}"), value.to_owned()]),
        }
        for mut arguments in notations {
            arguments.extend(match name {
                "listen-client-urls" => Some("--advertise-client-urls=http://127.0.0.1:7777".into()),
                "enable-log-rotation" => Some("--log-outputs=file".into()),
                "discovery-token" => Some("--discovery-endpoints=x".into()),
                "discovery-endpoints" => Some("--discovery-token=x".into()),
                _ => None,
            });
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match (flag.stage, start(&arguments)) {
                (_, Start::Run(config)) => {
                    let without_effect = matches!(flag.stage, Stage::Accepted | Stage::Ignored);
                    assert_eq!(config.unused.iter().any(|unused| unused == name), without_effect, "{name}");
                }
                (Stage::Refused, Start::Fail { failure, exit_code: 1 }) => {
                    let text = failure.to_string();
                    assert!(text.contains(&format!("--{name}")), "{text}");
                }
                (Stage::Works, Start::Fail { failure, .. }) if name == "require-tls" => {
                    assert!(failure.to_string().contains("--require-tls is set, and --listen-client-urls"));
                }
                (stage, other) => panic!("{arguments:?} ({stage:?}): {other:?}"),
            }
        }
    }
}

/// `--initial-cluster` is looked at only where the data directory is empty; the texts are etcd's.
#[test]
fn the_initial_cluster_must_fit_this_member() {
    let ip = |text: &str| Some(BTreeSet::from([text.parse::<IpAddr>().ok()?]));
    let resolver = |host: &str| if host == "localhost" { ip("127.0.0.1") } else { ip(host) };
    for (line, expected) in [
        ("", Ok(())),
        ("--name=m", Ok(())),
        ("--name=a --initial-cluster=a=http://127.0.0.1:2380", Ok(())),
        (
            "--name=m --initial-cluster=m=http://1.1.1.1:1,o=http://1.1.1.2:1 --initial-advertise-peer-urls=http://1.1.1.1:1",
            Ok(()),
        ),
        (
            "--initial-cluster=a=http://127.0.0.1:2380",
            Err("couldn't find local name \"default\" in the initial cluster configuration"),
        ),
        ("--initial-cluster=", Err("couldn't find local name \"default\" in the initial cluster configuration")),
        ("--name=", Err("couldn't find local name \"\" in the initial cluster configuration")),
        (
            "--name=a --initial-cluster=a=http://127.0.0.1:2381",
            Err("--initial-cluster has a=http://127.0.0.1:2381 but missing from \
                 --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \
                 \"http://127.0.0.1:2381\")"),
        ),
        (
            "--name=m --initial-cluster=m=http://127.0.0.1:2380 \
             --initial-advertise-peer-urls=http://127.0.0.1:2380,http://127.0.0.1:2390",
            Err("--initial-advertise-peer-urls has http://127.0.0.1:2390 but missing from \
                 --initial-cluster=m=http://127.0.0.1:2380,m=http://127.0.0.1:2390"),
        ),
        (
            "--name=a --initial-cluster=a=http://127.0.0.1:2380,b=http://127.0.0.1:2380 \
             --initial-advertise-peer-urls=http://127.0.0.1:2380",
            Err("initial cluster a=http://127.0.0.1:2380,b=http://127.0.0.1:2380 has duplicate url"),
        ),
    ] {
        let outcome = config(&words(line)).verify_bootstrap(&resolver);
        assert_eq!(outcome, expected.map_err(str::to_owned), "{line}");
    }
    assert!(config(&["--initial-cluster=a=http://a:1", "--initial-cluster-state=existing"]).verify_join().is_err());
}

#[test]
fn a_cluster_that_is_discovered_is_not_named_before() {
    let found = config(&words("--name=m --discovery-srv=x.y --discovery-srv-name=n"));
    assert!(found.initial_cluster.is_empty() && found.initial_cluster_token == "etcd-cluster");
    let Some(Discovery::Srv(srv)) = &found.discovery else { panic!("{:?}", found.discovery) };
    assert_eq!((srv.domain.as_str(), srv.service_name.as_str()), ("x.y", "n"));
    let found = found.with_initial_cluster("m=http://m.x.y:1,0=http://n.x.y:1").unwrap();
    assert_eq!(found.initial_cluster_text(), "0=http://n.x.y:1,m=http://m.x.y:1");
    let refused = found.with_initial_cluster("m=https://m.x.y:1").unwrap_err();
    assert!(refused.starts_with("--initial-cluster has https://m.x.y:1: "), "{refused}");

    let line = "--name=m --initial-advertise-peer-urls=http://a:1,http://a:2 --initial-cluster-token=c --discovery-token=t \
                --discovery-endpoints=b:1,a:1 --discovery-user=u:p --discovery-dial-timeout=1s";
    let found = config(&words(line));
    assert_eq!(
        (found.initial_cluster_text().as_str(), found.initial_cluster_token.as_str()),
        ("m=http://a:1,m=http://a:2", "t")
    );
    let Some(Discovery::Service(service)) = &found.discovery else { panic!("{:?}", found.discovery) };
    assert_eq!(service.endpoints, ["a:1", "b:1"]);
    assert_eq!((service.user.as_str(), service.password.as_str()), ("u", "p"));
    assert_eq!((service.dial_timeout.as_secs(), service.request_timeout.as_secs()), (1, 5));
    assert!(config(&[]).discovery.is_none());
}

#[test]
fn security_that_is_not_built_yet_refuses_to_start_and_is_named() {
    for (line, named) in [
        ("--cert-file=a --key-file=b", "--cert-file, --key-file: "),
        ("--client-cert-auth", "--client-cert-auth: "),
        ("--client-crl-file=a", "--client-crl-file: "),
        ("--auto-tls", "--auto-tls: "),
        ("--peer-auto-tls", "--peer-auto-tls: "),
        ("--peer-cert-allowed-cn=a", "--peer-cert-allowed-cn: "),
        ("--auth-token=jwt,pub-key=a", "--auth-token=jwt: "),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1",
            "--listen-client-urls has https://127.0.0.1:1: ",
        ),
        ("--listen-peer-urls=https://127.0.0.1:1", "--listen-peer-urls has https://127.0.0.1:1: "),
        ("--listen-metrics-urls=https://127.0.0.1:1", "--listen-metrics-urls has https://127.0.0.1:1: "),
        ("--name=a --initial-cluster=a=https://a:1", "--initial-cluster has https://a:1: "),
        ("--discovery-cert=a --discovery-key=b", "--discovery-cert, --discovery-key: "),
        ("--discovery-cacert=a", "--discovery-cacert: "),
        ("--discovery-insecure-skip-tls-verify", "--discovery-insecure-skip-tls-verify: "),
        ("--discovery-insecure-transport=false", "--discovery-insecure-transport=false: "),
        ("--discovery-token=t --discovery-endpoints=https://a:1", "--discovery-endpoints has https://a:1: "),
        ("--require-tls", "--require-tls is set, and --listen-client-urls has http://localhost:2379"),
    ] {
        let (exit_code, text) = failure(start(&words(line)));
        assert!(exit_code == 1 && text.starts_with(named), "{line}: {text}");
    }
    let asks_nothing = "--cert-file= --client-cert-auth=false --auto-tls=false --peer-auto-tls=false --peer-crl-file= \
                        --peer-skip-client-san-verification=false --tls-min-version=TLS1.2 --cipher-suites=x";
    assert_eq!(config(&words(asks_nothing)).unused, ["cipher-suites", "tls-min-version"]);
    let proxied = "--listen-client-urls=http://127.0.0.1:1 --advertise-client-urls=https://outside:1";
    assert_eq!(texts(&config(&words(proxied)).advertise_client_urls), "https://outside:1");
}

#[test]
fn defaults_are_those_of_etcd() {
    let config = config(&[]);
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.etcd")));
    assert_eq!(texts(&config.listen_peer_urls), "http://localhost:2380");
    assert_eq!(texts(&config.advertise_client_urls), "http://localhost:2379");
    assert_eq!(config.initial_cluster_text(), "default=http://localhost:2380");
    assert_eq!(config.initial_cluster_state, ClusterState::New);
    assert_eq!((config.heartbeat_interval, config.election_timeout), (Interval::Fixed(ms(100)), ms(1000)));
    assert_eq!((config.quota_backend_bytes, config.max_txn_ops, config.max_request_bytes), (2 << 30, 128, 1_572_864));
    assert_eq!((config.snapshot_count, config.snapshot_catchup_entries), (10_000, 5_000));
    assert_eq!((config.compaction_batch_limit, config.compaction_sleep_interval), (1000, ms(10)));
    assert_eq!(config.watch_progress_notify_interval, ms(600_000));
    assert_eq!(config.warning_unary_request_duration, ms(300));
    assert_eq!((config.auto_compaction, config.log_level), (AutoCompaction::Off, LogLevel::Info));
    assert_eq!((config.log_format, config.log_outputs), (LogFormat::Json, vec!["default".to_owned()]));
    assert!(config.unused.is_empty() && config.pre_vote && config.strict_reconfig_check && config.enable_grpc_gateway);
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn what_was_not_said_follows_from_what_was() {
    let named = config(&["--name=abc"]);
    assert_eq!(
        (named.initial_cluster_text().as_str(), named.data_dir.to_str()),
        ("abc=http://localhost:2380", Some("abc.etcd"))
    );
    let all = config(&["--name=abc", "--listen-peer-urls=http://0.0.0.0:2390"]);
    assert_eq!(texts(&all.initial_advertise_peer_urls), "http://10.1.2.3:2390");
    assert_eq!(all.initial_cluster_text(), "abc=http://10.1.2.3:2390");
    assert!(all.notices.iter().any(|notice| notice.message.starts_with("--listen-peer-urls is PLAINTEXT")));
    let kept = config(&["--initial-advertise-peer-urls=", "--listen-peer-urls="]);
    assert_eq!(texts(&kept.initial_advertise_peer_urls), "http://localhost:2380");
    for (line, expected) in [
        ("--auto-compaction-retention=1", AutoCompaction::Periodic(ms(3_600_000))),
        ("--auto-compaction-retention=5m", AutoCompaction::Periodic(ms(300_000))),
        ("--auto-compaction-mode=revision --auto-compaction-retention=1000", AutoCompaction::Revision(1000)),
        ("--auto-compaction-mode=revision", AutoCompaction::Off),
    ] {
        assert_eq!(config(&words(line)).auto_compaction, expected, "{line}");
    }
    let invalid = config(&["--bcrypt-cost=100"]);
    assert!(invalid.bcrypt_cost == 10 && invalid.notices.iter().any(|n| n.message.contains("default bcrypt cost")));
    assert_eq!(config(&["--quota-backend-bytes=-1"]).quota_backend_bytes, -1);
}

#[test]
fn a_heartbeat_interval_may_follow_what_is_measured() {
    let auto = |min, max| Interval::Auto { min: ms(min), max: ms(max) };
    for (line, expected) in [
        ("--heartbeat-interval=250 --election-timeout=1250", Interval::Fixed(ms(250))),
        ("--heartbeat-interval=auto", auto(50, 200)),
        ("--heartbeat-interval auto --election-timeout 5000", auto(250, 1000)),
        ("--heartbeat-interval=auto:10-200", auto(10, 200)),
    ] {
        assert_eq!(config(&words(line)).heartbeat_interval, expected, "{line}");
    }
    let from_env = run(start_with(&[], &[("ETCD_HEARTBEAT_INTERVAL", "auto:20-30")], ""));
    assert_eq!(from_env.heartbeat_interval, auto(20, 30));
    for (value, expected) in [("250", Interval::Fixed(ms(250))), ("auto", auto(100, 400)), ("auto:1-2", auto(1, 2))] {
        let file = format!("heartbeat-interval: {value}\nelection-timeout: 2000\n");
        let from_file = run(start_with(&["--config-file=c.yml"], &[], &file));
        assert_eq!(from_file.heartbeat_interval, expected, "{value}");
    }
}

#[test]
fn the_environment_stands_in_for_flags_and_never_beside_them() {
    let from_env = run(start_with(
        &["--heartbeat-interval=50"],
        &[("ETCD_NAME", "x"), ("ETCD_FOO", "1"), ("ETCD_VERSION", "1"), ("ETCD_MAX_WALS", "9"), ("OTHER", "1")],
        "",
    ));
    assert_eq!((from_env.name.as_str(), from_env.unused.as_slice()), ("x", ["max-wals".to_owned()].as_slice()));
    let messages: Vec<&str> = from_env.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(messages[..2], ["unrecognized environment variable", "cannot set special environment variable"]);
    assert_eq!(from_env.notices[0].fields, [("environment-variable", "ETCD_FOO=1".to_owned())]);
    for value in ["x", ""] {
        let Start::Fail { failure: Failure::Logged(notice), exit_code: 1 } =
            start_with(&["--name=y"], &[("ETCD_NAME", value)], "")
        else {
            panic!("a flag and its variable are both set")
        };
        assert_eq!(notice.level, "fatal");
        assert_eq!(
            notice.message,
            "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment \
             variable or disable flag))"
        );
    }
    for (key, value, expected) in [
        ("ETCD_HEARTBEAT_INTERVAL", "x", "invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error"),
        (
            "ETCD_LISTEN_CLIENT_URLS",
            "foo",
            "invalid value \"foo\" for ETCD_LISTEN_CLIENT_URLS: URL scheme must be http, https, unix, or unixs: foo",
        ),
    ] {
        assert_eq!(failure(start_with(&[], &[(key, value)], "")), (1, expected.to_owned()));
    }
}

#[test]
fn a_configuration_file_is_all_there_is() {
    let file = "name: f\nlisten-client-urls: http://127.0.0.1:2379\npre-vote: no\nlog-outputs: [stdout]\n\
                grpc-keepalive-interval: 5000000000\nauth-token-ttl: 0x10\nbogus: 3\nDATA-DIR: null\n\
                socket-options:\n  reuse-port: true\nwarning-unary-request-duration: 0\nversion: true\n";
    let env = [("ETCD_NAME", "e"), ("ETCD_CONFIG_FILE", "c.yml")];
    let read = run(start_with(&["--name=z", "--heartbeat-interval=1"], &env, file));
    assert_eq!((read.name.as_str(), read.data_dir.to_str()), ("f", Some("f.etcd")));
    assert_eq!(read.heartbeat_interval, Interval::Fixed(ms(100)));
    assert_eq!(texts(&read.advertise_client_urls), "http://localhost:2379");
    assert_eq!((read.grpc_keepalive_interval, read.warning_unary_request_duration), (ms(5000), ms(300)));
    assert!(!read.pre_vote && read.socket_reuse_port);
    assert_eq!(
        (read.log_outputs.as_slice(), read.unused.as_slice()),
        (["stdout".to_owned()].as_slice(), ["auth-token-ttl".to_owned()].as_slice())
    );
    assert_eq!(read.notices[1].fields[0], ("keys", "bogus,version".to_owned()));
    let json = run(start_with(&["-config-file", "c.yml"], &[], r#"{"name":"j","data-dir":"d"}"#));
    assert_eq!((json.name.as_str(), json.data_dir.to_str()), ("j", Some("d")));
    for empty in ["", "# nothing\n"] {
        assert_eq!(run(start_with(&["-config-file=c.yml"], &[], empty)).name, "default");
    }
}

#[test]
fn kubeadm_starts_but_for_its_certificates() {
    let line = "--name=n --feature-gates=InitialCorruptCheck=true,PriorityRequest=true --listen-client-urls=http://127.0.0.1:2379 \
                --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 \
                --initial-advertise-peer-urls=http://127.0.0.1:2380 --data-dir=/var/lib/etcd --client-cert-auth=false \
                --peer-client-cert-auth=false --snapshot-count=10000 --listen-metrics-urls=http://127.0.0.1:2381 \
                --watch-progress-notify-interval=5s --initial-cluster=n=http://127.0.0.1:2380 \
                --initial-cluster-state=existing";
    let config = config(&words(line));
    assert!(config.feature_gates.enabled("InitialCorruptCheck"));
    assert_eq!(config.unused, ["feature-gates=PriorityRequest=true"]);
    assert_eq!(config.watch_progress_notify_interval, ms(5000));
    assert_eq!(config.initial_cluster_state, ClusterState::Existing);
    let warnings: Vec<&Notice> = config.notices.iter().filter(|notice| notice.level == "warn").collect();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].fields, [("flags", "--feature-gates=PriorityRequest=true".to_owned())]);
    let secure =
        line.replace("http://", "https://") + " --cert-file=a --key-file=b --peer-cert-file=c --trusted-ca-file=d";
    let (_, text) = failure(start(&words(&secure)));
    assert!(
        text.starts_with("--cert-file, --key-file, --trusted-ca-file, --peer-cert-file: TLS is not built yet"),
        "{text}"
    );
}

#[test]
fn version_and_help_print_and_succeed() {
    for line in
        ["--version", "-version=true", "--snapshot-count=0x10 --version", "--config=any --version", "-v -vv --version"]
    {
        let Start::Print { text, exit_code: 0 } = start(&words(line)) else { panic!("{line}") };
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "etcd Version: 3.7.3");
        assert!(lines[1].starts_with("Git SHA: ") && lines[2].starts_with("Go Version: "));
        assert!(
            lines[3].starts_with("Go OS/Arch: linux/") && lines[4] == format!("Quorate Version: {QUORATE_VERSION}")
        );
    }
    for line in ["--help", "-h", "-help", "--name x --help"] {
        let Start::Print { text, exit_code: 0 } = start(&words(line)) else { panic!("{line}") };
        for flag in FLAGS.iter().filter(|flag| !matches!(flag.group, Group::Process | Group::Ignored)) {
            assert!(text.contains(&format!("\n  --{} '", flag.name)), "{}", flag.name);
        }
        assert!(text.contains("\nQuorate:\n  --worker-threads '0'\n") && !text.contains("--test."));
    }
    assert_eq!(failure(start(&["gateway", "start"])), (1, "etcd gateway is not built yet".to_owned()));
}
