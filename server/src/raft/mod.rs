//! Consensus: everything of openraft, behind a handle that knows none of its types.
//!
//! ```text
//!            submit ─▶ openraft core ─▶ log (fdatasync on its own thread)
//!              │           │       └──▶ peers ═══▶ other members
//!              │           │ committed
//!              ▼           ▼
//!          proposals    machine ─▶ applier (apply thread) ─▶ publish ─▶ answers
//! ```
//!
//! Settings that keep it safe, and are not flags: pre-vote on, no resumption of leadership after a restart, no reads on
//! leases, a probe that frees a majority from a leader that cannot reach it, minutes for a snapshot. See
//! [`RaftSettings::config`].

mod alone;
mod applier;
mod codec;
pub mod log;
mod machine;
mod measure;
mod members;
mod pace;
mod peers;
mod proposals;
mod reads;
mod settings;
mod silence;
mod stall;
mod submit;
mod transfer;
mod types;
mod vigil;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::metrics::RaftServerMetrics;
use quorate_proto::peer as pb;
use quorate_store::{LogPosition, Reader, Store};
use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use applier::{Applier, CompactionPace, Progress};
use codec::Codec;
use log::{LogOptions, LogStore, LogThreads, OnFault, RaftLog};
use machine::Machine;
use pace::Pace;
use peers::{Expulsion, LOST, Links, PeerService, Peers, advice, guarded, within};
use proposals::{Pending, Proposal};
use types::{MemberId, Peer, TypeConfig};

pub use log::SyncStats;
pub use members::{ChangeFailure, MemberChange, PeerChannel};
pub use peers::{Door, Identify, ask_cluster};
pub use settings::{RaftHooks, RaftSettings};

/// How often the core is looked after: a core that has panicked answers nothing and says nothing.
const CORE_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a member that starts waits to hear from the others what it has acknowledged, or an election time-out if shorter.
const LOSS_PATIENCE: Duration = Duration::from_millis(500);

/// Why an entry was not applied, as far as the proposer can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// Not appended, and will not be.
    NotLeader { leader: Option<u64> },
    /// May have been applied, and may still be.
    Unknown,
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
    /// What is kept while this member leads.
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Raft(Arc<Inner>);

struct Inner {
    cluster_id: u64,
    id: MemberId,
    core: Core,
    progress: Progress,
    pending: Pending,
    log: RaftLog,
    /// Bounded by the admission in front of every proposal.
    retries: tokio::sync::mpsc::UnboundedSender<Proposal>,
    links: Links,
    pace: Pace,
    reader: Reader,
    request_timeout: Duration,
    election_timeout: Duration,
    expulsion: Expulsion,
    /// Members of other clusters that were refused; each is logged once.
    strangers: Mutex<BTreeSet<(u64, u64)>>,
    /// Held while a snapshot is received: one at a time.
    receiving: tokio::sync::Mutex<()>,
    /// When a leader was heard last.
    heard: Mutex<Instant>,
    threads: Mutex<Option<LogThreads>>,
}

impl Inner {
    /// How long no quorum has answered this leader; `None` before the first answer, for a leader that is alone, and for who does not
    /// lead.
    fn unanswered(&self) -> Option<Duration> {
        let metrics = self.core.metrics();
        let metrics = metrics.borrow_watched();
        let leads_others = metrics.state == ServerState::Leader && !metrics.membership_config.voter_ids().eq([self.id]);
        metrics.last_quorum_acked.filter(|_| leads_others).map(|acked| acked.elapsed())
    }
}

type Core = openraft::Raft<TypeConfig, Machine>;

impl Raft {
    /// Opens the log, replays what is committed and not yet in the state, and takes part in elections.
    pub async fn start(settings: RaftSettings, store: Store, hooks: RaftHooks) -> anyhow::Result<Self> {
        let reader = store.reader();
        let pace = Pace::new(settings.heartbeat_interval, settings.election_timeout, hooks.on_round_trip);
        let (log, threads) = open_log(&settings, pace.watch_syncs(hooks.on_sync), hooks.on_fault.clone())?;
        if let Some(flushed) = types::log_id_or_none(reader.flushed()?) {
            log.set_flushed(&flushed)?;
        }
        refuse_gap(&log, &reader)?;
        let compaction_pace =
            CompactionPace { entries_per_step: settings.compaction_entries_per_step, pause: settings.compaction_pause };
        let pending = Pending::new(settings.member_id, rand::rng().random());
        let (retries, proposals) = tokio::sync::mpsc::unbounded_channel();
        let (settled, lost) = (pending.clone(), retries.clone());
        let on_term = Box::new(move |term| {
            for proposal in settled.settle(term) {
                // Nobody is there to take it only when the member stops.
                let _ = lost.send(proposal);
            }
        });
        let (applier, progress) = Applier::start(
            store,
            hooks.publish,
            hooks.on_applied,
            on_term,
            hooks.on_installed,
            hooks.on_fault.clone(),
            compaction_pace,
        )?;
        let mut machine = Machine::new(applier, pending.clone(), reader.clone(), log.clone());
        if settings.force_new_cluster {
            let mut log = log.clone();
            alone::leave_others(settings.member_id, &mut log, &mut machine).await.context("force a new cluster")?;
        }
        let config = Arc::new(settings.config().validate()?);
        let expulsion = Expulsion::default();
        let links = Links::new(
            settings.cluster_id,
            settings.member_id,
            settings.dial.clone(),
            settings.election_timeout,
            expulsion.clone(),
        );
        let peers = Peers { links: links.clone(), member_id: settings.member_id, stall: 2 * settings.election_timeout };
        let last = log.log().ids()?.last.map_or(0, |id| id.index + 1);
        let log_of = log.log().clone();
        let core = openraft::Raft::new(settings.member_id, config, peers, log, machine).await?;
        // Before it may elect, and before anybody can ask for its vote.
        refuse_loss(&core, &links, settings.member_id, last, settings.election_timeout.min(LOSS_PATIENCE)).await?;
        core.runtime_config().elect(true);
        let raft = Self(Arc::new(Inner {
            cluster_id: settings.cluster_id,
            id: settings.member_id,
            core,
            progress,
            pending,
            log: log_of,
            retries,
            links,
            pace,
            reader,
            request_timeout: settings.request_timeout,
            election_timeout: settings.election_timeout,
            expulsion,
            strangers: Mutex::default(),
            receiving: tokio::sync::Mutex::new(()),
            heard: Mutex::new(Instant::now()),
            threads: Mutex::new(Some(threads)),
        }));
        tokio::spawn(stop_if_lost(raft.0.expulsion.lost.clone(), settings.member_id, hooks.on_fault.clone()));
        tokio::spawn(look_after_core(Arc::downgrade(&raft.0), hooks.on_fault));
        tokio::spawn(flush_when_due(Arc::downgrade(&raft.0), raft.0.progress.flush_due.clone()));
        tokio::spawn(submit::resubmit(Arc::downgrade(&raft.0), proposals));
        tokio::spawn(submit::sweep(Arc::downgrade(&raft.0)));
        tokio::spawn(vigil::keep(Arc::downgrade(&raft.0)));
        tokio::spawn(stall::keep(Arc::downgrade(&raft.0)));
        tokio::spawn(pace::keep(Arc::downgrade(&raft.0)));
        tokio::spawn(pace::follow(Arc::downgrade(&raft.0)));
        tokio::spawn(members::let_vote(Arc::downgrade(&raft.0)));
        Ok(raft)
    }

    /// What other members ask on the peer port. Ends with `stop`.
    pub fn peer_routes(&self, stop: CancellationToken) -> tonic::service::Routes {
        let service = PeerService { raft: self.clone(), stop };
        tonic::service::Routes::new(guarded(self, service.into_server()))
    }

    /// Puts the peer port's door before a service of another room.
    pub fn guard<S>(&self, server: S) -> tonic::service::interceptor::InterceptedService<S, Door> {
        guarded(self, server)
    }

    /// Cancelled when this member was told that it is no member any more.
    pub fn removed(&self) -> CancellationToken {
        self.0.expulsion.removed.clone()
    }

    /// Cluster and member.
    fn ids(&self) -> (u64, MemberId) {
        (self.0.cluster_id, self.0.id)
    }

    fn core(&self) -> &Core {
        &self.0.core
    }

    /// Whether this member has ever been part of a cluster.
    pub async fn is_initialized(&self) -> anyhow::Result<bool> {
        Ok(self.0.core.is_initialized().await?)
    }

    /// Makes a new cluster of `members` (id -> peer URLs). Every first member does it, with the same members.
    pub async fn initialize(&self, members: BTreeMap<u64, Vec<String>>) -> anyhow::Result<()> {
        let members: BTreeMap<_, _> =
            members.into_iter().map(|(id, peer_urls)| (id, Peer { peer_urls, will_vote: false })).collect();
        self.0.core.initialize(members).await?;
        // It is reported a moment later, and looked for by whoever comes next.
        let mut metrics = self.0.core.metrics();
        while metrics.borrow_watched().membership_config.voter_ids().next().is_none() {
            metrics.changed().await?;
        }
        Ok(())
    }

    /// Elects without waiting for a time-out: there is nobody else to wait for in a cluster of one.
    pub async fn elect_if_alone(&self) -> anyhow::Result<()> {
        if self.0.core.voter_ids().eq([self.0.id]) {
            self.0.core.trigger().elect(false).await?;
        }
        Ok(())
    }

    /// A leader has called.
    fn leader_heard(&self) {
        *self.0.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether whoever is taken for the leader gave sign of life within an election time-out; for the leader itself,
    /// whether a quorum did. openraft names the last leader for as long as there is no other.
    fn is_led(&self) -> bool {
        let leads = self.0.core.server_metrics().borrow_watched().state == ServerState::Leader;
        let silence = if leads {
            self.0.unanswered().unwrap_or_default()
        } else {
            self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
        };
        silence <= self.0.election_timeout
    }

    pub fn term(&self) -> u64 {
        self.0.core.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// A member that does not vote. One that is no member, or not yet, is none.
    pub fn is_learner(&self) -> bool {
        let metrics = self.0.core.server_metrics();
        self.learns(&metrics.borrow_watched())
    }

    fn learns(&self, metrics: &RaftServerMetrics<TypeConfig>) -> bool {
        metrics.state == ServerState::Learner
            && metrics.membership_config.get_node(&self.0.id).is_some_and(|peer| !peer.will_vote)
    }

    pub fn status(&self) -> RaftStatus {
        // Before the two are borrowed: who borrows one twice may wait for a writer who waits for the first.
        let is_led = self.is_led();
        // Who leads is reported apart, and before the rest: whoever is woken by it must find it.
        let (server, metrics) = (self.0.core.server_metrics(), self.0.core.metrics());
        let (server, metrics) = (server.borrow_watched(), metrics.borrow_watched());
        let index = |log_id: &Option<types::LogId>| log_id.as_ref().map_or(0, |id| types::position(id).index);
        RaftStatus {
            term: server.vote.leader_id.term,
            leader: server.current_leader.filter(|_| is_led),
            is_leader: server.state == ServerState::Leader,
            is_learner: self.learns(&server),
            last_index: metrics.last_log_index.map_or(0, |index| index + 1),
            committed_index: index(&metrics.cluster_committed),
            applied_index: self.0.progress.applied.borrow().index,
            heartbeat_interval: self.0.pace.current(),
            election_timeout: self.0.election_timeout,
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
    on_fault: OnFault,
) -> anyhow::Result<(LogStore<TypeConfig, Codec>, LogThreads)> {
    let on_fault = Arc::new(move |reason: &str| on_fault(&format!("failed to write the Raft log: {reason}")));
    let mut options = LogOptions::new(&settings.log_directory, on_fault);
    options.segment_bytes = settings.log_segment_bytes;
    options.fsync = settings.fsync;
    options.on_sync = on_sync;
    let (log, threads, report) = RaftLog::open(settings.log_files.clone(), options)?;
    tracing::info!(
        segments = report.segments,
        entries = report.entries,
        cut = report.cut.as_ref().map(|(file, at, reason)| format!("{} at {at}: {reason}", file.display())),
        "opened the Raft log"
    );
    Ok((LogStore::new(log), threads))
}

/// What the log has let go must be in the state.
fn refuse_gap(log: &LogStore<TypeConfig, Codec>, reader: &Reader) -> anyhow::Result<()> {
    let (applied, kept_after) = (reader.applied().index, log.log().ids()?.purged.map_or(0, |id| id.index + 1));
    anyhow::ensure!(
        kept_after <= applied,
        "the state ends with entry {applied} and the Raft log begins after entry {kept_after}: \
         was the state removed, or an older copy of it put back?"
    );
    Ok(())
}

/// Other members may remember more of this one's log than it has now: see [`peers`]. Who does not answer is not waited for.
async fn refuse_loss(core: &Core, links: &Links, own: MemberId, last: u64, patience: Duration) -> anyhow::Result<()> {
    let membership = core.with_raft_state(|state| state.membership_state.effective().clone()).await?;
    let asked = membership.nodes().filter(|(id, _)| **id != own).map(|(id, peer)| async {
        let link = links.to(*id, &peer.peer_urls);
        let answer = within(patience, link.control().cluster(pb::ClusterRequest {})).await;
        answer.inspect_err(|status| links.heard(status)).map_or(0, |answer| answer.acknowledged)
    });
    let acknowledged = futures::future::join_all(asked).await.into_iter().max().unwrap_or(0);
    anyhow::ensure!(
        acknowledged <= last,
        "{LOST}: the Raft log ends with entry {last}, and other members know it to have had all up to {acknowledged}: {}",
        advice(own)
    );
    Ok(())
}

async fn stop_if_lost(lost: CancellationToken, own: MemberId, on_fault: OnFault) {
    lost.cancelled().await;
    on_fault(&format!("{LOST}: {}", advice(own)));
}

async fn look_after_core(raft: std::sync::Weak<Inner>, on_fault: OnFault) {
    loop {
        tokio::time::sleep(CORE_CHECK_INTERVAL).await;
        let Some(raft) = raft.upgrade() else { return };
        match &raft.core.metrics().borrow_watched().running_state {
            Ok(()) => {}
            Err(openraft::errors::Fatal::Stopped) => return,
            Err(fatal) => return on_fault(&format!("Raft has stopped: {fatal}")),
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
