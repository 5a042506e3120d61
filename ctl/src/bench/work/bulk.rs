//! Many keys: written one by one, counted, listed page by page while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use quorate_client::proto::etcdserverpb as pb;
use rand::RngExt as _;
use tokio::task::JoinSet;

use super::Revisions;
use super::kv::{Asker, loaded};
use crate::bench::connection::{Connection, Method};
use crate::bench::data::{Keys, Values};
use crate::bench::drive::{Bench, Client, Done, Measured, in_time};
use crate::bench::failure::Failure;
use crate::bench::pace::Pace;

/// Writers beside the lists: enough for any rate that makes sense there.
const WRITERS: usize = 10;

/// Every number below `count` once, in an order that is none.
fn shuffled(place: u64, count: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    // Near the golden section of the count, and without a common divisor.
    let step = (count * 618 / 1000..).find(|step| gcd(*step, count) == 1).expect("there are primes");
    u64::try_from(u128::from(place) * u128::from(step) % u128::from(count)).expect("below the count")
}

struct Filler {
    asker: Asker,
    next: Arc<AtomicU64>,
}

impl Client for Filler {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.asker.put(shuffled(place, self.asker.count)).await.map(|()| Done::Now)
    }
}

pub(super) async fn fill(bench: &Bench) -> Result<Measured> {
    let keys = Keys::new(b'n', bench.row.key_size, bench.row.keys)?;
    bench.clear(&keys).await?;
    let next = Arc::new(AtomicU64::new(0));
    let fillers =
        (0..bench.row.clients).map(|client| Filler { asker: Asker::new(bench, client, keys), next: next.clone() });
    let (mut measured, _) = bench.drive(fillers.collect(), bench.row.keys).await?;
    if let Err(failure) = in_time(counted(&mut bench.connection(0), keys, bench.row.keys)).await {
        bench.recorder.failed(&failure);
    }
    measured.recorded.failures = bench.recorder.so_far().failures;
    Ok(measured)
}

async fn counted(connection: &mut Connection, keys: Keys, expected: u64) -> Result<i64, Failure> {
    let (key, range_end) = keys.all();
    let request = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
    let answer: pb::RangeResponse = connection.unary(Method::Range, &request).await?;
    if u64::try_from(answer.count) != Ok(expected) || !answer.kvs.is_empty() {
        return Err(Failure::wrong(format!("a count of {}, not {expected}", answer.count)));
    }
    Ok(answer.header.unwrap_or_default().revision)
}

struct Counter {
    connection: Connection,
    keys: Keys,
    expected: u64,
}

impl Client for Counter {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        counted(&mut self.connection, self.keys, self.expected).await.map(|_| Done::Now)
    }
}

pub(super) async fn count(bench: &Bench) -> Result<Measured> {
    let keys = loaded(bench, b'n').await?;
    let counter = |client| Ok(Counter { connection: bench.connection(client), keys, expected: bench.row.keys });
    bench.run(counter).await.map(|(measured, _)| measured)
}

/// Lists everything, as a client of an API server does: in pages, all at the revision of the first.
struct Lister {
    connection: Connection,
    revisions: Revisions,
    keys: Keys,
    values: Values,
    count: u64,
    limit: i64,
}

impl Lister {
    /// The page that begins with this number; at the newest revision for `revision` 0.
    async fn page(&mut self, first: u64, revision: i64) -> Result<pb::RangeResponse, Failure> {
        let (_, range_end) = self.keys.all();
        let key = self.keys.key(first);
        let request = pb::RangeRequest { key, range_end, limit: self.limit, revision, ..Default::default() };
        let answer: pb::RangeResponse = self.connection.unary(Method::Range, &request).await?;
        let seen = self.revisions.read(answer.header.as_ref())?;
        let at = if revision == 0 { seen } else { revision };
        let remaining = self.count - first;
        let (returned, counted) = (answer.kvs.len() as u64, answer.count);
        if u64::try_from(counted) != Ok(remaining) || answer.more != (returned < remaining) || returned == 0 {
            let more = answer.more;
            return Err(Failure::wrong(format!("{returned} keys of {remaining}, count {counted}, more {more}")));
        }
        for (number, kv) in (first..).zip(&answer.kvs) {
            if kv.key != self.keys.key(number) || kv.value != self.values.value(number) || kv.mod_revision > at {
                return Err(Failure::wrong(format!("not object {number} as it was at revision {at}")));
            }
        }
        Ok(answer)
    }
}

impl Client for Lister {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let (mut listed, mut revision) = (0, 0);
        while listed < self.count {
            let page = self.page(listed, revision).await?;
            if revision == 0 {
                revision = page.header.unwrap_or_default().revision;
            }
            listed += page.kvs.len() as u64;
        }
        Ok(Done::Now)
    }
}

/// Puts of random objects at a steady rate, until dropped.
fn writes(bench: &Bench, keys: Keys) -> JoinSet<Result<()>> {
    let mut tasks = JoinSet::new();
    if bench.row.writes_rate == 0.0 {
        return tasks;
    }
    let pace = Arc::new(Pace::new(Some(bench.row.writes_rate), None));
    let paced = Arc::clone(&pace);
    tasks.spawn(async move { paced.run().await });
    for writer in 0..WRITERS {
        let mut asker = Asker::new(bench, bench.row.clients + writer, keys);
        let (pace, recorder) = (Arc::clone(&pace), Arc::clone(&bench.recorder));
        tasks.spawn(async move {
            while pace.next().await.is_some() {
                let number = asker.random.random_range(0..asker.count);
                match asker.put(number).await {
                    Ok(()) => recorder.count("puts beside", 1),
                    Err(failure) => recorder.failed(&failure),
                }
            }
            Ok(())
        });
    }
    tasks
}

pub(super) async fn list(bench: &Bench) -> Result<Measured> {
    let keys = loaded(bench, b'l').await?;
    let mut writes = writes(bench, keys);
    let lister = |client| {
        Ok(Lister {
            connection: bench.connection(client),
            revisions: Revisions::default(),
            keys,
            values: bench.values.clone(),
            count: bench.row.keys,
            limit: bench.row.limit,
        })
    };
    let (measured, _) = bench.run(lister).await?;
    if let Some(ended) = writes.try_join_next() {
        ended.context("run the writes beside")??;
    }
    let puts = measured.recorded.counts.get("puts beside").copied().unwrap_or_default();
    ensure!(bench.row.writes_rate == 0.0 || puts > 0, "nothing was written beside the lists");
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_comes_once() {
        for count in [1, 2, 3, 10, 100, 618, 1000, 4096] {
            let numbers: BTreeSet<_> = (0..count).map(|place| shuffled(place, count)).collect();
            assert_eq!(numbers, (0..count).collect(), "{count}");
        }
    }
}
