//! With threads: callers never wait for the disk, what waits shares a sync, and nobody waits for ever.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::BufMut;

use super::super::sim::{Call, SimFs};
use super::super::{Driver, EntryBatch, Fs, FsFile, LogThreads, RaftLog, StdFs};
use super::world::{id, now, open_disk, options, recovered, vote};

/// Longer than anything here takes, shorter than the patience of whoever runs the tests.
const PATIENCE: Duration = Duration::from_secs(20);

type Told = Receiver<(u64, bool)>;

struct Fixture {
    log: RaftLog,
    threads: LogThreads,
    faults: Arc<Mutex<Vec<String>>>,
    syncs: Arc<Mutex<Vec<usize>>>,
}

fn open(fs: Arc<dyn Fs>, dir: &Path) -> Fixture {
    let (faults, syncs) = (Arc::default(), Arc::<Mutex<Vec<usize>>>::default());
    let mut options = options(&faults);
    options.dir = dir.to_path_buf();
    options.driver = Driver::Threads;
    options.batch_bytes_max = 1 << 20;
    options.segment_bytes = 64 << 10;
    options.queue_bytes_max = 10_000;
    let entries = Arc::clone(&syncs);
    options.on_sync = Arc::new(move |stats| entries.lock().unwrap().push(stats.entries));
    let (log, threads, _) = RaftLog::open(fs, options).unwrap();
    Fixture { log, threads, faults, syncs }
}

fn append(log: &RaftLog, index: u64, bytes: usize, told: &std::sync::mpsc::Sender<(u64, bool)>) {
    let mut batch = EntryBatch::default();
    batch.push(id(1, index), |out| out.put_bytes(index as u8, bytes));
    let told = told.clone();
    log.append(batch, move |result| {
        let _ = told.send((index, result.is_ok()));
    })
    .unwrap();
}

fn expect(told: &Told, expected: impl IntoIterator<Item = (u64, bool)>) {
    for expected in expected {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A disk that lets through so many syncs and makes the others wait.
#[derive(Clone)]
struct Gated(SimFs, Arc<(Mutex<usize>, Condvar)>);

impl Gated {
    fn new() -> Self {
        Self(SimFs::new(1), Arc::new((Mutex::new(usize::MAX), Condvar::new())))
    }

    fn allow(&self, syncs: usize) {
        *self.1.0.lock().unwrap() = syncs;
        self.1.1.notify_all();
    }
}

struct GatedFile(Arc<dyn FsFile>, Gated);

impl FsFile for GatedFile {
    fn size_bytes(&self) -> std::io::Result<u64> {
        self.0.size_bytes()
    }
    fn preallocate(&self, bytes: u64) -> std::io::Result<()> {
        self.0.preallocate(bytes)
    }
    fn data_from(&self, offset: u64) -> std::io::Result<Option<std::ops::Range<u64>>> {
        self.0.data_from(offset)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        let (allowed, changed) = &*self.1.1;
        *changed.wait_while(allowed.lock().unwrap(), |allowed| *allowed == 0).unwrap() -= 1;
        self.0.sync_data()
    }
    fn sync_all(&self) -> std::io::Result<()> {
        self.0.sync_all()
    }
}

impl Fs for Gated {
    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.0.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create(&self, path: &Path) -> std::io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(GatedFile(self.0.create(path)?, self.clone())))
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(GatedFile(Fs::open(&self.0, path)?, self.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn salt(&self) -> u64 {
        self.0.salt()
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
}

#[test]
fn a_stuck_disk_holds_answers_and_nobody_else() {
    let gated = Gated::new();
    let fixture = open(Arc::new(gated.clone()), Path::new("/log"));
    gated.allow(0);
    let (tell, told) = channel();
    for index in 0..100 {
        append(&fixture.log, index, 50, &tell);
    }
    fixture.log.truncate_after(Some(id(1, 89))).unwrap();
    fixture.log.save_committed(Some(id(1, 10))).unwrap();
    let voted = tell.clone();
    fixture
        .log
        .save_vote(vote(2), move |result| {
            let _ = voted.send((1000, result.is_ok()));
        })
        .unwrap();
    append(&fixture.log, 90, 50, &tell);
    // Readable at once, all of it, though nothing is durable.
    assert_eq!(now(fixture.log.read(0..u64::MAX, usize::MAX)).unwrap().len(), 91);
    assert_eq!(fixture.log.ids().unwrap().vote, Some(vote(2)));
    assert_eq!(told.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    gated.allow(usize::MAX);
    expect(&told, (0..100).chain([1000, 90]).map(|told| (told, true)));
    let syncs = fixture.syncs.lock().unwrap();
    assert_eq!(syncs.iter().sum::<usize>(), 101);
    assert!(syncs.len() < 10, "what waited shares a sync: {syncs:?}");
}

#[test]
fn what_is_not_written_stays_in_memory_however_small_the_cache() {
    let gated = Gated::new();
    let fixture = open(Arc::new(gated.clone()), Path::new("/log"));
    gated.allow(0);
    let (tell, told) = channel();
    append(&fixture.log, 0, 900, &tell);
    eventually("the writer takes the first", || fixture.log.stats().queue_bytes == 0);
    for index in 1..9 {
        append(&fixture.log, index, 900, &tell);
    }
    gated.allow(1);
    expect(&told, [(0, true)]);
    let read = now(fixture.log.read(0..u64::MAX, usize::MAX)).unwrap();
    assert!(read.iter().map(|(id, _)| id.index).eq(0..9));
    gated.allow(usize::MAX);
    expect(&told, (1..9).map(|index| (index, true)));
    assert!(fixture.log.stats().tail_cache_bytes <= 2 << 10);
}

#[test]
fn a_full_queue_makes_append_wait_until_there_is_room() {
    let gated = Gated::new();
    let fixture = open(Arc::new(gated.clone()), Path::new("/log"));
    gated.allow(0);
    let (tell, told) = channel();
    // The first batch is taken by the stuck writer, the rest stays queued.
    append(&fixture.log, 0, 50, &tell);
    eventually("the writer takes the first", || fixture.log.stats().queue_bytes == 0);
    for index in 1..30 {
        append(&fixture.log, index, 1000, &tell);
    }
    let log = fixture.log.clone();
    let waiter = std::thread::spawn(move || now(log.wait_for_room()));
    std::thread::sleep(Duration::from_millis(30));
    assert!(!waiter.is_finished());
    gated.allow(usize::MAX);
    waiter.join().unwrap().unwrap();
    expect(&told, (0..30).map(|index| (index, true)));
}

#[test]
fn a_failed_sync_tells_all_who_wait_and_all_who_come() {
    let gated = Gated::new();
    let fixture = open(Arc::new(gated.clone()), Path::new("/log"));
    gated.allow(0);
    let (tell, told) = channel();
    for index in 0..50 {
        append(&fixture.log, index, 50, &tell);
    }
    gated.0.fail(Call::SyncData, 1, libc::EIO);
    gated.allow(usize::MAX);
    expect(&told, (0..50).map(|index| (index, false)));
    assert_eq!(fixture.faults.lock().unwrap().len(), 1);
    assert!(fixture.log.ids().is_err());
    assert!(now(fixture.log.read(0..1, 1)).is_err());
    assert!(now(fixture.log.wait_for_room()).is_err());
}

#[test]
fn closing_writes_what_is_queued() {
    let fs = SimFs::new(2);
    let fixture = open(Arc::new(fs.clone()), Path::new("/log"));
    let (tell, told) = channel();
    for index in 0..500 {
        append(&fixture.log, index, 300, &tell);
    }
    fixture.log.save_committed(Some(id(1, 400))).unwrap();
    fixture.threads.close();
    expect(&told, (0..500).map(|index| (index, true)));
    assert!(fixture.log.ids().is_err());
    fs.power_cycle();
    let (log, _threads, report) = open_disk(&fs).unwrap();
    assert_eq!((report.cut, report.entries), (None, 500));
    assert_eq!(recovered(&log).unwrap().1.committed, Some(id(1, 400)));
}

#[test]
fn an_idle_log_writes_its_marker_once() {
    let fs = SimFs::new(3);
    let fixture = open(Arc::new(fs.clone()), Path::new("/log"));
    let (tell, told) = channel();
    append(&fixture.log, 0, 10, &tell);
    expect(&told, [(0, true)]);
    eventually("a batch without entries follows", || fixture.syncs.lock().unwrap().last() == Some(&0));
    let quiet = fs.calls(Call::SyncData);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs.calls(Call::SyncData), quiet);
    // A committed id alone reaches the disk too.
    fixture.log.save_committed(Some(id(1, 0))).unwrap();
    eventually("committed is written", || {
        let (log, _threads, _) = open_disk(&fs.fork()).unwrap();
        log.ids().unwrap().committed == Some(id(1, 0))
    });
}

#[test]
fn old_entries_are_read_while_new_ones_come() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(Arc::new(StdFs::default()), dir.path());
    let (tell, told) = channel();
    let writer = std::thread::spawn({
        let log = fixture.log.clone();
        move || {
            for index in 0..3000 {
                append(&log, index, 100 + (index % 50) as usize, &tell);
                if index % 100 == 0 {
                    now(log.wait_for_room()).unwrap();
                }
            }
        }
    });
    let mut from = 0;
    while from < 3000 {
        let read = now(fixture.log.read(from..u64::MAX, 20_000)).unwrap();
        for (found, body) in &read {
            assert_eq!(*found, id(1, from));
            assert_eq!(body.len() as u64, 100 + from % 50);
            assert!(body.iter().all(|byte| *byte == from as u8));
            from += 1;
        }
    }
    writer.join().unwrap();
    expect(&told, (0..3000).map(|index| (index, true)));
    assert!(fixture.log.stats().tail_cache_bytes < 10_000);
    assert!(fixture.log.stats().segments > 5);
    assert_eq!(now(fixture.log.read(0..u64::MAX, usize::MAX)).unwrap().len(), 3000);
    fixture.threads.close();
    let fixture = open(Arc::new(StdFs::default()), dir.path());
    assert_eq!(now(fixture.log.read(0..u64::MAX, usize::MAX)).unwrap().len(), 3000);
}

#[test]
fn damage_that_a_read_meets_ends_the_log() {
    let fs = SimFs::new(4);
    let fixture = open(Arc::new(fs.clone()), Path::new("/log"));
    let (tell, told) = channel();
    for index in 0..100 {
        append(&fixture.log, index, 200, &tell);
    }
    expect(&told, (0..100).map(|index| (index, true)));
    fs.edit(&super::world::path(1), |bytes| bytes[6000] ^= 1);
    let error = now(fixture.log.read(0..u64::MAX, usize::MAX)).unwrap_err();
    assert!(error.to_string().starts_with("read /log/00000001.qlog at offset"), "{error}");
    assert_eq!(fixture.faults.lock().unwrap().len(), 1);
}
