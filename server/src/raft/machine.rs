//! The state machine as openraft sees it: entries to the apply thread, snapshots out of the engine.
//!
//! The state is its own snapshot: it is on disk already, as of the last flush. Building one therefore means to flush,
//! and allows the log behind it to be purged; what a peer is sent is read from the engine when it is asked for
//! ([`super::transfer`]), and may be newer than what openraft knows of.

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quorate_store::{Payload, Reader, ReceivedSnapshot};

use super::applier::{Applier, Task};
use super::codec::Codec;
use super::log::LogStore;
use super::proposals::Pending;
use super::types::{
    LogId, Request, SnapshotMeta as Meta, StoredMembership, TypeConfig, decode_membership, log_id, log_id_or_none,
    position, store_membership,
};

/// Entries handed to the apply thread at once, at most.
const GROUP_ENTRIES_MAX: usize = 512;
/// Bytes of entries handed to the apply thread at once, at most; one entry alone may be larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Between two looks whether a replaced state is still read.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// What a snapshot is made of; nothing is copied before somebody reads.
pub(crate) enum SnapshotSource {
    /// This member's own state.
    Own(Reader),
    /// Another member's, written down beside the own one.
    Received(Box<ReceivedSnapshot>),
}

pub(crate) struct Machine {
    applier: Applier,
    pending: Pending,
    builder: Builder,
}

/// Makes the state durable and tells the log how far it may forget.
#[derive(Clone)]
pub(crate) struct Builder {
    reader: Reader,
    log: LogStore<TypeConfig, Codec>,
}

impl Machine {
    pub(crate) fn new(applier: Applier, pending: Pending, reader: Reader, log: LogStore<TypeConfig, Codec>) -> Self {
        Self { applier, pending, builder: Builder { reader, log } }
    }
}

impl Builder {
    /// As of the last flush: the position that a crash would come back to, and the membership there.
    fn flushed(&self) -> io::Result<Option<Meta>> {
        let flushed = self.reader.flushed_membership().map_err(io::Error::other)?;
        let last_membership = decode_membership(&flushed.membership).map_err(io::Error::other)?;
        Ok(log_id_or_none(flushed.position).map(|last| SnapshotMeta { last_log_id: Some(last), last_membership }))
    }

    fn snapshot(&self, meta: Meta) -> BuiltSnapshot {
        Snapshot { meta, snapshot: SnapshotSource::Own(self.reader.clone()) }
    }
}

type BuiltSnapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotSource>;

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotSource;

    async fn build_snapshot(&mut self) -> io::Result<BuiltSnapshot> {
        let builder = self.clone();
        let flush = move || -> io::Result<Meta> {
            builder.reader.flush().map_err(io::Error::other)?;
            let meta = builder.flushed()?.ok_or_else(|| io::Error::other("nothing was applied before a snapshot"))?;
            if let Some(last) = &meta.last_log_id {
                builder.log.set_flushed(last)?;
            }
            Ok(meta)
        };
        // A flush may take seconds; nothing that serves may wait for it.
        let meta = tokio::task::spawn_blocking(flush).await.map_err(io::Error::other)??;
        Ok(self.snapshot(meta))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotSource;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let membership = decode_membership(&self.builder.reader.membership()).map_err(io::Error::other)?;
        Ok((log_id_or_none(self.builder.reader.applied()), membership))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = entries.next().await {
            let (task, size) = self.task(next?);
            group.push(task);
            bytes += size;
            if group.len() == GROUP_ENTRIES_MAX || bytes >= GROUP_BYTES_MAX {
                self.applier.apply(std::mem::take(&mut group), bytes).await?;
                bytes = 0;
            }
        }
        if group.is_empty() { Ok(()) } else { self.applier.apply(group, bytes).await }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: SnapshotSource) -> io::Result<()> {
        let SnapshotSource::Received(received) = snapshot else {
            // At start the state is never behind its own flush.
            return Err(io::Error::other(format!("a snapshot at {:?} came from nowhere", meta.last_log_id)));
        };
        let position = received.head().position;
        self.applier.install(*received).await?;
        // What would have told is jumped over.
        self.pending.give_up(true);
        self.builder.log.set_flushed(&log_id(position))?;
        tokio::spawn(reclaim(self.builder.reader.clone()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<BuiltSnapshot>> {
        Ok(self.builder.flushed()?.map(|meta| self.builder.snapshot(meta)))
    }
}

/// Deletes what was replaced, once nobody reads it any more.
async fn reclaim(reader: Reader) {
    loop {
        let reader = reader.clone();
        match tokio::task::spawn_blocking(move || reader.reclaim()).await {
            Ok(Ok(0)) | Err(_) => return,
            Ok(Ok(_)) => tokio::time::sleep(RECLAIM_INTERVAL).await,
            Ok(Err(error)) => return tracing::warn!(%error, "failed to delete a state that was replaced"),
        }
    }
}

impl Machine {
    /// An entry as the apply thread takes it. Who waits for a batch is known by its origin, whoever appended it; openraft's
    /// own responders are for changes of membership.
    fn task(&self, (entry, responder): EntryResponder<TypeConfig>) -> (Task, usize) {
        let at = position(&entry.log_id);
        let (payload, size) = match entry.payload {
            EntryPayload::Blank => (Payload::Blank, 0),
            EntryPayload::Normal(Request { origin, batch }) => {
                let size = batch.len();
                let respond = self
                    .pending
                    .applied(origin)
                    .map(|reply| -> Box<dyn FnOnce(Vec<_>) + Send> { Box::new(move |answers| reply(Ok(answers))) });
                let entry = quorate_store::Entry { position: at, payload: Payload::Batch(batch) };
                return (Task { entry, respond }, size);
            }
            EntryPayload::Membership(membership) => (Payload::Membership(store_membership(at, &membership)), 0),
        };
        let respond = responder
            .map(|responder| -> Box<dyn FnOnce(Vec<_>) + Send> { Box::new(move |answers| responder.send(answers)) });
        (Task { entry: quorate_store::Entry { position: at, payload }, respond }, size)
    }
}
