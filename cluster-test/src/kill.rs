//! Kill -9 under load, again and again: nothing acknowledged may be lost, and nothing invented.
//!
//! Load, checker and rounds are those of [`crate::interrupt`]. Works on real etcd as well, which is how the checker itself
//! is held to be right. Left out: what a kill cannot lose, bytes that the kernel has and the disk has not (see `power_cut`).

use std::path::Path;

use anyhow::Result;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::cluster::{Member, Options};
use crate::interrupt::{self, Interruption, Plan, RunOptions, Summary};

/// One kill in so many comes while the member still starts.
const EARLY_KILL_ONE_IN: u32 = 8;
/// One round in so many compacts, up to what has been checked.
const COMPACT_ONE_IN: u32 = 5;

/// Runs the whole; `progress` is told after each round.
pub fn run(program: &Path, options: RunOptions, progress: &mut dyn FnMut(&Summary)) -> Result<Summary> {
    let mut member = Member::prepare(program, &Options::default())?;
    interrupt::run(&mut member, &mut Kill, options, progress)
}

struct Kill;

impl Interruption for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn plan(&mut self, random: &mut StdRng) -> Plan {
        // A flush of the state every few hundred entries: replay, purge and flush all happen within a run.
        let options = Options::quick().and("--snapshot-count=300").and("--snapshot-catchup-entries=100");
        Plan {
            interrupt_first: (random.random_range(0..EARLY_KILL_ONE_IN) == 0).then(|| options.clone()),
            options,
            value_bytes: 0..1,
            load_for_ms: 30..400,
            compact: random.random_range(0..COMPACT_ONE_IN) == 0,
        }
    }

    fn interrupt(&mut self, member: &mut Member, _: &mut StdRng, _: bool) -> Result<()> {
        member.kill();
        Ok(())
    }
}
