//! `tune`: what members have measured of each other and of their disks, and the heartbeat interval and election time-out that
//! fit: the same advice that `--heartbeat-interval auto` follows.
//!
//! Reads `/metrics`, so it works on real etcd as well.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use quorate_tuning::{Bounds, Figures, Histogram, advise};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Of one question to one member.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page of metrics is some hundred kilobytes.
const PAGE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Measures for so long, rather than taking everything since the members started
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// What is to be printed.
pub(crate) async fn run(args: &TuneArgs, endpoints: &str) -> Result<Vec<String>> {
    let endpoints: Vec<&str> = endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()).collect();
    ensure!(!endpoints.is_empty(), "no endpoint is given");
    let mut members = ask_all(&endpoints).await?;
    if args.seconds > 0 {
        let earlier = members;
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        let now = ask_all(&endpoints).await?;
        members = now.into_iter().zip(&earlier).map(|(now, earlier)| now.since(earlier)).collect();
    }
    Ok(report(&members))
}

async fn ask_all(endpoints: &[&str]) -> Result<Vec<Figures>> {
    let mut members = Vec::new();
    for endpoint in endpoints {
        let asked = tokio::time::timeout(PATIENCE, metrics(endpoint)).await;
        let asked = asked.with_context(|| format!("no answer within {PATIENCE:?}")).flatten();
        members.push(Figures::read(endpoint, &asked.with_context(|| format!("ask {endpoint} for its metrics"))?));
    }
    Ok(members)
}

/// One question over a connection of its own: HTTP/1.0, where the answer ends with the connection.
async fn metrics(endpoint: &str) -> Result<String> {
    ensure!(!endpoint.starts_with("https://"), "TLS is not built yet");
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    connection.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).context("read the answer as text")?;
    let (head, page) = answer.split_once("\r\n\r\n").context("find the end of the answer's head")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "it answers {status:?}");
    Ok(page.to_owned())
}

fn report(members: &[Figures]) -> Vec<String> {
    let mut lines = Vec::new();
    for member in members {
        let id = if member.id.is_empty() { "an unknown ID" } else { &member.id };
        lines.push(format!("{} is {id}", member.endpoint));
        if let (Some(heartbeat), Some(election)) = (member.heartbeat, member.election) {
            lines.push(format!("  heartbeat interval {heartbeat:?}, election time-out {election:?}"));
        }
        lines.extend(member.round_trips.iter().map(|(peer, trips)| spread(&format!("round trips to {peer}"), trips)));
        lines.push(spread("syncs of the log", &member.sync));
    }
    let advice = advise(&Figures::measured(members), &Bounds::open());
    let mut advised = |flag: &str, value: Duration, reason: String| {
        lines.push(format!("--{flag}={}", value.as_millis()));
        lines.push(format!("  {reason}"));
    };
    advised("heartbeat-interval", advice.heartbeat, advice.heartbeat_reason.to_string());
    advised("election-timeout", advice.election, advice.election_reason.to_string());
    lines
}

fn spread(what: &str, histogram: &Histogram) -> String {
    let (count, part) = (histogram.count(), |part| histogram.quantile(part).unwrap_or_default());
    if count == 0 {
        format!("  no {what}")
    } else {
        format!("  {count} {what}: half {:.1?}, 99 % {:.1?}", part(0.5), part(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(id: &str, peer: &str, upto: &str) -> String {
        format!(
            "etcd_server_id{{server_id=\"{id}\"}} 1\n\
             etcd_network_peer_round_trip_time_seconds_bucket{{To=\"{peer}\",le=\"0.0001\"}} 0\n\
             etcd_network_peer_round_trip_time_seconds_bucket{{To=\"{peer}\",le=\"{upto}\"}} 10\n\
             etcd_network_peer_round_trip_time_seconds_bucket{{To=\"{peer}\",le=\"+Inf\"}} 10\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.001\"}} 0\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} 0\n\
             quorate_raft_heartbeat_interval_seconds 0.1\nquorate_raft_election_timeout_seconds 1\n"
        )
    }

    #[test]
    fn says_what_was_measured_and_what_fits() {
        let members =
            [Figures::read("a:1", &page("a", "b", "0.2001")), Figures::read("b:1", &page("b", "a", "0.0002"))];
        assert_eq!(
            report(&members),
            [
                "a:1 is a",
                "  heartbeat interval 100ms, election time-out 1s",
                "  10 round trips to b: half 100.1ms, 99 % 198.1ms",
                "  no syncs of the log",
                "b:1 is b",
                "  heartbeat interval 100ms, election time-out 1s",
                "  10 round trips to a: half 150.0µs, 99 % 199.0µs",
                "  no syncs of the log",
                "--heartbeat-interval=397",
                "  two round trips to b (198.1ms)",
                "--election-timeout=3970",
                "  10 heartbeats",
            ]
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error_that_says_where() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let count = connection.read(&mut asked).await.unwrap();
            connection.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });
        let error = format!("{:#}", run(&TuneArgs { seconds: 0 }, &endpoint).await.unwrap_err());
        assert_eq!(error, format!("ask {endpoint} for its metrics: it answers \"HTTP/1.0 404 Not Found\""));
        assert!(answering.await.unwrap().starts_with("GET /metrics HTTP/1.0\r\n"));
    }
}
