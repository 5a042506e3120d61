//! Most of the members are gone for good, and one goes on alone: `--force-new-cluster`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Client, Cluster, Member, Options, free_port};
use cluster_test::load::{self, Load, OnFailure};
use cluster_test::programs;
use quorate_proto::etcdserverpb as pb;

use crate::start;

const END_WITHIN: Duration = Duration::from_secs(30);
const LEASE: i64 = 0x1ea5e;

fn forced() -> Options {
    Options::quick().and("--force-new-cluster")
}

/// What must outlive it.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    cluster_id: u64,
    revision: i64,
    /// Key, value, lease and revision.
    rows: Vec<(Vec<u8>, Vec<u8>, i64, i64)>,
    leases: Vec<i64>,
    users: Vec<String>,
    auth_revision: u64,
    alarms: Vec<pb::AlarmMember>,
    /// Id, name, peer and client URLs, whether it learns.
    members: Vec<(u64, String, Vec<String>, bool)>,
}

impl Kept {
    fn of(client: &Client) -> Result<Self> {
        let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let range = client.run(client.kv().range(all))?;
        let leases = client.run(client.lease().lease_leases(pb::LeaseLeasesRequest {}))?;
        let users = client.run(client.auth().user_list(pb::AuthUserListRequest {}))?;
        let auth = client.run(client.auth().auth_status(pb::AuthStatusRequest {}))?;
        let alarms = client.run(client.maintenance().alarm(pb::AlarmRequest::default()))?;
        let header = range.header.context("find the header")?;
        let rows = range.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec(), kv.lease, kv.mod_revision));
        let members = client.members()?.members.into_iter();
        Ok(Self {
            cluster_id: header.cluster_id,
            revision: header.revision,
            rows: rows.collect(),
            leases: leases.leases.into_iter().map(|lease| lease.id).collect(),
            users: users.users,
            auth_revision: auth.auth_revision,
            alarms: alarms.alarms,
            members: members.map(|one| (one.id, one.name, one.peer_urls, one.is_learner)).collect(),
        })
    }
}

fn fill(client: &Client) -> Result<()> {
    client.run(client.lease().lease_grant(pb::LeaseGrantRequest { ttl: 3_600, id: LEASE }))?;
    let leased = pb::PutRequest { key: "leased".into(), value: "1".into(), lease: LEASE, ..Default::default() };
    client.run(client.kv().put(leased))?;
    for round in 0..20 {
        client.put(&format!("k{}", round % 7), &round.to_string())?;
    }
    let user = pb::AuthUserAddRequest { name: "somebody".into(), password: "p".into(), ..Default::default() };
    client.run(client.auth().user_add(user))?;
    let raise = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: 7,
        alarm: pb::AlarmType::Nospace.into(),
    };
    client.run(client.maintenance().alarm(raise))?;
    Ok(())
}

fn disarm(client: &Client) -> Result<()> {
    let disarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate.into(),
        member_id: 7,
        alarm: pb::AlarmType::Nospace.into(),
    };
    client.run(client.maintenance().alarm(disarm))?;
    Ok(())
}

/// Three voters and a learner stop; one of the voters starts by force, twice, and then as always. What it had and has then.
fn force_one_of_three(program: &Path, ports: &[u16]) -> Result<(Cluster, Vec<Member>, Kept, Kept)> {
    let mut cluster = Cluster::start_at(program, ports, &Options::quick())?;
    fill(&cluster.members[0].client()?)?;
    cluster.add(true)?;
    let had = Kept::of(&cluster.members[0].client()?)?;
    ensure!(had.members.len() == 4, "{had:?}");
    for member in &mut cluster.members {
        member.stop()?;
    }
    let lost = cluster.members.split_off(1);
    let left = &mut cluster.members[0];
    for options in [forced(), forced(), Options::quick()] {
        left.set_options(&options);
        left.restart()?;
        left.stop()?;
    }
    left.restart()?;
    let has = Kept::of(&left.client()?)?;
    Ok((cluster, lost, had, has))
}

#[test]
fn a_member_whose_majority_is_lost_goes_on_alone_and_grows_again() -> Result<()> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let (mut cluster, mut lost, had, has) = force_one_of_three(programs::quorate()?, &ports)?;
    let own = has.members.first().context("find it among its members")?.clone();
    ensure!(!own.3 && own.1 == "m0" && has.members.len() == 1, "{has:?}");
    ensure!(had.members.contains(&own), "{had:?}, {has:?}");
    assert_eq!(Kept { members: vec![own.clone()], ..had }, has);

    // Those that come back are told that they are no members any more, the learner too.
    for member in &mut lost {
        member.spawn()?;
    }
    for member in &mut lost {
        let end = member.wait_end(END_WITHIN)?;
        ensure!(member.log().contains("permanently removed from the cluster"), "{end}: {}", member.log());
    }
    disarm(&cluster.members[0].client()?)?;
    cluster.members[0].client()?.put("alone", "1")?;
    for _ in 0..2 {
        let learner = cluster.add(true)?;
        cluster.promote(learner)?;
    }
    let client = cluster.members[2].client()?;
    assert_eq!(client.get("alone", false)?.kvs[0].value, "1");
    assert_eq!(client.get("leased", false)?.kvs[0].lease, LEASE);
    cluster.members[0].kill();
    client.put("together", "2")?;
    cluster.members[0].restart()?;
    cluster.converged()
}

#[test]
fn it_keeps_what_etcd_keeps() -> Result<()> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let (etcd, _, _, expected) = force_one_of_three(programs::etcd()?, &ports)?;
    drop(etcd);
    let (_cluster, _, _, has) = force_one_of_three(programs::quorate()?, &ports)?;
    assert_eq!(has, expected);
    Ok(())
}

#[test]
fn a_learner_goes_on_as_the_only_voter() -> Result<()> {
    let mut cluster = start(1, &Options::quick())?;
    fill(&cluster.members[0].client()?)?;
    disarm(&cluster.members[0].client()?)?;
    let learner = cluster.add(true)?;
    let had = Kept::of(&cluster.members[0].client()?)?;
    // It is ready when it has applied what was committed before.
    cluster.members[learner].stop()?;
    cluster.members[0].stop()?;
    let voter = cluster.members.remove(0);
    cluster.members[0].set_options(&forced());
    cluster.members[0].restart()?;
    let status = cluster.members[0].status()?;
    ensure!(!status.is_learner, "{status:?}");
    let has = Kept::of(&cluster.members[0].client()?)?;
    let own: Vec<_> = had.members.iter().filter(|one| one.3).cloned().map(|one| (one.0, one.1, one.2, false)).collect();
    assert_eq!(Kept { members: own, ..had }, has);
    drop(voter);
    cluster.members[0].set_options(&Options::quick());
    cluster.members[0].kill();
    cluster.members[0].restart()?;
    cluster.members[0].client()?.put("k", "v")?;
    cluster.add(false)?;
    cluster.converged()
}

/// etcd may lose what it has acknowledged last: it drops what it does not know to be committed.
#[test]
fn what_a_killed_leader_has_acknowledged_is_there() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let leader = cluster.leader()?;
    let load = Load::start(vec![cluster.members[leader].url()], 300, OnFailure::TryNextMember)?;
    while load.acknowledged() < 300 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The leader first: the others must not have it step down.
    cluster.members[leader].kill();
    cluster.members.retain_mut(|member| member.is_running().is_ok_and(|runs| !runs));
    let sent = load.stop();
    ensure!(sent.acknowledged.len() >= 300, "{} acknowledged", sent.acknowledged.len());
    let left = &mut cluster.members[0];
    left.set_options(&forced());
    left.restart()?;
    let client = left.client()?;
    assert_eq!(client.members()?.members.len(), 1);
    client.block_on(load::check(client.channel(), &sent.acknowledged))
}

#[test]
fn killed_while_it_is_forced_it_is_forced_by_the_next_start() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    fill(&cluster.members[0].client()?)?;
    let had = Kept::of(&cluster.members[0].client()?)?;
    // In order: a follower may be killed with its newest entries not yet on its own disk.
    for member in &mut cluster.members {
        member.stop()?;
    }
    cluster.members.truncate(1);
    let left = &mut cluster.members[0];
    left.set_options(&forced());
    for round in 0..15 {
        left.spawn()?;
        // From before it opens anything to after it serves.
        std::thread::sleep(Duration::from_millis(round * 12));
        left.kill();
    }
    left.restart()?;
    let has = Kept::of(&left.client()?)?;
    let own: Vec<_> = had.members.iter().filter(|one| one.1 == "m0").cloned().collect();
    assert_eq!(Kept { members: own, ..had }, has);
    Ok(())
}
