//! Power cuts of the real binary under load, few enough for every run; `cluster-test power-cut` has the long form.
//!
//! Where a machine cannot cut (no root, no loop devices, no ext4) each test says so on standard error, and what it holds
//! instead is that the command says so too, with the step that is missing and an exit code of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use cluster_test::interrupt::RunOptions;
use cluster_test::machine::{EXIT_CODE_NOT_RUN, NotRun};
use cluster_test::power_cut::{CutSummary, run};
use cluster_test::programs;

const COMMAND: &str = env!("CARGO_BIN_EXE_cluster-test");

fn cut(cuts: usize, seed: u64, flags: &[&str]) -> Result<CutSummary> {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    run(programs::quorate()?, RunOptions { interruptions: cuts, clients: 8, seed }, &flags, &mut |_| {})
}

/// Nothing where the machine cannot cut; that is held against what the command says.
fn unless_not_run(result: Result<CutSummary>) -> Result<Option<Result<CutSummary>>> {
    let Err(error) = &result else { return Ok(Some(result)) };
    let Some(not_run) = error.downcast_ref::<NotRun>() else { return Ok(Some(result)) };
    // Not by a macro, whose output is kept back while a test passes.
    writeln!(std::io::stderr(), "power cuts {not_run}")?;
    let output = Command::new(COMMAND).args(["power-cut", "--cuts", "1"]).output().context("run the command")?;
    says_that_it_did_not_run(&output, &not_run.step)?;
    Ok(None)
}

fn says_that_it_did_not_run(output: &Output, step: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains(&format!("did not run: {step}: ")), "it said {said:?}");
    ensure!(output.status.code() == Some(EXIT_CODE_NOT_RUN.into()), "it ended with {}", output.status);
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts() -> Result<()> {
    let Some(result) = unless_not_run(cut(6, 1, &[]))? else { return Ok(()) };
    let summary = result?;
    assert_eq!(summary.rounds.interruptions, 6);
    assert!(summary.rounds.acknowledged > 50, "the load was too small to prove anything: {summary:?}");
    Ok(())
}

#[test]
fn a_member_that_does_not_sync_is_found_out() -> Result<()> {
    let Some(result) = unless_not_run(cut(6, 2, &["--unsafe-no-fsync"]))? else { return Ok(()) };
    let error = format!("{:#}", result.err().context("writes that were not synced all survived six cuts")?);
    assert!(error.contains("the revision went back") || error.contains("lost: "), "{error}");
    Ok(())
}

#[test]
fn who_may_not_mount_is_told_so() -> Result<()> {
    let Some(_) = unless_not_run(cut(0, 3, &[]))? else { return Ok(()) };
    // This process may, so the command runs as somebody else, from where everybody may read it.
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("cluster-test");
    fs::copy(COMMAND, &copy)?;
    let nobody = 65_534;
    let output = Command::new(&copy)
        .args(["power-cut", "--cuts", "1", "--binary", "/bin/true"])
        .current_dir("/")
        .uid(nobody)
        .gid(nobody)
        .output()
        .context("run the command as nobody")?;
    says_that_it_did_not_run(&output, "root")
}
