//! Bad input: whatever a client sends, it gets etcd's error, and the member lives on.
//!
//! Every case goes to real etcd and to ours; code and text of the answers are compared. What differs for a reason stands
//! in `EXPLAINED`, with the reason.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod cases;
mod garbage;
mod send;

use anyhow::{Result, ensure};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;

/// Cases in which ours answers otherwise, and why.
const EXPLAINED: &[(&str, &str)] =
    &[("watch: progress at once", "a request for progress is always answered, also on a stream without watchers")];

/// What a member may have grown by after all of it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

#[test]
fn every_refusal_is_etcds() -> Result<()> {
    let (etcd, ours) =
        (Member::start(programs::etcd()?, &Options::quick())?, Member::start(programs::quorate()?, &Options::quick())?);
    let before = ours.rss_bytes()?;
    let runtime = runtime();
    let (theirs, mine) = runtime.block_on(async {
        let theirs = cases::run(&etcd.url()).await?;
        anyhow::Ok((theirs, cases::run(&ours.url()).await?))
    })?;
    let mut different = Vec::new();
    for ((name, theirs), (_, mine)) in theirs.iter().zip(&mine) {
        let explained = EXPLAINED.iter().any(|(case, _)| case == name);
        if (theirs != mine) != explained {
            different.push(format!("{name}\n    etcd: {theirs}\n    ours: {mine}"));
        }
    }
    ensure!(
        different.is_empty(),
        "{} of {} cases differ:\n  {}",
        different.len(),
        theirs.len(),
        different.join("\n  ")
    );
    ensure!(ours.rss_bytes()? < before + GROWTH_BYTES_MAX, "grew from {before} to {} bytes", ours.rss_bytes()?);
    ensure!(!ours.log().contains("panicked"), "panicked: {}", ours.log_tail());
    Ok(())
}

#[test]
fn the_request_that_ends_etcd_is_refused_and_changes_nothing() -> Result<()> {
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    runtime().block_on(cases::fatal_to_etcd(&ours.url()))
}

#[test]
fn an_alarm_of_unknown_action_does_not_end_the_member_as_it_ends_etcd() -> Result<()> {
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    runtime().block_on(cases::alarm_of_unknown_action(&ours.url()))
}

#[test]
fn a_compaction_that_loses_a_key_in_etcd_keeps_it() -> Result<()> {
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    runtime().block_on(cases::compaction_that_loses_a_key(&ours.url()))
}

#[test]
fn garbage_on_the_port_does_no_harm() -> Result<()> {
    let mut ours = Member::start(programs::quorate()?, &Options::quick())?;
    let before = ours.rss_bytes()?;
    runtime().block_on(garbage::pour(&ours))?;
    ensure!(ours.is_running()?, "the member is gone: {}", ours.log_tail());
    ensure!(ours.status().is_ok(), "the member does not answer: {}", ours.log_tail());
    ensure!(ours.rss_bytes()? < before + GROWTH_BYTES_MAX, "grew from {before} to {} bytes", ours.rss_bytes()?);
    ensure!(!ours.log().contains("panicked"), "panicked: {}", ours.log_tail());
    Ok(())
}
