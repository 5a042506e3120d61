//! What locks and elections are made of: keys under a common prefix, each bound to a lease, in the order of their
//! creation. Whose key is the oldest holds the lock, or leads.
//!
//! ```text
//!   <name>/<lease a>   created at 5    holder
//!   <name>/<lease b>   created at 9    waits until nothing older than 9 is left
//! ```
//!
//! Everything goes through the member like anybody else's requests. Waiting is done on a watch of the next older key,
//! not by asking again and again; and whoever has waited looks whether its own key is still there, since its lease may
//! have ended meanwhile (the oldest bug of such locks). A lock is no fence: what it protects must check the revision.

use bytes::Bytes;
use futures::future::poll_fn;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{KeyRange, Rejection, Response as Applied};
use tonic::Status;

use super::Services;
use super::error::unknown;
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};
use crate::watch::{Filters, Output, WatchCreate};
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;

/// The lease that is granted to whoever brings none, in seconds (etcd's session).
const SESSION_TTL_SECS: i64 = 60;

/// A key under a prefix, and since when it is there.
pub(super) struct Entry {
    pub prefix: Bytes,
    pub key: Bytes,
    pub lease: i64,
    pub create_revision: i64,
    pub header: Option<pb::ResponseHeader>,
    /// What the key held when it was there already.
    pub found: Option<KeyValue>,
}

/// `<name>/`, as etcd forms it.
pub(super) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The end of the range of all keys with `prefix`.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

pub(super) fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub(super) fn get(key: &Bytes) -> Op {
    Op::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() })
}

/// Holds while `key` is the one created at `revision`; 0 means that there is none.
pub(super) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(revision)),
    }
}

impl Services {
    pub(super) async fn recipe_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        match self.node.propose(&Identity::default(), Command::Txn(request)).await.map_err(unknown)? {
            Applied::Txn(mut response) => {
                self.node.fill(&mut response.header);
                Ok(response)
            }
            _ => Err(unknown(RequestError::Stopped)),
        }
    }

    pub(super) async fn recipe_range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let view = self.node.read_view(Consistency::Linearizable).await.map_err(unknown)?;
        let mut response = view.range(&request).map_err(|failure| unknown(RequestError::from(failure)))?;
        self.node.fill(&mut response.header);
        Ok(response)
    }

    /// The caller's lease, or a new one.
    pub(super) async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        self.grant_lease(0, SESSION_TTL_SECS).await.map(|granted| granted.id).map_err(unknown)
    }

    /// Puts `<name>/<lease>` unless it is there already.
    pub(super) async fn enter(&self, name: &[u8], lease: i64, value: Bytes) -> Result<Entry, Status> {
        let prefix = prefix_of(name);
        let key: Bytes = [&prefix[..], format!("{lease:x}").as_bytes()].concat().into();
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let response = self
            .recipe_txn(pb::TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![op(Op::RequestPut(put))],
                failure: vec![op(get(&key))],
            })
            .await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let found = match response.responses.into_iter().next().and_then(|op| op.response) {
            Some(OpResponse::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let create_revision = found.as_ref().map_or(revision, |kv| kv.create_revision);
        Ok(Entry { prefix, key, lease, create_revision, header: response.header, found })
    }

    /// Returns when no key of the prefix is older than `entry`.
    pub(super) async fn wait_for_older(&self, entry: &Entry) -> Result<(), Status> {
        loop {
            let older = self
                .recipe_range(pb::RangeRequest {
                    key: entry.prefix.clone(),
                    range_end: prefix_end(&entry.prefix),
                    limit: 1,
                    sort_order: pb::range_request::SortOrder::Descend.into(),
                    sort_target: pb::range_request::SortTarget::Create.into(),
                    max_create_revision: entry.create_revision - 1,
                    ..Default::default()
                })
                .await?;
            let Some(next) = older.kvs.into_iter().next() else { return Ok(()) };
            let revision = older.header.map_or(0, |header| header.revision);
            self.wait_for_delete(next.key, revision + 1).await?;
        }
    }

    async fn wait_for_delete(&self, key: Bytes, from: i64) -> Result<(), Status> {
        let mut watch = self.follow(KeyRange::One(key), from, Filters { no_put: true, no_delete: false });
        loop {
            match watch.next().await? {
                Followed::Events(_) => return Ok(()),
                // Whatever happened to the key since lies behind the compaction: the caller asks again.
                Followed::Compacted => return Ok(()),
            }
        }
    }

    /// Follows a range in process, as a client's watch would.
    pub(super) fn follow(&self, range: KeyRange, start_revision: i64, filters: Filters) -> Follow {
        let stream = self.hub.stream();
        stream.handle().create(&WatchCreate {
            watch_id: 0,
            range,
            start_revision,
            filters,
            prev_kv: false,
            progress_notify: false,
            fragment: false,
        });
        Follow { stream, ready: std::collections::VecDeque::new(), shutdown: self.shutdown.clone() }
    }

    /// The caller's own key after it has waited; its lease may have ended meanwhile.
    pub(super) async fn own_key(&self, entry: &Entry) -> Result<pb::RangeResponse, Status> {
        let own = self.recipe_range(pb::RangeRequest { key: entry.key.clone(), ..Default::default() }).await?;
        if own.kvs.is_empty() { Err(Status::unknown("mutex: session is expired")) } else { Ok(own) }
    }

    /// Takes back a key whose owner has stopped waiting.
    pub(super) fn withdraw(&self, key: Bytes) {
        let node = self.node.clone();
        tokio::spawn(async move {
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            if let Err(error) = node.propose(&Identity::default(), Command::DeleteRange(delete)).await
                && !matches!(error, RequestError::Rejected(Rejection::LeaseNotFound))
            {
                tracing::warn!(%error, "failed to take back the key of a caller that has gone");
            }
        });
    }
}

pub(super) enum Followed {
    /// Each change: whether it was a deletion, and the key-value.
    Events(Vec<(bool, KeyValue)>),
    Compacted,
}

/// A watch inside the member. Ends with it.
pub(super) struct Follow {
    stream: crate::watch::WatchStream,
    ready: std::collections::VecDeque<Followed>,
    shutdown: tokio_util::sync::CancellationToken,
}

impl Follow {
    pub(super) async fn next(&mut self) -> Result<Followed, Status> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(followed);
            }
            let mut outputs = Vec::new();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(unknown(RequestError::Stopped)),
                polled = poll_fn(|cx| self.stream.poll_outputs(cx, &mut outputs)) => {
                    if polled.is_err() {
                        return Err(unknown(RequestError::Stopped));
                    }
                }
            }
            for output in outputs {
                match output {
                    Output::Events(delivery) => {
                        let events = delivery.events().map(|(record, change)| {
                            let deleted = record.kind(change) == quorate_store::EventKind::Delete;
                            (deleted, record.event(change, false).kv.unwrap_or_default())
                        });
                        self.ready.push_back(Followed::Events(events.collect()));
                    }
                    Output::Compacted { .. } | Output::Refused { .. } | Output::Canceled { .. } => {
                        self.ready.push_back(Followed::Compacted);
                    }
                    Output::Created { .. } | Output::Progress { .. } => {}
                }
            }
        }
    }
}

/// Takes the key back if its owner goes before it has what it waited for.
pub(super) struct Waiting {
    services: Services,
    key: Option<Bytes>,
}

impl Waiting {
    pub(super) fn new(services: &Services, entry: &Entry) -> Self {
        Self { services: services.clone(), key: Some(entry.key.clone()) }
    }

    pub(super) fn done(mut self) {
        self.key = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.services.withdraw(key);
        }
    }
}
