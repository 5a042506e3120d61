//! A log on the disk in memory and a model beside it: what was submitted, record by record, and what was acknowledged.
//!
//! The law it checks after every restart: what is recovered is the state after some prefix of the submitted records,
//! and no shorter one than what was acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes};

use super::super::sim::SimFs;
use super::super::{
    Driver, EntryBatch, LogIds, LogOptions, LogThreads, OpenError, OpenReport, RaftLog, RawLeader, RawLogId, RawVote,
};

pub(super) const DIR: &str = "/log";
pub(super) const SEGMENT_BYTES: u32 = 16 << 10;

pub(super) fn id(term: u64, index: u64) -> RawLogId {
    RawLogId { leader: RawLeader { term, node: 0 }, index }
}

pub(super) fn vote(term: u64) -> RawVote {
    RawVote { leader: RawLeader { term, node: 7 }, committed: false }
}

#[derive(Clone, Debug)]
pub(super) enum Rec {
    Entry(RawLogId, Bytes),
    Vote(RawVote),
    Truncate(Option<RawLogId>),
    Purge(RawLogId),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Model {
    pub(super) vote: Option<RawVote>,
    pub(super) purged: Option<RawLogId>,
    pub(super) last: Option<RawLogId>,
    pub(super) entries: Vec<(RawLogId, Bytes)>,
}

impl Model {
    pub(super) fn apply(&mut self, rec: &Rec) {
        match rec {
            Rec::Entry(id, body) => {
                self.entries.push((*id, body.clone()));
                self.last = Some(*id);
            }
            Rec::Vote(vote) => self.vote = Some(*vote),
            Rec::Truncate(after) => {
                self.entries.retain(|(id, _)| after.is_some_and(|after| id.index <= after.index));
                self.last = *after;
            }
            Rec::Purge(upto) => {
                self.entries.retain(|(id, _)| id.index > upto.index);
                self.purged = Some(*upto);
                if self.last.is_none_or(|last| last.index <= upto.index) {
                    self.last = self.purged;
                }
            }
        }
    }

    pub(super) fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }
}

/// splitmix64, so that a seed names a run.
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A future that never waits, as all are without threads.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

pub(super) struct World {
    pub(super) fs: SimFs,
    pub(super) log: RaftLog,
    threads: Option<LogThreads>,
    pub(super) report: OpenReport,
    pub(super) recs: Vec<Rec>,
    pub(super) model: Model,
    pub(super) committed: Vec<Option<RawLogId>>,
    /// Records that are acknowledged.
    pub(super) acked: Arc<AtomicUsize>,
    pub(super) faults: Arc<Mutex<Vec<String>>>,
    pub(super) rng: Rng,
    term: u64,
}

pub(super) fn options(faults: &Arc<Mutex<Vec<String>>>) -> LogOptions {
    let faults = Arc::clone(faults);
    let mut options =
        LogOptions::new(DIR, Arc::new(move |reason: &str| faults.lock().unwrap().push(reason.to_owned())));
    options.segment_bytes = SEGMENT_BYTES;
    options.batch_bytes_max = 6 << 10;
    options.tail_cache_bytes_max = 2 << 10;
    options.driver = Driver::Manual;
    options
}

pub(super) type Recovered = (Model, LogIds);

/// What a log says it holds, everything read from the disk.
pub(super) fn recovered(log: &RaftLog) -> std::io::Result<Recovered> {
    let ids = log.ids()?;
    let entries = now(log.read(0..u64::MAX, usize::MAX))?;
    Ok((Model { vote: ids.vote, purged: ids.purged, last: ids.last, entries }, ids))
}

/// Opens a disk on its own, for looking only.
pub(super) fn open_disk(fs: &SimFs) -> Result<(RaftLog, LogThreads, OpenReport), OpenError> {
    RaftLog::open(Arc::new(fs.clone()), options(&Arc::default()))
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::on(SimFs::new(seed), seed).unwrap()
    }

    pub(super) fn on(fs: SimFs, seed: u64) -> Result<Self, OpenError> {
        let faults = Arc::default();
        let (log, threads, report) = RaftLog::open(Arc::new(fs.clone()), options(&faults))?;
        Ok(Self {
            fs,
            log,
            threads: Some(threads),
            report,
            recs: Vec::new(),
            model: Model::default(),
            committed: vec![None],
            acked: Arc::default(),
            faults,
            rng: Rng(seed ^ 0xdead_beef),
            term: 1,
        })
    }

    /// Told when all that is submitted by now is durable.
    fn ack(&self) -> impl FnOnce(std::io::Result<()>) + Send + 'static {
        let (acked, upto, faults) = (Arc::clone(&self.acked), self.recs.len(), Arc::clone(&self.faults));
        move |result| {
            if result.is_ok() {
                let before = acked.swap(upto, Ordering::SeqCst);
                assert!(before <= upto, "acknowledged out of order");
                assert!(faults.lock().unwrap().is_empty(), "acknowledged after a fault");
            }
        }
    }

    fn submit(&mut self, rec: Rec) {
        self.model.apply(&rec);
        self.recs.push(rec);
    }

    pub(super) fn append(&mut self, bodies: Vec<Bytes>) -> std::io::Result<()> {
        let mut batch = EntryBatch::default();
        for body in bodies {
            let id = id(self.term, self.model.next_index());
            batch.push(id, |out| out.put_slice(&body));
            self.submit(Rec::Entry(id, body));
        }
        self.log.append(batch, self.ack())
    }

    pub(super) fn vote(&mut self) -> std::io::Result<()> {
        self.term += 1;
        self.submit(Rec::Vote(vote(self.term)));
        self.log.save_vote(vote(self.term), self.ack())
    }

    pub(super) fn commit(&mut self, upto: RawLogId) -> std::io::Result<()> {
        self.committed.push(Some(upto));
        self.log.save_committed(Some(upto))
    }

    pub(super) fn truncate(&mut self, after: Option<RawLogId>) -> std::io::Result<()> {
        if after.map_or(0, |after| after.index + 1) < self.model.next_index() {
            self.submit(Rec::Truncate(after));
        }
        self.log.truncate_after(after)
    }

    pub(super) fn purge(&mut self, upto: RawLogId) -> std::io::Result<()> {
        self.log.set_flushed(upto)?;
        if self.model.purged.is_none_or(|purged| purged.index < upto.index) {
            self.submit(Rec::Purge(upto));
        }
        self.log.purge(upto)
    }

    pub(super) fn body(&mut self) -> Bytes {
        let len = if self.rng.below(20) == 0 { self.rng.below(5000) } else { self.rng.below(300) };
        let byte = self.rng.below(256) as u8;
        (0..len).map(|at| byte.wrapping_add(at as u8)).collect()
    }

    /// Ids of the entries that may be truncated: neither committed nor purged.
    fn loose(&self) -> u64 {
        let committed = self.committed.last().copied().flatten().map_or(0, |id| id.index + 1);
        committed.max(self.model.purged.map_or(0, |id| id.index + 1))
    }

    fn id_at(&self, index: u64) -> Option<RawLogId> {
        let mut held = self.model.entries.iter().map(|(id, _)| *id).chain(self.model.purged);
        held.find(|id| id.index == index)
    }

    /// One random step; an error means that the log is dead.
    pub(super) fn step(&mut self) -> std::io::Result<()> {
        match self.rng.below(100) {
            0..50 => {
                let bodies = (0..=self.rng.below(7)).map(|_| self.body()).collect();
                self.append(bodies)
            }
            50..58 => self.vote(),
            58..63 => {
                let (low, next) = (self.loose(), self.model.next_index());
                let keep = low + self.rng.below(next.saturating_sub(low) + 1);
                match keep.checked_sub(1) {
                    None => self.truncate(None),
                    Some(last) => self.id_at(last).map_or(Ok(()), |after| self.truncate(Some(after))),
                }
            }
            63..70 => {
                let (low, next) = (self.loose(), self.model.next_index());
                let upto = (low + self.rng.below(next.saturating_sub(low) + 1)).saturating_sub(1);
                match self.id_at(upto) {
                    Some(id) if self.committed.last().copied().flatten().is_none_or(|was| was.index < id.index) => {
                        self.commit(id)
                    }
                    _ => Ok(()),
                }
            }
            70..73 => {
                let past = self.rng.below(8) == 0;
                let committed = self.committed.last().copied().flatten();
                match (past, committed) {
                    (true, _) => {
                        let upto = id(self.term, self.model.next_index() + self.rng.below(5));
                        self.purge(upto)
                    }
                    (false, Some(upto)) => self.purge(upto),
                    (false, None) => Ok(()),
                }
            }
            73..78 => {
                self.log.tick();
                self.alive()
            }
            _ => {
                self.log.pump();
                self.alive()
            }
        }
    }

    /// Reads what should be there, as replication does, now and then.
    pub(super) fn look(&mut self) -> std::io::Result<()> {
        let first = self.model.entries.first().map_or(0, |(id, _)| id.index);
        let start = first + self.rng.below(self.model.entries.len() as u64 + 1);
        let read = now(self.log.read(start..u64::MAX, 1000))?;
        let expected = &self.model.entries[(start - first) as usize..];
        assert_eq!(read, expected[..read.len()]);
        assert_eq!(read.is_empty(), expected.is_empty());
        Ok(())
    }

    fn alive(&self) -> std::io::Result<()> {
        self.log.ids().map(drop)
    }

    pub(super) fn acked(&self) -> usize {
        self.acked.load(Ordering::SeqCst)
    }

    /// The number of records that `found` is the state after, at least `from`.
    pub(super) fn prefix_of(&self, (found, ids): &Recovered, from: usize) -> Option<usize> {
        assert!(self.committed.contains(&ids.committed), "a committed id that was never saved: {ids:?}");
        let mut model = Model::default();
        for (count, rec) in self.recs.iter().enumerate() {
            if count >= from && model == *found {
                return Some(count);
            }
            model.apply(rec);
        }
        (model == *found).then_some(self.recs.len())
    }

    /// The log is gone; a new one is opened on its disk and must hold what was acknowledged.
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        self.threads = None;
        let faults = Arc::default();
        let (log, threads, report) = RaftLog::open(Arc::new(self.fs.clone()), options(&faults))?;
        // Only where the power goes again while it is read.
        let found = recovered(&log).map_err(OpenError::io("read", DIR))?;
        let count = self.prefix_of(&found, self.acked());
        let count = count.unwrap_or_else(|| {
            panic!("{} of {} records acked, recovered {:?} {report:?}", self.acked(), self.recs.len(), found.1)
        });
        self.recs.truncate(count);
        // What the log says it holds it promises: the next crash must not take it back.
        self.acked = Arc::new(AtomicUsize::new(count));
        self.committed = vec![None, found.1.committed];
        self.model = found.0;
        self.term = self.term.max(self.model.vote.map_or(1, |vote| vote.leader.term));
        (self.log, self.threads, self.report, self.faults) = (log, Some(threads), report, faults);
        Ok(())
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        segments(&self.fs)
    }
}

pub(super) fn segments(fs: &SimFs) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "qlog")).collect()
}

pub(super) fn path(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:08x}.qlog"))
}
