//! Who a member is that finds an empty data directory: a founder of a new cluster, or one that was added to an existing one.
//!
//! ```text
//!   new        ids from --initial-cluster (or what is discovered) and its token (every founder reckons the same); refused if the cluster knows this member
//!   existing   ids from the members that are there, by the peer URLs that the member was added with
//! ```
//!
//! A member that has lost its data must not come back under the same id: it has acknowledged what it no longer has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_proto::peer::{ClusterAnswer, KnownMember};

use crate::config::{ClusterState, Config, Url};
use crate::discovery::with_initial_cluster;
use crate::net::Dial;
use crate::node::{MemberIdentity, cluster_id, member_id};
use crate::raft::ask_cluster;

/// A peer that does not answer by then is not there.
const PEER_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Bootstrap {
    pub(crate) identity: MemberIdentity,
    /// Members of the cluster that is founded, by id, with their peer URLs; `None` when one is joined.
    pub(crate) founders: Option<BTreeMap<u64, Vec<String>>>,
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

fn own_urls(config: &Config) -> anyhow::Result<&[Url]> {
    Ok(config.initial_cluster.get(&config.name).context("--name is not in --initial-cluster")?)
}

fn founders(config: &Config) -> BTreeMap<u64, Vec<String>> {
    let members = config.initial_cluster.values().map(|urls| texts(urls));
    members.map(|urls| (member_id(&urls, &config.initial_cluster_token, None), urls)).collect()
}

/// Who founds the cluster with a member whose last start died before it had founded it; `None` for one that joins.
pub(crate) async fn founders_of(
    config: &Config,
    identity: &MemberIdentity,
    dial: &Dial,
) -> anyhow::Result<Option<BTreeMap<u64, Vec<String>>>> {
    if config.initial_cluster_state == ClusterState::Existing {
        return Ok(None);
    }
    let founders = founders(&with_initial_cluster(config, dial).await?);
    let ids: Vec<u64> = founders.keys().copied().collect();
    Ok((cluster_id(&ids) == identity.cluster_id).then_some(founders))
}

/// `dial` reaches the other members.
pub(crate) async fn bootstrap(config: &Config, dial: &Dial) -> anyhow::Result<Bootstrap> {
    let config = &with_initial_cluster(config, dial).await?;
    match config.initial_cluster_state {
        ClusterState::New => config.verify_bootstrap(&crate::config::resolve),
        ClusterState::Existing => config.verify_join(),
    }
    .map_err(anyhow::Error::msg)?;
    let others: Vec<Vec<String>> =
        config.initial_cluster.iter().filter(|(name, _)| **name != config.name).map(|(_, urls)| texts(urls)).collect();
    match config.initial_cluster_state {
        ClusterState::New => found(config, dial, &others).await,
        ClusterState::Existing => join(config, dial, &others).await,
    }
}

async fn found(config: &Config, dial: &Dial, others: &[Vec<String>]) -> anyhow::Result<Bootstrap> {
    let founders = founders(config);
    let ids: Vec<u64> = founders.keys().copied().collect();
    let own = texts(own_urls(config)?);
    let identity = MemberIdentity {
        cluster_id: cluster_id(&ids),
        member_id: member_id(&own, &config.initial_cluster_token, None),
        name: config.name.clone(),
    };
    for known in ask_all(dial, others).await {
        if known.cluster == identity.cluster_id {
            refuse_known(&known, &identity)?;
        }
    }
    Ok(Bootstrap { identity, founders: Some(founders) })
}

/// Others may be starting for the first time as well, and know nothing of anybody yet.
fn refuse_known(cluster: &ClusterAnswer, identity: &MemberIdentity) -> anyhow::Result<()> {
    let id = identity.member_id;
    if cluster.removed.contains(&id) {
        bail!(
            "member {id:x} has been permanently removed from the cluster: add it anew (`member add`) and start it with \
             --initial-cluster-state=existing"
        );
    }
    if cluster.members.iter().any(|member| member.id == id && !member.name.is_empty()) {
        bail!(
            "member {id:x} has already been bootstrapped, and its data directory is empty: what it acknowledged is lost. \
             Remove it (`member remove {id:x}`), add it anew (`member add`), and start it with \
             --initial-cluster-state=existing"
        );
    }
    Ok(())
}

async fn join(config: &Config, dial: &Dial, others: &[Vec<String>]) -> anyhow::Result<Bootstrap> {
    let answers = ask_all(dial, others).await;
    let known = answers.into_iter().max_by_key(|known| (known.leader != 0, known.term)).with_context(|| {
        format!("cannot fetch cluster info from peer urls: none of {} answers", others.concat().join(", "))
    })?;
    let own: BTreeSet<String> = texts(own_urls(config)?).into_iter().collect();
    let is_own = |member: &&KnownMember| member.peer_urls.iter().cloned().collect::<BTreeSet<_>>() == own;
    let urls = || own.iter().cloned().collect::<Vec<_>>().join(", ");
    let member = known.members.iter().find(is_own).with_context(|| {
        format!(
            "the cluster {:x} has no member with the peer URLs {}: add it first (`member add {} --peer-urls={}`)",
            known.cluster,
            urls(),
            config.name,
            urls()
        )
    })?;
    let identity = MemberIdentity { cluster_id: known.cluster, member_id: member.id, name: config.name.clone() };
    refuse_known(&known, &identity)?;
    check_initial_cluster(config, &known)?;
    Ok(Bootstrap { identity, founders: None })
}

/// etcd's rule: who joins names all members that there are.
fn check_initial_cluster(config: &Config, known: &ClusterAnswer) -> anyhow::Result<()> {
    if known.members.len() != config.initial_cluster.len() {
        bail!(
            "error validating peerURLs of --initial-cluster: member count is unequal: it names {}, the cluster has {}",
            config.initial_cluster.len(),
            known.members.len()
        );
    }
    let named: BTreeSet<String> = config.initial_cluster.values().flat_map(|urls| texts(urls)).collect();
    for member in &known.members {
        if !member.peer_urls.iter().any(|url| named.contains(url)) {
            bail!(
                "error validating peerURLs of --initial-cluster: member {:x} at {} is not in it",
                member.id,
                member.peer_urls.join(", ")
            );
        }
    }
    Ok(())
}

async fn ask_all(dial: &Dial, others: &[Vec<String>]) -> Vec<ClusterAnswer> {
    let asked = others.iter().map(|urls| ask_cluster(dial, urls, PEER_PATIENCE));
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> ClusterAnswer {
        let member = KnownMember { id: 7, name: name.into(), ..Default::default() };
        ClusterAnswer { cluster: 1, members: vec![member], removed: vec![9], ..Default::default() }
    }

    fn identity(member_id: u64) -> MemberIdentity {
        MemberIdentity { cluster_id: 1, member_id, name: "m".into() }
    }

    #[test]
    fn a_member_that_has_served_does_not_come_back_with_nothing() {
        refuse_known(&known(""), &identity(7)).unwrap();
        let refused = refuse_known(&known("m"), &identity(7)).unwrap_err().to_string();
        assert!(refused.contains("member 7 has already been bootstrapped") && refused.contains("member remove 7"));
        let refused = refuse_known(&known("m"), &identity(9)).unwrap_err().to_string();
        assert!(refused.contains("permanently removed"));
        refuse_known(&known("m"), &identity(8)).unwrap();
    }
}
