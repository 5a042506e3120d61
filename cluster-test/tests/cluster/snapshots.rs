//! Members that lag behind the log are sent the state instead, while everybody goes on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Client, Cluster, Member, Options};
use quorate_proto::etcdserverpb as pb;
use tokio_stream::StreamExt as _;

use crate::start;

/// Every member keeps a few dozen entries of its log, so that whoever misses some hundred cannot be sent them any more.
const LOG_KEPT: &[&str] = &["--snapshot-count=100", "--snapshot-catchup-entries=20"];
/// More than the members keep, which is some hundred, as the log is not cut for less.
const MISSED: usize = 700;
const WITHIN: Duration = Duration::from_secs(30);

fn options() -> Options {
    LOG_KEPT.iter().fold(Options::quick(), |options, flag| options.and(*flag))
}

fn fill(client: &Client, round: usize) -> Result<()> {
    for number in 0..MISSED {
        client.put(&format!("k{}", number % 50), &format!("{round} {number}"))?;
    }
    Ok(())
}

fn wait_installed(member: &Member, times: usize) -> Result<()> {
    let until = Instant::now() + WITHIN;
    while member.log().matches("installed a snapshot").count() < times {
        ensure!(Instant::now() < until, "it was not sent a snapshot {times} times\n{}", member.log_tail());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn two_others(cluster: &Cluster) -> Result<(usize, usize)> {
    let leader = cluster.leader()?;
    Ok((leader, (leader + 1) % cluster.members.len()))
}

#[test]
fn a_member_that_was_down_for_long_is_sent_the_state() -> Result<()> {
    let mut cluster = start(3, &options())?;
    let (leader, follower) = two_others(&cluster)?;
    let client = cluster.members[leader].client()?;
    client.run(client.lease().lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 7 }))?;
    for round in 1..=2 {
        cluster.members[follower].kill();
        fill(&client, round)?;
        cluster.members[follower].restart()?;
        wait_installed(&cluster.members[follower], round)?;
        let read = cluster.members[follower].client()?.get("k49", false)?;
        assert_eq!(read.kvs[0].value, format!("{round} {}", MISSED - 1));
    }
    cluster.converged()
}

#[test]
fn a_new_member_is_sent_the_state_and_then_votes() -> Result<()> {
    let mut cluster = start(1, &options())?;
    fill(&cluster.members[0].client()?, 0)?;
    for _ in 0..2 {
        let new = cluster.add(true)?;
        wait_installed(&cluster.members[new], 1)?;
        cluster.promote(new)?;
        fill(&cluster.members[new].client()?, new)?;
    }
    cluster.members[0].kill();
    cluster.members[1].client()?.put("k0", "last")?;
    cluster.members[0].restart()?;
    cluster.converged()
}

/// A watcher is moved from the state before to the installed one: it sees every event there is, in order, or is told which are gone.
#[test]
fn watchers_of_a_member_that_slept_miss_nothing() -> Result<()> {
    let cluster = start(3, &options())?;
    let (leader, follower) = two_others(&cluster)?;
    let writer = cluster.members[leader].client()?;
    writer.put("k0", "first")?;
    let watcher = cluster.members[follower].client()?;
    let create = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..Default::default()
    });
    let requests = tokio_stream::iter([pb::WatchRequest { request_union: Some(create) }]);
    let (mut events, from) = watcher.block_on(async {
        let mut events = watcher.watch().watch(requests.chain(tokio_stream::pending())).await?.into_inner();
        let created = events.message().await?.context("the watch is created")?;
        anyhow::Ok((events, created.header.unwrap_or_default().revision + 1))
    })?;
    cluster.members[follower].pause()?;
    fill(&writer, 0)?;
    cluster.members[follower].resume()?;
    wait_installed(&cluster.members[follower], 1)?;
    writer.put("k0", "last")?;
    let last = from + MISSED as i64;
    let seen = watcher.block_on(async {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let next = tokio::time::timeout(WITHIN, events.message()).await.context("wait for an event")?;
            let next = next?.context("the watch has ended")?;
            ensure!(!next.canceled, "cancelled: {next:?}");
            seen.extend(next.events.into_iter().map(|event| event.kv.unwrap_or_default().mod_revision));
        }
        Ok(seen)
    })?;
    assert_eq!(seen, (from..=last).collect::<Vec<_>>());
    cluster.converged()
}

/// Wherever the end comes while the state is received and put in place, the next start has the old one or the new one.
#[test]
fn a_member_that_is_killed_while_it_is_sent_the_state_starts_again() -> Result<()> {
    let mut cluster = start(3, &options())?;
    let (leader, follower) = two_others(&cluster)?;
    let client = cluster.members[leader].client()?;
    for round in 0..12 {
        cluster.members[follower].kill();
        fill(&client, round)?;
        cluster.members[follower].spawn()?;
        // From before it begins to after it is done.
        thread::sleep(Duration::from_millis(10 * round as u64));
    }
    cluster.members[follower].kill();
    cluster.members[follower].restart()?;
    cluster.converged()
}
