//! What an API server of Kubernetes does: guarded writes of objects, each resource watched with what was before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use quorate_client::proto::etcdserverpb as pb;
use quorate_client::proto::etcdserverpb::request_op::Request;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Revisions;
use super::txn::guarded;
use super::watchers::{Sink, Watched, Watchers};
use crate::bench::connection::{Connection, Method};
use crate::bench::data::Values;
use crate::bench::drive::{Bench, Client, Done, Measured};
use crate::bench::failure::Failure;
use crate::bench::rows::Work;

const ROOT: &str = "~k/registry/";
/// The range end of [`ROOT`].
const ROOT_END: &str = "~k/registry0";
/// Objects are between so much of the largest and the largest.
const SIZE_MIN_PART: usize = 4;
/// How often each object is updated in the row of the whole life.
const UPDATES: u64 = 4;

#[derive(Clone, Debug)]
struct Object {
    key: Bytes,
    number: u64,
    /// 0: not there.
    mod_revision: i64,
}

/// Objects that nobody is working on.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Object>>);

impl Pool {
    fn take(&self, random: &mut StdRng) -> Result<Object, Failure> {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.is_empty() {
            return Err(Failure::wrong("no object left"));
        }
        let place = random.random_range(0..objects.len());
        Ok(objects.swap_remove(place))
    }

    fn put(&self, object: Object) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Create,
    Update,
    Delete,
}

struct Writer {
    connection: Connection,
    random: StdRng,
    revisions: Revisions,
    values: Values,
    value_size: usize,
    sink: Arc<Sink>,
    phase: Phase,
    from: Arc<Pool>,
    to: Arc<Pool>,
}

impl Writer {
    fn value(&mut self, object: &Object) -> Bytes {
        let size = self.random.random_range(self.value_size / SIZE_MIN_PART..=self.value_size);
        self.values.sized(object.number.wrapping_add(self.random.random_range(0..1 << 20)), size)
    }
}

impl Client for Writer {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let mut object = self.from.take(&mut self.random)?;
        let key = object.key.clone();
        let then = if self.phase == Phase::Delete {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
        } else {
            Request::RequestPut(pb::PutRequest { key, value: self.value(&object), ..Default::default() })
        };
        let request = guarded(object.key.clone(), object.mod_revision, then);
        self.sink.expect(1);
        let answer = self.connection.unary::<pb::TxnResponse>(Method::Txn, &request).await;
        if !answer.as_ref().is_ok_and(|answer| answer.succeeded) {
            self.sink.expect_not(1);
        }
        let answer = answer?;
        if !answer.succeeded {
            return Err(Failure::wrong(format!("an object of one client is not at revision {}", object.mod_revision)));
        }
        object.mod_revision = self.revisions.wrote(answer.header.as_ref())?;
        self.to.put(object);
        Ok(Done::Now)
    }
}

/// The cluster's objects, and who watches them.
struct Cluster<'a> {
    bench: &'a Bench,
    watchers: Watchers,
}

impl<'a> Cluster<'a> {
    /// Empty, with one watcher for each resource.
    async fn open(bench: &'a Bench) -> Result<(Self, Arc<Pool>)> {
        bench.delete(ROOT.into(), ROOT_END.into()).await?;
        let resources = u64::try_from(bench.row.watchers)?;
        let watched = (0..resources).map(|resource| Watched {
            key: format!("{ROOT}resource-{resource:02}/").into(),
            range_end: format!("{ROOT}resource-{resource:02}0").into(),
            prev_kv: true,
        });
        let watchers = Watchers::open(bench, watched.collect(), false).await?;
        let objects = (0..bench.row.keys).map(|number| Object {
            key: format!("{ROOT}resource-{:02}/default/object-{number:06}", number % resources).into(),
            number,
            mod_revision: 0,
        });
        Ok((Self { bench, watchers }, Arc::new(Pool(Mutex::new(objects.collect())))))
    }

    /// Runs a phase on objects of `from`; returns where they are then.
    async fn run(&self, phase: Phase, from: Arc<Pool>, total: u64) -> Result<(Measured, Arc<Pool>)> {
        let to = if phase == Phase::Update { Arc::clone(&from) } else { Arc::default() };
        let bench = self.bench;
        let writer = |client| Writer {
            connection: bench.connection(client),
            random: bench.random(client),
            revisions: Revisions::default(),
            values: bench.values.clone(),
            value_size: bench.row.value_size,
            sink: Arc::clone(&self.watchers.sink),
            phase,
            from: Arc::clone(&from),
            to: Arc::clone(&to),
        };
        let (measured, _) = bench.drive((0..bench.row.clients).map(writer).collect(), total).await?;
        Ok((measured, to))
    }
}

pub(super) async fn run(bench: &Bench) -> Result<Measured> {
    let all = bench.row.keys;
    let (cluster, objects) = Cluster::open(bench).await?;
    let (created, objects) = cluster.run(Phase::Create, objects, all).await?;
    let mut measured = match bench.row.work {
        Work::KubeSteady => {
            bench.recorder.restart();
            cluster.run(Phase::Update, objects, bench.row.total).await?.0
        }
        Work::KubeDelete => {
            bench.recorder.restart();
            cluster.run(Phase::Delete, objects, all).await?.0
        }
        Work::KubeAll => {
            let (_, objects) = cluster.run(Phase::Update, objects, all * UPDATES).await?;
            let deleted = cluster.run(Phase::Delete, objects, all).await?.0;
            // The recorder has counted on; the readings of the whole are the first and the last.
            Measured { before: created.before, ..deleted }
        }
        _ => created,
    };
    cluster.watchers.close().await;
    measured.recorded.failures = bench.recorder.so_far().failures;
    Ok(measured)
}
