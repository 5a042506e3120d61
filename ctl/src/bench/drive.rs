//! Runs the clients of a row, and measures between two moments at which they are all under way.
//!
//! ```text
//!  start ─▶ warm-up ─▶ [ read counters · measure · read counters ] ─▶ no new operations ─▶ wait for those under way
//! ```
//!
//! A row that ends by its total has no warm-up: everything it does is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use quorate_client::proto::etcdserverpb as pb;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::connection::{Connection, Method};
use super::data::{Keys, Values};
use super::failure::Failure;
use super::meter::{Meter, Reading};
use super::options::BenchArgs;
use super::pace::Pace;
use super::progress::Progress;
use super::recorder::{Recorded, Recorder};
use super::rows::Row;

/// After a failure a client waits, so that a server that is gone is not asked a million times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// No answer for so long is a failure of the row.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One of those who ask.
pub(crate) trait Client: Send + 'static {
    /// One operation, due at `due`. Most are measured by the driver when they end; a client that returns `Noted` has seen to that.
    fn operation(&mut self, due: Instant) -> impl Future<Output = Result<Done, Failure>> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Now,
    Noted,
}

/// A row on its way.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) row: Row,
    pub(crate) seed: u64,
    pub(crate) seconds: Duration,
    pub(crate) warmup: Duration,
    pub(crate) connections: Vec<Connection>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) meter: Meter,
    pub(crate) values: Values,
    pub(crate) progress: Progress,
}

/// What was seen between two readings.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) before: Reading,
    pub(crate) after: Reading,
    pub(crate) recorded: Recorded,
}

impl Bench {
    pub(crate) async fn new(row: Row, args: &BenchArgs, endpoints: &[String], meter: Meter) -> Result<Self> {
        let mut endpoints = endpoints.to_vec();
        if row.leader {
            endpoints = vec![leader(&endpoints).await?];
        }
        let mut connections = Vec::new();
        for endpoint in endpoints.iter().cycle().take(row.connections) {
            connections.push(Connection::open(endpoint).await?);
        }
        ensure!(!connections.is_empty(), "no endpoint");
        Ok(Self {
            seed: args.seed,
            seconds: Duration::from_secs_f64(args.seconds),
            warmup: Duration::from_secs_f64(args.warmup),
            connections,
            recorder: Arc::new(Recorder::new()),
            meter,
            values: Values::new(args.seed, row.value_size),
            progress: Progress::new(row.name),
            row,
        })
    }

    /// The connection of the client of this number: each serves as many.
    pub(crate) fn connection(&self, client: usize) -> Connection {
        self.connections[client % self.connections.len()].clone()
    }

    /// The choices of the client of this number.
    pub(crate) fn random(&self, client: usize) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(u64::try_from(client).expect("64 bits").wrapping_mul(0x9e37_79b9)))
    }

    /// Runs one client for each of the row's, and gives them back for what is to be checked in the end.
    pub(crate) async fn run<C: Client>(&self, client: impl FnMut(usize) -> Result<C>) -> Result<(Measured, Vec<C>)> {
        let clients = (0..self.row.clients).map(client).collect::<Result<Vec<C>>>()?;
        self.drive(clients, self.row.total).await
    }

    /// Runs these clients: for so many operations, or for the time of a row where `total` is 0.
    pub(crate) async fn drive<C: Client>(&self, clients: Vec<C>, total: u64) -> Result<(Measured, Vec<C>)> {
        let total = (total > 0).then_some(total);
        let pace = Arc::new(Pace::new((self.row.rate > 0.0).then_some(self.row.rate), total));
        let mut pacer = JoinSet::new();
        let paced = Arc::clone(&pace);
        pacer.spawn(async move { paced.run().await });
        let mut before = self.meter.read()?;
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(work(client, Arc::clone(&pace), Arc::clone(&self.recorder)));
        }
        let mut ended = Vec::new();
        if total.is_none() {
            sleep(self.warmup).await;
            self.recorder.restart();
            before = self.meter.read()?;
        }
        let until = total.is_none().then(|| tokio::time::Instant::now() + self.seconds);
        self.wait(&mut running, &mut ended, &mut pacer, until).await?;
        let (mut recorded, after) = (self.recorder.so_far(), self.meter.read()?);
        pace.stop();
        self.drain(&mut running, &mut ended).await?;
        recorded.failures = self.recorder.so_far().failures;
        ensure!(recorded.operations > 0, "no operation was done: {:?}", recorded.failures.by_text);
        Ok((Measured { before, after, recorded }, ended))
    }

    /// Until the time is over, or the last client has ended.
    async fn wait<C: Client>(
        &self,
        running: &mut JoinSet<C>,
        ended: &mut Vec<C>,
        pacer: &mut JoinSet<Result<()>>,
        until: Option<tokio::time::Instant>,
    ) -> Result<()> {
        let mut moved = (Instant::now(), 0);
        loop {
            let now = tokio::time::Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Ok(());
            }
            let look = now + LOOK_EVERY;
            tokio::select! {
                joined = running.join_next() => match joined {
                    Some(client) => ended.push(client.context("run a client")?),
                    None => return Ok(()),
                },
                Some(paced) = pacer.join_next() => paced.context("run the pace")??,
                () = sleep_until(until.map_or(look, |until| until.min(look))) => {}
            }
            let operations = self.recorder.operations();
            if operations != moved.1 {
                moved = (Instant::now(), operations);
            }
            if moved.0.elapsed() > ANSWER_WITHIN {
                bail!("no operation ended within {ANSWER_WITHIN:?}: {:?}", self.recorder.so_far().failures.by_text);
            }
            self.progress.show(operations, &self.recorder);
        }
    }

    async fn drain<C: Client>(&self, running: &mut JoinSet<C>, ended: &mut Vec<C>) -> Result<()> {
        let rest = async {
            while let Some(client) = running.join_next().await {
                ended.push(client.context("run a client")?);
            }
            anyhow::Ok(())
        };
        match timeout(ANSWER_WITHIN, rest).await {
            Ok(done) => done,
            Err(_) => {
                for _ in 0..running.len() {
                    self.recorder.failed(&late());
                }
                running.abort_all();
                Ok(())
            }
        }
    }

    /// Deletes what an earlier run left.
    pub(crate) async fn clear(&self, keys: &Keys) -> Result<()> {
        let (key, range_end) = keys.all();
        self.delete(key, range_end).await
    }

    pub(crate) async fn delete(&self, key: Bytes, range_end: Bytes) -> Result<()> {
        let request = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
        let mut connection = self.connection(0);
        let answer = in_time(connection.unary::<pb::DeleteRangeResponse>(Method::DeleteRange, &request)).await;
        answer.context("delete what an earlier run left")?;
        self.settle().await
    }

    /// Every member that is asked has seen all that was written before: a linearizable read on each connection.
    pub(crate) async fn settle(&self) -> Result<()> {
        for connection in &self.connections {
            let request = pb::RangeRequest { key: b"~".as_slice().into(), ..Default::default() };
            let answer = in_time(connection.clone().unary::<pb::RangeResponse>(Method::Range, &request)).await;
            answer.context("read from every member")?;
        }
        Ok(())
    }
}

/// What is asked before and after the measuring has a time limit of its own.
pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> Failure {
    Failure::Transport(format!("none within {ANSWER_WITHIN:?}"))
}

async fn work<C: Client>(mut client: C, pace: Arc<Pace>, recorder: Arc<Recorder>) -> C {
    while let Some(due) = pace.next().await {
        match client.operation(due).await {
            Ok(Done::Now) => recorder.done(due.elapsed()),
            Ok(Done::Noted) => {}
            Err(failure) => {
                recorder.failed(&failure);
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    client
}

async fn leader(endpoints: &[String]) -> Result<String> {
    for endpoint in endpoints {
        let mut connection = Connection::open(endpoint).await?;
        let status = in_time(connection.unary::<pb::StatusResponse>(Method::Status, &pb::StatusRequest {})).await?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(endpoint.clone());
        }
    }
    bail!("none of {} says that it leads", endpoints.join(", "))
}
