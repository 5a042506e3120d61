//! Members that are to found a cluster and find each other at a discovery service: any etcd v3 server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Client, Cluster, Member, Options, free_port};
use cluster_test::programs;
use quorate_proto::etcdserverpb as pb;

const END_WITHIN: Duration = Duration::from_secs(30);

/// A member that has not been started, and is told nothing of the others.
fn member(program: &Path, name: &str, options: &[String]) -> Result<Member> {
    let (client, peer) = (free_port()?, free_port()?);
    let mut flags = vec![
        format!("--name={name}"),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        "--heartbeat-interval=20".to_owned(),
        "--election-timeout=200".to_owned(),
    ];
    flags.extend_from_slice(options);
    Member::with_flags(program, name, client, peer, flags)
}

fn by_service(service: &[&Member], token: &str) -> Vec<String> {
    let endpoints = service.iter().map(|member| member.endpoint()).collect::<Vec<_>>().join(",");
    vec![format!("--discovery-endpoints={endpoints}"), format!("--discovery-token={token}")]
}

fn set_size(service: &Client, token: &str, size: &str) -> Result<()> {
    service.put(&format!("/_etcd/registry/{token}/_config/size"), size)?;
    Ok(())
}

/// Keys and values below the token's members, the first to register first.
fn registered(service: &Client, token: &str) -> Result<Vec<(String, String)>> {
    let (key, range_end) = (format!("/_etcd/registry/{token}/members/"), format!("/_etcd/registry/{token}/members0"));
    let sort_target = pb::range_request::SortTarget::Create.into();
    let sort_order = pb::range_request::SortOrder::Ascend.into();
    let range = pb::RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        sort_target,
        sort_order,
        ..Default::default()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = service.run(service.kv().range(range))?.kvs.into_iter();
    Ok(rows.map(|row| (text(&row.key), text(&row.value))).collect())
}

/// Why a member does not start.
fn refusal(mut member: Member) -> Result<String> {
    member.spawn()?;
    let end = member.wait_end(END_WITHIN)?;
    ensure!(end.code() == Some(1), "{end}: {}", member.log());
    Ok(member.log())
}

fn three_find_each_other(service: &Path) -> Result<()> {
    let mut service = Member::start(service, &Options::quick())?;
    let asked = service.client()?;
    set_size(&asked, "t", "3")?;
    let quorate = programs::quorate()?;
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let mut member = member(quorate, name, &by_service(&[&service], "t"))?;
        member.spawn()?;
        // One after the other, so that they stand in this order.
        member.wait_printed("waiting for peers from discovery service")?;
        members.push(member);
    }
    ensure!(!members[0].is_ready()?, "two of three have begun");
    // One that waits can be stopped, and finds its place again.
    members[0].stop()?;
    members[0].spawn()?;
    members[0].wait_printed("waiting for peers from discovery service")?;
    members.push(member(quorate, "c", &by_service(&[&service], "t"))?);
    members[2].spawn()?;
    for member in &mut members {
        member.wait_ready()?;
    }
    let list = members[1].client()?.members()?;
    let cluster_id = list.header.context("find the header")?.cluster_id;
    let found: Vec<_> = list.members.iter().map(|member| (member.id, member.name.clone())).collect();
    let mut expected = Vec::new();
    for member in &members {
        let header = member.status()?.header.context("find the header")?;
        assert_eq!(header.cluster_id, cluster_id);
        expected.push((header.member_id, member.name().to_owned()));
    }
    let keys: Vec<_> = expected
        .iter()
        .zip(&members)
        .map(|((id, name), member)| {
            (format!("/_etcd/registry/t/members/{id:x}"), format!("{name}={}", member.peer_url()))
        })
        .collect();
    assert_eq!(registered(&asked, "t")?, keys);
    expected.sort();
    assert_eq!(found, expected);
    members[0].client()?.put("k", "v")?;
    assert_eq!(members[2].client()?.get("k", false)?.kvs[0].value, "v");

    // Real etcd says the same to who comes too late.
    for program in [quorate, programs::etcd()?] {
        let refused = refusal(member(program, "d", &by_service(&[&service], "t"))?)?;
        ensure!(refused.contains("failed to join discovery cluster (discovery: cluster is full)"), "{refused}");
        ensure!(refused.contains("do not reuse discovery token"), "{refused}");
    }
    assert_eq!(registered(&asked, "t")?.len(), 3, "who is refused leaves nothing");

    // Who has lost its data is known to the registry, and to the others.
    members[2].stop()?;
    members[2].wipe()?;
    members[2].spawn()?;
    members[2].wait_end(END_WITHIN)?;
    ensure!(members[2].log().contains("has already been bootstrapped"), "{}", members[2].log());

    // A member that has its data needs no service.
    service.stop()?;
    members[1].stop()?;
    members[1].restart()?;
    members[1].client()?.put("k", "w")?;
    Ok(())
}

#[test]
fn three_members_find_each_other_through_etcd() -> Result<()> {
    three_find_each_other(programs::etcd()?)
}

#[test]
fn three_members_find_each_other_through_quorate() -> Result<()> {
    three_find_each_other(programs::quorate()?)
}

#[test]
fn a_registry_that_is_not_prepared_is_refused_in_etcds_words() -> Result<()> {
    let service = Member::start(programs::etcd()?, &Options::quick())?;
    let asked = service.client()?;
    set_size(&asked, "bad", "many")?;
    set_size(&asked, "urls", "2")?;
    for (token, expected) in [
        ("none", "discovery: size key not found"),
        ("bad", "discovery: size key is bad"),
        ("urls", "discovery: invalid peer URL"),
    ] {
        for program in [programs::quorate()?, programs::etcd()?] {
            // Each finds the same, whoever was there before.
            asked.run(asked.kv().delete_range(pb::DeleteRangeRequest {
                key: format!("/_etcd/registry/{token}/members/").into(),
                range_end: format!("/_etcd/registry/{token}/members0").into(),
                ..Default::default()
            }))?;
            if token == "urls" {
                asked.put("/_etcd/registry/urls/members/7", "x=ftp://x")?;
            }
            let refused = refusal(member(program, "a", &by_service(&[&service], token))?)?;
            let expected = format!("failed to join discovery cluster ({expected})");
            ensure!(refused.contains(&expected), "{token}, {}: {refused}", program.display());
        }
    }
    Ok(())
}

/// One of the endpoints is down, another comes later, and all ask for a user.
#[test]
fn a_service_with_users_may_be_down_for_a_while() -> Result<()> {
    let mut service = Member::start(programs::etcd()?, &Options::quick())?;
    let asked = service.client()?;
    set_size(&asked, "t", "1")?;
    asked.run(asked.auth().role_add(pb::AuthRoleAddRequest { name: "root".into() }))?;
    let user = pb::AuthUserAddRequest { name: "root".into(), password: "secret".into(), ..Default::default() };
    asked.run(asked.auth().user_add(user))?;
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    asked.run(asked.auth().user_grant_role(grant))?;
    asked.run(asked.auth().auth_enable(pb::AuthEnableRequest {}))?;

    let nobody = member(programs::quorate()?, "nobody", &[])?;
    let with = |password: &str| -> Result<Member> {
        let mut flags = by_service(&[&nobody, &service], "t");
        flags.extend(["--discovery-user=root".to_owned(), format!("--discovery-password={password}")]);
        member(programs::quorate()?, "a", &flags)
    };
    let refused = refusal(with("wrong")?)?;
    ensure!(refused.contains("authentication failed, invalid user ID or password"), "{refused}");

    let mut waiting = with("secret")?;
    service.stop()?;
    waiting.spawn()?;
    waiting.wait_printed("retry connecting to discovery service")?;
    service.restart()?;
    waiting.wait_ready()?;
    waiting.client()?.put("k", "v")?;
    Ok(())
}

/// A service of three, the cluster of five: all at once.
#[test]
fn five_members_find_each_other_at_once() -> Result<()> {
    let service = Cluster::start(programs::quorate()?, 3, &Options::quick())?;
    set_size(&service.members[0].client()?, "t", "5")?;
    let endpoints: Vec<&Member> = service.members.iter().collect();
    let mut members = Vec::new();
    for index in 0..5 {
        let mut member = member(programs::quorate()?, &format!("m{index}"), &by_service(&endpoints, "t"))?;
        member.spawn()?;
        members.push(member);
    }
    for member in &mut members {
        member.wait_ready()?;
        assert_eq!(member.client()?.members()?.members.len(), 5);
    }
    members[4].client()?.put("k", "v")?;
    Ok(())
}
