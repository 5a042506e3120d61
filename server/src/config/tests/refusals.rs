//! Command lines, values and files that etcd 3.7.3 was seen to refuse, and its words.

use super::*;

/// Exit code 2, and the usage after it.
#[test]
fn bad_command_lines_are_answered_as_etcd_answers_them() {
    for (line, expected) in [
        ("--nope", "flag provided but not defined: -nope"),
        ("--nope=1", "flag provided but not defined: -nope"),
        ("--discovery=x", "flag provided but not defined: -discovery"),
        ("--experimental-foo=1", "flag provided but not defined: -experimental-foo"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("--name", "flag needs an argument: -name"),
        (
            "--heartbeat-interval=auto:5",
            "invalid value \"auto:5\" for flag -heartbeat-interval: expected milliseconds, auto or auto:MIN-MAX",
        ),
        ("--heartbeat-interval=x", "invalid value \"x\" for flag -heartbeat-interval: parse error"),
        ("--heartbeat-interval x", "invalid value \"x\" for flag -heartbeat-interval: parse error"),
        ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ("--pre-vote=", "invalid boolean value \"\" for -pre-vote: parse error"),
        ("--grpc-keepalive-interval=5", "invalid value \"5\" for flag -grpc-keepalive-interval: parse error"),
        ("--grpc-keepalive-interval=5q", "invalid value \"5q\" for flag -grpc-keepalive-interval: parse error"),
        ("--max-txn-ops=-1", "invalid value \"-1\" for flag -max-txn-ops: parse error"),
        (
            "--quota-backend-bytes=99999999999999999999",
            "invalid value \"99999999999999999999\" for flag -quota-backend-bytes: value out of range",
        ),
        (
            "--max-concurrent-streams=4294967296",
            "invalid value \"4294967296\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"4294967296\": \
             value out of range",
        ),
        (
            "--max-concurrent-streams=x",
            "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        ("--max-learners=1.5", "invalid value \"1.5\" for flag -max-learners: parse error"),
        ("--snapshot-count=", "invalid value \"\" for flag -snapshot-count: parse error"),
        ("--initial-cluster-state=bad", "invalid value \"bad\" for flag -initial-cluster-state: invalid value"),
        ("--discovery-fallback=x", "invalid value \"x\" for flag -discovery-fallback: invalid value"),
        ("--v2-deprecation=x", "invalid value \"x\" for flag -v2-deprecation: invalid value \"x\""),
        ("--feature-gates=x=true", "invalid value \"x=true\" for flag -feature-gates: unrecognized feature gate: x"),
        ("--cors=foo", "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or unixs: foo"),
        (
            "--listen-client-urls --version",
            "invalid value \"--version\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: \
             --version",
        ),
        (
            "--listen-client-urls=http://foo",
            "invalid value \"http://foo\" for flag -listen-client-urls: URL address does not have the form \
             \"host:port\": http://foo",
        ),
        ("--config-file c.yml --bogus", "flag provided but not defined: -bogus"),
        ("--config-file c.yml --pre-vote=x", "invalid boolean value \"x\" for -pre-vote: parse error"),
        // etcd panics, with the same exit code.
        ("--log-level=verbose", "invalid value \"verbose\" for flag -log-level: unrecognized level: \"verbose\""),
    ] {
        assert_eq!(failure(start(&words(line))), (2, expected.to_owned()), "{line}");
        let Start::Fail { failure: Failure::Plain(text), .. } = start(&words(line)) else { panic!("{line}") };
        assert!(text.contains("\nUsage:\n\n  etcd [flags]\n"), "{text}");
    }
}

/// Exit code 1, and a line of the log.
#[test]
fn bad_values_are_answered_as_etcd_answers_them() {
    for (line, expected) in [
        ("foo", "\"foo\" is not a valid flag"),
        ("-", "\"-\" is not a valid flag"),
        ("-- foo", "\"foo\" is not a valid flag"),
        ("--pre-vote false", "\"false\" is not a valid flag"),
        ("--version=false --name x foo", "\"foo\" is not a valid flag"),
        ("--config-file nope.yml", "open nope.yml: no such file or directory"),
        (
            "--listen-client-urls=http://example.com:2379 --advertise-client-urls=http://x:1",
            "expected IP in URL for binding (http://example.com:2379)",
        ),
        (
            "--listen-client-urls=http://:2379 --advertise-client-urls=http://x:1",
            "expected IP in URL for binding (http://:2379)",
        ),
        ("--listen-peer-urls=http://foo:1", "expected IP in URL for binding (http://foo:1)"),
        (
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ("--listen-client-urls=", "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (
            "--advertise-client-urls=http://:2379",
            "--advertise-client-urls \"http://:2379\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host (http://:2379))",
        ),
        (
            "--initial-advertise-peer-urls=http://:2380",
            "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))",
        ),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=auto:5-201",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]",
        ),
        ("--heartbeat-interval=auto:0-9", "--heartbeat-interval=auto needs 0 < MIN <= MAX (set to 0-9)"),
        ("--heartbeat-interval=auto:9-8", "--heartbeat-interval=auto needs 0 < MIN <= MAX (set to 9-8)"),
        ("--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        ("--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
    ] {
        assert_eq!(failure(start(&words(line))), (1, expected.to_owned()), "{line}");
    }
}

#[test]
fn bad_combinations_are_answered_as_etcd_answers_them() {
    for (line, expected) in [
        ("--auto-compaction-mode=x", "unknown auto-compaction-mode \"x\""),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
        ("--auto-compaction-retention=x", "error parsing CompactionRetention: time: invalid duration \"x\""),
        ("--auto-compaction-retention=-1", "error parsing CompactionRetention: time: missing unit in duration \"-1\""),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=5x",
            "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"5x\"",
        ),
        ("--log-format=xml", "unknown log format: xml, supported values json, console"),
        ("--logger=glog", "unknown logger option \"glog\""),
        ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
        ("--log-outputs=default,stderr", "multi logoutput for \"default\" is not supported yet"),
        ("--enable-log-rotation", "--log-outputs requires a single file path when --log-rotate-config-json is defined"),
        ("--compact-hash-check-time=0", "--compact-hash-check-time must be >0 (set to 0s)"),
        ("--tls-min-version=TLS1.1", "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=x",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            "--initial-cluster=a=http://127.0.0.1:2380 --discovery-srv=x.y",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \
             \"discovery-srv\"",
        ),
        ("--discovery-token=x", "both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-endpoints=x", "both --discovery-token and --discovery-endpoints must be set"),
        (
            "--discovery-fallback=proxy",
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        ("--auth-token=foo", "auth: invalid auth options"),
        (
            "--name=a --initial-cluster=a=http://foo",
            "error setting up initial cluster: URL address does not have the form \"host:port\": http://foo",
        ),
        ("--name=a,b", "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "),
        (
            "--name=a=b",
            "error setting up initial cluster: parse \"b=http://localhost:2380\": first path segment in URL cannot \
             contain colon",
        ),
    ] {
        assert_eq!(failure(start(&words(line))), (1, expected.to_owned()), "{line}");
    }
}

#[test]
fn a_bad_configuration_file_is_refused_by_key_and_value() {
    for (file, expected) in [
        ("name: 3\n", "name: expected a text, found 3"),
        (
            "heartbeat-interval: \"100\"\n",
            "heartbeat-interval: expected a whole number, not negative, or auto, found the text \"100\"",
        ),
        ("snapshot-count: 5.5\n", "snapshot-count: expected a whole number, not negative, found 5.5"),
        ("max-txn-ops: -1\n", "max-txn-ops: expected a whole number, not negative, found -1"),
        (
            "grpc-keepalive-interval: 5s\n",
            "grpc-keepalive-interval: expected a whole number of nanoseconds (600000000000 for 10m), found the text \"5s\"",
        ),
        ("log-outputs: stderr\n", "log-outputs: expected a list of texts, found the text \"stderr\""),
        ("pre-vote: maybe\n", "pre-vote: expected true or false, found the text \"maybe\""),
        ("peer-transport-security: 3\n", "peer-transport-security: expected a mapping"),
        ("feature-gates: x=true\n", "feature-gates: unrecognized feature gate: x"),
        ("log-level: bad\n", "log-level: unrecognized level: \"bad\""),
        ("cors: foo\n", "cors: URL scheme must be http, https, unix, or unixs: foo"),
        ("listen-client-urls: foo\n", "listen-client-urls: URL scheme must be http, https, unix, or unixs: foo"),
        ("initial-cluster-state: bad\n", "initial-cluster-state: invalid value"),
        ("- a\n", "the file must hold a mapping of flag names to values"),
    ] {
        let (exit_code, text) = failure(start_with(&["--config-file=c.yml"], &[], file));
        assert_eq!((exit_code, text), (1, format!("configuration file c.yml: {expected}")), "{file}");
    }
    let (_, text) = failure(start_with(&["--config-file=c.yml"], &[], "name: [x\n"));
    assert!(text.starts_with("configuration file c.yml: did not find expected ',' or ']'"), "{text}");
    for (file, named) in [
        ("client-transport-security:\n  cert-file: a\n", "--cert-file: "),
        ("peer-transport-security:\n  auto-tls: true\n", "--peer-auto-tls: "),
        ("cert-file: a\n", "--cert-file: "),
        ("discovery-config:\n  secure:\n    cert: a\n", "--discovery-cert: "),
        ("discovery-config:\n  endpoints: [\"https://a:1\"]\n  token: t\n", "--discovery-endpoints has https://a:1: "),
    ] {
        let (_, text) = failure(start_with(&["--config-file=c.yml"], &[], file));
        assert!(text.starts_with(named), "{file}: {text}");
    }
}
