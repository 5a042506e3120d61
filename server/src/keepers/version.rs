//! Which version the members agree on, and a downgrade from it to the one before.
//!
//! ```text
//!  leader: versions of all members ─▶ decide ─▶ ClusterVersionSet ─▶ the log ─▶ /version, Status
//!  client: Downgrade ENABLE ─▶ DowngradeInfoSet ─▶ the log ─┘ the target instead of what members run
//!  leader: all members run the target ─▶ the downgrade is over
//! ```
//!
//! As in etcd, which lets members of two releases work together by it. Nothing in apply depends on it here yet: what it says is
//! which release may join and which may be gone back to.

use std::fmt;
use std::time::Duration;

use quorate_proto::log::{ClusterVersionSet, DowngradeInfoSet, proposal::Command};
use quorate_proto::peer::VersionRequest;
use quorate_proto::peer::audit_client::AuditClient;

use crate::config::ETCD_VERSION;
use crate::node::Node;

/// Between two looks at the members' versions (etcd's number).
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// Before a version that could not be set is set again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Major and minor number; clusters have no patch number of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: i64,
    minor: i64,
}

impl Version {
    /// Of a semantic version: three numbers, `-pre.release` and `+metadata` if need be.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
        let (text, release) = text.split_once('-').unwrap_or((text, ""));
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_identifier = |text: &str| text.is_empty() || text.split('.').all(is_word);
        let [major, minor, patch] = text.split('.').map(|number| number.parse().ok()).collect::<Vec<_>>()[..] else {
            return None;
        };
        let (major, minor, _patch): (i64, i64, i64) = (major?, minor?, patch?);
        (is_identifier(metadata) && is_identifier(release)).then_some(Self { major, minor })
    }

    /// The only one that may be gone back to from here (etcd's rule).
    pub fn before(self) -> Self {
        Self { minor: self.minor - 1, ..self }
    }

    /// `3.7`, as answers about downgrades have it.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    fn own() -> Self {
        Self::parse(ETCD_VERSION).expect("ours is three numbers")
    }
}

/// `3.7.0`
impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.0", self.major, self.minor)
    }
}

/// The cluster version to set, if it is to change. `members` has `None` for one that does not say what it runs.
fn decide(cluster: Option<Version>, members: &[Option<Version>], downgrade: Option<Version>) -> Option<Version> {
    let Some(cluster) = cluster else {
        // etcd begins with 3.0 where not everybody answers. There is no member of ours that old.
        return members.iter().flatten().min().copied();
    };
    let lowest = members.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().min()?;
    match downgrade {
        Some(target) if target == cluster => None,
        Some(target) if target == cluster.before() && target == lowest.before() => Some(target),
        Some(target) => {
            tracing::error!(%target, %cluster, %lowest, "cannot downgrade to this version");
            None
        }
        None => (lowest.major == cluster.major && cluster < lowest).then_some(lowest),
    }
}

/// Why a member of this release must not take part; etcd's words.
pub fn refuse_older(cluster_version: &str) -> anyhow::Result<()> {
    match Version::parse(cluster_version) {
        Some(cluster) if Version::own() < cluster => anyhow::bail!(
            "invalid downgrade; server version is lower than determined cluster version \
             (current-server-version: {}, determined-cluster-version: {})",
            Version::own(),
            cluster.short()
        ),
        Some(_) | None => Ok(()),
    }
}

/// As the leader: keeps the cluster version what the members and a downgrade make it.
pub async fn keep_version(node: Node) {
    let mut status = node.status();
    loop {
        let done = !status.is_leader || set_cluster_version(&node).await;
        let pause = if done { LOOK_INTERVAL } else { RETRY_PAUSE };
        tokio::select! {
            () = tokio::time::sleep(pause) => status = node.status(),
            changed = node.raft().status_changed(status) => match changed {
                Some(changed) => status = changed,
                None => return,
            },
        }
    }
}

/// Whether it is what it should be.
async fn set_cluster_version(node: &Node) -> bool {
    let reader = node.reader();
    let members = members_versions(node).await;
    let (before, downgrade) = (Version::parse(&reader.cluster_version()), reader.downgrade());
    let Some(next) = decide(before, &members, downgrade.as_deref().and_then(Version::parse)) else { return true };
    let set = ClusterVersionSet { version: next.to_string() };
    let outcome = node.propose_system(Command::ClusterVersionSet(set)).await;
    match &outcome {
        Ok(_) => tracing::info!(from = before.map(Version::short), to = next.short(), "cluster version is updated"),
        Err(error) => tracing::warn!(%error, to = next.short(), "failed to update cluster version"),
    }
    outcome.is_ok()
}

/// As the leader: ends a downgrade that has reached its target. Looks every `interval`.
pub async fn keep_downgrade(node: Node, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let target = node.reader().downgrade();
        let Some(target) = target.filter(|_| node.status().is_leader) else { continue };
        let members = members_versions(&node).await;
        if members.iter().all(|version| version.is_some() && *version == Version::parse(&target)) {
            tracing::info!(target, "the cluster has been downgraded");
            let over = DowngradeInfoSet { enabled: false, version: String::new() };
            if let Err(error) = node.propose_system(Command::DowngradeInfoSet(over)).await {
                tracing::warn!(%error, "failed to end the downgrade; trying again");
            }
        }
    }
}

/// This member's and everybody's.
async fn members_versions(node: &Node) -> Vec<Option<Version>> {
    let own = node.identity().member_id;
    let members = node.reader().members();
    let others = members.iter().filter(|member| member.id != own).map(|member| ask(node, member.id));
    let mut versions = futures::future::join_all(others).await;
    versions.push(Some(Version::own()));
    versions
}

async fn ask(node: &Node, id: u64) -> Option<Version> {
    let mut client = AuditClient::new(node.raft().peer_channel(id)?);
    let answer = tokio::time::timeout(ANSWER_PATIENCE, client.version(VersionRequest {})).await;
    Version::parse(&answer.ok()?.ok()?.into_inner().version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(&format!("{text}.0")).unwrap()
    }

    fn decided(cluster: &str, members: &[&str], downgrade: &str) -> Option<String> {
        let parse = |text: &&str| Version::parse(&format!("{text}.0"));
        let members: Vec<_> = members.iter().map(parse).collect();
        decide(parse(&cluster), &members, parse(&downgrade)).map(Version::short)
    }

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        for good in ["3.6.0", "3.6.9", "3.6.0-", "3.6.0-rc.1", "3.6.0+x.y", "3.6.0-a+b"] {
            assert_eq!(Version::parse(good).unwrap().to_string(), "3.6.0", "{good}");
        }
        for bad in ["", "3", "3.6", "3.6.0.0", "3.6.", "a.b.c", "3.6-rc", "3.6.0-a..b", "v3.6.0", "3.6.0_1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert_eq!((version("3.7").before(), version("3.7").short().as_str()), (version("3.6"), "3.7"));
    }

    #[test]
    fn the_cluster_version_is_the_lowest_that_members_run() {
        assert_eq!(decided("", &["3.7", "3.8"], "").as_deref(), Some("3.7"));
        assert_eq!(decided("", &["3.7", "?"], "").as_deref(), Some("3.7"));
        assert_eq!(decided("3.6", &["3.7", "3.8"], "").as_deref(), Some("3.7"));
        for (cluster, members) in [
            ("3.7", &["3.7", "3.7"][..]),
            ("3.7", &["3.8", "3.7"]),
            ("3.7", &["3.6", "3.7"]),
            // Of one it is not known, and it may be the lowest.
            ("3.6", &["3.7", "?"]),
            ("3.6", &["4.0"]),
        ] {
            assert_eq!(decided(cluster, members, ""), None, "{cluster} {members:?}");
        }
    }

    #[test]
    fn a_downgrade_takes_the_cluster_one_version_back_and_no_further() {
        assert_eq!(decided("3.7", &["3.7", "3.7"], "3.6").as_deref(), Some("3.6"));
        assert_eq!(decided("3.6", &["3.7", "3.6"], "3.6"), None, "it is there");
        assert_eq!(decided("3.7", &["3.7"], "3.5"), None);
        assert_eq!(decided("3.7", &["3.6"], "3.6"), None);
        assert_eq!(decided("3.7", &["3.7", "?"], "3.6"), None);
        assert_eq!(decided("3.6", &["3.7"], "").as_deref(), Some("3.7"), "and back up when it was cancelled");
    }

    #[test]
    fn a_release_older_than_the_cluster_is_refused() {
        for fits in ["", "3.7.0", "3.6.0"] {
            refuse_older(fits).unwrap();
        }
        let refused = refuse_older("3.8.0").unwrap_err().to_string();
        assert!(refused.starts_with("invalid downgrade; server version is lower than determined cluster version"));
    }
}
