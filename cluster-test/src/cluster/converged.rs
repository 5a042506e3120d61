//! Whether all members of a cluster have the same of everything that is replicated.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quorate_proto::etcdserverpb as pb;

use super::{Client, Cluster, Member};

const WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a member has, by its own word alone.
#[derive(Debug, PartialEq, Eq)]
struct Has {
    revision: i64,
    hash: u32,
    compacted: i64,
    leases: BTreeSet<i64>,
    auth_revision: u64,
    members: Vec<(u64, String, bool)>,
    /// Asked for last: what is asked may itself go through the log.
    applied: u64,
}

impl Has {
    fn of(member: &Member) -> Result<Self> {
        let client = member.client()?;
        let auth = client.run(client.auth().auth_status(pb::AuthStatusRequest {}))?;
        let leases = client.run(client.lease().lease_leases(pb::LeaseLeasesRequest {}))?;
        let hash = client.run(client.maintenance().hash_kv(pb::HashKvRequest { revision: 0 }))?;
        let members = client.run(client.cluster().member_list(pb::MemberListRequest { linearizable: false }))?;
        Ok(Self {
            revision: hash.header.unwrap_or_default().revision,
            hash: hash.hash,
            compacted: hash.compact_revision,
            leases: leases.leases.into_iter().map(|lease| lease.id).collect(),
            auth_revision: auth.auth_revision,
            members: members.members.into_iter().map(|member| (member.id, member.name, member.is_learner)).collect(),
            applied: 0,
        })
    }
}

fn applied(client: &Client) -> Result<u64> {
    Ok(client.run(client.maintenance().status(pb::StatusRequest {}))?.raft_applied_index)
}

impl Cluster {
    /// Fails unless all members come to have the same keys and history (HashKV), leases, users' revision, members and applied
    /// index. For a cluster that nobody writes to any more, and without learners, which answer to little of this.
    pub fn converged(&self) -> Result<()> {
        let until = Instant::now() + WITHIN;
        loop {
            let mut all = self.members.iter().map(Has::of).collect::<Result<Vec<_>>>().context("ask all members")?;
            for (has, member) in all.iter_mut().zip(&self.members) {
                has.applied = applied(&member.client()?)?;
            }
            if all.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "members differ after {WITHIN:?}: {all:#?}");
            thread::sleep(LOOK_AGAIN);
        }
    }
}
