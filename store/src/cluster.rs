//! Members as replicated state. The Raft membership says who votes and where peers reach them; members themselves say
//! their name and where clients reach them. Whoever was removed is remembered for ever, so that no id comes back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate_proto::etcdserverpb as pb;

use crate::engine::{Direction, Family, Read, Span};
use crate::keys::meta;
use crate::overlay::Overlay;
use crate::types::Fault;

const MEMBER: u8 = 0x01;
const REMOVED: u8 = 0x02;

/// A Raft membership entry, as the Raft room reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// The Raft room's own form, kept for it and handed back at start; the store never looks inside.
    pub encoded: Bytes,
    /// Every member of it: id, peer URLs, learner or not. Names and client URLs are not Raft's to say.
    pub members: Vec<pb::Member>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cluster {
    pub members: BTreeMap<u64, pb::Member>,
    pub removed: BTreeSet<u64>,
    /// See [`Membership::encoded`]; empty before the first membership entry.
    pub membership: Bytes,
    /// "3.7.0"; empty until the leader has set it.
    pub version: String,
    /// Where a downgrade that is under way leads.
    pub downgrade: Option<String>,
}

impl Cluster {
    pub(crate) fn load(read: &dyn Read) -> Result<Self, Fault> {
        let mut cluster = Self::default();
        for row in read.scan(Family::Cluster, Span::all(), Direction::Forward) {
            let (key, record) = row?;
            let id = key.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            match (key.first().copied(), id) {
                (Some(MEMBER), Some(id)) => {
                    let member = pb::Member::decode(record).map_err(|error| Fault::Data(format!("member: {error}")))?;
                    cluster.members.insert(id, member);
                }
                (Some(REMOVED), Some(id)) => {
                    cluster.removed.insert(id);
                }
                // Alarms share the family.
                (Some(_), Some(_)) => {}
                _ => return Err(Fault::Data(format!("a cluster key of {} bytes", key.len()))),
            }
        }
        cluster.membership = read.get(Family::Meta, meta::MEMBERSHIP)?.unwrap_or_default();
        let version = read.get(Family::Meta, meta::CLUSTER_VERSION)?.unwrap_or_default();
        cluster.version = String::from_utf8_lossy(&version).into_owned();
        let downgrade = read.get(Family::Meta, meta::DOWNGRADE)?;
        cluster.downgrade = downgrade.map(|target| String::from_utf8_lossy(&target).into_owned());
        Ok(cluster)
    }

    pub(crate) fn set_membership(&mut self, overlay: &mut Overlay<'_>, membership: &Membership) {
        overlay.put(Family::Meta, meta::MEMBERSHIP, membership.encoded.clone());
        self.membership = membership.encoded.clone();
        let before = std::mem::take(&mut self.members);
        for member in &membership.members {
            let (name, client_urls) = match before.get(&member.id) {
                Some(known) => (known.name.clone(), known.client_urls.clone()),
                None => Default::default(),
            };
            let member = pb::Member { name, client_urls, ..member.clone() };
            overlay.put(Family::Cluster, id_key(MEMBER, member.id), member.encode_to_vec());
            self.members.insert(member.id, member);
        }
        for id in before.into_keys().filter(|id| !self.members.contains_key(id)).collect::<Vec<_>>() {
            overlay.delete(Family::Cluster, id_key(MEMBER, id));
            overlay.put(Family::Cluster, id_key(REMOVED, id), Bytes::new());
            self.removed.insert(id);
        }
    }

    /// Whether `id` is a member; one that was removed in the meantime has nothing to say any more.
    pub(crate) fn publish(&mut self, overlay: &mut Overlay<'_>, id: u64, name: &str, client_urls: &[String]) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.name = name.to_owned();
        member.client_urls = client_urls.to_vec();
        overlay.put(Family::Cluster, id_key(MEMBER, id), member.encode_to_vec());
        true
    }

    pub(crate) fn set_version(&mut self, overlay: &mut Overlay<'_>, version: &str) {
        self.version = version.to_owned();
        overlay.put(Family::Meta, meta::CLUSTER_VERSION, Bytes::copy_from_slice(version.as_bytes()));
    }

    pub(crate) fn set_downgrade(&mut self, overlay: &mut Overlay<'_>, target: Option<&str>) {
        match target {
            Some(target) => overlay.put(Family::Meta, meta::DOWNGRADE, Bytes::copy_from_slice(target.as_bytes())),
            None => overlay.delete(Family::Meta, meta::DOWNGRADE),
        }
        self.downgrade = target.map(str::to_owned);
    }
}

fn id_key(kind: u8, id: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(kind);
    key.put_u64(id);
    key.freeze()
}
