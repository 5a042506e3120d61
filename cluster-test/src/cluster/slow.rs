//! Links between members that are as slow as they are told to be: a relay in front of each member's peer port.
//!
//! ```text
//!   m1, m2 ─▶ relay of m0 ─▶ each piece waits its time, in order ─▶ m0     and back
//! ```
//!
//! What is under way is not lost when the delay changes, and nothing overtakes. Whoever dies behind a relay does not refuse
//! connections: that is the relay's to do, and it goes on listening.

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
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Cluster, Member, Options, free_port};

/// Pieces under way on one connection; more wait in the sender's socket.
const PIECES_MAX: usize = 4_096;
const PIECE_BYTES_MAX: usize = 64 << 10;

/// The relays in front of all members of a cluster. They end when this is dropped.
pub struct SlowLinks {
    delay_micros: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

impl SlowLinks {
    /// How long everything takes from one member to another from now on, one way.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
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
        let delay_micros = Arc::<AtomicU64>::default();
        let ports = (0..count).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<Vec<(u16, u16)>>>()?;
        for (relay, peer) in &ports {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, *relay))).context("listen")?;
            runtime.spawn(relay_all(listener, *peer, delay_micros.clone()));
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
        Ok((cluster, SlowLinks { delay_micros, runtime: Some(runtime) }))
    }
}

async fn relay_all(listener: TcpListener, peer: u16, delay: Arc<AtomicU64>) {
    while let Ok((caller, _)) = listener.accept().await {
        let delay = delay.clone();
        tokio::spawn(async move {
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
                () = relay(from_caller, to_called, &delay) => {}
                () = relay(from_called, to_caller, &delay) => {}
            }
        });
    }
}

/// Returns when either end is gone.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &AtomicU64) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async {
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let due = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
            if count == 0 || sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
