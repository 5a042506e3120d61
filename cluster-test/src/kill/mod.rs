//! Kill -9 under load, again and again: nothing acknowledged may be lost, and nothing invented.
//!
//! ```text
//!  start ─▶ check: history since the last check, contents, revision, HashKV ─▶ load for a while ─▶ kill -9 ─▶ start ...
//!
//!  load     clients, each with a connection: puts, deletes, guarded txns, leases; what became of each is noted
//!  check    the model: operations against history, in the order of revisions
//!  hashkv   what etcd's HashKV must be, from the model alone
//! ```
//!
//! Operations that were under way at the kill have an unknown outcome; history tells, since every value is written once.
//! Works on real etcd as well, which is how the checker itself is held to be right.

pub mod check;
pub mod hashkv;
pub mod history;
pub mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Member, Options};
use check::Model;
use load::Clock;

pub use check::{Change, Effect, Operation, Outcome};

#[derive(Clone, Copy, Debug)]
pub struct KillOptions {
    pub kills: usize,
    pub clients: usize,
    pub seed: u64,
}

/// What was done and seen.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub kills: usize,
    /// Of these, before the member served.
    pub kills_while_starting: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    /// Unknown ones that turned out to have happened.
    pub unknown_happened: usize,
    pub revision: i64,
    pub restarts: Vec<Duration>,
}

const LOAD_FOR_MS: std::ops::Range<u64> = 30..400;
/// One kill in so many comes while the member still starts.
const EARLY_KILL_ONE_IN: u32 = 8;
/// One round in so many compacts, up to what has been checked.
const COMPACT_ONE_IN: u32 = 5;

/// Runs the whole; `progress` is told after each round.
pub fn run(program: &Path, options: KillOptions, progress: &mut dyn FnMut(&Summary)) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut random = StdRng::seed_from_u64(options.seed);
    // A flush of the state every few hundred entries: replay, purge and flush all happen within a run.
    let flags = Options::quick().and("--snapshot-count=300").and("--snapshot-catchup-entries=100");
    let mut member = Member::start(program, &flags)?;
    let (mut model, mut summary, clock) = (Model::default(), Summary::default(), Clock::start());
    loop {
        let endpoint = member.url();
        let checked = runtime.block_on(check_round(&endpoint, &mut model, &mut summary));
        checked
            .with_context(|| format!("after kill {} (seed {}): {}", summary.kills, options.seed, member.log_tail()))?;
        progress(&summary);
        if summary.kills >= options.kills {
            return Ok(summary);
        }
        let compact = random.random_range(0..COMPACT_ONE_IN) == 0;
        let rounds = load::start(
            &runtime,
            &endpoint,
            options.clients,
            random.random(),
            &clock,
            compact.then_some(model.revision),
        );
        std::thread::sleep(Duration::from_millis(random.random_range(LOAD_FOR_MS)));
        member.kill();
        summary.kills += 1;
        let operations = runtime.block_on(rounds.finish());
        summary.acknowledged +=
            operations.iter().filter(|op| matches!(op.outcome, Outcome::Acknowledged { .. })).count();
        summary.unknown += operations.iter().filter(|op| op.outcome == Outcome::Unknown).count();
        model.invoked(operations);

        if random.random_range(0..EARLY_KILL_ONE_IN) == 0 {
            member.spawn()?;
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            member.kill();
            summary.kills += 1;
            summary.kills_while_starting += 1;
        }
        let started = Instant::now();
        member.restart().with_context(|| format!("restart after kill {} (seed {})", summary.kills, options.seed))?;
        summary.restarts.push(started.elapsed());
    }
}

async fn connect(endpoint: &str) -> Result<Channel> {
    Endpoint::from_shared(endpoint.to_owned())?.connect().await.context("connect to the member")
}

/// Reads what happened since the last check and holds it against what was asked.
async fn check_round(endpoint: &str, model: &mut Model, summary: &mut Summary) -> Result<()> {
    let channel = connect(endpoint).await?;
    let now = history::contents(&channel).await?;
    if now.revision < model.revision {
        bail!("the revision went back: {} was seen before, now it is {}", model.revision, now.revision);
    }
    let changes = history::since(&channel, model.revision + 1, now.revision).await?;
    summary.unknown_happened += model.check(&changes).context("hold history against what was asked")?;
    model.check_contents(&now.kvs)?;
    let hash = history::hash_kv(&channel, now.revision).await?;
    if model.compacted_acknowledged > 0 && hash.compact_revision < model.compacted_acknowledged {
        bail!("compaction at {} was acknowledged, now it is {}", model.compacted_acknowledged, hash.compact_revision);
    }
    let wanted = hashkv::hash(&model.history, hash.compact_revision, now.revision);
    if hash.hash != wanted {
        bail!("HashKV at {} is {:08x}, the model's is {wanted:08x}", now.revision, hash.hash);
    }
    summary.revision = now.revision;
    Ok(())
}
