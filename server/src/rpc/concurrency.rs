//! What locks and elections are made of: keys under a common prefix, each bound to a lease, in the order of their
//! creation. Whose key is the oldest holds the lock, or leads.
//!
//! ```text
//!   <name>/<lease a>   created at 5    holder
//!   <name>/<lease b>   created at 9    waits until nothing older than 9 is left
//! ```
//!
//! Everything goes through the member like anybody else's requests. Waiting is done on a watch of the next older key,
//! not by asking again and again. Where etcd trusts, this looks:
//!
//! - Whoever has waited has the lock only if its key is still the one that it waited with. Its lease may have ended
//!   meanwhile, and the key may have come back younger. Its own key is watched, too, so that nobody waits for nothing.
//! - A caller may go at any moment. Then its key must not stay behind as a lock that nobody holds: it is taken back, also
//!   when it is still on its way into the log. Not so a key that was there before and is the oldest: somebody with the
//!   same lease holds the lock by it.
//!
//! A lock is no fence: what it protects must check the revision.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{EventKind, Failure, KeyRange, Response as Applied, StoreView, validate_txn};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Services;
use super::error::{status, unknown};
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};
use crate::watch::{Filters, Output, WatchCreate, WatchStream};
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;

/// The lease that is granted to whoever brings none, in seconds (etcd's session).
const SESSION_TTL_SECS: i64 = 60;
/// How often taking back a key is tried; after that, it stays until its lease ends.
const WITHDRAWALS_MAX: u32 = 5;
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);

/// The range of all keys under `<name>/`.
pub(super) fn keys_of(name: &[u8]) -> (Bytes, Bytes) {
    // '0' follows '/'.
    ([name, b"/"].concat().into(), [name, b"0"].concat().into())
}

/// As Go prints a number in hexadecimal: with its sign.
fn hexadecimal(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

/// `then`, if `key` is the one created at `revision`; 0 means that there is none.
pub(super) fn if_created_at(key: &Bytes, revision: i64, then: Op, otherwise: Option<Op>) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(revision)),
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest { compare: vec![compare], success: vec![op(then)], failure: otherwise.into_iter().map(op).collect() }
}

pub(super) fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

pub(super) fn delete(key: &Bytes) -> Op {
    Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), ..Default::default() })
}

impl Services {
    pub(super) async fn recipe_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, RequestError> {
        validate_txn(&request, self.options.txn_ops_max)?;
        match self.node.propose(&Identity::default(), Command::Txn(request)).await? {
            Applied::Txn(mut response) => {
                self.node.fill(&mut response.header);
                Ok(response)
            }
            _ => Err(RequestError::Stopped),
        }
    }

    /// Reads the state as of now, where it may take long: the oldest of many keys is found by looking at all of them.
    pub(super) async fn recipe_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&StoreView) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(T, pb::ResponseHeader), Status> {
        let view = self.node.read_view(Consistency::Linearizable).await.map_err(unknown)?;
        let header = self.node.header(view.revision());
        match tokio::task::spawn_blocking(move || read(&view)).await {
            Ok(answer) => Ok((answer.map_err(unknown)?, header)),
            Err(_) => Err(unknown(RequestError::Stopped)),
        }
    }

    /// The caller's lease, or a new one.
    pub(super) async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        self.grant_lease(0, SESSION_TTL_SECS).await.map(|granted| granted.id).map_err(unknown)
    }

    /// Puts `<name>/<lease>` unless it is there already.
    pub(super) async fn enter(&self, name: &[u8], lease: i64, value: Bytes) -> Result<Candidate, Status> {
        let (services, name) = (self.clone(), name.to_vec());
        // To its end, even if the caller goes: only then it is known what there is to take back.
        let entering = tokio::spawn(async move { Candidate::enter(services, &name, lease, value).await });
        match entering.await {
            Ok(entered) => entered.map_err(unknown),
            Err(_) => Err(unknown(RequestError::Stopped)),
        }
    }

    /// Follows ranges in process, as a client's watch would.
    pub(super) fn follow<const N: usize>(
        &self,
        ranges: [KeyRange; N],
        start_revision: i64,
        filters: Filters,
    ) -> Follow {
        let stream = self.hub.stream();
        for range in ranges {
            stream.handle().create(&WatchCreate {
                watch_id: 0,
                range,
                start_revision,
                filters,
                prev_kv: false,
                progress_notify: false,
                fragment: false,
            });
        }
        Follow { stream, outputs: Vec::new(), ready: VecDeque::new(), shutdown: self.shutdown.clone() }
    }
}

/// A caller's key under a prefix. Dropped before it has been decided to stay, it takes the key back.
pub(super) struct Candidate {
    services: Services,
    keys: (Bytes, Bytes),
    pub key: Bytes,
    pub create_revision: i64,
    /// Of the moment when it was put or found.
    pub header: Option<pb::ResponseHeader>,
    /// What the key held when it was there already.
    pub found: Option<KeyValue>,
    leaves: bool,
}

impl Candidate {
    async fn enter(services: Services, name: &[u8], lease: i64, value: Bytes) -> Result<Self, RequestError> {
        let keys = keys_of(name);
        let key: Bytes = [&keys.0[..], hexadecimal(lease).as_bytes()].concat().into();
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let txn = if_created_at(&key, 0, Op::RequestPut(put), Some(Op::RequestRange(get(&key))));
        let response = services.recipe_txn(txn).await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let found = match response.responses.into_iter().next().and_then(|op| op.response) {
            Some(OpResponse::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let create_revision = found.as_ref().map_or(revision, |kv| kv.create_revision);
        let leaves = found.is_none();
        Ok(Self { services, keys, key, create_revision, header: response.header, found, leaves })
    }

    /// Returns when no key of the prefix is older, and with the header of that moment; with none if the own key is gone.
    pub(super) async fn wait(&mut self) -> Result<Option<pb::ResponseHeader>, Status> {
        loop {
            let own = get(&self.key);
            let older = pb::RangeRequest {
                key: self.keys.0.clone(),
                range_end: self.keys.1.clone(),
                limit: 1,
                sort_order: pb::range_request::SortOrder::Descend.into(),
                sort_target: pb::range_request::SortTarget::Create.into(),
                max_create_revision: self.create_revision - 1,
                keys_only: true,
                ..Default::default()
            };
            let read = move |view: &StoreView| Ok((view.range(&own)?.kvs, view.range(&older)?.kvs));
            let ((own, older), header) = self.services.recipe_read(read).await?;
            if own.first().is_none_or(|kv| kv.create_revision != self.create_revision) {
                self.leaves = false;
                return Ok(None);
            }
            let Some(next) = older.into_iter().next() else { return Ok(Some(header)) };
            self.leaves = true;
            let deletes = Filters { no_put: true, no_delete: false };
            let either = [KeyRange::One(next.key), KeyRange::One(self.key.clone())];
            // Gone, or what became of it lies behind a compaction: either way it is looked at again.
            self.services.follow(either, header.revision + 1, deletes).next().await?;
        }
    }

    /// The key stays, whatever becomes of the caller.
    pub(super) fn stay(mut self) -> Bytes {
        self.leaves = false;
        self.key.clone()
    }

    /// The key goes, even if it was there before.
    pub(super) fn give_up(mut self) {
        self.leaves = true;
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.leaves {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(withdraw(self.services.clone(), self.key.clone(), self.create_revision));
        }
    }
}

async fn withdraw(services: Services, key: Bytes, create_revision: i64) {
    for attempt in 1.. {
        // Not what has been put there since.
        let error = match services.recipe_txn(if_created_at(&key, create_revision, delete(&key), None)).await {
            Ok(_) => return,
            Err(error) => error,
        };
        if attempt == WITHDRAWALS_MAX || services.shutdown.is_cancelled() {
            tracing::warn!(%error, "failed to take back the key of a caller that has gone: it stays until its lease ends");
            return;
        }
        tokio::time::sleep(WITHDRAWAL_PAUSE).await;
    }
}

pub(super) enum Followed {
    /// Each change: what it was, and the key-value.
    Events(Vec<(EventKind, KeyValue)>),
    /// What came next is gone: the state itself has to be looked at.
    Compacted,
}

/// A watch inside the member. Ends with it.
pub(super) struct Follow {
    stream: WatchStream,
    outputs: Vec<Output>,
    ready: VecDeque<Followed>,
    shutdown: CancellationToken,
}

impl Follow {
    pub(super) async fn next(&mut self) -> Result<Followed, Status> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(followed);
            }
            let Self { stream, outputs, shutdown, .. } = self;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(status(RequestError::Stopped)),
                polled = poll_fn(|cx| stream.poll_outputs(cx, outputs)) => {
                    polled.map_err(|_| status(RequestError::Stopped))?;
                }
            }
            for output in self.outputs.drain(..) {
                match output {
                    Output::Events(delivery) => {
                        let events = delivery.events();
                        let events = events.map(|(record, change)| {
                            (record.kind(change), record.event(change, false).kv.unwrap_or_default())
                        });
                        self.ready.push_back(Followed::Events(events.collect()));
                    }
                    Output::Compacted { .. } => self.ready.push_back(Followed::Compacted),
                    // Nobody cancels it, and no range in it is empty.
                    Output::Refused { .. } | Output::Canceled { .. } => return Err(status(RequestError::Stopped)),
                    Output::Created { .. } | Output::Progress { .. } => {}
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use quorate_store::engine::MemoryEngine;
    use quorate_store::{Effects, Store};

    use super::super::ServiceOptions;
    use super::*;
    use crate::history::StoreHistory;
    use crate::keepers::Leases;
    use crate::node::{MemberIdentity, Node, NodeSettings};
    use crate::raft::log::{SEGMENT_BYTES, StdFs};
    use crate::raft::{Raft, RaftHooks, RaftSettings};
    use crate::watch::Hub;

    /// A cluster of one in this process, with its state in memory and nobody listening. Wants a runtime of several
    /// threads.
    pub(crate) struct Alone {
        pub services: Services,
        raft: Raft,
        _directory: tempfile::TempDir,
    }

    const ELECTION_TIMEOUT: Duration = Duration::from_millis(200);
    const MEMBER_ID: u64 = 17;

    impl Alone {
        pub(crate) async fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
            let reader = store.reader();
            let history = Arc::new(StoreHistory::new(reader.clone()));
            let hub = Hub::new(reader.revision(), reader.compacted(), history.clone(), history);
            let leases = Leases::load(&reader, ELECTION_TIMEOUT).unwrap();
            let (told, also_told) = (hub.clone(), leases.clone());
            let hooks = RaftHooks {
                publish: Arc::new(move |effects: &Effects| {
                    told.publish(effects);
                    also_told.follow(effects);
                }),
                on_applied: Arc::new(|_, _| {}),
                on_installed: Arc::new(|_| {}),
                on_round_trip: Arc::new(|_, _| {}),
                on_sync: Arc::new(|_| {}),
                on_fault: Arc::new(crate::fault::stop),
            };
            let settings = RaftSettings {
                cluster_id: 7,
                dial: crate::net::Dial::tcp(),
                request_timeout: Duration::from_secs(7),
                member_id: MEMBER_ID,
                log_directory: directory.path().join("log"),
                log_files: Arc::new(StdFs::default()),
                log_segment_bytes: SEGMENT_BYTES,
                heartbeat_interval: quorate_tuning::Interval::Fixed(ELECTION_TIMEOUT / 10),
                election_timeout: ELECTION_TIMEOUT,
                snapshot_entries: 10_000,
                catchup_entries: 5_000,
                fsync: false,
                force_new_cluster: false,
                compaction_entries_per_step: 1_000,
                compaction_pause: Duration::from_millis(1),
            };
            std::fs::create_dir(&settings.log_directory).unwrap();
            let raft = Raft::start(settings, store, hooks).await.unwrap();
            raft.initialize(BTreeMap::from([(MEMBER_ID, vec!["http://localhost:2380".into()])])).await.unwrap();
            let identity = MemberIdentity { cluster_id: 7, member_id: MEMBER_ID, name: "alone".into() };
            let settings = NodeSettings {
                request_bytes_max: 1 << 20,
                quota_bytes: None,
                request_timeout: Duration::from_secs(5),
                election_timeout: ELECTION_TIMEOUT,
            };
            let node = Node::start(identity, settings, raft.clone(), reader);
            tokio::spawn(leases.clone().keep(node.clone()));
            let options = ServiceOptions {
                txn_ops_max: 128,
                request_bytes_max: 1 << 20,
                watch_progress_interval: Duration::from_secs(600),
                quota_bytes: 2 << 30,
                bcrypt_cost: 4,
                strict_reconfig_check: true,
            };
            let services = Services { node, leases, hub, options, shutdown: CancellationToken::new() };
            let alone = Self { services, raft, _directory: directory };
            alone.lead().await;
            alone
        }

        async fn lead(&self) {
            self.raft.elect_if_alone().await.unwrap();
            while self.services.node.read_view(Consistency::Linearizable).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        pub(crate) async fn lease(&self, ttl_secs: i64) -> i64 {
            self.services.grant_lease(0, ttl_secs).await.unwrap().id
        }

        pub(crate) async fn propose(&self, command: Command) {
            self.services.node.propose(&Identity::default(), command).await.unwrap();
        }

        pub(crate) async fn keys(&self, name: &str) -> Vec<Bytes> {
            let (key, range_end) = keys_of(name.as_bytes());
            let request = pb::RangeRequest { key, range_end, ..Default::default() };
            let view = self.services.node.read_view(Consistency::Linearizable).await.unwrap();
            view.range(&request).unwrap().kvs.into_iter().map(|kv| kv.key).collect()
        }

        /// Waits until the prefix holds this many keys.
        pub(crate) async fn settled(&self, name: &str, keys: usize) {
            let settled = async {
                while self.keys(name).await.len() != keys {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the keys settle");
        }
    }

    /// The log is closed before its directory goes.
    impl Drop for Alone {
        fn drop(&mut self) {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(self.raft.shutdown()));
        }
    }

    #[test]
    fn keys_are_named_as_etcd_names_them() {
        assert_eq!(keys_of(b"n"), (Bytes::from("n/"), Bytes::from("n0")));
        assert_eq!(hexadecimal(0x7587_8f2a), "75878f2a");
        assert_eq!(hexadecimal(-1), "-1");
        assert_eq!(hexadecimal(i64::MIN), "-8000000000000000");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_that_came_back_younger_is_not_the_one_that_waited() {
        let member = Alone::start().await;
        let (first, lease) = (member.lease(60).await, member.lease(60).await);
        let holder = member.services.enter(b"n", first, Bytes::new()).await.unwrap().stay();
        let mut candidate = member.services.enter(b"n", lease, Bytes::new()).await.unwrap();
        let waiting = tokio::spawn(async move { candidate.wait().await });
        // In one step, so that the waiting one sees it gone and back, and the holder gone.
        let own: Bytes = format!("n/{}", hexadecimal(lease)).into();
        let op = |request| pb::RequestOp { request: Some(request) };
        let success = vec![op(delete(&own)), op(delete(&holder))];
        member.propose(Command::Txn(pb::TxnRequest { success, ..Default::default() })).await;
        let again = member.services.enter(b"n", lease, Bytes::new()).await.unwrap();
        assert!(waiting.await.unwrap().unwrap().is_none());
        again.stay();
        assert_eq!(member.keys("n").await, [own]);
    }
}
