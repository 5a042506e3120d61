//! A state on its way from the leader to a member that the log alone cannot bring up to date.
//!
//! ```text
//!   a thread reads chunks ─▶ queue ══ gRPC stream ══▶ queue ─▶ a thread writes them beside the state that serves
//!                                                              └▶ openraft: install ─▶ apply: swapped between two groups
//! ```
//!
//! Both queues are short, so the slower end sets the pace and memory is bounded by a few chunks. What a chunk is, and all that
//! can be wrong with one, is the store's ([`quorate_store::snapshot`]).

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::VoteOf;
use openraft::storage::{Snapshot, SnapshotMeta};
use quorate_proto::peer as pb;
use quorate_store::{Reader, ReceivedSnapshot, TransferError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Raft;
use super::machine::SnapshotSource;
use super::peers::wire;
use super::types::{TypeConfig, decode_membership, log_id};
use pb::snapshot_part::Part;

/// Chunks between the thread and the stream, at either end.
const CHUNKS_QUEUED_MAX: usize = 4;

/// The messages that carry the state of this member.
pub(super) fn parts(
    vote: &VoteOf<TypeConfig>,
    source: SnapshotSource,
) -> Result<impl Stream<Item = pb::SnapshotPart> + Send + 'static, Status> {
    let SnapshotSource::Own(reader) = source else {
        return Err(Status::internal("a snapshot that was received is sent on"));
    };
    // Only once somebody is there to read it.
    let chunks = async move {
        let (sender, chunks) = mpsc::channel(CHUNKS_QUEUED_MAX);
        tokio::task::spawn_blocking(move || read_chunks(&reader, &sender));
        ReceiverStream::new(chunks)
    };
    let begin = Part::Begin(pb::SnapshotBegin { vote: Some(wire::vote(vote)) });
    let parts = futures::stream::iter([begin]).chain(chunks.flatten_stream().map(Part::Chunk));
    Ok(parts.map(|part| pb::SnapshotPart { part: Some(part) }))
}

/// Ends without the last chunk when the state cannot be read; the other end then says that it was cut short.
fn read_chunks(reader: &Reader, sender: &mpsc::Sender<Bytes>) {
    let chunks = match reader.snapshot() {
        Ok(chunks) => chunks,
        Err(fault) => return crate::fault::stop(&format!("failed to read the state for a snapshot: {fault}")),
    };
    let head = chunks.head();
    tracing::info!(index = head.position.index, revision = head.revision, "sending a snapshot");
    for chunk in chunks {
        match chunk {
            Ok(chunk) => {
                if sender.blocking_send(chunk).is_err() {
                    return;
                }
            }
            Err(fault) => return crate::fault::stop(&format!("failed to read the state for a snapshot: {fault}")),
        }
    }
}

fn refused(error: &TransferError) -> Status {
    match error {
        TransferError::Old { .. } => Status::already_exists(error.to_string()),
        TransferError::Write(_) => Status::resource_exhausted(error.to_string()),
        _ => Status::data_loss(error.to_string()),
    }
}

impl Raft {
    /// Receives and installs; answers the vote that this member holds then.
    pub(super) async fn receive_snapshot(&self, mut parts: Streaming<pb::SnapshotPart>) -> Result<pb::Vote, Status> {
        let begin = match parts.message().await?.and_then(|part| part.part) {
            Some(Part::Begin(begin)) => begin,
            Some(Part::Chunk(_)) | None => return Err(Status::invalid_argument("a snapshot without a beginning")),
        };
        let vote = wire::read_vote(begin.vote)?;
        let Ok(_receiving) = self.0.receiving.try_lock() else {
            return Err(Status::unavailable("another snapshot is being received"));
        };
        let received = self.write_down(parts).await?;
        let head = received.head();
        let last_membership = decode_membership(&head.membership).map_err(Status::data_loss)?;
        let meta = SnapshotMeta { last_log_id: Some(log_id(head.position)), last_membership };
        let snapshot = Snapshot { meta, snapshot: SnapshotSource::Received(Box::new(received)) };
        let installed = self.core().install_full_snapshot(vote, snapshot).await;
        let installed = installed.map_err(|_| Status::unavailable("the member stops"))?;
        self.leader_heard();
        Ok(wire::vote(&installed.vote))
    }

    async fn write_down(&self, mut parts: Streaming<pb::SnapshotPart>) -> Result<ReceivedSnapshot, Status> {
        let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_QUEUED_MAX);
        let reader = self.0.reader.clone();
        let writing = tokio::task::spawn_blocking(move || -> Result<ReceivedSnapshot, TransferError> {
            let head = chunks.blocking_recv().ok_or(TransferError::Cut { chunks: 0 })?;
            let mut sink = reader.receive(&head)?;
            while let Some(chunk) = chunks.blocking_recv() {
                sink.push(&chunk)?;
            }
            sink.finish()
        });
        while let Some(part) = parts.message().await? {
            let Some(Part::Chunk(chunk)) = part.part else {
                return Err(Status::invalid_argument("a snapshot that begins twice"));
            };
            self.leader_heard();
            if sender.send(chunk).await.is_err() {
                // It has failed, and says with what.
                break;
            }
        }
        drop(sender);
        let received = writing.await.map_err(|error| Status::internal(error.to_string()))?;
        received.map_err(|error| {
            tracing::warn!(%error, "a snapshot was not received");
            refused(&error)
        })
    }
}
