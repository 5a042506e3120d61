//! Leases: granted, kept alive, revoked. They hold no keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use quorate_client::proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use crate::bench::connection::{Connection, Method, Receiver, Sender};
use crate::bench::drive::{Bench, Client, Done, Measured, in_time};
use crate::bench::failure::Failure;

/// What a row leaves is gone after that.
const TTL_SECS: i64 = 300;
const GRANTED_AT_ONCE: usize = 100;

async fn grant_one(connection: &mut Connection) -> Result<i64, Failure> {
    let request = pb::LeaseGrantRequest { ttl: TTL_SECS, id: 0 };
    let answer: pb::LeaseGrantResponse = connection.unary(Method::LeaseGrant, &request).await?;
    if answer.id == 0 || answer.ttl != TTL_SECS || !answer.error.is_empty() {
        return Err(Failure::wrong(format!("lease {} of {} s, error {:?}", answer.id, answer.ttl, answer.error)));
    }
    Ok(answer.id)
}

/// So many leases, unmeasured.
async fn granted(bench: &Bench, count: u64) -> Result<Vec<i64>> {
    let count = usize::try_from(count)?;
    let mut tasks = JoinSet::new();
    for task in 0..GRANTED_AT_ONCE.min(count) {
        let mut connection = bench.connection(task);
        let share = (task..count).step_by(GRANTED_AT_ONCE).count();
        tasks.spawn(async move {
            let mut ids = Vec::with_capacity(share);
            for _ in 0..share {
                ids.push(in_time(grant_one(&mut connection)).await?);
            }
            Ok::<_, Failure>(ids)
        });
    }
    let mut ids = Vec::with_capacity(count);
    while let Some(granted) = tasks.join_next().await {
        ids.extend(granted.context("run a client")?.context("grant the leases")?);
        bench.progress.preparing(&format!("{} of {count} leases granted", ids.len()));
    }
    Ok(ids)
}

struct Granter(Connection);

impl Client for Granter {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        grant_one(&mut self.0).await.map(|_| Done::Now)
    }
}

pub(super) async fn grant(bench: &Bench) -> Result<Measured> {
    bench.run(|client| Ok(Granter(bench.connection(client)))).await.map(|(measured, _)| measured)
}

/// One stream, on which one keep-alive is under way at a time.
struct Keeper {
    connection: Connection,
    stream: Option<(Sender, Receiver<pb::LeaseKeepAliveResponse>)>,
    ids: Vec<i64>,
    next: usize,
}

impl Client for Keeper {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let id = self.ids[self.next];
        self.next = (self.next + 1) % self.ids.len();
        let request = pb::LeaseKeepAliveRequest { id };
        let (_, receiver) = match &mut self.stream {
            Some(stream) => {
                stream.0.send(&request)?;
                stream
            }
            None => self.stream.insert(self.connection.stream(Method::LeaseKeepAlive, &request).await?),
        };
        let answer = receiver.expect().await?;
        if answer.id != id || answer.ttl != TTL_SECS {
            return Err(Failure::wrong(format!("lease {} of {} s, not {id} of {TTL_SECS}", answer.id, answer.ttl)));
        }
        Ok(Done::Now)
    }
}

pub(super) async fn keep_alive(bench: &Bench) -> Result<Measured> {
    let ids = granted(bench, bench.row.keys).await?;
    let keeper = |client| {
        let ids = ids.iter().copied().skip(client).step_by(bench.row.clients).collect();
        Ok(Keeper { connection: bench.connection(client), stream: None, ids, next: 0 })
    };
    bench.run(keeper).await.map(|(measured, _)| measured)
}

struct Revoker {
    connection: Connection,
    ids: Arc<Mutex<Vec<i64>>>,
}

impl Client for Revoker {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let id = id.ok_or_else(|| Failure::wrong("no lease left to revoke"))?;
        let request = pb::LeaseRevokeRequest { id };
        self.connection.unary::<pb::LeaseRevokeResponse>(Method::LeaseRevoke, &request).await.map(|_| Done::Now)
    }
}

pub(super) async fn revoke(bench: &Bench) -> Result<Measured> {
    let ids = Arc::new(Mutex::new(granted(bench, bench.row.total).await?));
    let revoker = |client| Ok(Revoker { connection: bench.connection(client), ids: Arc::clone(&ids) });
    bench.run(revoker).await.map(|(measured, _)| measured)
}
