//! The same load on real etcd and on ours, in turn, and what both answered and cost.
//!
//! ```text
//!  for each round, for each row:   etcd (fresh data) ─▶ ours (fresh data)     the other way round in every second
//!                                    └── quoratectl bench ROW --json - ──┘    medians over the rounds
//! ```
//!
//! Both run with their default flags. Other work on the machine moves rates and latencies; processor time for an operation
//! moves little. Left out: the load (`quoratectl bench`), and what a member does when it fails (`kill`).

mod load;
mod machine;
mod restart;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::cluster::{Cluster, Member, Options};
use crate::programs;
pub use load::{Figures, Load};
use machine::Machine;
use restart::Restart;
pub use table::{Line, lines, print};

/// Writes of every key: the memory of the server and its next start are measured after these.
const FILL: &str = "fill-";
/// Rows that make sense with several members only.
const OF_SEVERAL: [&str; 1] = ["put-100-leader"];

#[derive(Clone, Debug, Serialize)]
pub struct BenchOptions {
    /// All, where empty.
    pub rows: Vec<String>,
    pub rounds: usize,
    pub seconds: f64,
    pub members: usize,
    /// Further flags of `quoratectl bench`.
    pub load: Vec<String>,
}

/// Whose figures these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Etcd,
    Quorate,
}

/// One row, once, on one of the two.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub row: String,
    pub round: usize,
    pub side: Side,
    /// What `quoratectl bench` said, whole.
    pub load: Load,
    pub restart: Option<Restart>,
}

/// Everything, as it is kept.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub options: BenchOptions,
    pub etcd: Program,
    pub quorate: Program,
    pub table: Vec<Line>,
    pub runs: Vec<Run>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Program {
    pub path: PathBuf,
    pub version: String,
}

impl Program {
    fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), version: machine::version(path)? })
    }
}

/// Runs everything; `progress` is told after each run.
pub fn run(ours: &Path, options: BenchOptions, progress: &mut dyn FnMut(&Run)) -> Result<Report> {
    ensure!(options.rounds > 0, "--rounds 0: at least one");
    let rows = rows(&options)?;
    let (etcd, quorate) = (Program::new(programs::etcd()?)?, Program::new(ours)?);
    let machine = Machine::look()?;
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        for (place, row) in rows.iter().enumerate() {
            let mut sides = [(Side::Etcd, &etcd), (Side::Quorate, &quorate)];
            if (round + place) % 2 == 1 {
                sides.reverse();
            }
            for (side, program) in sides {
                let run = one(row, round, side, &program.path, &options)
                    .with_context(|| format!("measure {row} on {} (round {round})", program.path.display()))?;
                progress(&run);
                runs.push(run);
            }
        }
    }
    Ok(Report { machine, table: lines(&runs), options, etcd, quorate, runs })
}

/// Those asked for, or all that fit the number of members.
fn rows(options: &BenchOptions) -> Result<Vec<String>> {
    if !options.rows.is_empty() {
        return Ok(options.rows.clone());
    }
    let all = load::rows()?;
    Ok(all.into_iter().filter(|row| options.members > 1 || !OF_SEVERAL.contains(&row.as_str())).collect())
}

fn one(row: &str, round: usize, side: Side, program: &Path, options: &BenchOptions) -> Result<Run> {
    let mut members = start(program, options.members)?;
    let load = load::run(row, &members, options)?;
    // The rest is of one member: what it holds in memory, and how long it is away.
    let filled = row.starts_with(FILL) && load.is_clean();
    let restart = if filled { members.first_mut().map(restart::measure).transpose()? } else { None };
    Ok(Run { row: row.to_owned(), round, side, load, restart })
}

fn start(program: &Path, members: usize) -> Result<Vec<Member>> {
    match members {
        1 => Ok(vec![Member::start(program, &Options::default())?]),
        several => Ok(Cluster::start(program, several, &Options::default())?.members),
    }
}
