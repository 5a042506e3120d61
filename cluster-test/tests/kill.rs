//! Kills of the real binary under load, few enough for every run; `cluster-test kill` has the long form.

use anyhow::Result;
use cluster_test::interrupt::RunOptions;
use cluster_test::kill::run;
use cluster_test::programs;

#[test]
fn nothing_acknowledged_is_lost_by_kills() -> Result<()> {
    let summary = run(programs::quorate()?, RunOptions { interruptions: 15, clients: 8, seed: 1 }, &mut |_| {})?;
    assert!(summary.acknowledged > 100, "the load was too small to prove anything: {summary:?}");
    Ok(())
}

#[test]
fn the_checker_finds_nothing_wrong_with_real_etcd() -> Result<()> {
    let summary = run(programs::etcd()?, RunOptions { interruptions: 5, clients: 8, seed: 2 }, &mut |_| {})?;
    assert!(summary.acknowledged > 50, "the load was too small to prove anything: {summary:?}");
    Ok(())
}
