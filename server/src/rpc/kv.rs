//! KV: ranges, puts, deletes, transactions, compaction.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_store::{
    KeyRange, Response as Applied, StoreView, validate_delete, validate_put, validate_range, validate_txn,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Services;
use super::error::{failure, status};
use crate::identity::Identity;
use crate::node::{Consistency, RequestError};

/// Rows up to which a range is read where it is asked for; longer ones go to a thread that may be kept busy.
const INLINE_ROWS_MAX: i64 = 32;
/// Rows of a stream's first message (etcd's number).
const STREAM_ROWS_FIRST: usize = 10;
/// Messages of a range stream that wait for a slow client, at most; nothing is read ahead of them.
const STREAM_MESSAGES_QUEUED_MAX: usize = 2;

#[derive(Clone)]
pub(super) struct KvService(pub(super) Services);

impl KvService {
    async fn view(&self, serializable: bool) -> Result<Arc<StoreView>, Status> {
        let consistency = if serializable { Consistency::Serializable } else { Consistency::Linearizable };
        self.0.node.read_view(consistency).await.map_err(status)
    }

    async fn propose(&self, command: Command) -> Result<Applied, Status> {
        // Authentication is not enabled in this release: nobody has a name.
        self.0.node.propose(&Identity::default(), command).await.map_err(status)
    }

    /// An answer to a command of another kind would be a fault of this member.
    fn mixed_up(&self) -> Status {
        crate::fault::stop("a proposal was answered with the response of another kind of command");
        status(RequestError::Stopped)
    }
}

/// Runs a read that may take long without keeping a worker from its connections.
async fn read_apart<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, quorate_store::Failure> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(read).await {
        Ok(answer) => answer.map_err(failure),
        Err(_) => Err(status(RequestError::Stopped)),
    }
}

fn is_short(request: &pb::RangeRequest) -> bool {
    request.range_end.is_empty() || (1..=INLINE_ROWS_MAX).contains(&request.limit) && request.sort_order == 0
}

/// Which way a txn goes: into the log, or to a view of either kind. etcd answers one without any op from what it has,
/// so that a comparison may be stale there; ours is confirmed unless every op says that it need not be.
fn txn_is_read_only(request: &pb::TxnRequest) -> Option<Consistency> {
    use pb::request_op::Request::RequestRange;
    let mut ops = request.success.iter().chain(&request.failure);
    let mut serializable = !request.success.is_empty() || !request.failure.is_empty();
    ops.all(|op| match &op.request {
        Some(RequestRange(range)) => {
            serializable &= range.serializable;
            true
        }
        Some(_) | None => false,
    })
    .then_some(if serializable { Consistency::Serializable } else { Consistency::Linearizable })
}

#[tonic::async_trait]
impl pb::kv_server::Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        if !request.serializable && self.0.node.is_learner() {
            return Err(status(RequestError::NotForLearners));
        }
        validate_range(&request).map_err(status)?;
        let view = self.view(request.serializable).await?;
        let mut response = if is_short(&request) {
            view.range(&request).map_err(failure)?
        } else {
            read_apart(move || view.range(&request)).await?
        };
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        validate_range(&request).map_err(status)?;
        if request.sort_order != 0 && (request.sort_target != 0 || request.sort_order != 1) {
            return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
        }
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if filters.iter().any(|revision| *revision != 0) {
            return Err(Status::unimplemented("RangeStream does not support revision filters"));
        }
        let view = self.view(request.serializable).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(STREAM_MESSAGES_QUEUED_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.stream(view, request, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        validate_put(&request).map_err(status)?;
        let Applied::Put(mut response) = self.propose(Command::Put(request)).await? else {
            return Err(self.mixed_up());
        };
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        validate_delete(&request).map_err(status)?;
        let Applied::DeleteRange(mut response) = self.propose(Command::DeleteRange(request)).await? else {
            return Err(self.mixed_up());
        };
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        validate_txn(&request, self.0.options.txn_ops_max).map_err(status)?;
        let mut response = if let Some(consistency) = txn_is_read_only(&request) {
            let view = self.0.node.read_view(consistency).await.map_err(status)?;
            read_apart(move || view.read_only_txn(&request)).await?
        } else {
            match self.propose(Command::Txn(request)).await? {
                Applied::Txn(response) => response,
                _ => return Err(self.mixed_up()),
            }
        };
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let command = Command::Compaction(pb::CompactionRequest { revision, physical });
        let Applied::Compaction(mut response) = self.propose(command).await? else { return Err(self.mixed_up()) };
        if physical {
            self.0.node.compaction_walked(revision).await;
        }
        self.0.node.fill(&mut response.header);
        Ok(Response::new(response))
    }
}

type Pieces = tokio::sync::mpsc::Sender<Result<pb::RangeStreamResponse, Status>>;

impl KvService {
    /// Sends the range in pieces, all read at the revision of the first one. Each piece has a view of its own, so a slow
    /// client pins nothing; if compaction overtakes it, the stream ends with etcd's error.
    async fn stream(&self, view: Arc<StoreView>, mut request: pb::RangeRequest, out: &Pieces) -> Result<(), Status> {
        if request.count_only {
            let mut response = read_apart(move || view.range(&request)).await?;
            self.0.node.fill(&mut response.header);
            let _ = out.send(Ok(pb::RangeStreamResponse { range_response: Some(response) })).await;
            return Ok(());
        }
        let header_revision = view.revision();
        if request.revision <= 0 {
            request.revision = header_revision;
        }
        let mut left = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let (mut view, mut rows, mut count) = (Some(view), STREAM_ROWS_FIRST, 0);
        loop {
            let at = match view.take() {
                Some(first) => first,
                None => self.view(true).await?,
            };
            let (limit, asked) = (rows.min(left), request.clone());
            let bytes_max = self.0.options.request_bytes_max;
            let piece = read_apart(move || at.range_piece(&asked, limit, bytes_max)).await?;
            left -= piece.kvs.len();
            count += piece.kvs.len() as i64;
            let last = !piece.more || left == 0;
            if let Some(key) = &piece.last_key {
                request.key = after(key);
            }
            let mut response = pb::RangeResponse { kvs: piece.kvs, ..Default::default() };
            rows = next_rows(rows, response.encoded_len(), bytes_max);
            if last {
                if piece.more {
                    count += self.count_rest(&request).await?;
                }
                response.header = Some(self.0.node.header(header_revision));
                (response.more, response.count) = (piece.more, count);
            }
            let gone = out.send(Ok(pb::RangeStreamResponse { range_response: Some(response) })).await.is_err();
            if last || gone {
                return Ok(());
            }
        }
    }

    async fn count_rest(&self, request: &pb::RangeRequest) -> Result<i64, Status> {
        let (view, request) = (self.view(true).await?, request.clone());
        read_apart(move || view.count(&KeyRange::new(&request.key, &request.range_end), request.revision)).await
    }
}

/// The first key behind `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Twice as many rows while a message stays below half of what is allowed, half as many once it exceeds it.
fn next_rows(rows: usize, bytes: usize, bytes_max: usize) -> usize {
    if bytes < bytes_max / 2 {
        rows.saturating_mul(2)
    } else if bytes > bytes_max {
        (rows / 2).max(1)
    } else {
        rows
    }
}
