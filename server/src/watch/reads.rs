//! How many pages of history are read at once: a few, whatever the number of streams that are behind.
//!
//! ```text
//!   10,000 streams after a snapshot ─▶ │ waiting, first come first served │ ─▶ 4 on the executor, each taking the next
//! ```
//!
//! A stream has at most one page under way, so the line is no longer than the number of streams.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::history::{Executor, Job};
use super::lock;

pub(super) struct Reads {
    executor: Arc<dyn Executor>,
    at_once: usize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Job>,
}

impl Reads {
    pub(super) fn new(executor: Arc<dyn Executor>, at_once: usize) -> Arc<Self> {
        Arc::new(Self { executor, at_once: at_once.max(1), line: Mutex::default() })
    }

    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let mut line = lock(&self.line);
        if line.running == self.at_once {
            line.waiting.push_back(job);
            return;
        }
        line.running += 1;
        drop(line);
        let reader = Reader { reads: self.clone(), finished: false };
        self.executor.run(Box::new(move || reader.run(job)));
    }

    fn next(&self) -> Option<Job> {
        let mut line = lock(&self.line);
        let next = line.waiting.pop_front();
        if next.is_none() {
            line.running -= 1;
            line.waiting = VecDeque::new();
        }
        next
    }
}

/// One of the few.
struct Reader {
    reads: Arc<Reads>,
    finished: bool,
}

impl Reader {
    fn run(mut self, job: Job) {
        let mut job = Some(job);
        while let Some(some) = job {
            some();
            job = self.reads.next();
        }
        self.finished = true;
    }
}

impl Drop for Reader {
    /// Thrown away by the executor, or a job panicked: nobody may wait for it. Their streams end, and say so.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut line = lock(&self.reads.line);
        line.running -= 1;
        let waiting = std::mem::take(&mut line.waiting);
        drop(line);
        drop(waiting);
    }
}
