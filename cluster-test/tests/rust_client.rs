//! The etcd-client crate (cluster-test/rust-client) against real etcd and against ours: every line that it prints about what it was
//! answered has to be the same. QUORATE_RUST_CLIENT_BIN names a directory that holds it built; otherwise it is built here.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;

/// Built beside what cargo builds for this repository, once; afterwards cargo finds in a moment that nothing is to be done.
fn build() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("QUORATE_RUST_CLIENT_BIN") {
        return Ok(PathBuf::from(dir).join("rust-client"));
    }
    let this = env::current_exe().context("find this program")?;
    let target = this.ancestors().nth(3).context("find the target directory")?.join("rust-client");
    let cargo = |package: &str| -> Result<()> {
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--release", "--locked", "-p", package, "--target-dir"])
            .arg(&target)
            .current_dir(programs::repository().join("cluster-test/rust-client"))
            // The crate's build script asks for a protoc: ours, so that nobody has to install one.
            .env("PROTOC", target.join("release/protoc"))
            .stdin(Stdio::null())
            .status()
            .context("run cargo")?;
        ensure!(status.success(), "build {package} in cluster-test/rust-client: {status}");
        Ok(())
    };
    cargo("protoc")?;
    cargo("rust-client")?;
    Ok(target.join("release/rust-client"))
}

fn lines_on(server: &Path, client: &Path) -> Result<Vec<String>> {
    let member = Member::start(server, &Options::quick())?;
    let printed = Command::new(client)
        .arg(member.endpoint())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", client.display()))?;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned() + &String::from_utf8_lossy(&printed.stderr);
    ensure!(printed.status.success(), "it gave up on {}:\n{text}\n{}", server.display(), member.log_tail());
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn the_etcd_client_crate_is_answered_as_by_etcd() -> Result<()> {
    let client = build()?;
    let (etcd, ours) = (lines_on(programs::etcd()?, &client)?, lines_on(programs::quorate()?, &client)?);
    ensure!(etcd.len() > 150, "the program did next to nothing: {etcd:#?}");
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
