//! The sending end: the rows of a frozen view, cut into chunks.

use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::chunk::{Chain, Kind, SnapshotHead, Totals};
use super::{CHUNK_BYTES, rows};
use crate::engine::{Family, Span, View};
use crate::keys;
use crate::keys::meta;
use crate::state::NEVER_COMPACTED;
use crate::types::{Fault, LogPosition, REVISION_FIRST};

/// The chunks of one snapshot, in order; after a fault there are no more. Each is made when it is asked for, which may
/// wait for a disk, and has up to [`CHUNK_BYTES`] and an overhead of [`super::CHUNK_OVERHEAD_BYTES`].
///
/// Between two chunks only the view is held: as long as this lives, versions that are overwritten stay on disk.
pub struct SnapshotChunks {
    view: Box<dyn View>,
    pub(super) head: SnapshotHead,
    chain: Chain,
    chunk_bytes: usize,
    stage: Stage,
    /// Rows that are read and not in a chunk yet.
    pending: BytesMut,
    totals: Totals,
    digest: Sha256,
}

enum Stage {
    Head,
    /// At a place in the family of this number, counted from 0.
    Rows(usize, Bound<Bytes>),
    End,
    Done,
}

impl SnapshotChunks {
    pub(crate) fn new(view: Box<dyn View>, bytes_estimated: u64) -> Result<Self, Fault> {
        let number = |name: &[u8]| view.get(Family::Meta, name)?.map(|bytes| keys::decode_i64(&bytes)).transpose();
        let position = match view.get(Family::Meta, meta::APPLIED)? {
            Some(position) => keys::decode_position(&position)?,
            None => LogPosition::default(),
        };
        let head = SnapshotHead {
            position,
            membership: view.get(Family::Meta, meta::MEMBERSHIP)?.unwrap_or_default(),
            revision: number(meta::REVISION)?.unwrap_or(REVISION_FIRST),
            compacted: number(meta::COMPACTED)?.unwrap_or(NEVER_COMPACTED),
            bytes_estimated,
        };
        Ok(Self {
            view,
            head,
            chain: Chain::default(),
            chunk_bytes: CHUNK_BYTES,
            stage: Stage::Head,
            pending: BytesMut::new(),
            totals: Totals::default(),
            digest: Sha256::new(),
        })
    }

    /// In chunks of another size; to be said before the first one is made.
    pub fn with_chunk_bytes(self, chunk_bytes: usize) -> Self {
        Self { chunk_bytes: chunk_bytes.max(1), ..self }
    }

    /// What the snapshot is of.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        match &self.stage {
            Stage::Head => {
                let payload = self.head.payload();
                self.digest.update(&payload);
                self.stage = Stage::Rows(0, Bound::Unbounded);
                Ok(Some(self.chain.close(Kind::Head, &payload)))
            }
            Stage::Rows(place, from) => {
                self.stage = self.read(*place, from.clone())?;
                let payload = self.pending.split_to(self.pending.len().min(self.chunk_bytes));
                if payload.is_empty() {
                    return self.chunk();
                }
                self.digest.update(&payload);
                self.totals.bytes += payload.len() as u64;
                Ok(Some(self.chain.close(Kind::Rows, &payload)))
            }
            Stage::End => {
                self.stage = Stage::Done;
                let sha256 = std::mem::take(&mut self.digest).finalize().into();
                Ok(Some(self.chain.close(Kind::End, &self.totals.end(&sha256))))
            }
            Stage::Done => Ok(None),
        }
    }

    /// Reads on until there is a chunk. A fresh cursor for each, so that none is held while a peer takes its time.
    fn read(&mut self, first: usize, mut from: Bound<Bytes>) -> Result<Stage, Fault> {
        for (place, family) in Family::ALL.into_iter().enumerate().skip(first) {
            if self.pending.len() >= self.chunk_bytes {
                return Ok(Stage::Rows(place, from));
            }
            for row in self.view.pass(family, Span { from, until: Bound::Unbounded }) {
                let (key, value) = row?;
                rows::put(&mut self.pending, family, &key, &value);
                self.totals.rows[place] += 1;
                if self.pending.len() >= self.chunk_bytes {
                    return Ok(Stage::Rows(place, Bound::Excluded(key)));
                }
            }
            from = Bound::Unbounded;
        }
        Ok(if self.pending.len() > self.chunk_bytes { Stage::Rows(Family::ALL.len(), from) } else { Stage::End })
    }
}

impl Iterator for SnapshotChunks {
    type Item = Result<Bytes, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunk();
        if chunk.is_err() {
            self.stage = Stage::Done;
        }
        chunk.transpose()
    }
}
