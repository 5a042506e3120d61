//! Calls of the disk that fail, one in each round: the member ends at once, answers nothing more, and has lost nothing.
//!
//! ```text
//!  proof that the cut cuts and the fault fails ─▶ round ─▶ round ...
//!
//!  round   start ─▶ check ─▶ load ─▶ strace makes the k-th call of the log's or the engine's threads fail
//!          ─▶ the member ends with an error ─▶ cut the power (what was not synced is gone) ─▶ start ...   (see `interrupt`)
//!          before one round in three: a start under strace, in which the k-th call fails
//! ```
//!
//! The cut is what makes a failed sync count: without it the kernel would still have the bytes, and an answer given in spite
//! of the failure would never be found out. Left out: a disk that is really full, slow calls, and reads that fail under load.

mod trace;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::cluster::{Member, Options};
use crate::interrupt::load::Clock;
use crate::interrupt::{self, Interruption, Operation, Outcome, Plan, RunOptions, Summary};
use crate::machine::disk::{Cut, Disk};
use crate::machine::proof;
use trace::{Attached, Fault, Injected, injected};

/// Until the call that is to fail is made, under load.
const FAULT_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug)]
pub struct FaultOptions {
    /// Each kind of call fails the first time, the second time, and so on up to this.
    pub calls: u32,
    pub clients: usize,
    pub seed: u64,
    /// From the fault to the end of the process.
    pub end_within: Duration,
}

/// What was done and seen.
#[derive(Clone, Debug, Default)]
pub struct FaultSummary {
    pub rounds: Summary,
    pub in_log: usize,
    pub in_state: usize,
    pub while_starting: usize,
    /// Faults while starting that a member may survive: a file that could not be made ahead of need, or removed.
    pub survived: usize,
    /// Starts that made fewer calls than were to be counted.
    pub not_reached: usize,
    /// From the fault to the end of the process.
    pub longest: Duration,
}

/// Runs the whole. An error that is [`crate::machine::NotRun`] says what the machine lacks.
pub fn run(program: &Path, options: FaultOptions, progress: &mut dyn FnMut(&Summary)) -> Result<FaultSummary> {
    let directory = tempfile::Builder::new().prefix("quorate-test-").tempdir().context("make a directory")?;
    let mut disk = Disk::new(directory.path(), "disk")?;
    proof::cut_loses_what_was_not_synced(&mut disk).context("prove that a cut of the disk cuts")?;
    trace::proved(directory.path()).context("prove that a fault fails")?;
    let targets = targets(options.calls);
    let mut faults = Faults {
        disk,
        directory,
        options,
        targets,
        next: 0,
        starting: None,
        seen: FaultSummary::default(),
        last: None,
    };
    // Those while starting come on top.
    let interruptions = faults.targets.len() + faults.targets.len().div_ceil(START_ONE_IN);
    let run = RunOptions { interruptions, clients: options.clients, seed: options.seed };
    let mut member = Member::prepare(program, &Options::default())?;
    let rounds = interrupt::run(&mut member, &mut faults, run, progress)?;
    member.kill();
    Ok(FaultSummary { rounds, ..faults.seen.clone() })
}

/// Before one round in so many a call fails while the member starts.
const START_ONE_IN: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Log,
    State,
}

impl Part {
    /// As its threads are named.
    fn threads(self) -> &'static [&'static str] {
        match self {
            Self::Log => &["raft-log"],
            Self::State => &["rocksdb:"],
        }
    }
}

fn targets(calls: u32) -> Vec<(Part, Fault)> {
    let kinds = [
        (Part::Log, "fdatasync", "EIO"),
        (Part::Log, "pwrite64", "EIO"),
        (Part::Log, "pwrite64", "ENOSPC"),
        (Part::State, "fdatasync", "EIO"),
        (Part::State, "write", "EIO"),
        (Part::State, "write", "ENOSPC"),
        (Part::State, "openat", "ENOSPC"),
    ];
    let of = |nth: u32| {
        kinds.map(|(part, call, error)| {
            // A full disk stays full. And the engine writes its own report, too, where a failure does not matter.
            let from_there_on = error == "ENOSPC" || call == "write";
            (part, Fault { call, error, nth, from_there_on })
        })
    };
    (1..=calls).flat_map(of).collect()
}

/// Calls of a start: of opening, recovery and the first writes.
fn fault_of_start(random: &mut StdRng) -> Fault {
    let kinds = [
        ("fdatasync", "EIO", 1..30),
        ("fsync", "EIO", 1..6),
        ("pwrite64", "EIO", 1..4),
        ("pread64", "EIO", 1..30),
        ("rename", "EIO", 1..4),
        // The first ones load the program.
        ("openat", "EIO", 8..60),
        ("openat", "ENOSPC", 8..60),
    ];
    let (call, error, nth) = kinds[random.random_range(0..kinds.len())].clone();
    Fault { call, error, nth: random.random_range(nth), from_there_on: error == "ENOSPC" }
}

struct Faults {
    // In order of dropping: unmounted before the directory is removed.
    disk: Disk,
    directory: TempDir,
    options: FaultOptions,
    targets: Vec<(Part, Fault)>,
    next: usize,
    starting: Option<Fault>,
    seen: FaultSummary,
    /// Of the round that has just ended.
    last: Option<(Part, Injected)>,
}

impl Faults {
    fn trace(&self) -> PathBuf {
        self.directory.path().join("trace")
    }

    fn found(&self) -> Option<Injected> {
        injected(&self.trace(), self.disk.path()).into_iter().next()
    }

    /// The end that must follow.
    fn wait_end(&mut self, member: &mut Member, fault: &Fault, injected: &Injected) -> Result<()> {
        let left = (injected.at + self.options.end_within).duration_since(SystemTime::now()).unwrap_or_default();
        let ended = member.wait_end(left.max(POLL));
        let status = ended.with_context(|| format!("wait for the end after {fault:?} in {}", injected.call))?;
        let took = SystemTime::now().duration_since(injected.at).unwrap_or_default();
        ensure!(!status.success(), "the member ended with {status} after {fault:?} in {}", injected.call);
        self.seen.longest = self.seen.longest.max(took);
        Ok(())
    }

    fn under_load(&mut self, member: &mut Member) -> Result<()> {
        let (part, fault) = self.targets[self.next].clone();
        self.next += 1;
        let mut strace = Attached::to(member.pid()?, part.threads(), &fault, &self.trace())?;
        let until = Instant::now() + FAULT_WITHIN;
        let injected = loop {
            if let Some(injected) = self.found() {
                break injected;
            }
            // Strace writes what it has when the member is gone, at the latest.
            if !member.is_running()? || strace.ended()? {
                match self.found() {
                    Some(injected) => break injected,
                    None => bail!("member or strace ended before {fault:?} in {part:?}"),
                }
            }
            ensure!(
                Instant::now() < until,
                "no {fault:?} in {part:?} within {FAULT_WITHIN:?}: the load does not reach it"
            );
            thread::sleep(POLL);
        };
        self.wait_end(member, &fault, &injected)?;
        match part {
            Part::Log => self.seen.in_log += 1,
            Part::State => self.seen.in_state += 1,
        }
        self.last = Some((part, injected));
        Ok(())
    }

    fn while_starting(&mut self, member: &mut Member) -> Result<()> {
        let fault = self.starting.take().context("find the fault of this start")?;
        let until = Instant::now() + FAULT_WITHIN;
        loop {
            if !member.is_running()? && self.found().is_none() {
                // It failed on something else, a library for example.
                self.seen.not_reached += 1;
                return Ok(());
            }
            if member.is_ready()? && self.found().is_none() {
                self.seen.not_reached += 1;
                return Ok(());
            }
            if let Some(injected) = self.found() {
                let may_survive = matches!(fault.call, "openat") || injected.call.contains("next.tmp");
                match self.wait_end(member, &fault, &injected) {
                    Err(_) if may_survive && member.is_running()? => {
                        self.seen.survived += 1;
                        return Ok(());
                    }
                    ended => ended?,
                }
                break;
            }
            ensure!(Instant::now() < until, "the start with {fault:?} neither fails nor ends within {FAULT_WITHIN:?}");
            thread::sleep(POLL);
        }
        self.seen.while_starting += 1;
        Ok(())
    }
}

impl Interruption for Faults {
    fn name(&self) -> &'static str {
        "fault"
    }

    fn plan(&mut self, random: &mut StdRng) -> Plan {
        let mut options = Options::quick().and("--snapshot-count=5").and("--snapshot-catchup-entries=1");
        options.data_dir = Some(self.disk.path().join("data"));
        self.starting = self.next.is_multiple_of(START_ONE_IN).then(|| fault_of_start(random));
        let through = self.starting.as_ref().map(|fault| fault.through(&self.trace()));
        Plan {
            interrupt_first: through.map(|through| Options { through, ..options.clone() }),
            options,
            value_bytes: 0..200,
            load_for_ms: 10..50,
            compact: random.random_range(0..5) == 0,
        }
    }

    fn interrupt(&mut self, member: &mut Member, _: &mut StdRng, loaded: bool) -> Result<()> {
        if loaded {
            self.under_load(member)?
        } else {
            self.while_starting(member)?
        }
        // First the power, then the process: what it would do in between has no effect.
        self.disk.cut(Cut::Hard).context("cut the disk")?;
        member.kill();
        let _ = std::fs::remove_file(self.trace());
        self.disk.remount()
    }

    /// A write that came after its log had failed cannot have been made durable, so nobody may have been told that it was.
    fn look_at(&mut self, operations: &mut [Operation], clock: &Clock) -> Result<()> {
        let Some((Part::Log, injected)) = self.last.take() else { return Ok(()) };
        let failed_at = clock.at(injected.at);
        let told = operations.iter().find(|operation| {
            matches!(operation.outcome, Outcome::Acknowledged { worked: true, .. }) && operation.invoked > failed_at
        });
        ensure!(told.is_none(), "acknowledged though it was asked for after the log had failed: {told:?}");
        Ok(())
    }
}
