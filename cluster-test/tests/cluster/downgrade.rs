//! The version that members agree on, and a downgrade of it. What etcdctl prints is in cluster-test/transcripts/downgrade.txt.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_test::cluster::{Cluster, Options};
use pb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb as pb;

use crate::start;

const WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until all members show this storage version and this target.
fn shown(cluster: &Cluster, version: &str, target: &str) -> Result<()> {
    let until = Instant::now() + WITHIN;
    loop {
        let statuses = cluster.members.iter().map(|member| member.status()).collect::<Result<Vec<_>>>()?;
        let shows = |status: &pb::StatusResponse| {
            let info = status.downgrade_info.clone().unwrap_or_default();
            (status.storage_version.as_str(), info.target_version.as_str(), info.enabled)
                == (version, target, !target.is_empty())
        };
        if statuses.iter().all(shows) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "not {version} and `{target}` within {WITHIN:?}: {statuses:#?}");
        thread::sleep(LOOK_AGAIN);
    }
}

fn ask(cluster: &Cluster, member: usize, action: DowngradeAction) -> Result<String> {
    let client = cluster.members[member].client()?;
    let request = pb::DowngradeRequest { action: action.into(), version: "3.6.0".into() };
    Ok(client.run(client.maintenance().downgrade(request))?.version)
}

#[test]
fn a_downgrade_outlives_its_leader_and_is_taken_back() -> Result<()> {
    let mut cluster = start(3, &Options::quick())?;
    shown(&cluster, "3.7.0", "")?;
    let follower = cluster.follower()?;
    assert_eq!(ask(&cluster, follower, DowngradeAction::Validate)?, "3.7");
    assert_eq!(ask(&cluster, follower, DowngradeAction::Enable)?, "3.7");
    shown(&cluster, "3.6.0", "3.6.0")?;
    let leader = cluster.leader()?;
    cluster.members[leader].kill();
    cluster.members[leader].restart()?;
    shown(&cluster, "3.6.0", "3.6.0")?;
    let refused = ask(&cluster, leader, DowngradeAction::Enable).unwrap_err();
    ensure!(format!("{refused:#}").contains("invalid downgrade target version"), "{refused:#}");
    assert_eq!(ask(&cluster, cluster.follower()?, DowngradeAction::Cancel)?, "3.6");
    shown(&cluster, "3.7.0", "")?;
    cluster.converged()
}
