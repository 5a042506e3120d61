//! Consensus: everything of openraft, behind a handle that knows none of its types.
//!
//! ```text
//!            submit ─▶ openraft core ─▶ log (fdatasync on its own thread)
//!                          │  committed
//!                          ▼
//!                     machine ─▶ applier (apply thread) ─▶ publish ─▶ answers
//! ```
//!
//! Settings that keep it safe, and are not flags: pre-vote on, no resumption of leadership after a restart, no reads on
//! leases, a probe that frees a majority from a leader that cannot reach it, minutes for a snapshot. See
//! [`RaftSettings::config`].

mod applier;
mod codec;
pub mod log;
mod machine;
mod peers;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{Config, ReadPolicy, ServerState, SnapshotPolicy};
use quorate_store::{Answer, Effects, LogPosition, Store};

use crate::fault;
use applier::{Applier, CompactionPace, Progress};
use codec::Codec;
use log::{LogOptions, LogStore, LogThreads, RaftLog, StdFs};
use machine::Machine;
use types::{MemberId, Peer, Reply, Request, TypeConfig};

pub use log::SyncStats;

/// How long a snapshot may take on its way; a large state over a slow link takes minutes.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// How often the core is looked after: a core that has panicked answers nothing and says nothing.
const CORE_CHECK_INTERVAL: Duration = Duration::from_millis(200);

pub struct RaftSettings {
    pub member_id: u64,
    /// Directory of the log's segments.
    pub log_directory: PathBuf,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--snapshot-count`: entries between two flushes of the state.
    pub snapshot_entries: u64,
    /// `--snapshot-catchup-entries`: entries kept in the log behind a flush.
    pub catchup_entries: u64,
    /// False for `--unsafe-no-fsync`.
    pub fsync: bool,
    /// `--compaction-batch-limit`.
    pub compaction_entries_per_step: usize,
    /// `--compaction-sleep-interval`.
    pub compaction_pause: Duration,
}

/// Those who are told what happens below. All are called on the threads where it happens: they must be short.
pub struct RaftHooks {
    /// What a group of entries changed: visible already, nobody answered yet.
    pub publish: Arc<dyn Fn(&Effects) + Send + Sync>,
    /// Entries applied, and in how long.
    pub on_applied: Arc<dyn Fn(usize, Duration) + Send + Sync>,
    /// A batch that reached the disk.
    pub on_sync: Arc<dyn Fn(&SyncStats) + Send + Sync>,
}

impl RaftSettings {
    /// A silent leader is replaced within 0.6-1.3 election time-outs: a member waits for the leader's lease (the longer
    /// of the two bounds, half a time-out) and then a random time between the bounds.
    fn config(&self) -> Config {
        let election_ms = self.election_timeout.as_millis() as u64;
        let election_min_ms = (election_ms / 4).max(2);
        Config {
            cluster_name: "quorate".into(),
            election_timeout_min: election_min_ms,
            election_timeout_max: (election_ms / 2).max(election_min_ms + 1),
            heartbeat_interval: (self.heartbeat_interval.as_millis() as u64).clamp(1, election_min_ms - 1),
            install_snapshot_timeout: SNAPSHOT_TIMEOUT.as_millis() as u64,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries.max(1)),
            max_in_snapshot_log_to_keep: self.catchup_entries,
            purge_batch_size: 256,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            quorum_loss_probe_interval: Some(election_ms.max(3 * election_min_ms)),
            ..Config::default()
        }
    }
}

/// Why an entry was not applied, as far as the proposer can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// Not appended.
    NotLeader { leader: Option<u64> },
    /// Appended here and dropped for another leader's entries; may still be committed by somebody.
    Discarded,
    /// The member stops; unknown.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    NotLeader {
        leader: Option<u64>,
    },
    /// No quorum confirmed that this member still leads.
    NoQuorum,
    Stopped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    pub term: u64,
    pub leader: Option<u64>,
    pub is_leader: bool,
    pub is_learner: bool,
    /// Of the last entry in the log, whether committed or not; 0 for none.
    pub last_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Raft(Arc<Inner>);

struct Inner {
    id: MemberId,
    core: openraft::Raft<TypeConfig, Machine>,
    progress: Progress,
    threads: Mutex<Option<LogThreads>>,
}

impl Raft {
    /// Opens the log, replays what is committed and not yet in the state, and takes part in elections.
    pub async fn start(settings: RaftSettings, store: Store, hooks: RaftHooks) -> anyhow::Result<Self> {
        let reader = store.reader();
        let (log, threads) = open_log(&settings, hooks.on_sync)?;
        if let Some(flushed) = types::log_id_or_none(reader.flushed()?) {
            log.set_flushed(&flushed)?;
        }
        let pace =
            CompactionPace { entries_per_step: settings.compaction_entries_per_step, pause: settings.compaction_pause };
        let (applier, progress) = Applier::start(store, hooks.publish, hooks.on_applied, pace)?;
        let machine = Machine::new(applier, reader, log.clone());
        let config = Arc::new(settings.config().validate()?);
        let core = openraft::Raft::new(settings.member_id, config, peers::Peers, log, machine).await?;
        let threads = Mutex::new(Some(threads));
        let raft = Self(Arc::new(Inner { id: settings.member_id, core, progress, threads }));
        tokio::spawn(look_after_core(Arc::downgrade(&raft.0)));
        tokio::spawn(flush_when_due(Arc::downgrade(&raft.0), raft.0.progress.flush_due.clone()));
        Ok(raft)
    }

    /// Whether this member has ever been part of a cluster.
    pub async fn is_initialized(&self) -> anyhow::Result<bool> {
        Ok(self.0.core.is_initialized().await?)
    }

    /// Makes a new cluster of `members` (id -> peer URLs). Every first member does it, with the same members.
    pub async fn initialize(&self, members: BTreeMap<u64, Vec<String>>) -> anyhow::Result<()> {
        let members: BTreeMap<_, _> = members.into_iter().map(|(id, peer_urls)| (id, Peer { peer_urls })).collect();
        Ok(self.0.core.initialize(members).await?)
    }

    /// Elects without waiting for a time-out: there is nobody else to wait for in a cluster of one.
    pub async fn elect_if_alone(&self) -> anyhow::Result<()> {
        if self.0.core.voter_ids().eq([self.0.id]) {
            self.0.core.trigger().elect(false).await?;
        }
        Ok(())
    }

    /// Appends an entry. `reply` is called once, on the apply thread or where the entry was given up.
    pub async fn submit(&self, entry: Bytes, reply: impl FnOnce(Result<Vec<Answer>, WriteFailure>) + Send + 'static) {
        let reply = Once::new(reply);
        let on_complete = reply.clone();
        let responder = Reply(Box::new(move |result: openraft::raft::ClientWriteResult<TypeConfig>| {
            on_complete.call(match result {
                Ok(response) => Ok(response.data),
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    Err(WriteFailure::NotLeader { leader: forward.leader_id })
                }
                Err(_) => Err(WriteFailure::Discarded),
            });
        }));
        if self.0.core.client_write_ff(Request(entry), Some(responder)).await.is_err() {
            reply.call(Err(WriteFailure::Stopped));
        }
    }

    /// Confirms with a quorum that this member leads. Answers the index of the last entry committed before, or of the
    /// leader's first own one.
    pub async fn confirm_leadership(&self) -> Result<u64, ReadFailure> {
        let linearizer = match self.0.core.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(ReadFailure::NotLeader { leader: forward.leader_id });
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => return Err(ReadFailure::NoQuorum),
            Err(RaftError::Fatal(_)) => return Err(ReadFailure::Stopped),
        };
        Ok(types::position(linearizer.read_log_id().log_id()).index)
    }

    /// Confirms with a quorum that this member leads, and waits until everything committed before is applied.
    pub async fn read_index(&self) -> Result<(), ReadFailure> {
        let wanted = self.confirm_leadership().await?;
        let mut applied = self.0.progress.applied.clone();
        applied.wait_for(|applied| applied.index >= wanted).await.map_err(|_| ReadFailure::Stopped)?;
        Ok(())
    }

    pub fn term(&self) -> u64 {
        self.0.core.server_metrics().borrow_watched().vote.leader_id.term
    }

    pub fn status(&self) -> RaftStatus {
        // Who leads is reported apart, and before the rest: whoever is woken by it must find it.
        let (server, metrics) = (self.0.core.server_metrics(), self.0.core.metrics());
        let (server, metrics) = (server.borrow_watched(), metrics.borrow_watched());
        let index = |log_id: &Option<types::LogId>| log_id.as_ref().map_or(0, |id| types::position(id).index);
        RaftStatus {
            term: server.vote.leader_id.term,
            leader: server.current_leader,
            is_leader: server.state == ServerState::Leader,
            is_learner: server.state == ServerState::Learner,
            last_index: metrics.last_log_index.map_or(0, |index| index + 1),
            committed_index: index(&metrics.cluster_committed),
            applied_index: self.0.progress.applied.borrow().index,
        }
    }

    /// Waits for a change of leader, term or role; `None` when this member has stopped.
    pub async fn status_changed(&self, since: RaftStatus) -> Option<RaftStatus> {
        let mut metrics = self.0.core.server_metrics();
        loop {
            let status = self.status();
            let same = (status.term, status.leader, status.is_leader) == (since.term, since.leader, since.is_leader);
            if !same {
                return Some(status);
            }
            metrics.changed().await.ok()?;
        }
    }

    pub fn applied(&self) -> LogPosition {
        *self.0.progress.applied.borrow()
    }

    /// Returns after the next step of compaction, or soon.
    pub async fn compaction_progress(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(50), self.0.progress.compaction.notified()).await;
    }

    /// Flushes the state and lets the log behind it go.
    pub async fn snapshot(&self) -> anyhow::Result<()> {
        Ok(self.0.core.trigger().snapshot().await?)
    }

    /// Stops taking part. What was acknowledged is durable already; nothing has to be flushed.
    pub async fn shutdown(&self) {
        let _ = self.0.core.shutdown().await;
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            let _ = tokio::task::spawn_blocking(move || threads.close()).await;
        }
    }
}

fn open_log(
    settings: &RaftSettings,
    on_sync: Arc<dyn Fn(&SyncStats) + Send + Sync>,
) -> anyhow::Result<(LogStore<TypeConfig, Codec>, LogThreads)> {
    let on_fault = Arc::new(|reason: &str| fault::stop(&format!("failed to write the Raft log: {reason}")));
    let mut options = LogOptions::new(&settings.log_directory, on_fault);
    options.fsync = settings.fsync;
    options.on_sync = on_sync;
    let (log, threads, report) = RaftLog::open(Arc::new(StdFs::default()), options)?;
    tracing::info!(
        segments = report.segments,
        entries = report.entries,
        cut = report.cut.as_ref().map(|(file, at, reason)| format!("{} at {at}: {reason}", file.display())),
        "opened the Raft log"
    );
    Ok((LogStore::new(log), threads))
}

async fn look_after_core(raft: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(CORE_CHECK_INTERVAL).await;
        let Some(raft) = raft.upgrade() else { return };
        match &raft.core.metrics().borrow_watched().running_state {
            Ok(()) => {}
            Err(openraft::errors::Fatal::Stopped) => return,
            Err(fatal) => fault::stop(&format!("Raft has stopped: {fatal}")),
        }
    }
}

async fn flush_when_due(raft: std::sync::Weak<Inner>, due: Arc<tokio::sync::Notify>) {
    loop {
        due.notified().await;
        let Some(raft) = raft.upgrade() else { return };
        if raft.core.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

type Call<T> = Box<dyn FnOnce(T) + Send>;

/// A reply that two sides hold, and the first of them gives.
struct Once<T>(Arc<Mutex<Option<Call<T>>>>);

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Once<T> {
    fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(call)))))
    }

    fn call(&self, value: T) {
        let call = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(call) = call {
            call(value);
        }
    }
}
