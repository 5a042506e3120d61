//! A member under load that is interrupted, again and again: nothing acknowledged may be lost, and nothing invented.
//!
//! ```text
//!  start ─▶ check: history since the last check, contents, revision, HashKV ─▶ load for a while ─▶ interrupt ─▶ start ...
//!
//!  load     clients, each with a connection: puts, deletes, guarded txns, leases; what became of each is noted
//!  check    the model: operations against history, in the order of revisions
//!  hashkv   what etcd's HashKV must be, from the model alone
//! ```
//!
//! Operations that were under way at the interruption have an unknown outcome; history tells, since every value is written
//! once. What an interruption is stands elsewhere: `kill`, `power_cut`, `disk_fault`.

pub mod check;
pub mod hashkv;
pub mod history;
pub mod load;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Member, Options};
use check::Model;
use load::Load;

pub use check::{Change, Effect, Operation, Outcome};
pub use load::Clock;

#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    pub interruptions: usize,
    pub clients: usize,
    pub seed: u64,
}

/// One start of the member, the load on it, and its end.
#[derive(Clone, Debug)]
pub struct Plan {
    pub options: Options,
    /// Length of the values; they are never shorter than what tells them apart.
    pub value_bytes: Range<usize>,
    pub load_for_ms: Range<u64>,
    /// Compact first, up to what has been checked.
    pub compact: bool,
    /// Before it, a start with these that is interrupted before the member serves.
    pub interrupt_first: Option<Options>,
}

/// What ends the member.
pub trait Interruption {
    /// As errors call it.
    fn name(&self) -> &'static str;

    fn plan(&mut self, random: &mut StdRng) -> Plan;

    /// On return the member is gone, and can be started again. `loaded`: clients are writing.
    fn interrupt(&mut self, member: &mut Member, random: &mut StdRng, loaded: bool) -> Result<()>;

    /// What became of the load that it interrupted.
    fn look_at(&mut self, _operations: &mut [Operation], _clock: &Clock) -> Result<()> {
        Ok(())
    }
}

/// What was done and seen.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub interruptions: usize,
    /// Of these, before the member served.
    pub while_starting: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    /// Unknown ones that turned out to have happened.
    pub unknown_happened: usize,
    pub revision: i64,
    /// How long each took to be ready.
    pub starts: Vec<Duration>,
}

impl Summary {
    /// Of this and then the other run.
    #[must_use]
    pub fn and(mut self, then: &Self) -> Self {
        self.interruptions += then.interruptions;
        self.while_starting += then.while_starting;
        self.acknowledged += then.acknowledged;
        self.unknown += then.unknown;
        self.unknown_happened += then.unknown_happened;
        self.revision += then.revision;
        self.starts.extend_from_slice(&then.starts);
        self
    }
}

/// Within so many milliseconds of its start a member is interrupted that is not to serve.
const EARLY_MS: Range<u64> = 0..100;

/// Runs the whole on a member that has not been started yet; `progress` is told after each round.
pub fn run(
    member: &mut Member,
    interruption: &mut dyn Interruption,
    options: RunOptions,
    progress: &mut dyn FnMut(&Summary),
) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let (mut model, mut summary, clock) = (Model::default(), Summary::default(), Clock::start());
    let name = interruption.name();
    let after = |summary: &Summary| format!("after {name} {} (seed {})", summary.interruptions, options.seed);
    loop {
        let plan = interruption.plan(&mut random);
        if let Some(first) = plan.interrupt_first
            && summary.interruptions < options.interruptions
        {
            member.set_options(&first);
            member.spawn()?;
            std::thread::sleep(Duration::from_millis(random.random_range(EARLY_MS)));
            let interrupted = interruption.interrupt(member, &mut random, false);
            summary.interruptions += 1;
            summary.while_starting += 1;
            interrupted.map_err(|error| anyhow!("{}: {error:#}\n{}", after(&summary), member.log_tail()))?;
        }
        member.set_options(&plan.options);
        let started = Instant::now();
        member.restart().with_context(|| format!("start {}", after(&summary)))?;
        summary.starts.push(started.elapsed());

        let checked = runtime.block_on(check_round(&member.url(), &mut model, &mut summary));
        checked.map_err(|error| {
            let found = load::shortened(&format!("{error:#}"));
            anyhow!("{}: {found}\n{}", after(&summary), member.log_tail())
        })?;
        progress(&summary);
        if summary.interruptions >= options.interruptions {
            return Ok(summary);
        }
        let load = Load {
            clients: options.clients,
            seed: random.random(),
            value_bytes: plan.value_bytes.clone(),
            compact_at: plan.compact.then_some(model.revision),
        };
        let round = load::start(&runtime, &member.url(), &load, &clock);
        std::thread::sleep(Duration::from_millis(random.random_range(plan.load_for_ms.clone())));
        let interrupted = interruption.interrupt(member, &mut random, true);
        summary.interruptions += 1;
        interrupted.map_err(|error| anyhow!("{}: {error:#}\n{}", after(&summary), member.log_tail()))?;
        let mut operations = runtime.block_on(round.finish());
        let seen = interruption.look_at(&mut operations, &clock);
        seen.map_err(|error| anyhow!("{}: {error:#}\n{}", after(&summary), member.log_tail()))?;
        summary.acknowledged +=
            operations.iter().filter(|op| matches!(op.outcome, Outcome::Acknowledged { .. })).count();
        summary.unknown += operations.iter().filter(|op| op.outcome == Outcome::Unknown).count();
        model.invoked(operations);
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
    summary.unknown_happened += model.check(changes).context("hold history against what was asked")?;
    model.check_contents(&now.kvs)?;
    let hash = history::hash_kv(&channel, now.revision).await?;
    if model.compacted_acknowledged > 0 && hash.compact_revision < model.compacted_acknowledged {
        bail!("compaction at {} was acknowledged, now it is {}", model.compacted_acknowledged, hash.compact_revision);
    }
    model.forget(hash.compact_revision);
    let wanted = hashkv::hash(&model.history, hash.compact_revision, now.revision);
    if hash.hash != wanted {
        bail!("HashKV at {} is {:08x}, the model's is {wanted:08x}", now.revision, hash.hash);
    }
    summary.revision = now.revision;
    Ok(())
}
