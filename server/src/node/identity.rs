//! Names of members and clusters, by etcd's rule, so that the same flags give the same ids.

use sha1::{Digest, Sha1};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberIdentity {
    pub cluster_id: u64,
    pub member_id: u64,
    pub name: String,
}

/// The id of a member of a new cluster: from its peer URLs, sorted, and the cluster's token. A member added later is
/// given the time as well (`added_at`, seconds of the Unix epoch) and an empty token, so that no id ever comes back.
pub fn member_id(peer_urls: &[String], cluster_token: &str, added_at: Option<i64>) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut text = urls.concat();
    text.push_str(cluster_token);
    if let Some(seconds) = added_at {
        text.push_str(&seconds.to_string());
    }
    first_eight(&Sha1::digest(text.as_bytes()))
}

/// The id of a cluster: from the ids of its first members.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.into_iter().flat_map(u64::to_be_bytes).collect();
    first_eight(&Sha1::digest(&bytes))
}

fn first_eight(digest: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::{cluster_id, member_id};

    #[test]
    fn ids_are_those_that_etcd_gives() {
        let member = member_id(&["https://localhost:20001".into()], "new", None);
        assert_eq!(member, 0x00a8_f345_8387_986d);
        assert_eq!(cluster_id(&[member]), 0x34c2_1a2d_427d_b393);
    }
}
