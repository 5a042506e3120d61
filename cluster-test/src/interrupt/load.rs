//! The load: clients that write as users do, and note what became of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use quorate_proto::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{Effect, Operation, Outcome};
use pb::request_op::Request as Op;

/// Keys that the clients contend for.
const KEYS: u32 = 24;
/// What fills a value up to its length; no name of an operation has it.
const PADDING: char = '=';
/// More of it in a row than this says nothing to a reader.
const PADDING_SHOWN: usize = 8;
/// Longer than any run, so that no lease ends by itself.
const LEASE_TTL_SECS: i64 = 100_000;

/// Monotonic, common to all clients; and a number that no two operations share.
#[derive(Clone)]
pub struct Clock {
    started: Instant,
    next: Arc<AtomicU64>,
}

impl Clock {
    pub fn start() -> Self {
        Self { started: Instant::now(), next: Arc::default() }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// A moment of the calendar, as operations note theirs.
    pub fn at(&self, moment: SystemTime) -> u64 {
        let ago = SystemTime::now().duration_since(moment).unwrap_or_default();
        self.now().saturating_sub(ago.as_nanos() as u64)
    }

    fn value(&self) -> String {
        format!("v{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Clients at work. They end by themselves when the member is gone.
pub struct Round {
    clients: JoinSet<Vec<Operation>>,
}

impl Round {
    pub async fn finish(mut self) -> Vec<Operation> {
        let mut all = Vec::new();
        while let Some(operations) = self.clients.join_next().await {
            all.extend(operations.expect("a client does not panic"));
        }
        all
    }
}

/// Clients, and what they write.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    pub seed: u64,
    pub value_bytes: Range<usize>,
    /// The first client compacts first, up to there.
    pub compact_at: Option<i64>,
}

pub fn start(runtime: &Runtime, endpoint: &str, load: &Load, clock: &Clock) -> Round {
    let mut set = JoinSet::new();
    for client in 0..load.clients {
        let (endpoint, clock, value_bytes) = (endpoint.to_owned(), clock.clone(), load.value_bytes.clone());
        let compact_at = load.compact_at.filter(|revision| client == 0 && *revision > 1);
        let seed = load.seed ^ client as u64;
        let work = async move {
            let Ok(target) = Endpoint::from_shared(endpoint) else { return Vec::new() };
            let Ok(channel) = target.connect().await else { return Vec::new() };
            Client::new(channel, clock, seed, value_bytes).work(compact_at).await
        };
        set.spawn_on(work, runtime.handle());
    }
    Round { clients: set }
}

/// A message in which values may stand, without what only makes them long.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut run = 0;
    for char in text.chars() {
        run = if char == PADDING { run + 1 } else { 0 };
        if run <= PADDING_SHOWN {
            short.push(char);
        }
    }
    short
}

struct Client {
    kv: pb::kv_client::KvClient<Channel>,
    lease: pb::lease_client::LeaseClient<Channel>,
    clock: Clock,
    random: StdRng,
    value_bytes: Range<usize>,
    own_lease: i64,
    done: Vec<Operation>,
    /// What this client last saw of a key: a guard that often holds.
    seen: Vec<i64>,
}

impl Client {
    fn new(channel: Channel, clock: Clock, seed: u64, value_bytes: Range<usize>) -> Self {
        Self {
            kv: pb::kv_client::KvClient::new(channel.clone()),
            lease: pb::lease_client::LeaseClient::new(channel),
            clock,
            random: StdRng::seed_from_u64(seed),
            value_bytes,
            own_lease: 0,
            done: Vec::new(),
            seen: vec![0; KEYS as usize],
        }
    }

    async fn work(mut self, compact_at: Option<i64>) -> Vec<Operation> {
        let mut alive = match compact_at {
            Some(revision) => self.compact(revision).await,
            None => true,
        };
        while alive {
            alive = match self.random.random_range(0..100) {
                0..50 => self.put().await,
                50..75 => self.guarded().await,
                75..90 => self.delete().await,
                90..95 => self.delete_range().await,
                _ => self.put_with_lease().await,
            };
        }
        self.done
    }

    fn key(&mut self) -> (usize, String) {
        let key = self.random.random_range(0..KEYS);
        (key as usize, format!("k{key:02}"))
    }

    fn begin(&mut self, effect: Effect) -> Operation {
        let mut value = self.clock.value();
        if matches!(effect, Effect::Put { .. }) {
            let padding = self.random.random_range(self.value_bytes.clone()).saturating_sub(value.len());
            value.extend(std::iter::repeat_n(PADDING, padding));
        }
        let invoked = self.clock.now();
        Operation { value, effect, guard: None, invoked, completed: None, outcome: Outcome::Unknown }
    }

    /// Notes the outcome. False when the member is gone.
    fn end(&mut self, mut operation: Operation, answer: Result<(i64, bool), Status>) -> bool {
        let alive = match answer {
            Ok((revision, worked)) => {
                operation.completed = Some(self.clock.now());
                operation.outcome = Outcome::Acknowledged { revision, worked };
                true
            }
            Err(status) => {
                let refused = matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::OutOfRange);
                operation.outcome = if refused { Outcome::Refused } else { Outcome::Unknown };
                refused
            }
        };
        self.done.push(operation);
        alive
    }

    async fn put_under(&mut self, lease: i64) -> bool {
        let (at, key) = self.key();
        let operation = self.begin(Effect::Put { keys: vec![key.clone()], lease });
        let (key, value) = (key.into(), operation.value.clone().into());
        let answer = self.kv.put(pb::PutRequest { key, value, lease, ..Default::default() }).await;
        let answer = answer.map(|answer| (revision(answer.into_inner().header), true));
        if let Ok((revision, _)) = answer {
            self.seen[at] = revision;
        }
        self.end(operation, answer)
    }

    async fn put(&mut self) -> bool {
        self.put_under(0).await
    }

    async fn put_with_lease(&mut self) -> bool {
        if self.own_lease == 0 {
            match self.lease.lease_grant(pb::LeaseGrantRequest { ttl: LEASE_TTL_SECS, id: 0 }).await {
                Ok(answer) => self.own_lease = answer.into_inner().id,
                Err(_) => return false,
            }
        }
        self.put_under(self.own_lease).await
    }

    /// As Kubernetes writes: only if the key was last changed when this client saw it; two keys in one revision.
    async fn guarded(&mut self) -> bool {
        let (at, key) = self.key();
        let second = format!("{key}/too");
        let mut operation = self.begin(Effect::Put { keys: vec![key.clone(), second.clone()], lease: 0 });
        operation.guard = Some((key.clone(), self.seen[at]));
        let put = |key: &str| {
            let (key, value) = (key.to_owned().into(), operation.value.clone().into());
            pb::RequestOp { request: Some(Op::RequestPut(pb::PutRequest { key, value, ..Default::default() })) }
        };
        let get = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.clone().into(),
            range_end: Default::default(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(self.seen[at])),
        };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![put(&key), put(&second)],
            failure: vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }],
        };
        match self.kv.txn(txn).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let revision = revision(answer.header);
                let found = answer.responses.into_iter().find_map(|op| match op.response {
                    Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
                    _ => None,
                });
                self.seen[at] = if answer.succeeded { revision } else { found.map_or(0, |kv| kv.mod_revision) };
                self.end(operation, Ok((revision, answer.succeeded)))
            }
            Err(status) => self.end(operation, Err(status)),
        }
    }

    async fn delete(&mut self) -> bool {
        let (_, key) = self.key();
        // As a range that holds this key alone.
        self.delete_between(key.clone(), format!("{key}\0")).await
    }

    async fn delete_range(&mut self) -> bool {
        let ((_, a), (_, b)) = (self.key(), self.key());
        let (from, until) = if a < b { (a, b) } else { (b, a) };
        if from == until {
            self.delete_between(from.clone(), format!("{from}\0")).await
        } else {
            self.delete_between(from, until).await
        }
    }

    async fn delete_between(&mut self, from: String, until: String) -> bool {
        let operation = self.begin(Effect::Delete { from: from.clone(), until: until.clone() });
        let request = pb::DeleteRangeRequest { key: from.into(), range_end: until.into(), prev_kv: false };
        let answer = self.kv.delete_range(request).await.map(|answer| {
            let answer = answer.into_inner();
            (revision(answer.header), answer.deleted > 0)
        });
        self.end(operation, answer)
    }

    async fn compact(&mut self, at: i64) -> bool {
        let operation = self.begin(Effect::Compact { revision: at });
        let answer = self.kv.compact(pb::CompactionRequest { revision: at, physical: false }).await;
        let answer = answer.map(|answer| (revision(answer.into_inner().header), true));
        self.end(operation, answer)
    }
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
