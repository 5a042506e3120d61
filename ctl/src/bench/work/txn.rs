//! Guarded transactions: If(mod_revision) Then(put) Else(get).

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use quorate_client::proto::etcdserverpb as pb;
use quorate_client::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_client::proto::etcdserverpb::request_op::Request;
use quorate_client::proto::etcdserverpb::response_op::Response;
use quorate_client::proto::mvccpb::KeyValue;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Revisions;
use crate::bench::connection::{Connection, Method};
use crate::bench::data::{Keys, Values};
use crate::bench::drive::{Bench, Client, Done, Measured};
use crate::bench::failure::Failure;

/// If the key is still as it was at `mod_revision` (0: not there), do; else read it.
pub(super) fn guarded(key: Bytes, mod_revision: i64, then: Request) -> pb::TxnRequest {
    let guard = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    };
    let get = Request::RequestRange(pb::RangeRequest { key, ..Default::default() });
    pb::TxnRequest {
        compare: vec![guard],
        success: vec![pb::RequestOp { request: Some(then) }],
        failure: vec![pb::RequestOp { request: Some(get) }],
    }
}

/// What the `Else` read.
pub(super) fn found(answer: pb::TxnResponse) -> Result<Option<KeyValue>, Failure> {
    match answer.responses.into_iter().next().and_then(|response| response.response) {
        Some(Response::ResponseRange(range)) => Ok(range.kvs.into_iter().next()),
        other => Err(Failure::wrong(format!("the Else answered {other:?}, not with a range"))),
    }
}

struct Guard {
    connection: Connection,
    random: StdRng,
    revisions: Revisions,
    keys: Keys,
    values: Values,
    /// The number of each key, and its newest version as far as this client knows.
    known: Vec<(u64, i64)>,
    /// Whether nobody else writes these keys.
    own: bool,
    recorder: std::sync::Arc<crate::bench::recorder::Recorder>,
}

impl Client for Guard {
    async fn operation(&mut self, _: Instant) -> Result<Done, Failure> {
        let place = self.random.random_range(0..self.known.len());
        let (number, mod_revision) = self.known[place];
        let (key, value) = (self.keys.key(number), self.values.value(number));
        let put = Request::RequestPut(pb::PutRequest { key: key.clone(), value, ..Default::default() });
        let answer: pb::TxnResponse = self.connection.unary(Method::Txn, &guarded(key, mod_revision, put)).await?;
        if answer.succeeded {
            self.known[place].1 = self.revisions.wrote(answer.header.as_ref())?;
            self.recorder.count("succeeded", 1);
            return Ok(Done::Now);
        }
        self.revisions.read(answer.header.as_ref())?;
        let found = found(answer)?.map_or(0, |kv| kv.mod_revision);
        self.known[place].1 = found;
        if self.own {
            return Err(Failure::wrong(format!("a key of one client is at revision {found}, it wrote {mod_revision}")));
        }
        if found == mod_revision {
            return Err(Failure::wrong(format!("the guard failed, and the key is at revision {found} as it said")));
        }
        Ok(Done::Now)
    }
}

async fn run(bench: &Bench, letter: u8, own: bool) -> Result<Measured> {
    let keys = Keys::new(letter, bench.row.key_size, bench.row.keys)?;
    bench.clear(&keys).await?;
    let guard = |client: usize| {
        let first = if own { client } else { 0 };
        let step = if own { bench.row.clients } else { 1 };
        Ok(Guard {
            connection: bench.connection(client),
            random: bench.random(client),
            revisions: Revisions::default(),
            keys,
            values: bench.values.clone(),
            known: (u64::try_from(first)?..bench.row.keys).step_by(step).map(|number| (number, 0)).collect(),
            own,
            recorder: bench.recorder.clone(),
        })
    };
    bench.run(guard).await.map(|(measured, _)| measured)
}

pub(super) async fn own(bench: &Bench) -> Result<Measured> {
    run(bench, b't', true).await
}

pub(super) async fn contend(bench: &Bench) -> Result<Measured> {
    run(bench, b'c', false).await
}
