//! A whole member in this process, put together as the server does it: its rooms can be looked into, and its engine
//! stopped or crashed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quorate_proto::log::proposal::Command;
use quorate_server::config::{Config, Start, Surroundings, Url};
use quorate_server::history::StoreHistory;
use quorate_server::http::{self, Connections, Listener};
use quorate_server::identity::Identity;
use quorate_server::keepers::Leases;
use quorate_server::net::Dial;
use quorate_server::node::{Consistency, MemberIdentity, Node, NodeSettings, RequestError};
use quorate_server::raft::log::{Fs, SEGMENT_BYTES, StdFs};
use quorate_server::raft::{Raft, RaftHooks, RaftSettings};
use quorate_server::rpc::{self, ServiceOptions, Services};
use quorate_server::telemetry::Metrics;
use quorate_server::watch::Hub;
use quorate_store::engine::{Engine, RocksEngine, RocksSettings};
use quorate_store::{Effects, Response, Store};
use quorate_tuning::Interval;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::client::{Client, put};
use super::gate::GatedEngine;
use super::life::{Life, Point};

const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;
const CLUSTER_ID: u64 = 0xcdf8_1819_4e3a_8c32;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) election_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) snapshot_entries: u64,
    pub(crate) catchup_entries: u64,
    pub(crate) log_segment_bytes: u32,
    pub(crate) compaction_entries_per_step: usize,
    pub(crate) force_new_cluster: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(7),
            request_bytes_max: 1_572_864,
            quota_bytes: None,
            snapshot_entries: 10_000,
            catchup_entries: 5_000,
            log_segment_bytes: SEGMENT_BYTES,
            compaction_entries_per_step: 1_000,
            force_new_cluster: false,
        }
    }
}

enum State {
    Memory(Arc<GatedEngine>),
    Rocks,
    /// Log and engine are in memory and end with it.
    Mortal(Arc<Life>),
}

/// Where a member's data is, whether it runs or not.
pub(crate) struct Place {
    dir: Arc<TempDir>,
    state: State,
    pub(crate) settings: Settings,
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self::new(State::Memory(Arc::default()))
    }

    pub(crate) fn rocks() -> Self {
        Self::new(State::Rocks)
    }

    pub(crate) fn mortal(life: Arc<Life>) -> Self {
        Self::new(State::Mortal(life))
    }

    fn new(state: State) -> Self {
        Self { dir: Arc::new(TempDir::new().unwrap()), state, settings: Settings::default() }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(crate) fn engine(&self) -> &GatedEngine {
        match &self.state {
            State::Memory(engine) => engine,
            State::Rocks | State::Mortal(_) => panic!("only the engine with a gate can be held in hand"),
        }
    }

    fn open_engine(&self) -> Arc<dyn Engine> {
        match &self.state {
            State::Memory(engine) => engine.clone(),
            State::Rocks => {
                Arc::new(RocksEngine::open(&self.dir.path().join("state"), &RocksSettings::default()).unwrap())
            }
            State::Mortal(life) => life.engine(),
        }
    }

    fn log(&self) -> (PathBuf, Arc<dyn Fs>) {
        match &self.state {
            State::Memory(_) | State::Rocks => (self.dir.path().join("log"), Arc::new(StdFs::default())),
            State::Mortal(life) => ("/log".into(), life.files()),
        }
    }

    pub(crate) async fn start(&self) -> Member {
        self.try_start().await.unwrap()
    }

    pub(crate) async fn try_start(&self) -> anyhow::Result<Member> {
        Member::start(self).await
    }
}

pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) leases: Leases,
    pub(crate) raft: Raft,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    stop: CancellationToken,
    connections: Connections,
    keeper: JoinHandle<()>,
    /// Last: the log may be written until the rest is gone, whether the place is still there or not.
    _dir: Arc<TempDir>,
}

/// The configuration of the listeners: what a member has by default.
fn config() -> Config {
    match Start::read(&[], &Surroundings::none()) {
        Start::Run(config) => *config,
        other => panic!("{other:?}"),
    }
}

impl Member {
    async fn start(place: &Place) -> anyhow::Result<Self> {
        let settings = &place.settings;
        let store = Store::open(place.open_engine())?;
        let reader = store.reader();
        let history = Arc::new(StoreHistory::new(reader.clone()));
        let hub = Hub::new(reader.revision(), reader.compacted(), history.clone(), history);
        let leases = Leases::load(&reader, settings.election_timeout)?;
        let raft = Raft::start(raft_settings(place), store, hooks(place, &hub, &leases)).await?;
        if !raft.is_initialized().await? {
            raft.initialize(BTreeMap::from([(MEMBER_ID, vec!["http://localhost:2380".into()])])).await?;
        }
        let identity = MemberIdentity { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, name: "default".into() };
        let node = Node::start(identity, node_settings(settings), raft.clone(), reader);
        let keeper = tokio::spawn(leases.clone().keep(node.clone()));
        raft.elect_if_alone().await?;
        let mut status = raft.status();
        while !status.is_leader {
            status = raft.status_changed(status).await.context("wait to lead")?;
        }
        node.read_view(Consistency::Linearizable).await?;

        let stop = CancellationToken::new();
        let services = Services {
            node: node.clone(),
            leases: leases.clone(),
            hub,
            options: service_options(settings),
            shutdown: stop.clone(),
        };
        let config = config();
        let connections = Connections::new(&config, stop.clone());
        let listener = http::bind(&Url::parse("http://127.0.0.1:0").unwrap(), &config).await?;
        let Listener::Tcp(tcp) = &listener else { panic!("not a port") };
        let address = tcp.local_addr()?;
        let router = http::client_router(node.clone(), Metrics::new(false), rpc::routes(&services));
        connections.serve(listener, router);
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        Ok(Self {
            node,
            leases,
            raft,
            address,
            client: Client::new(channel),
            stop,
            connections,
            keeper,
            _dir: place.dir.clone(),
        })
    }

    /// In the order of the server.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.connections.closed(Duration::from_secs(1)).await;
        self.raft.shutdown().await;
        self.keeper.await.unwrap();
    }

    /// Begins to stop: streams end.
    pub(crate) fn stopping(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<Response, RequestError> {
        self.node.propose(&Identity::default(), Command::Put(put(key, value, 0))).await
    }
}

fn hooks(place: &Place, hub: &Hub, leases: &Leases) -> RaftHooks {
    let (hub, leases) = (hub.clone(), leases.clone());
    let tell = move |effects: &Effects| {
        hub.publish(effects);
        leases.follow(effects);
    };
    let State::Mortal(life) = &place.state else {
        return RaftHooks {
            publish: Arc::new(tell),
            on_applied: Arc::new(|_, _| {}),
            on_installed: Arc::new(|_| {}),
            on_round_trip: Arc::new(|_, _| {}),
            on_sync: Arc::new(|_| {}),
            on_fault: Arc::new(quorate_server::fault::stop),
        };
    };
    let (publishing, answered, complaining) = (life.clone(), life.clone(), life.clone());
    RaftHooks {
        publish: Arc::new(move |effects| {
            let _ = publishing.at(Point::Publish);
            tell(effects);
            let _ = publishing.at(Point::Published);
        }),
        on_applied: Arc::new(move |_, _| drop(answered.at(Point::Answered))),
        on_installed: Arc::new(|_| {}),
        on_round_trip: Arc::new(|_, _| {}),
        on_sync: Arc::new(|_| {}),
        // The dead complain when they are buried; that is no fault.
        on_fault: Arc::new(move |reason| assert!(complaining.is_over(), "{reason}")),
    }
}

fn raft_settings(place: &Place) -> RaftSettings {
    let settings = &place.settings;
    let (log_directory, log_files) = place.log();
    RaftSettings {
        cluster_id: CLUSTER_ID,
        member_id: MEMBER_ID,
        dial: Dial::tcp(),
        request_timeout: settings.request_timeout,
        log_directory,
        log_files,
        log_segment_bytes: settings.log_segment_bytes,
        heartbeat_interval: Interval::Fixed(settings.election_timeout / 10),
        election_timeout: settings.election_timeout,
        snapshot_entries: settings.snapshot_entries,
        catchup_entries: settings.catchup_entries,
        fsync: true,
        force_new_cluster: settings.force_new_cluster,
        compaction_entries_per_step: settings.compaction_entries_per_step,
        compaction_pause: Duration::ZERO,
    }
}

fn node_settings(settings: &Settings) -> NodeSettings {
    NodeSettings {
        request_bytes_max: settings.request_bytes_max,
        quota_bytes: settings.quota_bytes,
        request_timeout: settings.request_timeout,
        election_timeout: settings.election_timeout,
    }
}

fn service_options(settings: &Settings) -> ServiceOptions {
    ServiceOptions {
        txn_ops_max: 128,
        request_bytes_max: settings.request_bytes_max,
        watch_progress_interval: Duration::from_secs(600),
        quota_bytes: settings.quota_bytes.map_or(-1, u64::cast_signed),
        bcrypt_cost: 4,
        strict_reconfig_check: true,
    }
}
