//! A client program run on real etcd and on ours: every line that it prints about what it was answered has to be the same.
//!
//! The programs begin each step with a line `== name`, which says where a difference was met.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Member, Options};
use crate::programs;

/// Runs `client ENDPOINT` on a fresh member of each; fails at the first line that differs, or when the program printed
/// no more than `lines_min` lines.
pub fn prints_the_same(client: &Path, options: &Options, lines_min: usize) -> Result<()> {
    let etcd = lines_on(programs::etcd()?, client, options)?;
    let ours = lines_on(programs::quorate()?, client, options)?;
    ensure!(etcd.len() > lines_min, "the program did next to nothing: {etcd:#?}");
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

fn lines_on(server: &Path, client: &Path, options: &Options) -> Result<Vec<String>> {
    let member = Member::start(server, options)?;
    let printed = Command::new(client)
        .arg(member.endpoint())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", client.display()))?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned() + &String::from_utf8_lossy(&printed.stderr);
    ensure!(
        printed.status.success(),
        "{} gave up on {}:\n{text}\n{}",
        client.display(),
        server.display(),
        member.log_tail()
    );
    Ok(text.lines().map(str::to_owned).collect())
}
