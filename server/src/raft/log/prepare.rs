//! Segment files before and after their use: made ready ahead of need and removed behind the purge, off the write path.
//!
//! ```text
//! create next.tmp -> reserve blocks -> header -> sync -> rename to NNNNNNNN.qlog -> sync the directory
//! ```
//!
//! A file gets its name only when all of that is durable, so a named file with a bad header or a short length is
//! damage, never a crash. That holds without `fsync` too, which spares only the syncs of data. Left out: recycling (a removed file's blocks would have to be zeroed again).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use super::format::{SegmentHeader, seed_of};
use super::fs::Fs;
use super::index::SegmentFile;
use super::shared::Shared;

const SEGMENT_SUFFIX: &str = ".qlog";
const TEMPORARY_SUFFIX: &str = ".tmp";
const TEMPORARY_NAME: &str = "next.tmp";

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:08x}{SEGMENT_SUFFIX}")
}

pub(super) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

#[derive(Debug)]
pub(super) struct PrepareError {
    /// No byte was written yet, so trying again later hides nothing: usually the disk is full.
    pub(super) may_try_again: bool,
    pub(super) context: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

impl std::fmt::Display for PrepareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.context, self.path.display(), self.source)
    }
}

pub(super) fn create_segment(fs: &dyn Fs, dir: &Path, number: u32, capacity: u64) -> Result<SegmentFile, PrepareError> {
    let temporary = dir.join(TEMPORARY_NAME);
    let path = dir.join(segment_name(number));
    let failed = |context, may_try_again| {
        let path = temporary.clone();
        move |source| PrepareError { may_try_again, context, path, source }
    };
    let file = fs.create(&temporary).map_err(failed("create", true))?;
    if let Err(source) = file.preallocate(capacity) {
        // The next attempt empties the file anyway; this only gives back the blocks at once.
        let _ = fs.remove(&temporary);
        return Err(failed("reserve space for", true)(source));
    }
    let header = SegmentHeader { segment: number, capacity, salt: fs.salt() };
    file.write_at(&header.encode(), 0).map_err(failed("write the header of", false))?;
    file.sync_all().map_err(failed("sync", false))?;
    fs.rename(&temporary, &path).map_err(failed("rename", false))?;
    fs.sync_dir(dir).map_err(failed("sync the directory of", false))?;
    Ok(SegmentFile { number, path: Arc::new(path), file, seed: seed_of(header.salt), capacity })
}

/// One file, then the directory: after a power cut the oldest are gone and none is missing in between.
pub(super) fn remove_segment(fs: &dyn Fs, dir: &Path, path: &Path) -> io::Result<()> {
    fs.remove(path)?;
    fs.sync_dir(dir)
}

enum Job {
    Prepare { number: u32, capacity: u64 },
    Remove(Vec<SegmentFile>),
}

/// Runs the jobs, on a thread or at once.
pub(super) struct Helper {
    worker: Worker,
    thread: Option<HelperThread>,
    /// Without a thread: what the last job prepared.
    ready: Option<Result<SegmentFile, PrepareError>>,
    awaited: bool,
}

struct HelperThread {
    jobs: Sender<Job>,
    results: Receiver<Result<SegmentFile, PrepareError>>,
    join: JoinHandle<()>,
}

#[derive(Clone)]
struct Worker {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Weak: the log's state must not live as long as a job.
    shared: Weak<Shared>,
}

impl Worker {
    fn run(&self, job: Job) -> Option<Result<SegmentFile, PrepareError>> {
        match job {
            Job::Prepare { number, capacity } => {
                let prepared = create_segment(&*self.fs, &self.dir, number, capacity);
                if let Err(error) = &prepared
                    && !error.may_try_again
                {
                    self.kill(&error.to_string());
                }
                Some(prepared)
            }
            Job::Remove(segments) => {
                for segment in segments {
                    if let Err(error) = remove_segment(&*self.fs, &self.dir, &segment.path) {
                        self.kill(&format!("remove {}: {error}", segment.path.display()));
                        break;
                    }
                }
                None
            }
        }
    }

    fn kill(&self, reason: &str) {
        if let Some(shared) = self.shared.upgrade() {
            drop(shared.kill(reason));
        }
    }
}

impl Helper {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf, shared: &Arc<Shared>, threaded: bool) -> Self {
        let worker = Worker { fs, dir, shared: Arc::downgrade(shared) };
        let thread = threaded.then(|| {
            let (jobs, todo) = channel::<Job>();
            let (done, results) = channel();
            let worker = worker.clone();
            let run = move || {
                for job in todo {
                    if let Some(result) = worker.run(job)
                        && done.send(result).is_err()
                    {
                        break;
                    }
                }
            };
            let spawned = std::thread::Builder::new().name("raft-log-files".to_owned()).spawn(run);
            HelperThread { jobs, results, join: spawned.expect("the process may start a thread") }
        });
        Self { worker, thread, ready: None, awaited: false }
    }

    pub(super) fn prepare(&mut self, number: u32, capacity: u64) {
        self.awaited = true;
        self.start(Job::Prepare { number, capacity });
    }

    pub(super) fn remove(&mut self, segments: Vec<SegmentFile>) {
        if !segments.is_empty() {
            self.start(Job::Remove(segments));
        }
    }

    fn start(&mut self, job: Job) {
        match &self.thread {
            // A closed channel means that the thread is gone, and taking its result will say so.
            Some(thread) => drop(thread.jobs.send(job)),
            None => self.ready = self.worker.run(job).or(self.ready.take()),
        }
    }

    /// The segment that was asked for, waiting if it is not ready yet.
    pub(super) fn take_prepared(&mut self) -> Option<Result<SegmentFile, PrepareError>> {
        if !std::mem::take(&mut self.awaited) {
            return None;
        }
        match &self.thread {
            Some(thread) => thread.results.recv().ok(),
            None => self.ready.take(),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(HelperThread { jobs, results, join }) = self.thread.take() {
            drop((jobs, results));
            // A panic of the thread was reported when it happened.
            let _ = join.join();
        }
    }
}
