//! The etcd-client crate (cluster-test/rust-client) against real etcd and against ours. QUORATE_RUST_CLIENT_BIN names a
//! directory that holds it built; otherwise it is built here.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::Options;
use cluster_test::{programs, same};

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

#[test]
fn the_etcd_client_crate_is_answered_as_by_etcd() -> Result<()> {
    same::prints_the_same(&build()?, &Options::quick(), 150)
}
