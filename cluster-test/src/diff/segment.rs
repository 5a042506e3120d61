//! One segment: two fresh members, asked the same in the same order, until all steps are done or something differs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::answer::Answer;
use super::call::{Call, STREAMS};
use super::explained::{Explained, Subject, explain};
use super::generate::{Known, is_lost_by_compaction, step};
use super::side::{Settled, Side};
use super::streams::Told;
use crate::cluster::{Member, Options};

/// All watchers are asked for after so many steps at the latest.
const SETTLE_EVERY_STEPS: usize = 50;
/// What watchers were told differs only when it still does after this time.
const UNEQUAL_FOR: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_millis(30);

/// The two members of a segment.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) theirs: Member,
    pub(super) ours: Member,
}

impl Pair {
    /// A lease lives for two seconds at least with these elections.
    pub(super) fn start(theirs: &Path, ours: &Path, our_flags: &[String]) -> Result<Self> {
        let options = Options::with_args(&["--heartbeat-interval=70", "--election-timeout=700"]).without_disk();
        let theirs = theirs.to_owned();
        let etcd = {
            let options = options.clone();
            std::thread::spawn(move || Member::start(&theirs, &options))
        };
        let our_options = our_flags.iter().fold(options, |options, flag| options.and(flag));
        let ours = Member::start(ours, &our_options).context("start our server")?;
        Ok(Self { theirs: etcd.join().expect("it does not panic").context("start etcd")?, ours })
    }
}

/// Something that is not the same and has no explanation.
#[derive(Clone, Debug)]
pub struct Difference {
    pub step: usize,
    /// Of the request, or what else was compared.
    pub kind: &'static str,
    pub what: String,
    pub theirs: String,
    pub ours: String,
}

/// How often, and how often it was refused by a gRPC code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub times: u64,
    pub refused: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By kind.
    pub requests: BTreeMap<&'static str, Asked>,
    pub events: u64,
    pub hashes: u64,
    pub revision: i64,
    /// Explained differences by name.
    pub explained: BTreeMap<&'static str, u64>,
    pub difference: Option<Difference>,
    /// Requests and etcd's answers, if asked for.
    pub script: Vec<(String, String)>,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Self) {
        for (kind, more) in &other.requests {
            let asked = self.requests.entry(kind).or_default();
            asked.times += more.times;
            asked.refused += more.refused;
        }
        for (name, count) in &other.explained {
            *self.explained.entry(name).or_default() += count;
        }
        self.events += other.events;
        self.hashes += other.hashes;
        self.revision += other.revision;
    }

    pub fn total(&self) -> u64 {
        self.requests.values().map(|asked| asked.times).sum()
    }

    pub fn refused(&self) -> u64 {
        self.requests.values().map(|asked| asked.refused).sum()
    }
}

/// Runs the given steps of the segment, in order.
pub(super) async fn run(pair: &Pair, seed: u64, steps: &[usize], keep_script: bool) -> Result<Outcome> {
    let urls = (pair.theirs.url(), pair.ours.url());
    let (theirs, ours) = tokio::try_join!(Side::connect(&urls.0), Side::connect(&urls.1))?;
    let mut run = Run {
        theirs,
        ours,
        known: Known { revision: 1, compacted: 0 },
        behind: false,
        keep_script,
        compactions: Vec::new(),
        fatal_compactions: BTreeSet::new(),
        outcome: Outcome::default(),
    };
    for &index in steps {
        for call in step(seed, index, run.known) {
            run.one(index, &call).await?;
        }
        if run.outcome.difference.is_none() && index % SETTLE_EVERY_STEPS == SETTLE_EVERY_STEPS - 1 {
            run.settle(index).await?;
        }
        if run.outcome.difference.is_some() {
            break;
        }
    }
    if run.outcome.difference.is_none() {
        run.settle(steps.last().copied().unwrap_or_default()).await?;
    }
    run.outcome.events = run.theirs.streams.iter().map(|stream| stream.events).sum();
    run.outcome.revision = run.known.revision;
    Ok(run.outcome)
}

struct Run {
    theirs: Side,
    ours: Side,
    known: Known,
    /// Whether watchers may have begun at an earlier revision since the last time that all were asked.
    behind: bool,
    keep_script: bool,
    compactions: Vec<i64>,
    /// Revisions that etcd must not be asked to compact to.
    fatal_compactions: BTreeSet<i64>,
    outcome: Outcome,
}

impl Run {
    async fn one(&mut self, step: usize, call: &Call) -> Result<()> {
        if matches!(call, Call::Compact(request) if self.fatal_compactions.contains(&request.revision)) {
            return Ok(());
        }
        if call.needs_quiet() {
            self.settle(step).await?;
        }
        if self.outcome.difference.is_some() {
            return Ok(());
        }
        let (theirs, ours) = tokio::join!(self.theirs.send(call), self.ours.send(call));
        let asked = self.outcome.requests.entry(call.kind()).or_default();
        asked.times += 1;
        asked.refused += u64::from(theirs.refused);
        self.outcome.hashes += u64::from(matches!(call, Call::HashKv(_)) && !theirs.refused);
        if self.keep_script {
            self.outcome.script.push((call.to_string(), theirs.text.clone()));
        }
        self.compare(step, call, &theirs, &ours);
        self.learn(call, &theirs);
        if theirs.text.contains("transport error") && ours.text.contains("transport error") {
            bail!("neither member can be reached: {}", theirs.text);
        }
        Ok(())
    }

    fn learn(&mut self, call: &Call, theirs: &Answer) {
        if let Some(revision) = theirs.revision {
            self.known.revision = self.known.revision.max(revision);
        }
        match call {
            Call::Compact(request) if !theirs.refused => {
                self.known.compacted = request.revision;
                self.compactions.push(request.revision);
            }
            Call::Txn(request) if is_lost_by_compaction(request) => self.fatal_compactions.extend(theirs.revision),
            Call::WatchCreate(_, request) => self.behind |= request.start_revision > 0,
            _ => {}
        }
    }

    fn compare(&mut self, step: usize, call: &Call, theirs: &Answer, ours: &Answer) {
        if theirs != ours {
            let found = Difference {
                step,
                kind: call.kind(),
                what: call.to_string(),
                theirs: theirs.text.clone(),
                ours: ours.text.clone(),
            };
            let explained = explain(&Subject::Answers { call, theirs, ours, compactions: &self.compactions });
            self.differ(explained, found);
        }
    }

    fn differ(&mut self, explained: Option<&'static Explained>, found: Difference) {
        if let Some(explained) = explained {
            *self.outcome.explained.entry(explained.name).or_default() += 1;
        } else if self.outcome.difference.is_none() {
            self.outcome.difference = Some(found);
        }
    }

    /// Everything that watchers were told, and the hash of all that is stored.
    async fn settle(&mut self, step: usize) -> Result<()> {
        let behind = std::mem::take(&mut self.behind);
        let (theirs, ours) = tokio::join!(self.theirs.settle(behind), self.ours.settle(behind));
        if theirs.failure.is_some() && ours.failure.is_some() {
            bail!("wait for watchers: {theirs:?}; {ours:?}");
        }
        if theirs != ours {
            let in_words = |settled: &Settled| format!("{settled:?}");
            let found = Difference {
                step,
                kind: "state",
                what: "a put of the marker, and the hash of all that is stored".into(),
                theirs: in_words(&theirs),
                ours: in_words(&ours),
            };
            self.differ(explain(&Subject::Settled), found);
            return Ok(());
        }
        self.outcome.hashes += 1;
        self.known.revision = self.known.revision.max(theirs.marker.revision.unwrap_or_default());
        if !self.told_the_same() {
            tokio::join!(self.theirs.drain(DRAIN), self.ours.drain(DRAIN));
            let until = tokio::time::Instant::now() + UNEQUAL_FOR;
            while !self.told_the_same() && tokio::time::Instant::now() < until {
                tokio::join!(self.theirs.drain(DRAIN), self.ours.drain(DRAIN));
            }
        }
        for stream in 0..STREAMS {
            let theirs = std::mem::take(&mut self.theirs.streams[stream].told);
            let ours = std::mem::take(&mut self.ours.streams[stream].told);
            self.compare_told(step, stream, &theirs, &ours);
        }
        Ok(())
    }

    /// But for what is explained, which will not become the same.
    fn told_the_same(&self) -> bool {
        self.theirs.streams.iter().zip(&self.ours.streams).all(|(theirs, ours)| {
            let mut differing = differing(&theirs.told, &ours.told).into_iter();
            differing.all(|(watch_id, said, answered)| {
                explain(&Subject::Told { watch_id, theirs: &said, ours: &answered, owed: theirs.owed }).is_some()
            })
        })
    }

    fn compare_told(&mut self, step: usize, stream: usize, theirs: &Told, ours: &Told) {
        for (watch_id, theirs, ours) in differing(theirs, ours) {
            let owed = self.theirs.streams[stream].owed;
            let explained = explain(&Subject::Told { watch_id, theirs: &theirs, ours: &ours, owed });
            let same = theirs.iter().zip(&ours).take_while(|(theirs, ours)| theirs == ours).count();
            let found = Difference {
                step,
                kind: "watch events",
                what: format!("stream {stream}, watcher {watch_id}, from its event {same} since the last look"),
                theirs: theirs[same..].join("\n"),
                ours: ours[same..].join("\n"),
            };
            if explained.is_some() {
                // Questions that are asked again before they are answered are answered once.
                self.theirs.streams[stream].owed = false;
            }
            self.differ(explained, found);
        }
    }
}

/// What each watcher was told by both, where it is not the same.
fn differing(theirs: &Told, ours: &Told) -> Vec<(i64, Vec<String>, Vec<String>)> {
    let ids: BTreeSet<i64> = theirs.keys().chain(ours.keys()).copied().collect();
    let of = |told: &Told, id: &i64| told.get(id).cloned().unwrap_or_default();
    let both = ids.iter().filter(|id| theirs.get(id) != ours.get(id));
    both.map(|id| (*id, of(theirs, id), of(ours, id))).collect()
}
