//! Members stop, start, come and go under load: a client that tries again at the next member hardly notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_test::cluster::{Cluster, Options};
use cluster_test::load::{self, Load, OnFailure};

use crate::start;

const ELECTION_TIMEOUT: Duration = Duration::from_millis(1_000);
const RATE: u32 = 100;
/// Acknowledged before, between and after changes, so that there is a load that they can disturb.
const PUTS_BETWEEN: usize = 50;

fn options() -> Options {
    Options::with_args(&["--heartbeat-interval=100", "--election-timeout=1000"])
}

struct UnderLoad {
    cluster: Cluster,
    load: Load,
}

impl UnderLoad {
    fn start(members: usize) -> Result<Self> {
        let cluster = start(members, &options())?;
        let load = Load::start(cluster.urls(), RATE, OnFailure::TryNextMember)?;
        let under_load = Self { cluster, load };
        under_load.go_on();
        Ok(under_load)
    }

    /// Until some more puts are acknowledged.
    fn go_on(&self) {
        let wanted = self.load.acknowledged() + PUTS_BETWEEN;
        while self.load.acknowledged() < wanted {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The members that serve are others now.
    fn changed(&self) {
        self.load.set_members(self.cluster.urls());
        self.go_on();
    }

    fn grow(&mut self) -> Result<()> {
        let learner = self.cluster.add(true)?;
        self.cluster.promote(learner)?;
        self.changed();
        Ok(())
    }

    fn shrink(&mut self, member: usize) -> Result<()> {
        let mut urls = self.cluster.urls();
        urls.remove(member);
        self.load.set_members(urls);
        let mut removed = self.cluster.remove(member)?;
        removed.wait_stopped()?;
        self.go_on();
        Ok(())
    }

    /// Nothing acknowledged is lost on any member, no put was given up, and nobody waited for long.
    fn end(self) -> Result<()> {
        let Self { cluster, load } = self;
        let sent = load.stop();
        cluster.converged()?;
        for member in &cluster.members {
            let client = member.client()?;
            client.block_on(load::check(client.channel(), &sent.acknowledged))?;
        }
        assert_eq!(sent.failed, 0, "of {} puts", sent.acknowledged.len());
        ensure!(
            sent.longest_gap <= 2 * ELECTION_TIMEOUT,
            "no put succeeded for {:?}; {} did in all",
            sent.longest_gap,
            sent.acknowledged.len()
        );
        Ok(())
    }
}

#[test]
fn a_rolling_restart_is_not_noticed() -> Result<()> {
    let mut under_load = UnderLoad::start(3)?;
    for member in 0..3 {
        under_load.cluster.members[member].stop()?;
        under_load.cluster.members[member].restart()?;
        under_load.go_on();
    }
    under_load.end()
}

#[test]
fn a_dead_member_is_replaced() -> Result<()> {
    let mut under_load = UnderLoad::start(3)?;
    let dead = under_load.cluster.leader()?;
    let id = under_load.cluster.id(dead)?;
    under_load.cluster.members[dead].kill();
    under_load.cluster.members.remove(dead);
    under_load.changed();
    under_load.cluster.remove_id(id)?;
    under_load.grow()?;
    under_load.end()
}

#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_to_one() -> Result<()> {
    let mut under_load = UnderLoad::start(1)?;
    for _ in 0..4 {
        under_load.grow()?;
    }
    assert_eq!(under_load.cluster.members.len(), 5);
    for leads in [true, false, true, false] {
        let leader = under_load.cluster.leader()?;
        let member = if leads { leader } else { under_load.cluster.follower()? };
        under_load.shrink(member)?;
    }
    let client = under_load.cluster.members[0].client()?;
    assert_eq!(client.members()?.members.len(), 1);
    under_load.end()
}

/// As in etcd, and other than there the one goes on serving until the second is there.
#[test]
fn a_cluster_of_one_grows_by_voters() -> Result<()> {
    const VOTES: &str = "a new member votes from now on";
    let mut cluster = start(1, &Options::quick())?;
    let client = cluster.members[0].client()?;
    let (id, mut second) = cluster.announce(false)?;
    client.put("before", "1")?;
    let listed: Vec<_> =
        client.members()?.members.into_iter().map(|member| (member.id == id, member.is_learner)).collect();
    ensure!(listed.contains(&(true, false)) && listed.len() == 2, "{listed:?}");
    second.restart()?;
    cluster.members.push(second);
    cluster.members[0].wait_printed(VOTES)?;
    // One of two is no majority.
    cluster.members[1].kill();
    ensure!(client.put("alone", "2").is_err(), "one of two has acknowledged");
    cluster.members[1].restart()?;
    cluster.add(false)?;
    cluster.members[0].kill();
    cluster.members[1].client()?.put("without the first", "3")?;
    cluster.members[0].restart()?;
    cluster.converged()
}
