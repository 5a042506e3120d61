//! openraft's log storage over [`RaftLog`]: types only, no policy.
//!
//! A codec says how an entry's payload becomes bytes; ids and votes have the fixed layout of `format`. Calls that
//! openraft awaits on its core queue and return; only `save_vote` waits for the disk, asynchronously, as it must.
//! Left out: snapshots and the state machine.
//!
//! What the owner owes: `set_flushed` with the durable applied id before `Raft::new` and whenever it moves, also at the
//! end of `install_snapshot`: a purge past the end of the log that the state does not cover is a fault.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use openraft::alias::{CommittedLeaderIdOf, LeaderIdOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::vote::{RaftLeaderId, RaftVote};
use openraft::{LogState, OptionalSend, RaftLogReader, RaftTypeConfig};
use tokio::sync::oneshot;

use super::format::{RawLeader, RawLogId, RawVote};
use super::handle::{EntryBatch, RaftLog};

/// How payloads become bytes. The id of an entry is stored beside its body, so the body need not hold it.
pub trait EntryCodec<C: RaftTypeConfig>: Send + Sync + 'static {
    /// Appends the body.
    fn encode(entry: &C::Entry, out: &mut BytesMut);
    /// `body` is a slice of a larger read: keep parts of it for long and the whole stays in memory.
    fn decode(id: LogIdOf<C>, body: Bytes) -> io::Result<C::Entry>;
    fn leader_to_raw(leader: &CommittedLeaderIdOf<C>) -> RawLeader;
    fn leader_from_raw(raw: RawLeader) -> CommittedLeaderIdOf<C>;
}

/// Cheap to clone; all clones are the same log.
pub struct LogStore<C, K> {
    log: RaftLog,
    types: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Clone for LogStore<C, K> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), types: PhantomData }
    }
}

impl<C, K> Debug for LogStore<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log.fmt(f)
    }
}

impl<C, K> LogStore<C, K>
where
    C: RaftTypeConfig<Term = u64, NodeId = u64>,
    K: EntryCodec<C>,
{
    pub fn new(log: RaftLog) -> Self {
        Self { log, types: PhantomData }
    }

    pub fn log(&self) -> &RaftLog {
        &self.log
    }

    /// The state machine is durable up to here: purges up to here may reach the disk.
    pub fn set_flushed(&self, upto: &LogIdOf<C>) -> io::Result<()> {
        self.log.set_flushed(Self::id_to_raw(upto))
    }

    fn id_to_raw(id: &LogIdOf<C>) -> RawLogId {
        RawLogId { leader: K::leader_to_raw(id.committed_leader_id()), index: id.index() }
    }

    fn id_from_raw(raw: RawLogId) -> LogIdOf<C> {
        LogIdOf::<C>::new(K::leader_from_raw(raw.leader), raw.index)
    }

    fn decode((id, body): (RawLogId, Bytes)) -> io::Result<C::Entry> {
        K::decode(Self::id_from_raw(id), body)
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<C::Entry>> {
        self.log.read(start..end, bytes_max).await?.into_iter().map(Self::decode).collect()
    }

    /// The next entries of a stream; once begun, one that is missing would be a hole.
    async fn step(&self, at: u64, end: u64, begun: bool) -> io::Result<Vec<C::Entry>> {
        let entries = self.read(at, end, self.log.read_bytes_max()).await?;
        let first = entries.first().map(|entry| entry.log_id_parts().1);
        if begun && first.map_or(at < end, |first| first != at) {
            return Err(io::Error::other(format!("entry {at} was removed while it was read")));
        }
        Ok(entries)
    }

    fn vote(&self) -> io::Result<Option<VoteOf<C>>> {
        Ok(self.log.ids()?.vote.map(|raw| {
            let leader = LeaderIdOf::<C>::new(raw.leader.term, raw.leader.node);
            VoteOf::<C>::from_leader_id(leader, raw.committed)
        }))
    }

    /// A vote that goes back, or one for another candidate of the same term, would elect two leaders.
    fn refuse_vote(&self, new: &VoteOf<C>) -> io::Result<()> {
        let Some(old) = self.vote()? else { return Ok(()) };
        match new.partial_cmp(&old) {
            Some(Ordering::Greater | Ordering::Equal) => Ok(()),
            Some(Ordering::Less) | None => {
                let law = format!("vote {new} must not follow vote {old}");
                Err(self.log.violated(law))
            }
        }
    }
}

/// [start, end) of any range.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl<C, K> RaftLogReader<C> for LogStore<C, K>
where
    C: RaftTypeConfig<Term = u64, NodeId = u64>,
    K: EntryCodec<C>,
{
    /// In steps of bounded bytes: a member that catches up applies far more than should stand in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<C::Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        // What is appended later is not part of this read.
        let last = self.log.ids().map(|ids| ids.last.map_or(0, |last| last.index + 1));
        let steps = stream::unfold(Some((start, false)), move |at| {
            let (store, end) = (store.clone(), last.as_ref().map_or(end, |next| end.min(*next)));
            async move {
                let (at, begun) = at?;
                match store.step(at, end, begun).await {
                    Ok(entries) => {
                        let next = entries.last()?.log_id_parts().1 + 1;
                        let items: Vec<io::Result<C::Entry>> = entries.into_iter().map(Ok).collect();
                        Some((stream::iter(items), Some((next, true))))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), None)),
                }
            }
        });
        Box::pin(futures::StreamExt::flatten(steps))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<C::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        self.read(start, end, self.log.read_bytes_max()).await
    }

    /// From memory: the default searches by reading entries, which after a restart are all cold.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogIdOf<C>>) -> io::Result<Vec<LogIdOf<C>>> {
        let ids = self.log.last_ids(range.start().index()..=range.end().index())?;
        Ok(ids.into_iter().map(Self::id_from_raw).collect())
    }
}

impl<C, K> RaftLogStorage<C> for LogStore<C, K>
where
    C: RaftTypeConfig<Term = u64, NodeId = u64>,
    K: EntryCodec<C>,
{
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let ids = self.log.ids()?;
        Ok(LogState {
            last_purged_log_id: ids.purged.map(Self::id_from_raw),
            last_log_id: ids.last.map(Self::id_from_raw),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        self.refuse_vote(vote)?;
        let leader = RawLeader { term: vote.leader_id().term(), node: *vote.leader_id().node_id() };
        let (done, durable) = oneshot::channel();
        let raw = RawVote { leader, committed: vote.is_committed() };
        self.log.save_vote(raw, move |result| drop(done.send(result)))?;
        durable.await.map_err(|_| io::Error::other("the raft log dropped a vote"))?
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        self.log.save_committed(committed.as_ref().map(Self::id_to_raw))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        Ok(self.log.ids()?.committed.map(Self::id_from_raw))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = EntryBatch::default();
        for entry in entries {
            let (leader, index) = entry.log_id_parts();
            let id = RawLogId { leader: K::leader_to_raw(leader), index };
            batch.push(id, |out| K::encode(&entry, out));
        }
        self.log.wait_for_room().await?;
        self.log.append(batch, move |result| callback.io_completed(result))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        self.log.truncate_after(last_log_id.as_ref().map(Self::id_to_raw))
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        self.log.purge(Self::id_to_raw(&log_id))
    }
}
