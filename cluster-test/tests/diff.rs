//! Random requests to real etcd and to ours, few enough for every run; `cluster-test diff` has the long form.

use std::time::Duration;

use anyhow::Result;
use cluster_test::diff::{DiffOptions, describe_finding, run};
use cluster_test::programs;

#[test]
fn ours_answers_as_real_etcd_does() -> Result<()> {
    let mut options = DiffOptions::new(2026, 3_000);
    // A difference fails this test as it is; the long form looks for the fewest requests that show it.
    options.shrink_for = Duration::ZERO;
    options.differences_max = 1;
    let summary = run(programs::etcd()?, programs::quorate()?, &options, &mut |_| {})?;
    let findings: Vec<_> = summary.findings.iter().map(|finding| describe_finding(finding, &options)).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let total = &summary.total;
    assert!(total.requests.len() >= 17, "kinds that were asked: {:?}", total.requests);
    assert!(
        total.refused() > 300 && total.events > 500 && total.hashes > 100,
        "too little to prove anything: {total:?}"
    );
    Ok(())
}

#[test]
fn a_server_that_answers_otherwise_is_found_with_few_requests() -> Result<()> {
    let mut options = DiffOptions::new(1, 1_500);
    options.our_flags = vec!["--max-txn-ops=127".into()];
    options.shrink_for = Duration::from_secs(10);
    options.differences_max = 1;
    let summary = run(programs::etcd()?, programs::quorate()?, &options, &mut |_| {})?;
    let [finding] = summary.findings.as_slice() else { panic!("found nothing: {summary:?}") };
    assert_eq!(finding.difference.kind, "Txn");
    assert!(finding.difference.ours.contains("too many operations"), "{finding:?}");
    assert!(finding.steps_needed < finding.steps, "{finding:?}");
    assert_eq!(finding.shrunk_difference.ours, finding.difference.ours);
    Ok(())
}
