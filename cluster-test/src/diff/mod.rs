//! The same random requests, right and wrong, to real etcd and to ours: every answer, error and watch event has to be the same.
//!
//! ```text
//!  seed ─▶ segments, each with a seed of its own and two fresh members
//!             generate ─▶ call ─┬─▶ side: etcd ─▶ answer ─┐
//!                               └─▶ side: ours ─▶ answer ─┴─▶ same, once masked? ─▶ explained? ─▶ difference
//!             streams  what watchers were told, compared by watcher whenever all is quiet
//!          shrink: the segment's steps again, with some left out, on fresh members, as long as they still differ
//! ```
//!
//! Requests are sent one after the other, so that both servers see the same order; what two requests at once do to each other is
//! the business of `kill`. Masked are names, terms and clocks (mask.rs); revisions are compared everywhere.
//!
//! Left out: users and roles, members, snapshots, locks and elections; how events are cut into messages; requests that end
//! etcd 3.7.3 for good (generate/txn.rs, and an alarm of unknown action).

mod answer;
mod call;
mod explained;
mod generate;
mod mask;
mod report;
mod segment;
mod shrink;
mod side;
mod streams;
mod ties;

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use generate::segment_seed;
use segment::Pair;

pub use report::{describe_finding, describe_summary};
pub use segment::{Asked, Difference, Outcome};

#[derive(Clone, Debug)]
pub struct DiffOptions {
    pub seed: u64,
    pub requests: u64,
    /// Only this one, to see a difference again.
    pub segment: Option<u64>,
    pub segment_steps: usize,
    /// After so many differences a run ends.
    pub differences_max: usize,
    pub shrink_for: Duration,
    /// Further flags for our server alone: what makes it another one has to be found.
    pub our_flags: Vec<String>,
}

impl DiffOptions {
    pub fn new(seed: u64, requests: u64) -> Self {
        Self {
            seed,
            requests,
            segment: None,
            segment_steps: 2_500,
            differences_max: 3,
            shrink_for: Duration::from_secs(120),
            our_flags: Vec::new(),
        }
    }
}

/// A difference, and how to see it again.
#[derive(Clone, Debug)]
pub struct Finding {
    pub segment: u64,
    pub segment_seed: u64,
    pub difference: Difference,
    /// Steps up to the difference, and how many of them are needed.
    pub steps: usize,
    pub steps_needed: usize,
    /// The requests of these, with etcd's answers; and the difference that they end in.
    pub script: Vec<(String, String)>,
    pub shrunk_difference: Difference,
    pub logs: String,
}

#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub segments: u64,
    pub total: Outcome,
    pub findings: Vec<Finding>,
}

/// Runs the whole; `progress` is told after each segment.
pub fn run(theirs: &Path, ours: &Path, options: &DiffOptions, progress: &mut dyn FnMut(&Summary)) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    let mut programs = Programs::new(theirs, ours, options);
    let mut summary = Summary::default();
    let mut segment = options.segment.unwrap_or_default();
    let mut requests_left = options.requests;
    while requests_left > 0 && summary.findings.len() < options.differences_max {
        let pair = programs.pair()?;
        let steps = options.segment_steps.min(usize::try_from(requests_left).unwrap_or(usize::MAX));
        let more = options.segment.is_none() && requests_left > steps as u64;
        if more {
            programs.prepare();
        }
        let seed = segment_seed(options.seed, segment);
        let all: Vec<usize> = (0..steps).collect();
        let outcome = runtime.block_on(segment::run(&pair, seed, &all, false)).with_context(|| {
            format!(
                "segment {segment} of seed {}\netcd {}\nours {}",
                options.seed,
                pair.theirs.log_tail(),
                pair.ours.log_tail()
            )
        })?;
        requests_left = if more { requests_left.saturating_sub(outcome.total().max(1)) } else { 0 };
        summary.segments += 1;
        summary.total.add(&outcome);
        if let Some(difference) = outcome.difference {
            let logs = logs_of_the_dead(pair);
            let found = Found { segment, seed, difference, logs };
            summary.findings.push(found.shrink(&runtime, &mut programs, options.shrink_for)?);
        }
        progress(&summary);
        segment += 1;
    }
    Ok(summary)
}

/// A member that is gone says why in its last lines.
fn logs_of_the_dead(mut pair: Pair) -> String {
    let mut logs = String::new();
    for (name, member) in [("etcd", &mut pair.theirs), ("ours", &mut pair.ours)] {
        if !member.is_running().unwrap_or(false) {
            logs.push_str(&format!("{name} has ended\n{}\n", member.log_tail()));
        }
    }
    logs
}

/// Pairs of fresh members; the next one starts while this one is asked.
struct Programs {
    theirs: PathBuf,
    ours: PathBuf,
    our_flags: Vec<String>,
    next: Option<JoinHandle<Result<Pair>>>,
}

impl Programs {
    fn new(theirs: &Path, ours: &Path, options: &DiffOptions) -> Self {
        Self { theirs: theirs.to_owned(), ours: ours.to_owned(), our_flags: options.our_flags.clone(), next: None }
    }

    fn prepare(&mut self) {
        let (theirs, ours, our_flags) = (self.theirs.clone(), self.ours.clone(), self.our_flags.clone());
        self.next = Some(thread::spawn(move || Pair::start(&theirs, &ours, &our_flags)));
    }

    fn pair(&mut self) -> Result<Pair> {
        match self.next.take() {
            Some(starting) => starting.join().expect("it does not panic"),
            None => Pair::start(&self.theirs, &self.ours, &self.our_flags),
        }
    }
}

struct Found {
    segment: u64,
    seed: u64,
    difference: Difference,
    logs: String,
}

impl Found {
    fn shrink(self, runtime: &Runtime, programs: &mut Programs, within: Duration) -> Result<Finding> {
        let steps: Vec<usize> = (0..=self.difference.step).collect();
        let count = steps.len();
        let mut shortest = None;
        let mut replay = |steps: &[usize]| -> Result<bool> {
            let pair = programs.pair()?;
            programs.prepare();
            // Members that both die of it are no answer either.
            let Ok(outcome) = runtime.block_on(segment::run(&pair, self.seed, steps, true)) else { return Ok(false) };
            // Another difference is another finding.
            let differs = outcome.difference.as_ref().is_some_and(|found| found.kind == self.difference.kind);
            if differs {
                shortest = Some(outcome);
            }
            Ok(differs)
        };
        let left = shrink::shrink(steps, Instant::now() + within, &mut replay)?;
        if left.len() == count {
            // Nothing could be left out: once more for the script.
            replay(&left)?;
        }
        let (script, shrunk) =
            shortest.map_or_else(Default::default, |outcome: Outcome| (outcome.script, outcome.difference));
        Ok(Finding {
            segment: self.segment,
            segment_seed: self.seed,
            shrunk_difference: shrunk.unwrap_or_else(|| self.difference.clone()),
            difference: self.difference,
            steps: count,
            steps_needed: left.len(),
            script,
            logs: self.logs,
        })
    }
}
