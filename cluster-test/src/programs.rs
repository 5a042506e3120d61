//! Where the programs under test are. Missing is an error that says how to get them, never a reason to skip.
//!
//! ```text
//!  quorate     QUORATE_BIN (the file, or its directory) | beside this program | cargo build --release -p quorate-server
//!  quoratectl  in the directory QUORATE_BIN | beside this program | cargo build --release -p quoratectl
//!  etcd*       QUORATE_ETCD_BIN (a directory)           | scripts/etcd
//!  Go          QUORATE_GO_CLIENT_BIN (a directory)      | scripts/etcd go-client
//! ```

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// What a program is found by once is what it stays for this process.
type Found = OnceLock<std::result::Result<PathBuf, String>>;

/// Our server.
pub fn quorate() -> Result<&'static Path> {
    static FOUND: Found = OnceLock::new();
    once(&FOUND, find_quorate)
}

/// Our command line.
pub fn quoratectl() -> Result<&'static Path> {
    static FOUND: Found = OnceLock::new();
    once(&FOUND, || {
        let given = env::var_os("QUORATE_BIN").map(|dir| PathBuf::from(dir).join("quoratectl"));
        match given.filter(|path| path.is_file()) {
            Some(path) => Ok(path),
            None => beside("quoratectl", "quoratectl").context("find our command line"),
        }
    })
}

/// Real etcd.
pub fn etcd() -> Result<&'static Path> {
    static FOUND: Found = OnceLock::new();
    once(&FOUND, || inside(etcd_dir()?, "etcd"))
}

/// The directory of real etcd, etcdctl and etcdutl.
pub fn etcd_dir() -> Result<&'static Path> {
    static FOUND: Found = OnceLock::new();
    once(&FOUND, || directory("QUORATE_ETCD_BIN", &[]).context("find real etcd"))
}

/// A program of cluster-test/go.
pub fn go_client(name: &str) -> Result<PathBuf> {
    static FOUND: Found = OnceLock::new();
    inside(once(&FOUND, || directory("QUORATE_GO_CLIENT_BIN", &["go-client"]).context("find the Go client"))?, name)
}

/// The root of this repository, as it was when this was compiled.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn once(found: &'static Found, find: impl FnOnce() -> Result<PathBuf>) -> Result<&'static Path> {
    match found.get_or_init(|| find().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

fn inside(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    if !path.is_file() {
        bail!("no {name} in {}", dir.display());
    }
    Ok(path)
}

fn directory(variable: &str, script_args: &[&str]) -> Result<PathBuf> {
    if let Some(dir) = env::var_os(variable) {
        let dir = PathBuf::from(dir);
        if !dir.is_dir() {
            bail!("{variable}={} is no directory", dir.display());
        }
        return Ok(dir);
    }
    let script = repository().join("scripts/etcd");
    let output = Command::new(&script)
        .args(script_args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} {}: {}", script.display(), script_args.join(" "), output.status);
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout).context("read its answer")?.trim_end()))
}

fn find_quorate() -> Result<PathBuf> {
    if let Some(given) = env::var_os("QUORATE_BIN") {
        let given = PathBuf::from(given);
        let path = if given.is_dir() { given.join("quorate") } else { given };
        if !path.is_file() {
            bail!("no quorate at QUORATE_BIN={}", path.display());
        }
        return Ok(path);
    }
    beside("quorate-server", "quorate").context("find our server (QUORATE_BIN names one that is built)")
}

/// A program of this workspace, where cargo puts it.
fn beside(package: &str, name: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("find this program")?;
    let dir = this.parent().context("find this program's directory")?;
    // Cargo puts tests into <target>/release/deps, and the programs one above.
    if dir.file_name().is_some_and(|name| name == "deps") {
        return build(package, name, dir.parent().context("find the target directory")?);
    }
    inside(dir, name).context("look beside this program")
}

/// Whoever runs the tests alone has not built the programs; where one is built already this costs a fraction of a second.
fn build(package: &str, name: &str, profile_dir: &Path) -> Result<PathBuf> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", package, "--bin", name, "--target-dir"])
        .arg(profile_dir.parent().context("find the target directory")?)
        .current_dir(repository())
        .stdin(Stdio::null())
        .status()
        .context("run cargo")?;
    if !status.success() {
        bail!("no {name} to test: cargo build --release -p {package}: {status}");
    }
    inside(profile_dir, name)
}
