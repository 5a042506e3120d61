//! The receiving end: chunks into an engine beside the one that serves.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::TransferError;
use super::chunk::{Chain, Kind, SnapshotHead, Totals};
use super::install::ReceivedSnapshot;
use super::rows::{self, Row};
use crate::engine::{Batch, Engine, Family, Replacement};
use crate::types::LogPosition;

/// Takes the chunks of one snapshot in order. Dropped, it leaves nothing behind; so does a crash, after the next start.
///
/// Its calls write to the disk: they may take long, and belong on a thread that may wait. Whoever reads the next chunk
/// only when [`SnapshotSink::push`] has returned, has passed the disk's pace on to the sender.
pub struct SnapshotSink {
    replacement: Box<dyn Replacement>,
    head: SnapshotHead,
    chain: Chain,
    /// The beginning of a row that goes on in the next chunk.
    pending: BytesMut,
    last: Option<(Family, Bytes)>,
    totals: Totals,
    digest: Sha256,
    ended: bool,
    failure: Option<TransferError>,
}

impl SnapshotSink {
    pub(crate) fn begin(engine: &dyn Engine, applied: LogPosition, chunk: &Bytes) -> Result<Self, TransferError> {
        let mut chain = Chain::default();
        let (_, payload) = chain.open(chunk)?;
        let mut digest = Sha256::new();
        digest.update(&payload);
        let head = SnapshotHead::parse(payload)?;
        if head.position.index <= applied.index {
            return Err(TransferError::Old { offered: head.position, applied });
        }
        let replacement = engine.replacement(head.bytes_estimated).map_err(|fault| TransferError::write(&fault))?;
        Ok(Self {
            replacement,
            head,
            chain,
            pending: BytesMut::new(),
            last: None,
            totals: Totals::default(),
            digest,
            ended: false,
            failure: None,
        })
    }

    /// What the snapshot is of.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Bytes of rows taken so far.
    pub fn received_bytes(&self) -> u64 {
        self.totals.bytes
    }

    /// Bytes held back, because the row that they begin is not there as a whole.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Takes the next chunk; the first one was taken when this was made. Returns whether it was the last. After an error
    /// there is no going on: every later call repeats it.
    pub fn push(&mut self, chunk: &Bytes) -> Result<bool, TransferError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        match self.take(chunk) {
            Ok(()) => Ok(self.ended),
            Err(error) => {
                self.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    fn take(&mut self, chunk: &Bytes) -> Result<(), TransferError> {
        let number = self.chain.number;
        let (kind, payload) = self.chain.open(chunk)?;
        if self.ended {
            return Err(TransferError::AfterEnd { chunk: number });
        }
        match kind {
            Kind::Rows => {
                self.digest.update(&payload);
                self.totals.bytes += payload.len() as u64;
                self.pending.extend_from_slice(&payload);
                self.write_rows(number)
            }
            Kind::End if !self.pending.is_empty() => {
                Err(TransferError::Contents { chunk: number, reason: "the end comes in the middle of a row".into() })
            }
            Kind::End => {
                self.totals.check(number, payload, &self.digest.clone().finalize().into())?;
                self.ended = true;
                Ok(())
            }
            Kind::Head => Err(TransferError::Kind { chunk: number, kind: kind as u8 }),
        }
    }

    fn write_rows(&mut self, chunk: u64) -> Result<(), TransferError> {
        // A row of many chunks is not copied anew for each of them.
        if rows::first_bytes(&self.pending).is_none() {
            return Ok(());
        }
        let mut whole = self.pending.split().freeze();
        let mut batch = Batch::default();
        while let Some(row) = rows::take(&mut whole) {
            let family = self.next_family(chunk, &row)?;
            self.last = Some((family, row.key.clone()));
            batch.put(family, row.key, row.value);
        }
        self.pending.extend_from_slice(&whole);
        // A slice would keep the whole chunk.
        self.last = self.last.take().map(|(family, key)| (family, Bytes::copy_from_slice(&key)));
        self.replacement.write(batch).map_err(|fault| TransferError::write(&fault))
    }

    fn next_family(&mut self, chunk: u64, row: &Row) -> Result<Family, TransferError> {
        let wrong = |reason| TransferError::Contents { chunk, reason };
        let place = Family::ALL.iter().position(|known| *known as u8 == row.family);
        let place = place.ok_or_else(|| wrong(format!("family {} is not known to this release", row.family)))?;
        let family = Family::ALL[place];
        if self.last.as_ref().is_some_and(|(before, key)| (*before, key) >= (family, &row.key)) {
            return Err(wrong(format!("a row of {} is out of order", family.name())));
        }
        self.totals.rows[place] += 1;
        Ok(family)
    }

    /// Makes durable what was received, and checks that it is the state that its head announces. Takes as long as the
    /// disk does. The result counts for nothing before [`crate::Store::install`].
    pub fn finish(self) -> Result<ReceivedSnapshot, TransferError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if !self.ended {
            return Err(TransferError::Cut { chunks: self.chain.number });
        }
        let sealed = self.replacement.seal().map_err(|fault| TransferError::write(&fault))?;
        ReceivedSnapshot::load(sealed, self.head)
    }
}
