//! One member of three that is left alone.

use anyhow::{Result, ensure};
use cluster_test::cluster::Options;
use tonic::{Code, Status};

use crate::start;

/// etcd has several texts for it, by what it takes for the cause.
const UNAVAILABLE: [&str; 4] = [
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: no leader",
];

fn is_etcds(refused: &Status) -> bool {
    refused.code() == Code::Unavailable && UNAVAILABLE.contains(&refused.message())
}

fn alone(the_leader_is_left: bool) -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    let leader = cluster.leader()?;
    let left = if the_leader_is_left { leader } else { cluster.follower()? };
    let client = cluster.members[left].client()?;
    client.put("k", "1")?;
    let gone: Vec<usize> = (0..3).filter(|index| *index != left).collect();
    for index in &gone {
        cluster.members[*index].kill();
    }
    let (written, read) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| client.put("k", "2"));
        (client.get("k", false), writing.join().expect("it does not panic"))
    });
    for refused in [written.map(|_| ()), read.map(|_| ())] {
        let refused = refused.expect_err("a minority has acknowledged");
        ensure!(is_etcds(&refused), "{refused}");
    }
    assert_eq!(client.get("k", true)?.kvs[0].value, "1", "what it has can be read");
    let status = cluster.members[left].status()?;
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));

    cluster.members[gone[0]].restart()?;
    client.put("k", "3")?;
    assert_eq!(cluster.members[gone[0]].client()?.get("k", false)?.kvs[0].value, "3");
    let status = cluster.members[left].status()?;
    ensure!(status.leader != 0 && status.errors.is_empty(), "{status:?}");
    cluster.members[gone[1]].restart()?;
    cluster.converged()
}

#[test]
fn a_leader_left_alone_promises_nothing_until_another_one_is_back() -> Result<()> {
    alone(true)
}

#[test]
fn a_follower_left_alone_promises_nothing_until_another_one_is_back() -> Result<()> {
    alone(false)
}
