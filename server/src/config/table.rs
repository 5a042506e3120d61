//! The table of flags: etcd 3.7.3's, and the few of our own. Defaults are etcd's; the words are ours.

use super::flag::{Flag, Group, Kind::*, Stage};

macro_rules! flags {
    ($($group:ident { $($name:literal $kind:expr, $default:literal, $stage:ident, $help:literal;)* })*) => {
        &[$($(Flag {
            name: $name, kind: $kind, default: $default, stage: Stage::$stage, group: Group::$group, help: $help,
        },)*)*]
    };
}

/// Every flag, in the order of `--help`.
pub const FLAGS: &[Flag] = flags! {
    Member {
        "name" Text, "default", Works, "Human-readable name of this member.";
        "data-dir" Text, "", Works, "Directory of the state and the raft log; empty: ${name}.etcd.";
        "wal-dir" Text, "", Works, "Directory of the raft log; empty: inside --data-dir.";
        "snapshot-count" Uint, "10000", Works, "Applied entries between two raft snapshots.";
        "snapshot-catchup-entries" Uint, "5000", Works, "Entries kept behind a snapshot for slow followers.";
        "heartbeat-interval" Heartbeat, "100", Works, "Milliseconds between two heartbeats of the leader; auto or auto:MIN-MAX follows the measured round trips.";
        "election-timeout" Uint, "1000", Works, "Milliseconds without a leader before an election; at least 5 heartbeats, at most 50000.";
        "initial-election-tick-advance" Bool, "true", Accepted, "Shorten the first election time-out after a start.";
        "listen-peer-urls" Urls, "http://localhost:2380", Works, "URLs to listen on for peers.";
        "listen-client-urls" Urls, "http://localhost:2379", Works, "URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is set.";
        "listen-client-http-urls" Urls, "", Works, "URLs to listen on for HTTP only; takes HTTP off --listen-client-urls.";
        "max-snapshots" Uint, "5", Accepted, "Snapshot files to keep (0: all). Deprecated by etcd.";
        "max-wals" Uint, "5", Accepted, "Log files to keep (0: all).";
        "memory-mlock" Bool, "false", Accepted, "Keep the memory of the process from being swapped.";
        "quota-backend-bytes" Int, "0", Works, "Largest size of the state in bytes; beyond it writes are refused with the NOSPACE alarm. 0: 2 GiB, negative: none.";
        "backend-bbolt-freelist-type" Text, "", Accepted, "A detail of etcd's storage engine.";
        "backend-batch-interval" Duration, "0s", Accepted, "A detail of etcd's storage engine.";
        "backend-batch-limit" Int, "0", Accepted, "A detail of etcd's storage engine.";
        "max-txn-ops" Uint, "128", Works, "Most operations of one transaction.";
        "max-request-bytes" Uint, "1572864", Works, "Largest client request in bytes.";
        "max-concurrent-streams" Uint32, "4294967295", Works, "Most HTTP/2 streams of one client connection.";
        "grpc-keepalive-min-time" Duration, "5s", Works, "Shortest interval of pings that a client may keep.";
        "grpc-keepalive-interval" Duration, "2h", Works, "Interval of the server's pings to a client (0: none).";
        "grpc-keepalive-timeout" Duration, "20s", Works, "Wait for the answer to a ping before the connection is closed (0: none).";
        "socket-reuse-port" Bool, "false", Works, "Set SO_REUSEPORT on the listeners.";
        "socket-reuse-address" Bool, "false", Works, "Set SO_REUSEADDR on the listeners.";
        "enable-grpc-gateway" Bool, "true", Works, "Serve the JSON gateway.";
        "raft-read-timeout" Duration, "5s", Accepted, "Time-out of reading from a peer connection.";
        "raft-write-timeout" Duration, "5s", Accepted, "Time-out of writing to a peer connection.";
        "feature-gates" Gates, "", Works, "Comma-separated name=true|false pairs; the names are listed at the end.";
    }
    Clustering {
        "initial-advertise-peer-urls" Urls, "http://localhost:2380", Works, "Peer URLs of this member, as the other members reach it.";
        "initial-cluster" Text, "default=http://localhost:2380", Works, "Members of the first start: name=URL,name=URL.";
        "initial-cluster-state" OneOf(&["new", "existing"]), "new", Works, "'new' to found a cluster, 'existing' to join one; without effect on restarts.";
        "initial-cluster-token" Text, "etcd-cluster", Works, "Keeps clusters apart: member and cluster IDs are made from it.";
        "advertise-client-urls" Urls, "http://localhost:2379", Works, "Client URLs of this member, as clients reach it; required with --listen-client-urls.";
        "discovery-token" Text, "", Works, "Token of a cluster to be found through a discovery service.";
        "discovery-endpoints" Set, "", Works, "Endpoints of a discovery service.";
        "discovery-dial-timeout" Duration, "2s", Works, "Discovery: time-out of connecting.";
        "discovery-request-timeout" Duration, "5s", Works, "Discovery: time-out of a request.";
        "discovery-keepalive-time" Duration, "2s", Works, "Discovery: interval of pings.";
        "discovery-keepalive-timeout" Duration, "6s", Works, "Discovery: wait for the answer to a ping.";
        "discovery-insecure-transport" Bool, "true", Works, "Discovery: connect without TLS.";
        "discovery-insecure-skip-tls-verify" Bool, "false", Refused, "Discovery: do not check the certificate.";
        "discovery-cert" Text, "", Refused, "Discovery: client certificate.";
        "discovery-key" Text, "", Refused, "Discovery: client key.";
        "discovery-cacert" Text, "", Refused, "Discovery: CA certificate.";
        "discovery-user" Text, "", Works, "Discovery: user[:password].";
        "discovery-password" Text, "", Works, "Discovery: password.";
        "discovery-fallback" OneOf(&["exit", "proxy"]), "exit", Accepted, "What to do when discovery fails; only 'exit' is left.";
        "discovery-srv" Text, "", Works, "DNS domain whose SRV records name the first members.";
        "discovery-srv-name" Text, "", Works, "Suffix of the SRV service names.";
        "strict-reconfig-check" Bool, "true", Works, "Refuse membership changes that would lose the quorum.";
        "pre-vote" Bool, "true", Works, "Ask for votes before raising the term.";
        "auto-compaction-retention" Text, "0", Works, "History to keep (0: all): a duration, hours where no unit is given, or a number of revisions.";
        "auto-compaction-mode" Text, "periodic", Works, "How --auto-compaction-retention is read: periodic or revision.";
        "v2-deprecation" ManyOf(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "", Accepted, "A stage of etcd's v2 store. Deprecated by etcd.";
    }
    Security {
        "cert-file" Text, "", Refused, "Certificate of the client listeners.";
        "key-file" Text, "", Refused, "Key of the client listeners.";
        "client-cert-auth" Bool, "false", Refused, "Ask clients for certificates.";
        "client-cert-file" Text, "", Refused, "Certificate with which this member calls its own client port.";
        "client-key-file" Text, "", Refused, "Key with which this member calls its own client port.";
        "client-crl-file" Text, "", Refused, "List of revoked client certificates.";
        "client-cert-allowed-hostname" List, "", Refused, "Host names allowed in client certificates.";
        "trusted-ca-file" Text, "", Refused, "CA of client certificates.";
        "auto-tls" Bool, "false", Refused, "Make the certificate of the client listeners at start.";
        "peer-cert-file" Text, "", Refused, "Certificate of the peer listeners.";
        "peer-key-file" Text, "", Refused, "Key of the peer listeners.";
        "peer-client-cert-auth" Bool, "false", Refused, "Ask peers for certificates.";
        "peer-client-cert-file" Text, "", Refused, "Certificate with which this member calls its peers.";
        "peer-client-key-file" Text, "", Refused, "Key with which this member calls its peers.";
        "peer-trusted-ca-file" Text, "", Refused, "CA of peer certificates.";
        "peer-cert-allowed-cn" List, "", Refused, "Common names allowed in peer certificates.";
        "peer-cert-allowed-hostname" List, "", Refused, "Host names allowed in peer certificates.";
        "peer-auto-tls" Bool, "false", Refused, "Make the certificate of the peer listeners at start.";
        "self-signed-cert-validity" Uint, "1", Accepted, "Years for which the certificates made at start are valid.";
        "peer-crl-file" Text, "", Refused, "List of revoked peer certificates.";
        "peer-skip-client-san-verification" Bool, "false", Refused, "Do not check the host names of peer certificates.";
        "cipher-suites" List, "", Accepted, "TLS cipher suites by their Go names; not with TLS1.3 only.";
        "cors" Origins, "*", Works, "Origins that browsers may call from; empty or *: all.";
        "host-whitelist" Hosts, "*", Works, "Host names accepted by the plain HTTP listener; empty or *: all.";
        "tls-min-version" Text, "TLS1.2", Accepted, "Lowest TLS version: TLS1.2 or TLS1.3.";
        "tls-max-version" Text, "", Accepted, "Highest TLS version: TLS1.2 or TLS1.3.";
    }
    Auth {
        "auth-token" Text, "simple", Works, "Kind of auth tokens: 'simple' ('jwt' is not built yet).";
        "bcrypt-cost" Uint, "10", Works, "Cost of hashing passwords: 4 to 31.";
        "auth-token-ttl" Uint, "300", Accepted, "Seconds for which an unused auth token lives.";
    }
    Monitoring {
        "enable-pprof" Bool, "false", Accepted, "Serve profiles under /debug/pprof.";
        "metrics" Text, "basic", Works, "'extensive' adds a histogram of the time of each gRPC method.";
        "listen-metrics-urls" Urls, "", Works, "Further URLs to listen on for /metrics and the health checks.";
    }
    Logging {
        "logger" Text, "zap", Works, "The format of etcd's log lines; only 'zap'.";
        "log-outputs" Set, "default", Works, "default (stderr), stderr, stdout or files, comma-separated.";
        "log-level" Level, "info", Works, "debug, info, warn, error, panic or fatal.";
        "log-format" Text, "json", Works, "json or console.";
        "enable-log-rotation" Bool, "false", Accepted, "Rotate the one log file of --log-outputs.";
        "log-rotation-config-json" Text, r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, Accepted, "How to rotate the log file.";
        "warning-unary-request-duration" Duration, "300ms", Works, "A request that takes longer is logged.";
    }
    Tracing {
        "enable-distributed-tracing" Bool, "false", Accepted, "Send OpenTelemetry traces.";
        "distributed-tracing-address" Text, "localhost:4317", Accepted, "Address of the collector.";
        "distributed-tracing-service-name" Text, "etcd", Accepted, "Service name in traces, one for all members.";
        "distributed-tracing-instance-id" Text, "", Accepted, "Instance ID in traces, one for each member.";
        "distributed-tracing-sampling-rate" Int, "0", Accepted, "Traced requests per million.";
    }
    Features {
        "corrupt-check-time" Duration, "0s", Works, "Interval of comparing the members' state.";
        "compact-hash-check-time" Duration, "1m0s", Works, "Interval of comparing the members' hashes of compacted history.";
        "compaction-batch-limit" Int, "0", Works, "Most revisions deleted in one batch of a compaction; 0: 1000.";
        "compaction-sleep-interval" Duration, "0s", Works, "Rest between two batches of a compaction; 0: 10ms.";
        "watch-progress-notify-interval" Duration, "0s", Works, "Interval of progress notifications to watchers; 0: 10m.";
        "warning-apply-duration" Duration, "100ms", Accepted, "A change that takes longer to apply is logged.";
        "bootstrap-defrag-threshold-megabytes" Uint, "0", Accepted, "Defragment at the start where this much would be freed.";
        "max-learners" Int, "1", Accepted, "Most learners of the cluster.";
        "downgrade-check-time" Duration, "5s", Works, "Interval of checking for a downgrade.";
    }
    Unsafe {
        "force-new-cluster" Bool, "false", Works, "Start as a cluster of this one member, with the data it has.";
        "unsafe-no-fsync" Bool, "false", Works, "Do not wait for the disk: a crash of the machine loses data.";
    }
    Quorate {
        "worker-threads" Uint, "0", Works, "Threads that serve requests; 0: chosen from the number of CPUs.";
        "require-tls" Bool, "false", Works, "Refuse to start with a client or peer listener that is not encrypted.";
    }
    Process {
        "config-file" Text, "", Works, "Configuration in YAML or JSON; all other flags and the environment are then ignored.";
        "version" Bool, "false", Works, "Print the version and exit.";
    }
    Ignored {
        "cluster-active-size" Ignored, "", Ignored, "";
        "cluster-remove-delay" Ignored, "", Ignored, "";
        "cluster-sync-interval" Ignored, "", Ignored, "";
        "config" Ignored, "", Ignored, "";
        "force" Ignored, "", Ignored, "";
        "max-result-buffer" Ignored, "", Ignored, "";
        "max-retry-attempts" Ignored, "", Ignored, "";
        "peer-heartbeat-interval" Ignored, "", Ignored, "";
        "peer-election-timeout" Ignored, "", Ignored, "";
        "retry-interval" Ignored, "", Ignored, "";
        "snapshot" Ignored, "", Ignored, "";
        "v" Ignored, "", Ignored, "";
        "vv" Ignored, "", Ignored, "";
        "test.coverprofile" Ignored, "", Ignored, "";
        "test.outputdir" Ignored, "", Ignored, "";
    }
};

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}
