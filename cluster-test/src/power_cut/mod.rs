//! Power cuts under load, again and again: nothing acknowledged may be lost, and the member starts every time.
//!
//! ```text
//!  proof that the cut cuts ─▶ life ─▶ life ─▶ ...
//!
//!  life    a new member on new directories; half of the lives have the Raft log on a disk of its own
//!  round   start ─▶ check ─▶ load ─▶ cut the disk ─▶ kill ─▶ unmount, mount (journal recovery) ─▶ start ...   (see `interrupt`)
//! ```
//!
//! What varies from round to round: how often the state is flushed and the log purged, the length of values (long ones
//! make segments roll and memtables fill), whether the journal of the file system is written before the cut, which of two
//! disks is cut, cuts while the member starts or founds its cluster, and whether the process is killed at once or must notice
//! by itself that its disk is gone (and then answer nothing and end with an error). Left out: see `machine/disk`.
//!
//! An answer that comes after the cut has begun is one that a loss of power would have taken too: its write may be there or not.
//! (ext4 that is shut down under a sync says that it succeeded, and does not convert the extents just written: Linux 6.18.)

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::cluster::{Member, Options};
use crate::interrupt::{self, Clock, Interruption, Operation, Outcome, Plan, RunOptions, Summary};
use crate::machine::disk::{Cut, Disk};
use crate::machine::proof;

/// Cuts between two foundings of a cluster; it bounds what the model must remember, too.
const CUTS_PER_LIFE_MAX: usize = 25;
/// A member whose disk is gone ends at once; this is only a guard against one that hangs.
const END_WITHIN: Duration = Duration::from_secs(20);

/// What was done and seen beside the summary of interruptions.
#[derive(Clone, Debug, Default)]
pub struct CutSummary {
    pub rounds: Summary,
    /// Cuts of one of two disks.
    pub one_of_two: usize,
    /// Cuts after which the member was left to notice, and ended by itself.
    pub noticed: usize,
    /// Answers that came when the cut had begun.
    pub late: usize,
    /// Rolls to another segment of the log, and table files of the state, at least: as their numbers tell.
    pub rolls: u64,
    pub tables: u64,
}

/// Runs the whole. An error that is [`crate::machine::NotRun`] says what the machine lacks. `flags` go to every member.
pub fn run(
    program: &Path,
    options: RunOptions,
    flags: &[String],
    progress: &mut dyn FnMut(&Summary),
) -> Result<CutSummary> {
    let directory = tempfile::Builder::new().prefix("quorate-test-").tempdir().context("make a directory")?;
    let mut machine = Machine {
        disks: [Disk::new(directory.path(), "state")?, Disk::new(directory.path(), "log")?],
        _directory: directory,
        flags: flags.to_vec(),
        life: 0,
        round: 0,
        seen: CutSummary::default(),
        last: None,
    };
    for disk in &mut machine.disks {
        proof::cut_loses_what_was_not_synced(disk).context("prove that a cut of the disk cuts")?;
    }
    let mut total = Summary::default();
    // Two at least, so that each kind has its turn.
    let per_life = CUTS_PER_LIFE_MAX.min(options.interruptions.div_ceil(2));
    while total.interruptions < options.interruptions {
        let interruptions = per_life.min(options.interruptions - total.interruptions);
        let seed = options.seed.wrapping_add(machine.life);
        let mut member = Member::prepare(program, &Options::default())?;
        let mut tell = |life: &Summary| progress(&total.clone().and(life));
        let life = interrupt::run(&mut member, &mut machine, RunOptions { interruptions, seed, ..options }, &mut tell)
            .with_context(|| format!("life {} of seed {}", machine.life, options.seed))?;
        member.kill();
        machine.end_life()?;
        total = total.and(&life);
    }
    Ok(CutSummary { rounds: total, ..machine.seen.clone() })
}

/// Disks, and the member that lives on them.
struct Machine {
    // In order of dropping: unmounted before the directory is removed.
    disks: [Disk; 2],
    _directory: TempDir,
    flags: Vec<String>,
    life: u64,
    round: u64,
    seen: CutSummary,
    /// When the last cut began and had been made, and whether the log was cut.
    last: Option<(SystemTime, SystemTime, bool)>,
}

const STATE: usize = 0;
const LOG: usize = 1;

impl Machine {
    fn log_is_apart(&self) -> bool {
        self.life % 2 == 1
    }

    fn data_dir(&self) -> PathBuf {
        self.disks[STATE].path().join(format!("life{}", self.life))
    }

    fn wal_dir(&self) -> PathBuf {
        self.disks[LOG].path().join(format!("life{}", self.life))
    }

    fn end_life(&mut self) -> Result<()> {
        let log = if self.log_is_apart() { self.wal_dir() } else { self.data_dir().join("member/wal") };
        // The first, and one that is prepared, took no roll.
        self.seen.rolls += highest_number(&log, ".qlog").saturating_sub(2);
        self.seen.tables += highest_number(&self.data_dir().join("member/state"), ".sst");
        for directory in [self.data_dir(), self.wal_dir()] {
            if directory.exists() {
                fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
            }
        }
        self.life += 1;
        self.round = 0;
        Ok(())
    }

    /// Which disks lose their power: mostly all of them, one after the other.
    fn victims(&mut self, random: &mut StdRng) -> Vec<usize> {
        if !self.log_is_apart() {
            return vec![STATE];
        }
        let victims = match random.random_range(0..6) {
            0 | 1 => vec![STATE, LOG],
            2 | 3 => vec![LOG, STATE],
            4 => vec![LOG],
            _ => vec![STATE],
        };
        self.seen.one_of_two += usize::from(victims.len() == 1);
        victims
    }
}

impl Interruption for Machine {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn plan(&mut self, random: &mut StdRng) -> Plan {
        let round = self.round;
        self.round += 1;
        let kind = Kind::of_round(round);
        let mut options = Options::quick().and("--compaction-batch-limit=50");
        options.data_dir = Some(self.data_dir());
        if self.log_is_apart() {
            options = options.and(format!("--wal-dir={}", self.wal_dir().display()));
        }
        let (snapshot_count, catchup_entries) = kind.snapshots();
        options = options.and(format!("--snapshot-count={snapshot_count}"));
        options = options.and(format!("--snapshot-catchup-entries={catchup_entries}"));
        options.args.extend(self.flags.iter().cloned());
        // The founding of a cluster, and one start in five.
        let first = round == 0 || random.random_range(0..5) == 0;
        Plan {
            interrupt_first: first.then(|| options.clone()),
            options,
            value_bytes: kind.value_bytes(),
            load_for_ms: if kind == Kind::LongValues { 100..1_000 } else { 30..400 },
            // Also after long values, lest they fill the disk.
            compact: round > 0 && (Kind::of_round(round - 1) == Kind::LongValues || random.random_range(0..5) == 0),
        }
    }

    fn interrupt(&mut self, member: &mut Member, random: &mut StdRng, loaded: bool) -> Result<()> {
        let victims = self.victims(random);
        let how = if random.random_range(0..4) == 0 { Cut::AfterJournal } else { Cut::Hard };
        let log_is_cut = !self.log_is_apart() || victims.contains(&LOG);
        let began = SystemTime::now();
        for disk in &victims {
            self.disks[*disk].cut(how).context("cut the disk")?;
        }
        self.last = Some((began, SystemTime::now(), log_is_cut));
        if loaded && log_is_cut && random.random_range(0..2) == 0 {
            let status = member.wait_end(END_WITHIN).context("wait for the member to notice that its disk is gone")?;
            ensure!(!status.success(), "the disk was gone and the member ended with {status}");
            self.seen.noticed += 1;
        }
        member.kill();
        for disk in &mut self.disks {
            disk.remount()?;
        }
        Ok(())
    }

    fn look_at(&mut self, operations: &mut [Operation], clock: &Clock) -> Result<()> {
        let Some((began, made, log_is_cut)) = self.last.take() else { return Ok(()) };
        let (began, made) = (clock.at(began), clock.at(made));
        for operation in operations {
            let changed = matches!(operation.outcome, Outcome::Acknowledged { worked: true, .. });
            ensure!(
                !(changed && log_is_cut && operation.invoked > made),
                "acknowledged though it was asked for when the log's disk was gone: {operation:?}"
            );
            if changed && operation.completed.is_some_and(|completed| completed > began) {
                (operation.outcome, operation.completed) = (Outcome::Unknown, None);
                self.seen.late += 1;
            }
        }
        Ok(())
    }
}

/// What a round is to wear out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The state is flushed, and the log purged behind it, all the time.
    Flushes,
    /// Segments roll, memtables fill.
    LongValues,
    /// As the flags are by default: all is replayed from the log.
    Replay,
    Usual,
}

impl Kind {
    fn of_round(round: u64) -> Self {
        [Self::Flushes, Self::Usual, Self::LongValues, Self::Flushes, Self::Replay][(round % 5) as usize]
    }

    /// `--snapshot-count` and `--snapshot-catchup-entries`.
    fn snapshots(self) -> (u64, u64) {
        match self {
            Self::Flushes => (5, 1),
            Self::LongValues => (50, 10),
            Self::Usual => (300, 100),
            Self::Replay => (10_000, 5_000),
        }
    }

    fn value_bytes(self) -> std::ops::Range<usize> {
        match self {
            Self::LongValues => 100_000..1_000_000,
            Self::Flushes | Self::Usual | Self::Replay => 0..200,
        }
    }
}

/// Of files named `<number><suffix>`; 0 where there are none, as in real etcd's directories.
fn highest_number(directory: &Path, suffix: &str) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(suffix)?.parse().ok()).max().unwrap_or(0)
}
