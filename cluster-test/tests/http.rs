//! What probes and people ask over plain HTTP, of real etcd and of ours; and how the process ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;

/// Status line and body of a GET.
fn get(member: &Member, path: &str, version: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(member.endpoint()).context("connect")?;
    let request = format!("GET {path} HTTP/{version}\r\nHost: {}\r\nConnection: close\r\n\r\n", member.endpoint());
    stream.write_all(request.as_bytes()).context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("find the body")?;
    let code = head.split(' ').nth(1).unwrap_or_default().to_owned();
    // etcd names its checks in the order of a Go map, which is none.
    let mut lines: Vec<&str> = body.lines().collect();
    lines.sort_unstable();
    Ok((code, lines.join("\n")))
}

const PATHS: [&str; 14] = [
    "/health",
    "/health?serializable=true",
    "/health?exclude=NOSPACE",
    "/livez",
    "/livez?verbose",
    "/livez/serializable_read",
    "/livez?exclude=serializable_read&verbose",
    "/readyz",
    "/readyz?verbose",
    "/readyz?verbose&exclude=linearizable_read",
    "/readyz/data_corruption",
    "/readyz/linearizable_read?verbose",
    "/readyz/non_learner",
    "/readyz/nothing",
];

#[test]
fn probes_are_answered_as_by_etcd() -> Result<()> {
    let etcd = Member::start(programs::etcd()?, &Options::quick())?;
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    let mut different = Vec::new();
    for path in PATHS {
        let (theirs, mine) = (get(&etcd, path, "1.0")?, get(&ours, path, "1.0")?);
        if theirs != mine {
            different.push(format!("{path}\n    etcd: {theirs:?}\n    ours: {mine:?}"));
        }
    }
    ensure!(different.is_empty(), "they differ:\n  {}", different.join("\n  "));
    Ok(())
}

#[test]
fn version_and_metrics_are_where_etcd_has_them() -> Result<()> {
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    let (code, version) = get(&ours, "/version", "1.0")?;
    ensure!(code == "200" && version.contains(r#""etcdserver":"3.7.3""#), "{code} {version}");
    let (code, metrics) = get(&ours, "/metrics", "1.0")?;
    ensure!(code == "200", "{code}");
    for name in ["etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_disk_wal_fsync_duration_seconds_count"] {
        ensure!(metrics.contains(name), "no {name} in the metrics");
    }
    Ok(())
}

#[test]
fn a_data_directory_in_use_is_refused() -> Result<()> {
    let ours = Member::start(programs::quorate()?, &Options::quick())?;
    let second = Command::new(programs::quorate()?)
        .arg(format!("--data-dir={}", ours.data_dir().display()))
        .args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"])
        .output()
        .context("start a second member on the same data")?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("another process uses this data directory"), "{said}");
    Ok(())
}

#[test]
fn a_member_that_is_told_to_stop_ends_by_the_signal() -> Result<()> {
    let mut ours = Member::start(programs::quorate()?, &Options::quick())?;
    let status = ours.stop()?;
    ensure!(status.signal() == Some(15), "{status:?}");
    Ok(())
}

#[test]
fn flags_that_are_not_known_end_with_two() -> Result<()> {
    let status = Command::new(programs::quorate()?).arg("--no-such-flag").output()?.status;
    ensure!(status.code() == Some(2), "{status:?}");
    Ok(())
}
