//! Heartbeats on links that become slow and fast again under load: their pace follows, the leader stays, nothing is lost.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Cluster, Options, SlowLinks};
use cluster_test::load::{self, Load, OnFailure};
use cluster_test::programs;
use quorate_tuning::{Bounds, Figures, advise};

/// Long enough that a busy machine holds no election of its own accord.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(5_000);
const PACE_MIN: Duration = Duration::from_millis(10);
const PACE_MAX: Duration = Duration::from_millis(400);
/// A change of pace takes some seconds up, and what is remembered of the links, twenty, down.
const PACE_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PUTS_BETWEEN: usize = 50;
const RATE: u32 = 100;

fn start(flags: &[&str]) -> Result<(Cluster, SlowLinks)> {
    // In memory: how long disks take is noise here.
    Cluster::start_slow(programs::quorate()?, 3, &Options::with_args(flags).without_disk())
}

/// The terms of all members; one, unless an election was held or is being held.
fn terms(cluster: &Cluster) -> Result<Vec<u64>> {
    let mut terms: Vec<u64> =
        cluster.members.iter().map(|member| Ok(member.status()?.raft_term)).collect::<Result<_>>()?;
    terms.dedup();
    Ok(terms)
}

/// What the leader keeps, once it is as wanted; never out of its bounds meanwhile.
fn wait_for_pace(cluster: &Cluster, leader: usize, wanted: impl Fn(Duration) -> bool) -> Result<Duration> {
    let until = Instant::now() + PACE_WITHIN;
    loop {
        let pace = cluster.members[leader].figures()?.heartbeat.context("find the heartbeat interval")?;
        ensure!((PACE_MIN..=PACE_MAX).contains(&pace), "a heartbeat every {pace:?}, outside of its bounds");
        if wanted(pace) {
            return Ok(pace);
        }
        ensure!(Instant::now() < until, "still a heartbeat every {pace:?}\n{}", cluster.members[leader].log_tail());
        thread::sleep(LOOK_AGAIN);
    }
}

fn go_on(load: &Load) {
    let wanted = load.acknowledged() + PUTS_BETWEEN;
    while load.acknowledged() < wanted {
        thread::sleep(LOOK_AGAIN);
    }
}

#[test]
fn the_pace_follows_the_links_under_load_and_nothing_is_lost() -> Result<()> {
    let (cluster, links) = start(&["--heartbeat-interval=auto:10-400", "--election-timeout=5000"])?;
    let load = Load::start(cluster.urls(), RATE, OnFailure::TryNextMember)?;
    go_on(&load);
    let (leader, first) = (cluster.leader()?, terms(&cluster)?);
    assert_eq!(first.len(), 1, "all are in one term: {first:?}");
    for one_way_ms in [10, 50, 0] {
        let one_way = Duration::from_millis(one_way_ms);
        links.set_delay(one_way);
        let round_trip = 2 * one_way;
        if one_way.is_zero() {
            wait_for_pace(&cluster, leader, |pace| pace < Duration::from_millis(130))?;
        } else {
            // Two round trips, but for a change that would be too small to be worth it.
            wait_for_pace(&cluster, leader, |pace| pace > 2 * round_trip * 3 / 4)?;
        }
        go_on(&load);
        assert_eq!(terms(&cluster)?, first, "somebody held an election at {round_trip:?} there and back");
    }
    let sent = load.stop();
    assert_eq!(cluster.leader()?, leader);
    assert_eq!(terms(&cluster)?, first);
    assert_eq!(sent.failed, 0, "of {} puts", sent.acknowledged.len());
    ensure!(sent.longest_gap <= ELECTION_TIMEOUT, "no put succeeded for {:?}", sent.longest_gap);
    cluster.converged()?;
    for member in &cluster.members {
        let client = member.client()?;
        client.block_on(load::check(client.channel(), &sent.acknowledged))?;
    }
    ensure!(cluster.members[leader].log().contains("the heartbeat interval changed"), "it does not say so");
    Ok(())
}

#[test]
fn a_round_trip_longer_than_the_heartbeat_interval_takes_nothing_from_the_leader() -> Result<()> {
    let (cluster, links) = start(&["--heartbeat-interval=20", "--election-timeout=5000"])?;
    let (leader, first) = (cluster.leader()?, terms(&cluster)?);
    links.set_delay(Duration::from_millis(60));
    let client = cluster.members[leader].client()?;
    let until = Instant::now() + 2 * ELECTION_TIMEOUT;
    while Instant::now() < until {
        // Needs a heartbeat that is answered: it proves with a quorum that the leader leads.
        client.get("k", false)?;
        for member in &cluster.members {
            ensure!(member.status()?.leader != 0, "{} knows of no leader", member.name());
        }
        thread::sleep(LOOK_AGAIN);
    }
    assert_eq!((cluster.leader()?, terms(&cluster)?), (leader, first));
    Ok(())
}

#[test]
fn quoratectl_says_what_fits_the_links() -> Result<()> {
    let (cluster, links) = start(&["--heartbeat-interval=100", "--election-timeout=1000"])?;
    links.set_delay(Duration::from_millis(40));
    // What is under way has begun before.
    let began = cluster.members.iter().map(|member| member.figures()).collect::<Result<Vec<_>>>()?;
    let tune = Command::new(programs::quoratectl()?)
        .args(["--endpoints", &cluster.endpoints(), "tune", "--seconds=5"])
        .output()
        .context("run quoratectl tune")?;
    let said = String::from_utf8_lossy(&tune.stdout).into_owned();
    ensure!(tune.status.success(), "{said}{}", String::from_utf8_lossy(&tune.stderr));
    let advised = |flag: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(flag));
        line.with_context(|| format!("find {flag} in\n{said}"))?.parse::<u64>().context("read it")
    };
    let (heartbeat, election) = (advised("--heartbeat-interval=")?, advised("--election-timeout=")?);
    // 80 ms there and back; a histogram has them between 51.2 and 102.4.
    ensure!(heartbeat > 2 * 51 && election == 10 * heartbeat, "{said}");
    ensure!(said.contains("heartbeat interval 100ms, election time-out 1s"), "{said}");
    let now = cluster.members.iter().zip(&began).map(|(member, began)| Ok(member.figures()?.since(began)));
    let ours = advise(&Figures::measured(&now.collect::<Result<Vec<_>>>()?), &Bounds::open());
    ensure!(ours.heartbeat > Duration::from_millis(2 * 51), "the same figures give {ours:?}");
    Ok(())
}
