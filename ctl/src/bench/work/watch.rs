//! Delivery: puts that are watched, at a steady rate or as fast as all watchers have them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use quorate_client::proto::etcdserverpb as pb;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Revisions;
use super::watchers::{Sink, Watched, Watchers};
use crate::bench::connection::{Connection, Method};
use crate::bench::data::{Keys, Values};
use crate::bench::drive::{Bench, Client, Done, Measured};
use crate::bench::failure::Failure;

struct Writer {
    connection: Connection,
    random: StdRng,
    revisions: Revisions,
    keys: Keys,
    values: Values,
    /// How many watch each key.
    watchers: Arc<[u64]>,
    sink: Arc<Sink>,
    /// The next put comes when all have the last.
    waits: bool,
}

impl Client for Writer {
    async fn operation(&mut self, due: Instant) -> Result<Done, Failure> {
        let place = self.random.random_range(0..self.watchers.len());
        let number = u64::try_from(place).expect("64 bits");
        let (key, value) = (self.keys.key(number), self.sink.stamp(due, &self.values.value(number)));
        let request = pb::PutRequest { key, value, ..Default::default() };
        self.sink.expect(self.watchers[place]);
        let answer = self.connection.unary::<pb::PutResponse>(Method::Put, &request).await;
        if answer.is_err() {
            self.sink.expect_not(self.watchers[place]);
        }
        self.revisions.wrote(answer?.header.as_ref())?;
        if self.waits {
            self.sink.complete().await;
        }
        Ok(Done::Noted)
    }
}

async fn run(bench: &Bench, letter: u8, waits: bool) -> Result<Measured> {
    let keys = Keys::new(letter, bench.row.key_size, bench.row.keys)?;
    bench.clear(&keys).await?;
    // Keys that nobody watches would have nothing to measure.
    let count = usize::try_from(bench.row.keys)?.min(bench.row.watchers);
    let mut watchers = vec![0; count];
    let mut watched = Vec::with_capacity(bench.row.watchers);
    for watcher in 0..bench.row.watchers {
        watchers[watcher % count] += 1;
        let key = keys.key(u64::try_from(watcher % count)?);
        watched.push(Watched { key, range_end: Default::default(), prev_kv: false });
    }
    let opened = Watchers::open(bench, watched, true).await?;
    let watchers: Arc<[u64]> = watchers.into();
    let writer = |client| {
        Ok(Writer {
            connection: bench.connection(client),
            random: bench.random(client),
            revisions: Revisions::default(),
            keys,
            values: bench.values.clone(),
            watchers: Arc::clone(&watchers),
            sink: Arc::clone(&opened.sink),
            waits,
        })
    };
    let (mut measured, _) = bench.run(writer).await?;
    opened.close().await;
    measured.recorded.failures = bench.recorder.so_far().failures;
    Ok(measured)
}

pub(super) async fn latency(bench: &Bench) -> Result<Measured> {
    run(bench, b'w', false).await
}

pub(super) async fn fanout(bench: &Bench) -> Result<Measured> {
    run(bench, b'f', true).await
}
