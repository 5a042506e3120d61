//! Members that must not take part: without their data, removed, or of another cluster.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Member, Options};
use cluster_test::programs;
use quorate_proto::etcdserverpb as pb;

use crate::start;

const END_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_member_that_has_lost_its_data_refuses_to_start_and_says_what_to_do() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let id = cluster.id(2)?;
    cluster.members[0].client()?.put("k", "v")?;
    cluster.members[2].stop()?;
    cluster.members[2].wipe()?;
    cluster.members[2].spawn()?;
    let end = cluster.members[2].wait_end(END_WITHIN)?;
    let log = cluster.members[2].log();
    assert_eq!(end.code(), Some(1), "{log}");
    for words in ["has already been bootstrapped", &format!("member remove {id:x}"), "initial-cluster-state=existing"] {
        ensure!(log.contains(words), "it does not say `{words}`:\n{log}");
    }
    // Doing so brings it back, under another id.
    cluster.members.remove(2);
    cluster.remove_id(id)?;
    let again = cluster.add(false)?;
    assert_ne!(cluster.id(again)?, id);
    assert_eq!(cluster.members[again].client()?.get("k", false)?.kvs[0].value, "v");
    cluster.converged()
}

#[test]
fn a_member_with_an_old_copy_of_its_data_refuses_to_start_and_says_what_to_do() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    let id = cluster.id(follower)?;
    let client = cluster.members[leader].client()?;
    client.put("k", "v")?;
    cluster.members[follower].stop()?;
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("copy");
    copy_directory(&cluster.members[follower].data_dir(), &copy)?;
    cluster.members[follower].spawn()?;
    cluster.members[follower].wait_ready()?;
    for number in 0..20 {
        client.put("k", &number.to_string())?;
    }
    cluster.converged()?;
    // Everything is the same again but the last entries of one member.
    cluster.members[follower].kill();
    cluster.members[follower].wipe()?;
    copy_directory(&copy, &cluster.members[follower].data_dir())?;
    cluster.members[follower].spawn()?;
    let end = cluster.members[follower].wait_end(END_WITHIN)?;
    let log = cluster.members[follower].log();
    assert_eq!(end.code(), Some(1), "{log}");
    for words in
        ["has lost entries that it acknowledged", &format!("member remove {id:x}"), "initial-cluster-state=existing"]
    {
        ensure!(log.contains(words), "it does not say `{words}`:\n{log}");
    }
    cluster.members.remove(follower);
    cluster.remove_id(id)?;
    let again = cluster.add(false)?;
    assert_eq!(cluster.members[again].client()?.get("k", false)?.kvs[0].value, "19");
    cluster.converged()
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("run cp")?;
    ensure!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
    Ok(())
}

#[test]
fn a_removed_member_stops_and_does_not_start_again() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let follower = cluster.follower()?;
    let mut removed = cluster.remove(follower)?;
    for start in ["the one it was removed in", "the next one"] {
        let end = removed.wait_end(END_WITHIN)?;
        let log = removed.log();
        ensure!(log.contains("permanently removed from the cluster"), "{start}, {end}:\n{log}");
        ensure!(start != "the next one" || end.code() == Some(1), "{end}");
        removed.spawn()?;
    }
    removed.wait_end(END_WITHIN)?;
    cluster.members[0].client()?.put("k", "v")?;
    cluster.converged()
}

#[test]
fn a_member_that_was_removed_while_it_was_down_is_told_so() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let id = cluster.id(2)?;
    cluster.members[2].kill();
    cluster.remove_id(id)?;
    let mut removed = cluster.members.remove(2);
    removed.spawn()?;
    removed.wait_end(END_WITHIN)?;
    ensure!(removed.log().contains("permanently removed from the cluster"), "{}", removed.log());
    cluster.members[0].client()?.put("k", "v")?;
    cluster.converged()
}

#[test]
fn the_leader_may_be_removed_whoever_is_asked() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    for asks_itself in [true, false] {
        let leader = cluster.leader()?;
        let id = cluster.id(leader)?;
        let (itself, mut removed) = (cluster.members[leader].client()?, cluster.members.remove(leader));
        if asks_itself {
            // Members that have just started may not have met each other yet, which counts as unhealthy.
            let until = Instant::now() + END_WITHIN;
            while let Err(refused) = itself.run(itself.cluster().member_remove(pb::MemberRemoveRequest { id })) {
                ensure!(refused.message().contains("unhealthy cluster") && Instant::now() < until, "{refused}");
                std::thread::sleep(Duration::from_millis(20));
            }
        } else {
            cluster.remove_id(id)?;
        }
        removed.wait_end(END_WITHIN)?;
        ensure!(removed.log().contains("permanently removed from the cluster"), "{}", removed.log());
        cluster.members[0].client()?.put("k", "v")?;
    }
    assert_eq!(cluster.members[0].client()?.members()?.members.len(), 1);
    cluster.converged()
}

#[test]
fn a_member_of_another_cluster_is_refused_and_both_go_on() -> Result<()> {
    let cluster = start(2, &Options::quick())?;
    // It believes to be the third of three: the addresses are right, the token is not.
    let port = cluster_test::cluster::free_port()?;
    let peers = format!(
        "m0={},m1={},stranger=http://127.0.0.1:{port}",
        cluster.members[0].peer_url(),
        cluster.members[1].peer_url()
    );
    let options = Options::quick().and("--initial-cluster-token=another");
    let mut stranger = Member::one_of(programs::quorate()?, "stranger", port, &peers, &options)?;
    stranger.spawn()?;
    cluster.members[0].wait_printed("refused a member of another cluster")?;
    cluster.members[1].wait_printed("refused a member of another cluster")?;
    stranger.wait_printed("cluster ID mismatch")?;
    cluster.members[0].client()?.put("k", "v")?;
    ensure!(stranger.is_running()? && !stranger.is_ready()?, "{}", stranger.log());
    let said = cluster.members[0].log().matches("refused a member of another cluster").count();
    assert_eq!(said, 1, "once, not at every attempt");
    cluster.converged()
}
