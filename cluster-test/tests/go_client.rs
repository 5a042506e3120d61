//! etcd's own client library (cluster-test/go, built by `scripts/etcd go-client`) against real etcd and against ours: every line that it
//! prints about what it was answered has to be the same.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;

fn lines_on(server: &Path) -> Result<Vec<String>> {
    let member = Member::start(server, &Options::quick().and("--watch-progress-notify-interval=200ms"))?;
    let printed = Command::new(programs::go_client("clientv3")?)
        .arg(member.endpoint())
        .stdin(Stdio::null())
        .output()
        .context("run the Go client")?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned() + &String::from_utf8_lossy(&printed.stderr);
    ensure!(printed.status.success(), "the Go client on {} gave up:\n{text}\n{}", server.display(), member.log_tail());
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn etcds_own_client_is_answered_as_by_etcd() -> Result<()> {
    let (etcd, ours) = (lines_on(programs::etcd()?)?, lines_on(programs::quorate()?)?);
    ensure!(etcd.len() > 250, "the program did next to nothing: {etcd:#?}");
    let mut step = "";
    for (etcd, ours) in etcd.iter().zip(&ours) {
        if etcd.starts_with("== ") {
            step = etcd;
        }
        ensure!(etcd == ours, "{step}\n etcd: {etcd}\n ours: {ours}");
    }
    ensure!(etcd.len() == ours.len(), "etcd: {} lines, ours: {}", etcd.len(), ours.len());
    Ok(())
}
