//! The part of the state that is held in memory: small, loaded at start, replaced as a whole with every group.
//!
//! Nothing here grows with the number of keys but the buckets of [`crate::mvcc`], by a few dozen bytes for hundreds of
//! keys. Everything is on disk too, in the batch that moved it.

use std::sync::{Arc, PoisonError, RwLock};

use crate::alarm::Alarms;
use crate::auth::AuthState;
use crate::cluster::Cluster;
use crate::engine::{Engine, Family, Read};
use crate::keys::{self, FORMAT_VERSION, meta};
use crate::mvcc::{Buckets, Keyspace, Tracks, WalkProgress};
use crate::overlay::Overlay;
use crate::types::{Fault, LogPosition, REVISION_FIRST, Revision};

/// Before the first compaction; reads at revision 0 mean now, so nothing is ever below it (etcd's value too).
pub(crate) const NEVER_COMPACTED: i64 = -1;

/// What there is to read: rows, and the part of the state in memory that belongs to them. Replaced as a whole.
pub(crate) struct Published {
    pub engine: Arc<dyn Engine>,
    pub state: State,
}

/// Where the one who applies leaves what readers find.
#[derive(Clone)]
pub(crate) struct Board(Arc<RwLock<Arc<Published>>>);

impl Board {
    pub(crate) fn new(published: Arc<Published>) -> Self {
        Self(Arc::new(RwLock::new(published)))
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, published: Arc<Published>) {
        let mut board = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *board, published);
        // It may be the last to know of much that is large; readers need not wait for the end of that.
        drop(board);
        drop(before);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub applied: LogPosition,
    pub tracks: Tracks,
    pub walk: WalkProgress,
    pub alarms: Arc<Alarms>,
    pub cluster: Arc<Cluster>,
    pub auth: AuthState,
}

impl State {
    pub(crate) fn load(read: &dyn Read) -> Result<Self, Fault> {
        let number = |name: &[u8]| read.get(Family::Meta, name)?.map(|bytes| keys::decode_i64(&bytes)).transpose();
        if let Some(format) = number(meta::FORMAT)?
            && format != FORMAT_VERSION as i64
        {
            return Err(Fault::Data(format!(
                "the data directory is of format {format}, this release knows format {FORMAT_VERSION}"
            )));
        }
        let compacted = number(meta::COMPACTED)?.unwrap_or(NEVER_COMPACTED);
        let applied = match read.get(Family::Meta, meta::APPLIED)? {
            Some(position) => keys::decode_position(&position)?,
            None => LogPosition::default(),
        };
        let cursor = match read.get(Family::Meta, meta::WALK_CURSOR)? {
            Some(cursor) => Some(parse_cursor(&cursor)?),
            None => None,
        };
        Ok(Self {
            applied,
            tracks: Tracks {
                revision: number(meta::REVISION)?.unwrap_or(REVISION_FIRST),
                compacted,
                bytes: number(meta::BYTES)?.unwrap_or(0),
                buckets: Buckets::load(read)?,
            },
            walk: WalkProgress {
                walked: number(meta::WALKED)?.unwrap_or(NEVER_COMPACTED),
                under_way: cursor,
                freed_bytes: 0,
                dropped: 0,
            },
            alarms: Arc::new(Alarms::load(read)?),
            cluster: Arc::new(Cluster::load(read)?),
            auth: AuthState::load(read)?,
        })
    }

    /// Rows of what moved with nearly every group; the rest is written where it changes.
    pub(crate) fn save(&self, overlay: &mut Overlay<'_>) {
        overlay.put(Family::Meta, meta::FORMAT, keys::encode_i64(FORMAT_VERSION as i64));
        overlay.put(Family::Meta, meta::APPLIED, keys::encode_position(self.applied));
        overlay.put(Family::Meta, meta::REVISION, keys::encode_i64(self.tracks.revision));
        overlay.put(Family::Meta, meta::BYTES, keys::encode_i64(self.tracks.bytes));
    }

    pub(crate) fn save_compacted(&self, overlay: &mut Overlay<'_>) {
        overlay.put(Family::Meta, meta::COMPACTED, keys::encode_i64(self.tracks.compacted));
    }

    pub(crate) fn save_walk(&self, overlay: &mut Overlay<'_>) {
        overlay.put(Family::Meta, meta::BYTES, keys::encode_i64(self.tracks.bytes));
        overlay.put(Family::Meta, meta::WALKED, keys::encode_i64(self.walk.walked));
        match self.walk.under_way {
            Some(cursor) => overlay.put(Family::Meta, meta::WALK_CURSOR, encode_cursor(cursor)),
            None => overlay.delete(Family::Meta, meta::WALK_CURSOR),
        }
    }

    pub(crate) fn keyspace<'a>(&'a self, read: &'a dyn Read) -> Keyspace<'a> {
        let Tracks { revision, compacted, buckets, .. } = &self.tracks;
        Keyspace { read, revision: *revision, compacted: *compacted, buckets }
    }
}

fn encode_cursor((at, target): (Revision, i64)) -> Vec<u8> {
    [at.main, at.sub, target].into_iter().flat_map(i64::to_le_bytes).collect()
}

fn parse_cursor(bytes: &[u8]) -> Result<(Revision, i64), Fault> {
    if bytes.len() != 24 {
        return Err(Fault::Data(format!("a compaction cursor of {} bytes", bytes.len())));
    }
    let main = keys::decode_i64(&bytes[..8])?;
    Ok((Revision::new(main, keys::decode_i64(&bytes[8..16])?), keys::decode_i64(&bytes[16..])?))
}
