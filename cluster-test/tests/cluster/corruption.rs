//! A member whose data were really altered on its disk, and everybody else.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Cluster, Member, Options};
use cluster_test::load::{Load, OnFailure};
use cluster_test::programs;
use quorate_proto::etcdserverpb as pb;
use tonic::Code;

use crate::alter::{self, Row};
use crate::start;

const ALTERED: &str = "key-03";
const KEYS: usize = 60;
/// Longer than a check and what it needs may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const COMPARED: &str = "finished peer corruption check";
const REFUSED: &str = "etcdserver: corrupt cluster";

/// The state goes to the disk every ten entries, so that what is altered there is not applied anew from the log.
fn options() -> Options {
    Options::quick().and("--snapshot-count=10")
}

fn checking() -> Options {
    options().and("--corrupt-check-time=500ms")
}

/// Three members with some keys; checks come with `options`.
fn filled(options: &Options) -> Result<Cluster> {
    let cluster = start(3, options)?;
    fill(&cluster)?;
    Ok(cluster)
}

fn fill(cluster: &Cluster) -> Result<()> {
    let client = cluster.members[0].client()?;
    for key in 0..KEYS {
        client.put(&format!("key-{key:02}"), "value")?;
    }
    cluster.converged()
}

/// Stops the member, alters a value, starts it again with `options`.
fn alter(member: &mut Member, row: Row, options: &Options) -> Result<()> {
    member.stop()?;
    alter::value(member, ALTERED, row)?;
    member.set_options(options);
    member.restart()
}

fn alarms(member: &Member) -> Result<Vec<u64>> {
    let client = member.client()?;
    let request = pb::AlarmRequest { alarm: pb::AlarmType::Corrupt.into(), ..Default::default() };
    Ok(client.run(client.maintenance().alarm(request))?.alarms.into_iter().map(|alarm| alarm.member_id).collect())
}

fn until(what: &str, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + WITHIN;
    while !seen()? {
        ensure!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Waits for an alarm, which has to name `expected`; each member has to refuse writes then.
fn alarmed(cluster: &Cluster, expected: u64) -> Result<()> {
    until("an alarm", || Ok(!alarms(&cluster.members[0])?.is_empty()))?;
    for member in &cluster.members {
        assert_eq!(alarms(member)?, [expected], "{}", member.name());
        let refused = member.client()?.put("k", "v").expect_err("it was written to a corrupt cluster");
        assert_eq!((refused.code(), refused.message()), (Code::DataLoss, REFUSED));
        let status = member.status()?;
        ensure!(status.errors.iter().any(|error| error.ends_with("alarm:CORRUPT")), "{:?}", status.errors);
    }
    Ok(())
}

fn etcdctl(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let program = programs::etcd_dir()?.join("etcdctl");
    let output = Command::new(program).arg(format!("--endpoints={}", cluster.endpoints())).args(words).output();
    let output = output.context("run etcdctl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Checks that have been made, by the word of all members.
fn compared(cluster: &Cluster) -> usize {
    cluster.members.iter().map(|member| member.log().matches(COMPARED).count()).sum()
}

fn checks(cluster: &Cluster, more: usize) -> Result<()> {
    let wanted = compared(cluster) + more;
    until("more checks", || Ok(compared(cluster) >= wanted))
}

#[test]
fn a_member_that_differs_is_named_until_it_is_replaced() -> Result<()> {
    let mut cluster = filled(&checking())?;
    checks(&cluster, 2)?;
    assert!(alarms(&cluster.members[0])?.is_empty());
    let altered = cluster.follower()?;
    let id = cluster.id(altered)?;
    alter(&mut cluster.members[altered], Row::Both, &checking())?;
    alarmed(&cluster, id)?;
    assert_eq!(
        etcdctl(&cluster, &["alarm", "list"])?.replace("  ", " ").trim(),
        format!("memberID:{id} alarm:CORRUPT")
    );
    // To say that all is well does not make it so.
    etcdctl(&cluster, &["alarm", "disarm"])?;
    alarmed(&cluster, id)?;
    // Replacing it does.
    cluster.remove(altered)?.wait_stopped()?;
    cluster.add(false)?;
    etcdctl(&cluster, &["alarm", "disarm"])?;
    checks(&cluster, 3)?;
    assert!(alarms(&cluster.members[0])?.is_empty());
    cluster.members[0].client()?.put("k", "v")?;
    cluster.converged()
}

#[test]
fn what_readers_find_is_compared_with_what_was_written() -> Result<()> {
    let mut cluster = filled(&checking())?;
    let altered = cluster.follower()?;
    let id = cluster.id(altered)?;
    alter(&mut cluster.members[altered], Row::NewestVersion, &checking())?;
    let client = cluster.members[altered].client()?;
    // Its HashKV is that of the others: etcd's check would find nothing.
    let hash = |member: usize| -> Result<u32> {
        let client = cluster.members[member].client()?;
        Ok(client.run(client.maintenance().hash_kv(pb::HashKvRequest { revision: 20 }))?.hash)
    };
    assert_eq!(hash(altered)?, hash((altered + 1) % 3)?);
    drop(client);
    alarmed(&cluster, id)
}

#[test]
fn a_leader_that_differs_does_not_go_on_leading() -> Result<()> {
    let mut cluster = filled(&options())?;
    let altered = cluster.follower()?;
    let id = cluster.id(altered)?;
    // Nobody else checks: what is said of it, it says itself.
    alter(&mut cluster.members[altered], Row::Both, &checking())?;
    let leader = cluster.leader()?;
    if leader != altered {
        let client = cluster.members[leader].client()?;
        client.run(client.maintenance().move_leader(pb::MoveLeaderRequest { target_id: id }))?;
    }
    alarmed(&cluster, id)?;
    until("another leader", || Ok(cluster.leader()? != altered))?;
    // Nor does it come to lead again, neither by an election nor by request.
    for _ in 0..2 {
        let leader = cluster.leader()?;
        assert_ne!(leader, altered);
        let client = cluster.members[leader].client()?;
        let asked = client.run(client.maintenance().move_leader(pb::MoveLeaderRequest { target_id: id }));
        assert_eq!(asked.unwrap_err().message(), "etcdserver: bad leader transferee");
        cluster.members[leader].kill();
        until("another leader", || {
            let other = cluster.leader()?;
            Ok(other != leader)
        })?;
        cluster.members[leader].restart()?;
    }
    assert_ne!(cluster.leader()?, altered);
    Ok(())
}

#[test]
fn without_a_majority_the_alarm_is_the_whole_clusters() -> Result<()> {
    let mut cluster = start(2, &checking())?;
    fill(&cluster)?;
    let altered = cluster.follower()?;
    alter(&mut cluster.members[altered], Row::Both, &checking())?;
    alarmed(&cluster, 0)?;
    assert_eq!(etcdctl(&cluster, &["alarm", "list"])?.trim(), "alarm:CORRUPT");
    etcdctl(&cluster, &["alarm", "disarm"])?;
    Ok(())
}

#[test]
fn compactions_are_compared_where_nothing_else_is() -> Result<()> {
    let options = options().and("--feature-gates=CompactHashCheck=true").and("--compact-hash-check-time=300ms");
    let mut cluster = filled(&options)?;
    let altered = cluster.follower()?;
    let id = cluster.id(altered)?;
    alter(&mut cluster.members[altered], Row::Both, &options)?;
    let client = cluster.members[0].client()?;
    let looked = || -> usize {
        let lines = cluster.members.iter().map(|member| member.log().matches("finished compaction hash check").count());
        lines.sum()
    };
    let wanted = looked() + 2;
    until("more checks", || Ok(looked() >= wanted))?;
    assert!(alarms(&cluster.members[0])?.is_empty(), "nothing was compacted yet");
    client.run(client.kv().compact(pb::CompactionRequest { revision: 40, physical: false }))?;
    alarmed(&cluster, id)
}

#[test]
fn a_member_that_differs_does_not_start_and_the_others_do() -> Result<()> {
    let options = options().and("--feature-gates=InitialCorruptCheck=true");
    let mut cluster = filled(&options)?;
    let altered = cluster.follower()?;
    let id = cluster.id(altered)?;
    cluster.members[altered].stop()?;
    alter::value(&mut cluster.members[altered], ALTERED, Row::Both)?;
    for _ in 0..2 {
        cluster.members[altered].spawn()?;
        let end = cluster.members[altered].wait_end(WITHIN)?;
        let log = cluster.members[altered].log();
        assert_eq!(end.code(), Some(1), "{log}");
        ensure!(log.contains(&format!("{id:x} found data inconsistency with peers")), "{log}");
    }
    // The others find a majority that has what they have, without it and with it.
    let healthy: Vec<usize> = (0..3).filter(|member| *member != altered).collect();
    for member in &healthy {
        cluster.members[*member].stop()?;
        cluster.members[*member].restart()?;
    }
    cluster.members[altered].set_options(&self::options());
    cluster.members[altered].restart()?;
    for member in &healthy {
        cluster.members[*member].stop()?;
        cluster.members[*member].restart()?;
        ensure!(cluster.members[*member].log().contains("initial corruption checking passed"), "it was not checked");
    }
    cluster.members[healthy[0]].client()?.put("k", "v")?;
    Ok(())
}

/// Members that compact, are killed and started again under load, compared all the time.
#[test]
fn healthy_members_never_raise_an_alarm() -> Result<()> {
    const ROUNDS: usize = 6;
    let options = Options::quick()
        .and("--corrupt-check-time=100ms")
        .and("--feature-gates=CompactHashCheck=true,InitialCorruptCheck=true")
        .and("--compact-hash-check-time=100ms")
        .and("--compaction-batch-limit=50");
    let mut cluster = start(3, &options)?;
    let load = Load::start(cluster.urls(), 300, OnFailure::TryNextMember)?;
    for round in 0..ROUNDS {
        let wanted = load.acknowledged() + 300;
        until("more puts", || Ok(load.acknowledged() >= wanted))?;
        let member = &cluster.members[(round + 1) % 3];
        let revision = member.status()?.header.unwrap_or_default().revision;
        let client = member.client()?;
        client.run(client.kv().compact(pb::CompactionRequest { revision: revision - 100, physical: false }))?;
        if round % 2 == 1 {
            cluster.members[round % 3].kill();
            cluster.members[round % 3].restart()?;
        }
        checks(&cluster, 3)?;
        for member in &cluster.members {
            assert_eq!(alarms(member)?, [0; 0], "{}", member.name());
        }
    }
    let agreed = |cluster: &Cluster| cluster.members.iter().any(|member| member.log().contains("all members agree"));
    until("a compaction that all agree at", || Ok(agreed(&cluster)))?;
    let both = r#""number-of-peers-checked":2"#;
    ensure!(
        cluster.members.iter().any(|member| member.log().contains(both)),
        "nobody was ever compared with all others"
    );
    assert_eq!(load.stop().failed, 0);
    cluster.converged()
}
