//! One member, put together: directory, state, log, consensus, keepers, listeners; and taken apart again in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_proto::log::{ClusterVersionSet, MemberPublish, proposal::Command};
use quorate_store::engine::{RocksEngine, RocksSettings};
use quorate_store::{Effects, Store};
use tokio_util::sync::CancellationToken;

use crate::config::{AutoCompaction, ClusterState, Config, ETCD_STORAGE_VERSION, Url};
use crate::directory::DataDirectory;
use crate::history::StoreHistory;
use crate::http::{self, Connections};
use crate::keepers::{CompactionMode, Leases, keep_compacted};
use crate::node::{Consistency, MemberIdentity, Node, NodeSettings, cluster_id, member_id};
use crate::observe::{count_applied, count_effects, count_sync};
use crate::raft::{Raft, RaftHooks, RaftSettings};
use crate::rpc::{self, ServiceOptions, Services};
use crate::telemetry::Metrics;
use crate::watch::Hub;

/// etcd's request time-out beside the two election time-outs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may take to end when the member stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Until a member of a cluster of one leads; longer means that something is wrong.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a member until `stop` is cancelled.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let directory = DataDirectory::open(&config.data_dir, config.wal_dir.as_deref())?;
    let member = Member::start(&config, &directory, stop.clone()).await?;
    member.lead().await?;
    member.publish(&config).await?;

    let connections = Connections::new(&config, stop.clone());
    member.listen(&config, &connections).await?;
    tracing::info!(
        member_id = format!("{:x}", member.services.node.identity().member_id),
        cluster_id = format!("{:x}", member.services.node.identity().cluster_id),
        name = config.name,
        "ready to serve client requests"
    );
    stop.cancelled().await;
    tracing::info!("stopping");
    connections.closed(CLOSE_PATIENCE).await;
    member.raft.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

struct Member {
    raft: Raft,
    services: Services,
    metrics: Arc<Metrics>,
}

impl Member {
    async fn start(config: &Config, directory: &DataDirectory, stop: CancellationToken) -> anyhow::Result<Self> {
        let known = directory.identity()?;
        let identity = match &known {
            Some(identity) => identity.clone(),
            None => bootstrap_identity(config)?,
        };
        let engine = RocksEngine::open(&directory.state(), &RocksSettings::default()).context("open the state")?;
        let store = Store::open(Arc::new(engine)).context("load the state")?;
        let reader = store.reader();

        let history = Arc::new(StoreHistory::new(reader.clone()));
        let hub = Hub::new(reader.revision(), reader.compacted(), history.clone(), history);
        let leases = Leases::load(&reader, config.election_timeout).context("load the leases")?;
        let metrics = Metrics::new(config.extensive_metrics);
        let hooks = hooks(&hub, &leases, &metrics);
        let raft = Raft::start(raft_settings(config, directory, &identity), store, hooks).await?;
        if known.is_none() {
            // What is written first is found again: a crash in between leaves an identity without a cluster, and the
            // next start founds it.
            directory.save_identity(&identity)?;
        }
        if !raft.is_initialized().await? {
            let own: Vec<String> = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
            raft.initialize(BTreeMap::from([(identity.member_id, own)])).await?;
        }
        let node = Node::start(identity, node_settings(config), raft.clone(), reader);
        tokio::spawn(leases.clone().keep(node.clone()));
        tokio::spawn(keep_compacted(node.clone(), compaction_mode(config.auto_compaction)));
        let services = Services { node, leases, hub, options: service_options(config), shutdown: stop };
        crate::observe::watch(&metrics, services.clone(), config);
        Ok(Self { raft, services, metrics })
    }

    /// Waits until this member leads and has applied everything that was committed before.
    async fn lead(&self) -> anyhow::Result<()> {
        self.raft.elect_if_alone().await?;
        let led = async {
            loop {
                match self.services.node.read_view(Consistency::Linearizable).await {
                    Ok(_) => return,
                    Err(error) => tracing::debug!(%error, "not leading yet"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LEAD_TIMEOUT, led).await.context("wait for a leader")
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
        if node.reader().cluster_version().is_empty() {
            let version = ClusterVersionSet { version: ETCD_STORAGE_VERSION.into() };
            node.propose_system(Command::ClusterVersionSet(version)).await.context("set the cluster version")?;
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

fn bootstrap_identity(config: &Config) -> anyhow::Result<MemberIdentity> {
    if config.initial_cluster_state == ClusterState::Existing {
        bail!("--initial-cluster-state=existing: joining a cluster is not served by this release");
    }
    if config.initial_cluster.len() != 1 {
        bail!(
            "--initial-cluster names {} members: clusters of several members are not served by this release",
            config.initial_cluster.len()
        );
    }
    config.verify_bootstrap(&crate::config::resolve).map_err(anyhow::Error::msg)?;
    let ids: Vec<u64> = config
        .initial_cluster
        .values()
        .map(|urls| {
            let urls: Vec<String> = urls.iter().map(Url::to_string).collect();
            member_id(&urls, &config.initial_cluster_token, None)
        })
        .collect();
    Ok(MemberIdentity { cluster_id: cluster_id(&ids), member_id: ids[0], name: config.name.clone() })
}

fn hooks(hub: &Hub, leases: &Leases, metrics: &Arc<Metrics>) -> RaftHooks {
    let (hub, leases) = (hub.clone(), leases.clone());
    let (effects_of, applied_by, synced_by) = (metrics.clone(), metrics.clone(), metrics.clone());
    RaftHooks {
        publish: Arc::new(move |effects: &Effects| {
            hub.publish(effects);
            leases.follow(effects);
            count_effects(&effects_of, effects);
        }),
        on_applied: Arc::new(move |_, took| count_applied(&applied_by, took)),
        on_sync: Arc::new(move |sync| count_sync(&synced_by, sync)),
    }
}

fn raft_settings(config: &Config, directory: &DataDirectory, identity: &MemberIdentity) -> RaftSettings {
    RaftSettings {
        member_id: identity.member_id,
        log_directory: directory.log(),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_entries: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        fsync: !config.unsafe_no_fsync,
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
    }
}

fn compaction_mode(mode: AutoCompaction) -> CompactionMode {
    match mode {
        AutoCompaction::Off => CompactionMode::Off,
        AutoCompaction::Periodic(retention) => CompactionMode::Periodic(retention),
        AutoCompaction::Revision(retention) => CompactionMode::Revision(retention),
    }
}
