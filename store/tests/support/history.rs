//! A history: what happens to one store, in order. Whatever a run does follows from it alone.

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log;
use quorate_store::{Membership, Payload};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Entries applied together. `probe` decides what is read afterwards.
    Group {
        probe: u64,
        entries: Vec<Load>,
    },
    /// One step of the physical compaction.
    Walk {
        probe: u64,
        entries_max: u64,
    },
    Flush,
    /// Everything since the last flush is lost; the entries are applied again, grouped by `split`.
    Crash {
        split: u64,
    },
    /// A member that lags by some entries gets the state as a snapshot, and the history goes on there. `split` decides
    /// how far it lags, what it was doing, and how the transfer goes.
    Install {
        split: u64,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Load {
    pub term: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Blank,
    Proposals(Vec<log::Proposal>),
    /// Ids, and whether each is a learner.
    Members(Vec<(u64, bool)>),
}

impl Load {
    pub(crate) fn payload(&self) -> Payload {
        match &self.what {
            What::Blank => Payload::Blank,
            What::Proposals(proposals) => {
                Payload::Batch(log::Batch { proposals: proposals.clone() }.encode_to_vec().into())
            }
            What::Members(members) => Payload::Membership(membership(members)),
        }
    }
}

pub(crate) fn membership(members: &[(u64, bool)]) -> Membership {
    let member = |(id, is_learner): &(u64, bool)| pb::Member {
        id: *id,
        is_learner: *is_learner,
        peer_urls: vec![format!("http://member-{id}:2380")],
        ..Default::default()
    };
    Membership { encoded: Bytes::from(format!("{members:?}")), members: members.iter().map(member).collect() }
}

/// `(key, range_end)` of everything.
pub(crate) fn all_keys() -> (Bytes, Bytes) {
    (Bytes::new(), Bytes::from_static(b"\0"))
}
