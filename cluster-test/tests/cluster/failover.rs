//! The leader gone, in four ways, under load; `cluster-test failover` has the long form and the figures.

use anyhow::{Result, ensure};
use cluster_test::failover::{self, FailoverOptions, How};
use cluster_test::programs;

fn three_times(how: How) -> Result<()> {
    let options = FailoverOptions { members: 3, tries: 3, how, rate: 100, args: Vec::new() };
    // It fails by itself when something acknowledged is lost, or members come to differ.
    let summary = failover::run(programs::quorate()?, &options, &mut |_, _| {})?;
    assert_eq!(summary.gaps.len(), 3);
    ensure!(summary.acknowledged > 100, "the load was too small to prove anything: {summary:?}");
    ensure!(summary.terms >= 3, "nobody else came to lead: {summary:?}");
    Ok(())
}

#[test]
fn nothing_is_lost_when_the_leader_is_killed() -> Result<()> {
    three_times(How::Kill)
}

#[test]
fn nothing_is_lost_when_the_leader_freezes() -> Result<()> {
    three_times(How::Freeze)
}

#[test]
fn nothing_is_lost_when_the_leader_is_cut_off() -> Result<()> {
    three_times(How::Cut)
}

#[test]
fn nothing_is_lost_when_the_leader_stops() -> Result<()> {
    three_times(How::Stop)
}
