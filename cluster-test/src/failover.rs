//! How long nobody leads: the leader of a cluster is killed, frozen, cut off or asked to stop under load, again and again.
//!
//! ```text
//!   load (puts at a steady rate, at all members in turn) ───────────────────────────────▶ what was acknowledged is there at the end
//!        leader found ─▶ gone (kill -9, SIGSTOP, SIGTERM, cut) ─▶ first success of a put sent after that ─▶ member back ─▶ again
//! ```
//!
//! At the end every acknowledged key is read back from every member, and all members answer with the same HashKV. Works on real
//! etcd, to compare.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Cluster, Options, SlowLinks};
use crate::load::{self, Load, OnFailure};

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// Its process dies (kill -9); its machine stays.
    Kill,
    /// It says nothing and its connections stay (SIGSTOP), as if its machine had gone.
    Freeze,
    /// It is asked to stop (SIGTERM).
    Stop,
    /// Nothing comes to it from other members, nor from it to them; clients go on reaching it.
    Cut,
}

#[derive(Clone, Debug)]
pub struct FailoverOptions {
    pub members: usize,
    pub tries: usize,
    pub how: How,
    /// Puts a second, over all members.
    pub rate: u32,
    /// Further flags of the members.
    pub args: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// From the leader's end to the first success of a put sent after it; sorted.
    pub gaps: Vec<Duration>,
    pub acknowledged: usize,
    /// Refused, timed out or broken off.
    pub failed: usize,
    /// Of the load's puts that survivors were asked and refused or let time out.
    pub failed_at_survivors: usize,
    /// By how much the term rose in all.
    pub terms: u64,
}

const PROBE_EVERY: Duration = Duration::from_millis(3);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(1_500);
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the whole; `progress` is told each gap.
pub fn run(program: &Path, options: &FailoverOptions, progress: &mut dyn FnMut(usize, Duration)) -> Result<Summary> {
    let flags = Options { args: options.args.clone(), ..Options::default() };
    // Relays are a detour that only what needs them should take.
    let (mut cluster, links) = match options.how {
        How::Cut => {
            Cluster::start_slow(program, options.members, &flags).map(|(cluster, links)| (cluster, Some(links)))?
        }
        How::Kill | How::Freeze | How::Stop => (Cluster::start(program, options.members, &flags)?, None),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    runtime.block_on(async {
        let channels: Vec<Channel> =
            cluster.members.iter().map(|member| channel(&member.url())).collect::<Result<_>>()?;
        let load = Load::start(cluster.urls(), options.rate, OnFailure::Count)?;
        let mut summary = Summary::default();
        let (_, first_term) = leader(&channels).await?;
        for round in 0..options.tries {
            tokio::time::sleep(SETTLE).await;
            let (index, _) = leader(&channels).await?;
            let survivors: Vec<Channel> =
                channels.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, c)| c.clone()).collect();
            let gone = Instant::now();
            load.leaves(index);
            match options.how {
                How::Kill => cluster.members[index].kill(),
                How::Freeze => cluster.members[index].pause()?,
                How::Stop => cluster.members[index].terminate()?,
                How::Cut => links.iter().for_each(|links| links.isolate(index)),
            }
            let gap = first_success(survivors, gone).await?;
            progress(round, gap);
            summary.gaps.push(gap);
            match options.how {
                How::Kill => cluster.members[index].restart()?,
                How::Freeze => cluster.members[index].resume()?,
                How::Cut => links.iter().for_each(SlowLinks::heal),
                How::Stop => {
                    cluster.members[index].wait_stopped()?;
                    cluster.members[index].restart()?;
                }
            }
            load.comes_back();
        }
        tokio::time::sleep(SETTLE).await;
        let (_, last_term) = leader(&channels).await?;
        let sent = load.stop();
        summary.terms = last_term - first_term;
        summary.acknowledged = sent.acknowledged.len();
        (summary.failed, summary.failed_at_survivors) = (sent.failed, sent.failed_at_survivors);
        cluster.converged()?;
        for (index, channel) in channels.iter().enumerate() {
            load::check(channel.clone(), &sent.acknowledged)
                .await
                .with_context(|| format!("what was acknowledged, on member {index}"))?;
        }
        summary.gaps.sort_unstable();
        Ok(summary)
    })
}

fn channel(url: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(url.to_owned())?.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
}

/// The member that leads by its own word, and its term.
async fn leader(channels: &[Channel]) -> Result<(usize, u64)> {
    let until = Instant::now() + CONVERGE_WITHIN;
    loop {
        let mut found = None;
        for (index, channel) in channels.iter().enumerate() {
            let mut client = MaintenanceClient::new(channel.clone());
            let asked = client.status(pb::StatusRequest {});
            if let Ok(Ok(status)) = tokio::time::timeout(CONNECT_TIMEOUT, asked).await {
                let status = status.into_inner();
                let own = status.header.unwrap_or_default().member_id;
                if status.leader == own && found.is_none_or(|(_, term)| term < status.raft_term) {
                    found = Some((index, status.raft_term));
                }
            }
        }
        match found {
            Some(found) => return Ok(found),
            None if Instant::now() > until => bail!("no member leads after {CONVERGE_WITHIN:?}"),
            None => tokio::time::sleep(PROBE_EVERY).await,
        }
    }
}

/// A put every few milliseconds to each survivor in turn; each waits for its own answer.
async fn first_success(survivors: Vec<Channel>, since: Instant) -> Result<Duration> {
    let mut probes = JoinSet::new();
    let mut next = 0;
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let channel = survivors[next % survivors.len()].clone();
                next += 1;
                probes.spawn(async move {
                    let put = pb::PutRequest { key: "probe".into(), value: "x".into(), ..Default::default() };
                    tokio::time::timeout(PROBE_TIMEOUT, KvClient::new(channel).put(put)).await
                });
            }
            Some(done) = probes.join_next(), if !probes.is_empty() => {
                if let Ok(Ok(Ok(_))) = done {
                    return Ok(since.elapsed());
                }
            }
        }
        ensure!(since.elapsed() < CONVERGE_WITHIN, "no put succeeded within {CONVERGE_WITHIN:?}");
    }
}

impl Summary {
    pub fn gap(&self, percent: usize) -> Duration {
        self.gaps.get(self.gaps.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }
}
