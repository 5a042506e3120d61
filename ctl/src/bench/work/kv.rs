//! Puts, gets, ranges.

use std::time::Instant;

use anyhow::Result;
use quorate_client::proto::etcdserverpb as pb;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Revisions;
use crate::bench::connection::{Connection, Method};
use crate::bench::data::{Keys, Values};
use crate::bench::drive::{Bench, Client, Done, Measured, in_time};
use crate::bench::failure::Failure;
use crate::bench::rows::Work;

/// One get in so many is a put in the mixed row.
const MIXED_PUT_ONE_IN: u32 = 5;

/// One who puts and gets.
pub(super) struct Asker {
    connection: Connection,
    pub(super) random: StdRng,
    revisions: Revisions,
    keys: Keys,
    pub(super) count: u64,
    values: Values,
    serializable: bool,
    last: u64,
}

impl Asker {
    pub(super) fn new(bench: &Bench, client: usize, keys: Keys) -> Self {
        Self {
            connection: bench.connection(client),
            random: bench.random(client),
            revisions: Revisions::default(),
            keys,
            count: bench.row.keys,
            values: bench.values.clone(),
            serializable: bench.row.work == Work::GetSerializable,
            last: 0,
        }
    }

    pub(super) async fn put(&mut self, number: u64) -> Result<(), Failure> {
        let (key, value) = (self.keys.key(number), self.values.value(number));
        let request = pb::PutRequest { key, value, ..Default::default() };
        let answer: pb::PutResponse = self.connection.unary(Method::Put, &request).await?;
        self.revisions.wrote(answer.header.as_ref()).map(drop)
    }

    /// The key must be there, with the value of its number.
    async fn get(&mut self, number: u64) -> Result<(), Failure> {
        let key = self.keys.key(number);
        let request = pb::RangeRequest { key: key.clone(), serializable: self.serializable, ..Default::default() };
        let answer: pb::RangeResponse = self.connection.unary(Method::Range, &request).await?;
        self.revisions.read(answer.header.as_ref())?;
        match &answer.kvs[..] {
            [kv] if answer.count == 1 && kv.key == key && kv.value == self.values.value(number) => Ok(()),
            [_] => Err(Failure::wrong("another key or value than was put")),
            kvs => Err(Failure::wrong(format!("{} keys, not one", kvs.len()))),
        }
    }
}

struct Putter(Asker);

impl Client for Putter {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let number = self.0.random.random_range(0..self.0.count);
        self.0.last = number;
        self.0.put(number).await.map(|()| Done::Now)
    }
}

pub(super) async fn put(bench: &Bench) -> Result<Measured> {
    let keys = Keys::new(b'p', bench.row.key_size, bench.row.keys)?;
    bench.clear(&keys).await?;
    let (mut measured, putters) = bench.run(|client| Ok(Putter(Asker::new(bench, client, keys)))).await?;
    // What each of them wrote last must be there. Another may have written it since, with the same value.
    for Putter(mut asker) in putters {
        if let Err(failure) = in_time(asker.get(asker.last)).await {
            bench.recorder.failed(&failure);
        }
    }
    measured.recorded.failures = bench.recorder.so_far().failures;
    Ok(measured)
}

struct Getter(Asker);

impl Client for Getter {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let number = self.0.random.random_range(0..self.0.count);
        self.0.get(number).await.map(|()| Done::Now)
    }
}

/// The keys of the row, each with the value of its number, on every member that is asked.
pub(super) async fn loaded(bench: &Bench, letter: u8) -> Result<Keys> {
    let keys = Keys::new(letter, bench.row.key_size, bench.row.keys)?;
    bench.load(keys, bench.row.keys).await?;
    bench.settle().await?;
    Ok(keys)
}

pub(super) async fn get(bench: &Bench) -> Result<Measured> {
    let keys = loaded(bench, b'g').await?;
    bench.run(|client| Ok(Getter(Asker::new(bench, client, keys)))).await.map(|(measured, _)| measured)
}

struct Mixer(Asker);

impl Client for Mixer {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let number = self.0.random.random_range(0..self.0.count);
        if self.0.random.random_range(0..MIXED_PUT_ONE_IN) == 0 {
            self.0.put(number).await?;
        } else {
            self.0.get(number).await?;
        }
        Ok(Done::Now)
    }
}

pub(super) async fn mixed(bench: &Bench) -> Result<Measured> {
    let keys = loaded(bench, b'm').await?;
    bench.run(|client| Ok(Mixer(Asker::new(bench, client, keys)))).await.map(|(measured, _)| measured)
}

struct Scanner {
    asker: Asker,
    span: u64,
    limit: i64,
}

impl Client for Scanner {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let first = self.asker.random.random_range(0..=self.asker.count - self.span);
        let keys = self.asker.keys;
        let request = pb::RangeRequest {
            key: keys.key(first),
            range_end: keys.key(first + self.span),
            limit: self.limit,
            ..Default::default()
        };
        let answer: pb::RangeResponse = self.asker.connection.unary(Method::Range, &request).await?;
        self.asker.revisions.read(answer.header.as_ref())?;
        let span = i64::try_from(self.span).expect("fits");
        let expected = if self.limit == 0 { span } else { span.min(self.limit) };
        if answer.count != span || answer.more != (expected < span) || i64::try_from(answer.kvs.len()) != Ok(expected) {
            let (count, more, returned) = (answer.count, answer.more, answer.kvs.len());
            return Err(Failure::wrong(format!("{returned} of {expected} keys, count {count}, more {more}")));
        }
        for (number, kv) in (first..).zip(&answer.kvs) {
            if kv.key != keys.key(number) || kv.value != self.asker.values.value(number) {
                return Err(Failure::wrong(format!("not the key or value of number {number}")));
            }
        }
        Ok(Done::Now)
    }
}

pub(super) async fn scan(bench: &Bench) -> Result<Measured> {
    let keys = loaded(bench, b's').await?;
    let scanner =
        |client| Ok(Scanner { asker: Asker::new(bench, client, keys), span: bench.row.span, limit: bench.row.limit });
    bench.run(scanner).await.map(|(measured, _)| measured)
}
