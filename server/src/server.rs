//! One member, put together: directory, state, log, consensus, keepers, listeners; and taken apart again in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_proto::log::{MemberPublish, proposal::Command};
use quorate_store::engine::{RocksEngine, RocksSettings};
use quorate_store::{Effects, Installed, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{Bootstrap, bootstrap, founders_of};
use crate::config::{AutoCompaction, Config, Url};
use crate::directory::DataDirectory;
use crate::history::StoreHistory;
use crate::http::{self, Connections};
use crate::keepers::{self, CompactionHashes, CompactionMode, Leases, keep_compacted};
use crate::net::Dial;
use crate::node::{Consistency, MemberIdentity, Node, NodeSettings};
use crate::observe::{count_applied, count_effects, count_round_trip, count_sync};
use crate::raft::log::{SEGMENT_BYTES, StdFs};
use crate::raft::{Raft, RaftHooks, RaftSettings};
use crate::rpc::{self, ServiceOptions, Services};
use crate::telemetry::Metrics;
use crate::watch::Hub;

/// etcd's request time-out beside the two election time-outs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may take to end when the member stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether a new cluster has its version.
const VERSION_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A member that finds no leader says so this often.
const WAITING_SAID_EVERY: Duration = Duration::from_secs(5);

/// Runs a member until `stop` is cancelled.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let directory = DataDirectory::open(&config.data_dir, config.wal_dir.as_deref())?;
    let mut peer_listeners = Vec::new();
    for url in &config.listen_peer_urls {
        peer_listeners.push(http::bind(url, &config).await?);
    }
    // Clients go first, other members when leadership is handed over.
    let (stop, stop_peers) = (stop.child_token(), CancellationToken::new());
    // It may wait for others for ever.
    let member = tokio::select! {
        member = Member::start(&config, &directory, stop.clone()) => member?,
        () = stop.cancelled() => return Ok(()),
    };
    let peers = Connections::for_peers(&config, stop_peers.clone());
    for listener in peer_listeners {
        peers.serve(listener, member.peer_router(&stop_peers));
    }
    let removed = member.raft.removed();
    let connections = Connections::new(&config, stop.clone());
    let served = tokio::select! {
        served = member.serve(&config, &connections, &stop) => served,
        () = removed.cancelled() => {
            tracing::error!("stopping: the member has been permanently removed from the cluster");
            // Removed while it served, it has done its duty; started again, it fails.
            if member.ready.load(Ordering::Relaxed) { Ok(()) } else { Err(removed_error(&member)) }
        }
    };
    tracing::info!("stopping");
    stop.cancel();
    member.hand_over().await;
    connections.closed(CLOSE_PATIENCE).await;
    member.raft.shutdown().await;
    stop_peers.cancel();
    peers.closed(CLOSE_PATIENCE).await;
    tracing::info!("stopped");
    served
}

fn removed_error(member: &Member) -> anyhow::Error {
    let id = member.services.node.identity().member_id;
    anyhow::anyhow!("member {id:x} has been permanently removed from the cluster")
}

struct Member {
    raft: Raft,
    /// It has served clients.
    ready: AtomicBool,
    services: Services,
    compactions: CompactionHashes,
    metrics: Arc<Metrics>,
    /// It had data before this start.
    has_served: bool,
}

impl Member {
    async fn start(config: &Config, directory: &DataDirectory, stop: CancellationToken) -> anyhow::Result<Self> {
        let dial = Dial::tcp();
        let known = directory.identity()?;
        let has_served = known.is_some();
        let Bootstrap { identity, founders } = match known {
            Some(identity) => Bootstrap { founders: None, identity },
            None => bootstrap(config, &dial).await?,
        };
        directory.claim(&identity)?;
        let engine = RocksEngine::open(&directory.state(), &RocksSettings::default()).context("open the state")?;
        let store = Store::open(Arc::new(engine)).context("load the state")?;
        let reader = store.reader();
        if reader.member_removed(identity.member_id) {
            bail!("member {:x} has been permanently removed from the cluster", identity.member_id);
        }
        keepers::refuse_older(&reader.cluster_version())?;

        let history = Arc::new(StoreHistory::new(reader.clone()));
        let hub = Hub::new(reader.revision(), reader.compacted(), history.clone(), history);
        let leases = Leases::load(&reader, config.election_timeout).context("load the leases")?;
        if config.feature_gates.enabled("LeaseCheckpoint") {
            leases.checkpoint_every(keepers::CHECKPOINT_INTERVAL);
        }
        let metrics = Metrics::new(config.extensive_metrics);
        let compactions = CompactionHashes::new(reader.clone(), config.feature_gates.enabled("CompactHashCheck"));
        let alarms = Arc::new(Notify::new());
        let hooks = hooks(&hub, &leases, &metrics, &compactions, &alarms);
        let raft = Raft::start(raft_settings(config, directory, &identity, dial.clone()), store, hooks).await?;
        if !raft.is_initialized().await? {
            // A crash before this leaves an identity without a cluster, and the next start founds it.
            let founders = match founders {
                Some(founders) => Some(founders),
                None => founders_of(config, &identity, &dial).await?,
            };
            if let Some(founders) = founders {
                raft.initialize(founders).await?;
            }
        }
        directory.log_begun(&identity)?;
        let node = Node::start(identity, node_settings(config), raft.clone(), reader);
        tokio::spawn(leases.clone().keep(node.clone()));
        tokio::spawn(keep_compacted(node.clone(), compaction_mode(config.auto_compaction)));
        keep_agreement(config, &node, &compactions, alarms);
        let services = Services { node, leases, hub, options: service_options(config), shutdown: stop };
        crate::observe::watch(&metrics, services.clone(), config);
        Ok(Self { raft, ready: AtomicBool::new(false), services, compactions, metrics, has_served })
    }

    fn peer_router(&self, stop: &CancellationToken) -> axum::Router {
        let routes = rpc::peer_routes(&self.services, self.compactions.clone(), self.raft.peer_routes(stop.clone()));
        http::peer_router(self.services.node.clone(), self.metrics.clone(), routes)
    }

    /// Serves clients until `stop` is cancelled.
    async fn serve(&self, config: &Config, connections: &Connections, stop: &CancellationToken) -> anyhow::Result<()> {
        let ready = async {
            self.raft.elect_if_alone().await?;
            self.follow().await;
            if self.has_served && config.feature_gates.enabled("InitialCorruptCheck") {
                keepers::may_serve(&self.services.node).await?;
            }
            self.publish(config).await?;
            self.listen(config, connections).await
        };
        tokio::select! {
            ready = ready => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        self.ready.store(true, Ordering::Relaxed);
        let identity = self.services.node.identity();
        tracing::info!(
            member_id = format!("{:x}", identity.member_id),
            cluster_id = format!("{:x}", identity.cluster_id),
            name = config.name,
            "ready to serve client requests"
        );
        stop.cancelled().await;
        Ok(())
    }

    /// Waits until the cluster has a leader and this member has applied everything that was committed before.
    async fn follow(&self) {
        let mut said = tokio::time::Instant::now();
        while let Err(error) = self.services.node.read_view(Consistency::Linearizable).await {
            if said.elapsed() > WAITING_SAID_EVERY {
                said = tokio::time::Instant::now();
                tracing::warn!(%error, "waiting for a leader: is a majority of the members running, and can they reach each other?");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A leader that stops lets another one take over first.
    async fn hand_over(&self) {
        if !self.raft.status().is_leader {
            return;
        }
        let Some(successor) = self.raft.best_successor() else { return };
        if self.raft.hand_over(successor).await {
            tracing::info!(to = format!("{successor:x}"), "handed leadership over");
        }
    }

    /// Tells the cluster what only the member itself knows.
    async fn publish(&self, config: &Config) -> anyhow::Result<()> {
        let node = &self.services.node;
        let id = node.identity().member_id;
        let client_urls: Vec<String> = config.advertise_client_urls.iter().map(Url::to_string).collect();
        let current = node.reader().members().into_iter().find(|member| member.id == id);
        if current.is_none_or(|member| member.name != config.name || member.client_urls != client_urls) {
            let publish = MemberPublish { id, name: config.name.clone(), client_urls };
            node.propose_system(Command::MemberPublish(publish)).await.context("publish name and client URLs")?;
        }
        // The leader of a new cluster sets it; clients find it set.
        while node.reader().cluster_version().is_empty() {
            tokio::time::sleep(VERSION_LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn listen(&self, config: &Config, connections: &Connections) -> anyhow::Result<()> {
        let node = &self.services.node;
        let clients = http::client_router(node.clone(), self.metrics.clone(), rpc::routes(&self.services));
        let metrics = http::metrics_router(node.clone(), self.metrics.clone());
        let with = |urls: &[Url], router: &axum::Router| -> Vec<(Url, axum::Router)> {
            urls.iter().map(|url| (url.clone(), router.clone())).collect()
        };
        let mut listeners = with(&config.listen_client_urls, &clients);
        listeners.extend(with(&config.listen_client_http_urls, &clients));
        listeners.extend(with(&config.listen_metrics_urls, &metrics));
        for (url, router) in listeners {
            if !url.is_local() {
                tracing::warn!(%url, "serving clients without TLS on an address that others can reach");
            }
            connections.serve(http::bind(&url, config).await?, router);
            tracing::info!(%url, "serving client traffic");
        }
        Ok(())
    }
}

/// What looks after the members having the same data and version.
fn keep_agreement(config: &Config, node: &Node, compactions: &CompactionHashes, alarms: Arc<Notify>) {
    tokio::spawn(keepers::stand_aside(node.clone(), alarms));
    tokio::spawn(keepers::keep_version(node.clone()));
    if !config.downgrade_check_time.is_zero() {
        tokio::spawn(keepers::keep_downgrade(node.clone(), config.downgrade_check_time));
    }
    if !config.corrupt_check_time.is_zero() {
        tokio::spawn(keepers::keep_compared(node.clone(), config.corrupt_check_time));
    }
    if config.feature_gates.enabled("CompactHashCheck") {
        let every = config.compact_hash_check_time;
        tokio::spawn(keepers::keep_compactions_compared(node.clone(), compactions.clone(), every));
    }
}

fn hooks(
    hub: &Hub,
    leases: &Leases,
    metrics: &Arc<Metrics>,
    compactions: &CompactionHashes,
    alarms: &Arc<Notify>,
) -> RaftHooks {
    let (compactions, alarms, alarms_of) = (compactions.clone(), alarms.clone(), alarms.clone());
    let (hub, leases) = (hub.clone(), leases.clone());
    let (hub_of, leases_of) = (hub.clone(), leases.clone());
    let [effects_of, applied_by, synced_by, answered_by] = [(); 4].map(|()| metrics.clone());
    RaftHooks {
        publish: Arc::new(move |effects: &Effects| {
            hub.publish(effects);
            leases.follow(effects);
            count_effects(&effects_of, effects);
            if effects.compacted.is_some() {
                compactions.compacted();
            }
            if effects.alarms_changed {
                alarms.notify_one();
            }
        }),
        on_applied: Arc::new(move |_, took| count_applied(&applied_by, took)),
        on_installed: Arc::new(move |installed: &Installed| {
            hub_of.installed(installed.revision, installed.compacted);
            leases_of.installed(&installed.leases);
            alarms_of.notify_one();
        }),
        on_round_trip: Arc::new(move |to, took| count_round_trip(&answered_by, to, took)),
        on_sync: Arc::new(move |sync| count_sync(&synced_by, sync)),
        on_fault: Arc::new(crate::fault::stop),
    }
}

fn raft_settings(config: &Config, directory: &DataDirectory, identity: &MemberIdentity, dial: Dial) -> RaftSettings {
    RaftSettings {
        cluster_id: identity.cluster_id,
        dial,
        request_timeout: REQUEST_TIMEOUT + 2 * config.election_timeout,
        member_id: identity.member_id,
        log_directory: directory.log(),
        log_files: Arc::new(StdFs::default()),
        log_segment_bytes: SEGMENT_BYTES,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_entries: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        fsync: !config.unsafe_no_fsync,
        force_new_cluster: config.force_new_cluster,
        compaction_entries_per_step: usize::try_from(config.compaction_batch_limit).unwrap_or(usize::MAX),
        compaction_pause: config.compaction_sleep_interval,
    }
}

fn node_settings(config: &Config) -> NodeSettings {
    NodeSettings {
        request_bytes_max: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        quota_bytes: u64::try_from(config.quota_backend_bytes).ok(),
        request_timeout: REQUEST_TIMEOUT + 2 * config.election_timeout,
        election_timeout: config.election_timeout,
    }
}

fn service_options(config: &Config) -> ServiceOptions {
    ServiceOptions {
        txn_ops_max: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        request_bytes_max: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        watch_progress_interval: config.watch_progress_notify_interval,
        quota_bytes: config.quota_backend_bytes,
        bcrypt_cost: config.bcrypt_cost,
        strict_reconfig_check: config.strict_reconfig_check,
    }
}

fn compaction_mode(mode: AutoCompaction) -> CompactionMode {
    match mode {
        AutoCompaction::Off => CompactionMode::Off,
        AutoCompaction::Periodic(retention) => CompactionMode::Periodic(retention),
        AutoCompaction::Revision(retention) => CompactionMode::Revision(retention),
    }
}
