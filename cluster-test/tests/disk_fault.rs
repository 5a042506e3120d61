//! Failing calls of the disk under the real binary, few enough for every run; `cluster-test disk-fault` has the long form.
//!
//! Where a machine cannot do it (no root, no loop devices, no strace) the test says so on standard error, and what it holds
//! instead is that the command says so too, with the step that is missing and an exit code of its own.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::disk_fault::{FaultOptions, run};
use cluster_test::machine::{EXIT_CODE_NOT_RUN, NotRun};
use cluster_test::programs;

/// Only a guard against a member that hangs: a test machine may be busy. The command asks for two seconds.
const END_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_member_ends_when_its_disk_fails_and_has_lost_nothing() -> Result<()> {
    let options = FaultOptions { calls: 1, clients: 8, seed: 1, end_within: END_WITHIN };
    let result = run(programs::quorate()?, options, &mut |_| {});
    if let Some(not_run) = result.as_ref().err().and_then(|error| error.downcast_ref::<NotRun>()) {
        // Not by a macro, whose output is kept back while a test passes.
        writeln!(std::io::stderr(), "disk faults {not_run}")?;
        let output = Command::new(env!("CARGO_BIN_EXE_cluster-test")).args(["disk-fault", "--calls", "1"]).output();
        let output = output.context("run the command")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains(&format!("did not run: {}: ", not_run.step)), "it said {said:?}");
        ensure!(output.status.code() == Some(EXIT_CODE_NOT_RUN.into()), "it ended with {}", output.status);
        return Ok(());
    }
    let summary = result?;
    assert_eq!((summary.in_log, summary.in_state), (3, 4), "{summary:?}");
    Ok(())
}
