//! A leader whose disk hangs, by strace: each sync of its log takes as long as it is told to.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Cluster, Member, Options};
use cluster_test::load::{self, Load, OnFailure};

use crate::start;

const ELECTION_TIMEOUT: Duration = Duration::from_millis(1_000);
const SYNC_TAKES: Duration = Duration::from_secs(8);
/// An election time-out to be sure of it, some for the hand-over, and what a busy machine adds.
const REPLACED_WITHIN: Duration = Duration::from_secs(5);
const RATE: u32 = 50;

/// While this lives, syncs of the member take long. Its end lets them go on.
struct SlowSyncs(Child);

impl SlowSyncs {
    fn of(member: &Member) -> Result<Self> {
        let inject = format!("inject=fdatasync:delay_enter={}", SYNC_TAKES.as_micros());
        let strace = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject])
            .args(["-p", &member.pid()?.as_raw_nonzero().to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("run strace (`scripts/setup test` installs it)")?;
        Ok(Self(strace))
    }
}

impl Drop for SlowSyncs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_replaced(cluster: &Cluster, leader: usize, since: Instant) -> Result<usize> {
    loop {
        let now = cluster.leader()?;
        if now != leader {
            return Ok(now);
        }
        ensure!(since.elapsed() < REPLACED_WITHIN, "it still leads\n{}", cluster.members[leader].log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_leader_whose_disk_hangs_gives_way_and_nothing_is_lost() -> Result<()> {
    let cluster = start(3, &Options::with_args(&["--heartbeat-interval=100", "--election-timeout=1000"]))?;
    let load = Load::start(cluster.urls(), RATE, OnFailure::TryNextMember)?;
    let go_on = |load: &Load| {
        let wanted = load.acknowledged() + 30;
        while load.acknowledged() < wanted {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    go_on(&load);
    let leader = cluster.leader()?;
    let term = cluster.members[leader].status()?.raft_term;
    let hanging = SlowSyncs::of(&cluster.members[leader])?;
    let since = Instant::now();
    let next = wait_replaced(&cluster, leader, since)?;
    ensure!(since.elapsed() >= ELECTION_TIMEOUT / 2, "a sync that has just begun is no stall");
    assert_eq!(cluster.members[next].status()?.raft_term, term + 1, "handed over, not fought for");
    go_on(&load);
    drop(hanging);
    go_on(&load);
    let sent = load.stop();
    cluster.converged()?;
    let client = cluster.members[next].client()?;
    client.block_on(load::check(client.channel(), &sent.acknowledged)).context("what was acknowledged")
}
