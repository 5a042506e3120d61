//! Links between members that are as slow as they are told to be, or cut: a relay in front of each member's peer port.
//!
//! ```text
//!   m1, m2 ─▶ relay of m0 ─▶ each piece waits its time, in order, and until the way is open ─▶ m0     and back
//! ```
//!
//! What is under way is not lost when the delay changes, and nothing overtakes. Over a way that is cut comes nothing, neither bytes
//! nor the end of a connection; what waits there arrives when it is whole again, as TCP would send it again. Whoever dies behind a
//! relay does not refuse connections: that is the relay's to do, and it goes on listening.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Cluster, Member, Options, caller, free_port};

/// Pieces under way on one connection; more wait in the sender's socket.
const PIECES_MAX: usize = 4_096;
const PIECE_BYTES_MAX: usize = 64 << 10;

/// From one member to another, by their numbers.
type Way = (usize, usize);

/// The relays in front of all members of a cluster. They end when this is dropped.
pub struct SlowLinks {
    state: Links,
    members: usize,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Links {
    delay_micros: Arc<AtomicU64>,
    cut: watch::Sender<BTreeSet<Way>>,
}

impl Links {
    async fn open(&self, way: Way) {
        // The sender lives in this very value.
        let _ = self.cut.subscribe().wait_for(|cut| !cut.contains(&way)).await;
    }
}

impl SlowLinks {
    /// How long everything takes from one member to another from now on, one way.
    pub fn set_delay(&self, delay: Duration) {
        self.state.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Nothing comes from `from` to `to` from now on; the way back stays as it is.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.state.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    pub fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts a member off from all others.
    pub fn isolate(&self, member: usize) {
        for other in (0..self.members).filter(|other| *other != member) {
            self.cut(member, other);
        }
    }

    pub fn heal(&self) {
        self.state.cut.send_modify(BTreeSet::clear);
    }
}

impl Drop for SlowLinks {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    /// Starts `count` members that reach each other through relays, without delay at first.
    pub fn start_slow(program: &Path, count: usize, options: &Options) -> Result<(Self, SlowLinks)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let state = Links { delay_micros: Arc::default(), cut: watch::Sender::default() };
        let ports = (0..count).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<Vec<(u16, u16)>>>()?;
        for (index, (relay, peer)) in ports.iter().enumerate() {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, *relay))).context("listen")?;
            runtime.spawn(relay_all(listener, *peer, index, state.clone()));
        }
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers = ports.iter().enumerate().map(|(index, (relay, _))| format!("m{index}={}", url(*relay)));
        let peers = peers.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (index, (relay, peer)) in ports.iter().enumerate() {
            let options = options.clone().and(format!("--initial-advertise-peer-urls={}", url(*relay)));
            members.push(Member::one_of(program, &format!("m{index}"), *peer, &peers, &options)?);
        }
        let cluster = Self::start_these(program, members, options)?;
        Ok((cluster, SlowLinks { state, members: count, runtime: Some(runtime) }))
    }
}

async fn relay_all(listener: TcpListener, peer: u16, to: usize, links: Links) {
    while let Ok((caller, address)) = listener.accept().await {
        let links = links.clone();
        tokio::spawn(async move {
            // Who has gone already needs no relay.
            let Some(from) = caller::member_at(address.port()) else { return };
            // A member that is not there: the caller's connection ends.
            let Ok(called) = TcpStream::connect((Ipv4Addr::LOCALHOST, peer)).await else { return };
            let direct = caller.set_nodelay(true).and(called.set_nodelay(true));
            if direct.is_err() {
                return;
            }
            let (from_caller, to_caller) = caller.into_split();
            let (from_called, to_called) = called.into_split();
            // The end of either way ends both, as a reset would.
            tokio::select! {
                () = relay(from_caller, to_called, (from, to), &links) => {}
                () = relay(from_called, to_caller, (to, from), &links) => {}
            }
        });
    }
}

/// Returns when either end is gone, and the other one may know.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, links: &Links) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async {
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let due = Instant::now() + Duration::from_micros(links.delay_micros.load(Ordering::Relaxed));
            if count == 0 || sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            links.open(way).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => links.open(way).await,
        () = writing => links.open((way.1, way.0)).await,
    }
}
