//! Reads: frozen, consistent views of the state, for everyone who does not apply.
//!
//! A view pairs the engine's frozen rows with the state of memory that belongs to exactly those rows. Apply writes the
//! rows first and replaces the state just after, without a lock around the two, so whoever takes a view compares the
//! applied position of both and takes another one in the rare case that they differ.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use crate::apply::flushed;
use crate::auth::AuthState;
use crate::engine::{Family, Span, View};
use crate::keys::{self, LeaseRecord, meta};
use crate::lease;
use crate::mvcc::{EventPage, KeyRange, Keyspace, KeyspaceHash, Want, sort};
use crate::snapshot::{SnapshotChunks, SnapshotSink, TransferError};
use crate::state::{Board, Published, State};
use crate::types::{Failure, Fault, LogPosition, Rejection};

/// A cheap handle for readers. Clones share everything.
#[derive(Clone)]
pub struct Reader {
    board: Board,
}

impl Reader {
    pub(crate) fn new(board: Board) -> Self {
        Self { board }
    }

    fn published(&self) -> Arc<Published> {
        self.board.published()
    }

    /// The state as of the last group applied.
    pub fn view(&self) -> Result<StoreView, Fault> {
        loop {
            let published = self.published();
            let view = published.engine.view();
            let applied = match view.get(Family::Meta, meta::APPLIED)? {
                Some(position) => keys::decode_position(&position)?,
                None => LogPosition::default(),
            };
            if applied == published.state.applied {
                return Ok(StoreView { view, published });
            }
            std::hint::spin_loop();
        }
    }

    pub fn applied(&self) -> LogPosition {
        self.published().state.applied
    }

    /// The newest main revision.
    pub fn revision(&self) -> i64 {
        self.published().state.tracks.revision
    }

    /// -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.published().state.tracks.compacted
    }

    /// The compacted revision below which nothing is left on disk.
    pub fn walked(&self) -> i64 {
        self.published().state.walk.walked
    }

    /// Logical bytes of all versions; never 0, as clients divide by it.
    pub fn logical_bytes(&self) -> i64 {
        self.published().state.tracks.bytes.max(keys::VERSION_OVERHEAD_BYTES)
    }

    pub fn auth(&self) -> AuthState {
        self.published().state.auth.clone()
    }

    pub fn alarms(&self, kind: pb::AlarmType) -> Vec<pb::AlarmMember> {
        self.published().state.alarms.list(kind)
    }

    pub fn alarm_raised(&self, kind: pb::AlarmType) -> bool {
        self.published().state.alarms.raised(kind)
    }

    /// Members by id, as of the last entry applied.
    pub fn members(&self) -> Vec<pb::Member> {
        self.published().state.cluster.members.values().cloned().collect()
    }

    /// Every id that was ever removed, in order.
    pub fn removed_members(&self) -> Vec<u64> {
        self.published().state.cluster.removed.iter().copied().collect()
    }

    pub fn member_removed(&self, id: u64) -> bool {
        self.published().state.cluster.removed.contains(&id)
    }

    /// Empty until the leader has set it.
    pub fn cluster_version(&self) -> String {
        self.published().state.cluster.version.clone()
    }

    /// The version that a downgrade under way leads to.
    pub fn downgrade(&self) -> Option<String> {
        self.published().state.cluster.downgrade.clone()
    }

    /// See [`crate::apply::Membership::encoded`].
    pub fn membership(&self) -> Bytes {
        self.published().state.cluster.membership.clone()
    }

    pub fn lease(&self, id: i64) -> Result<Option<LeaseRecord>, Fault> {
        match self.published().engine.get(Family::Leases, &keys::lease_key(id))? {
            Some(record) => LeaseRecord::decode(&record).map(Some),
            None => Ok(None),
        }
    }

    /// Makes everything applied so far durable. Returns the position that a crash would come back to.
    pub fn flush(&self) -> Result<LogPosition, Fault> {
        let published = self.published();
        published.engine.flush()?;
        flushed(&*published.engine)
    }

    pub fn flushed(&self) -> Result<LogPosition, Fault> {
        flushed(&*self.published().engine)
    }

    /// The position that a crash would come back to, and the membership there.
    pub fn flushed_membership(&self) -> Result<FlushedMembership, Fault> {
        let published = self.published();
        let engine = &*published.engine;
        loop {
            let position = flushed(engine)?;
            let membership = engine.get_flushed(Family::Meta, meta::MEMBERSHIP)?.unwrap_or_default();
            // A flush between the two look-ups would pair one's position with the other's membership.
            if flushed(engine)? == position {
                return Ok(FlushedMembership { position, membership });
            }
        }
    }

    /// An independent, durable copy of the state in `directory`, which must not exist.
    pub fn checkpoint(&self, directory: &Path) -> Result<(), Fault> {
        self.published().engine.checkpoint(directory)
    }

    pub fn physical_bytes(&self) -> u64 {
        self.published().engine.physical_bytes()
    }

    /// The chunks of a snapshot of the state as of the last group applied.
    pub fn snapshot(&self) -> Result<SnapshotChunks, Fault> {
        self.view()?.into_snapshot()
    }

    /// Begins to receive a snapshot whose first chunk is `head`, beside the state that is being served. What comes of it
    /// is given to [`crate::Store::install`]. Refused when the snapshot has nothing new, or the disk no room for it.
    pub fn receive(&self, head: &Bytes) -> Result<SnapshotSink, TransferError> {
        let published = self.published();
        SnapshotSink::begin(&*published.engine, published.state.applied, head)
    }

    /// Removes the states that were replaced by installed snapshots and are no longer read by anybody, and returns how
    /// many still are. To be called now and then after an install, by someone who may wait: it can take seconds. A fault
    /// says that something of them was left, which the next start removes; what is served is not touched by it.
    pub fn reclaim(&self) -> Result<usize, Fault> {
        self.published().engine.reclaim()
    }
}

/// See [`Reader::flushed_membership`].
#[derive(Clone, Debug, PartialEq)]
pub struct FlushedMembership {
    pub position: LogPosition,
    /// See [`crate::Membership::encoded`].
    pub membership: Bytes,
}

/// One frozen state. Pins space while it lives: take it, read, drop it.
pub struct StoreView {
    view: Box<dyn View>,
    published: Arc<Published>,
}

/// A piece of a range that is answered as a stream, in key order.
#[derive(Clone, Debug, PartialEq)]
pub struct RangePiece {
    pub kvs: Vec<KeyValue>,
    /// The greatest key of the piece; the next one begins behind it.
    pub last_key: Option<Bytes>,
    pub more: bool,
}

impl StoreView {
    fn state(&self) -> &State {
        &self.published.state
    }

    fn keyspace(&self) -> Keyspace<'_> {
        self.state().keyspace(&*self.view)
    }

    /// The last entry that this is the state after.
    pub fn applied(&self) -> LogPosition {
        self.state().applied
    }

    pub fn revision(&self) -> i64 {
        self.state().tracks.revision
    }

    pub fn compacted(&self) -> i64 {
        self.state().tracks.compacted
    }

    pub fn auth(&self) -> &AuthState {
        &self.state().auth
    }

    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        self.keyspace().range(request)
    }

    /// What `request` asks for, from its key on, until `limit` rows or about `bytes_max` bytes. Limit, filters and order
    /// of the request are not looked at, but a sort target sorts what is in the piece, as etcd's streams do.
    pub fn range_piece(
        &self,
        request: &pb::RangeRequest,
        limit: usize,
        bytes_max: usize,
    ) -> Result<RangePiece, Failure> {
        let keyspace = self.keyspace();
        let at = keyspace.resolve(request.revision)?;
        let range = KeyRange::new(&request.key, &request.range_end);
        let target = request.sort_target();
        let by_value = target == pb::range_request::SortTarget::Value;
        let want = if request.keys_only && !by_value { Want::WithoutValue } else { Want::Everything };
        let (mut kvs, more) = keyspace.piece(&range, at, want, limit, bytes_max)?;
        let last_key = kvs.last().map(|kv| kv.key.clone());
        sort(&mut kvs, target, pb::range_request::SortOrder::Ascend);
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                kv.lease = if by_value { kv.lease } else { 0 };
            }
        }
        Ok(RangePiece { kvs, last_key, more })
    }

    pub fn count(&self, range: &KeyRange, revision: i64) -> Result<i64, Failure> {
        let keyspace = self.keyspace();
        let at = keyspace.resolve(revision)?;
        Ok(keyspace.count(range, at)?)
    }

    /// Answers a txn that holds nothing but ranges. Anything else in it is refused: it belongs into the log.
    pub fn read_only_txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
        crate::apply::read_only_txn(&self.keyspace(), request)
    }

    /// See [`EventPage`]. Below the compacted revision the answer is [`Rejection::Compacted`].
    pub fn events(&self, from: i64, until: i64, ranges: &[KeyRange], bytes_max: usize) -> Result<EventPage, Failure> {
        self.keyspace().events(from, until, ranges, bytes_max)
    }

    /// `revision` 0 means now.
    pub fn hash_kv(&self, revision: i64) -> Result<KeyspaceHash, Failure> {
        self.keyspace().hash(revision)
    }

    /// Where the rows that readers find say something else than the log of changes that [`StoreView::hash_kv`] is made of: what
    /// the first such key is, and how they differ. Reads all of the newest versions.
    pub fn contradiction(&self) -> Result<Option<String>, Fault> {
        self.keyspace().contradiction()
    }

    /// One number over everything that is physically there; equal on two members only by chance of timing.
    pub fn hash(&self) -> Result<u32, Fault> {
        let mut hash = 0;
        for family in Family::ALL {
            hash = crc32c::crc32c_append(hash, family.name().as_bytes());
            for row in self.rows(family) {
                let (key, value) = row?;
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
            }
        }
        Ok(hash)
    }

    pub fn lease(&self, id: i64) -> Result<Option<LeaseRecord>, Fault> {
        lease::find(&*self.view, id)
    }

    /// Keys attached to lease `id`, in key order.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        lease::attached(&*self.view, id)
    }

    pub fn leases(&self) -> Result<Vec<(i64, LeaseRecord)>, Fault> {
        lease::all(&*self.view)
    }

    /// Whether any data may be served at all under the alarms raised.
    pub fn corrupt(&self) -> Result<(), Rejection> {
        if self.state().alarms.raised(pb::AlarmType::Corrupt) { Err(Rejection::Corrupt) } else { Ok(()) }
    }

    /// Every row of every family, for a snapshot stream.
    pub fn rows(&self, family: Family) -> crate::engine::Rows<'_> {
        self.view.pass(family, Span::all())
    }

    /// See [`Reader::snapshot`].
    pub fn into_snapshot(self) -> Result<SnapshotChunks, Fault> {
        let bytes_estimated = self.published.engine.physical_bytes();
        SnapshotChunks::new(self.view, bytes_estimated)
    }
}
