//! Requests by gRPC method, under the names of the Go middleware that etcd uses. Every method stands there from the
//! start, at zero.

use std::time::Duration;

use super::cells::{Counter, Figure, Histogram, heading, join};

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: usize = 2;

const HANDLING_MILLIS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Service and its unary methods.
const UNARY: &[(&str, &[&str])] = &[
    (
        "etcdserverpb.Auth",
        &[
            "AuthDisable",
            "AuthEnable",
            "AuthStatus",
            "Authenticate",
            "RoleAdd",
            "RoleDelete",
            "RoleGet",
            "RoleGrantPermission",
            "RoleList",
            "RoleRevokePermission",
            "UserAdd",
            "UserChangePassword",
            "UserDelete",
            "UserGet",
            "UserGrantRole",
            "UserList",
            "UserRevokeRole",
        ],
    ),
    ("etcdserverpb.Cluster", &["MemberAdd", "MemberList", "MemberPromote", "MemberRemove", "MemberUpdate"]),
    ("etcdserverpb.KV", &["Compact", "DeleteRange", "Put", "Range", "Txn"]),
    ("etcdserverpb.Lease", &["LeaseGrant", "LeaseLeases", "LeaseRevoke", "LeaseTimeToLive"]),
    ("etcdserverpb.Maintenance", &["Alarm", "Defragment", "Downgrade", "Hash", "HashKV", "MoveLeader", "Status"]),
    ("grpc.health.v1.Health", &["Check", "List"]),
    ("v3electionpb.Election", &["Campaign", "Leader", "Proclaim", "Resign"]),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
];

const STREAMS: &[(&str, &str, &str)] = &[
    ("etcdserverpb.KV", "RangeStream", "server_stream"),
    ("etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream"),
    ("etcdserverpb.Maintenance", "Snapshot", "server_stream"),
    ("etcdserverpb.Watch", "Watch", "bidi_stream"),
    ("grpc.health.v1.Health", "Watch", "server_stream"),
    ("v3electionpb.Election", "Observe", "server_stream"),
];

/// etcd shows these only once they were called.
const SHOWN_WHEN_USED: [&str; 2] = ["v3electionpb.Election", "v3lockpb.Lock"];

#[derive(Debug)]
pub struct GrpcMethod {
    path: String,
    labels: [(&'static str, &'static str); 3],
    pub started: Counter,
    pub msg_received: Counter,
    pub msg_sent: Counter,
    handled: [Counter; CODES.len()],
    /// With `--metrics=extensive`.
    handling: Option<Histogram>,
}

impl GrpcMethod {
    fn new(service: &'static str, method: &'static str, kind: &'static str, extensive: bool) -> Self {
        Self {
            path: format!("/{service}/{method}"),
            labels: [("grpc_method", method), ("grpc_service", service), ("grpc_type", kind)],
            started: Counter::default(),
            msg_received: Counter::default(),
            msg_sent: Counter::default(),
            handled: std::array::from_fn(|_| Counter::default()),
            handling: extensive.then(|| Histogram::new(HANDLING_MILLIS.map(|ms| ms * 1_000_000).to_vec())),
        }
    }

    pub fn is_stream(&self) -> bool {
        self.labels[2].1 != "unary"
    }

    /// A call ended with this gRPC status code.
    pub fn handled(&self, code: i32, took: Duration) {
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        self.handled[code].inc();
        if let Some(handling) = &self.handling {
            handling.observe(took);
        }
    }

    pub fn handled_total(&self, code: i32) -> u64 {
        usize::try_from(code).ok().and_then(|code| self.handled.get(code)).map_or(0, Counter::get)
    }

    fn is_shown(&self) -> bool {
        self.started.get() > 0 || !SHOWN_WHEN_USED.contains(&self.labels[1].1)
    }
}

#[derive(Debug)]
pub struct Grpc {
    /// By path.
    methods: Vec<GrpcMethod>,
}

impl Grpc {
    pub(super) fn new(extensive: bool) -> Self {
        let unary =
            UNARY.iter().flat_map(|(service, methods)| methods.iter().map(|method| (*service, *method, "unary")));
        let all = unary.chain(STREAMS.iter().copied());
        let mut methods: Vec<GrpcMethod> =
            all.map(|(service, method, kind)| GrpcMethod::new(service, method, kind, extensive)).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        Self { methods }
    }

    /// `/etcdserverpb.KV/Range`
    pub fn method(&self, path: &str) -> Option<&GrpcMethod> {
        let at = self.methods.binary_search_by(|method| method.path.as_str().cmp(path)).ok()?;
        Some(&self.methods[at])
    }

    pub(super) fn families(&self) -> Vec<(&'static str, String)> {
        let mut families = vec![
            self.family("grpc_server_started_total", "Calls started.", |method| &method.started),
            self.family("grpc_server_msg_received_total", "Messages received of calls.", |method| &method.msg_received),
            self.family("grpc_server_msg_sent_total", "Messages sent of calls.", |method| &method.msg_sent),
            self.handled_family(),
        ];
        families.extend(self.handling_family());
        families
    }

    fn shown(&self) -> impl Iterator<Item = (&GrpcMethod, String)> {
        self.methods.iter().filter(|method| method.is_shown()).map(|method| (method, join(&method.labels)))
    }

    fn family(
        &self,
        name: &'static str,
        help: &str,
        counter: impl Fn(&GrpcMethod) -> &Counter,
    ) -> (&'static str, String) {
        let mut out = String::new();
        heading(&mut out, name, help, Counter::KIND);
        self.shown().for_each(|(method, labels)| counter(method).write(name, &labels, &mut out));
        (name, out)
    }

    fn handled_family(&self) -> (&'static str, String) {
        let name = "grpc_server_handled_total";
        let mut out = String::new();
        heading(&mut out, name, "Calls ended, by their status.", Counter::KIND);
        for (method, labels) in self.shown() {
            for (code, counter) in CODES.iter().zip(&method.handled) {
                counter.write(name, &format!("grpc_code=\"{code}\",{labels}"), &mut out);
            }
        }
        (name, out)
    }

    fn handling_family(&self) -> Option<(&'static str, String)> {
        let name = "grpc_server_handling_seconds";
        let mut out = String::new();
        heading(&mut out, name, "How long calls took.", Histogram::KIND);
        let mut any = false;
        for (method, labels) in self.shown() {
            if let Some(handling) = &method.handling {
                any = true;
                handling.write(name, &labels, &mut out);
            }
        }
        any.then_some((name, out))
    }
}
