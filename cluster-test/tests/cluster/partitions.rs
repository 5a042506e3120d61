//! Links that are cut in part: whoever still makes a majority goes on, whatever the others cannot hear.
//!
//! ```text
//!   bridge            leader ─╳─ one,  both ─── other
//!   deaf to one       leader ─▶ one works, back does not; and the reverse
//!   mute leader       it hears everybody, nobody hears it
//!   deaf leader       everybody hears it, it hears nobody: it must give up by itself
//! ```

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Cluster, Options, SlowLinks};
use cluster_test::load::{self, Load, OnFailure};
use cluster_test::programs;

const RATE: u32 = 100;
const ELECTION_TIMEOUT: Duration = Duration::from_millis(1_000);
/// By then whoever has to step down has done so, and another one leads.
const SETTLED_AFTER: Duration = ELECTION_TIMEOUT.saturating_mul(3);
const WATCHED_FOR: Duration = ELECTION_TIMEOUT.saturating_mul(2);
/// Of the puts of that time; those sent to who is cut off wait for it.
const ACKNOWLEDGED_MIN: usize = 50;
/// One election, and another one that split its votes, or that a member began before it was told.
const TERMS_MAX: u64 = 4;

fn goes_on(cut: impl Fn(&SlowLinks, usize, [usize; 2])) -> Result<()> {
    let flags = ["--heartbeat-interval=100", "--election-timeout=1000"];
    let (cluster, links) = Cluster::start_slow(programs::quorate()?, 3, &Options::with_args(&flags).without_disk())?;
    let load = Load::start(cluster.urls(), RATE, OnFailure::TryNextMember)?;
    while load.acknowledged() < ACKNOWLEDGED_MIN {
        thread::sleep(Duration::from_millis(10));
    }
    let leader = cluster.leader()?;
    let term = cluster.members[leader].status()?.raft_term;
    cut(&links, leader, [(leader + 1) % 3, (leader + 2) % 3]);
    thread::sleep(SETTLED_AFTER);
    let before = load.acknowledged();
    thread::sleep(WATCHED_FOR);
    let acknowledged = load.acknowledged() - before;
    ensure!(
        acknowledged >= ACKNOWLEDGED_MIN,
        "{acknowledged} puts acknowledged in {WATCHED_FOR:?} while links were cut"
    );
    links.heal();
    let sent = load.stop();
    cluster.converged()?;
    let terms = cluster.members[0].status()?.raft_term - term;
    ensure!(terms <= TERMS_MAX, "{terms} terms for one cut");
    let client = cluster.members[0].client()?;
    client.block_on(load::check(client.channel(), &sent.acknowledged)).context("what was acknowledged")
}

#[test]
fn a_majority_around_a_bridge_goes_on() -> Result<()> {
    goes_on(|links, leader, [one, _]| links.cut(leader, one))
}

#[test]
fn followers_that_do_not_hear_each_other_go_on() -> Result<()> {
    goes_on(|links, _, [one, other]| links.cut(one, other))
}

#[test]
fn a_follower_that_does_not_hear_the_leader_disturbs_nobody() -> Result<()> {
    goes_on(|links, leader, [one, _]| links.cut_one_way(leader, one))
}

#[test]
fn a_follower_that_the_leader_does_not_hear_disturbs_nobody() -> Result<()> {
    goes_on(|links, leader, [one, _]| links.cut_one_way(one, leader))
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() -> Result<()> {
    goes_on(|links, leader, others| others.into_iter().for_each(|other| links.cut_one_way(leader, other)))
}

#[test]
fn a_leader_that_hears_nobody_gives_up() -> Result<()> {
    goes_on(|links, leader, others| others.into_iter().for_each(|other| links.cut_one_way(other, leader)))
}
