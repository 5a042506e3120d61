//! Clusters of several members, real processes with etcd's flags: what clients are promised of them.
//!
//! ```text
//!  requests     everything works through every member, and what one has acknowledged the next one knows
//!  learner      who does not vote serves next to nothing
//!  minority     without a majority nothing is promised, and everything is back with it
//!  identity     who was removed, has lost its data or is of another cluster does not take part
//!  changes      restarts, replacing, growing and shrinking under load
//!  stall        the leader's disk hangs
//!  partitions   links cut both ways, one way, and around a bridge
//!  snapshots    who lags is sent the state
//!  failover     the leader killed, frozen and stopped under load
//!  pace         heartbeats on links that become slow and fast again under load
//!  corruption   a member whose data were altered on its disk is found, named and kept from leading
//!  downgrade    the version that members agree on
//!  alone        one goes on by itself, when the others are gone for good
//!  discovery    members that are told of each other by a discovery service
//!  srv          members that are told of each other by DNS
//!  demo         make demo, and the members of docker-compose.yml
//! ```
//!
//! What etcdctl prints of a cluster is held against real etcd's by cluster-test/transcripts/cluster*.txt.

mod alone;
mod alter;
mod changes;
mod corruption;
mod demo;
mod discovery;
mod downgrade;
mod failover;
mod identity;
mod learner;
mod minority;
mod pace;
mod partitions;
mod requests;
mod snapshots;
mod srv;
mod stall;

use anyhow::Result;
use cluster_test::cluster::{Cluster, Options};
use cluster_test::programs;

fn start(members: usize, options: &Options) -> Result<Cluster> {
    Cluster::start(programs::quorate()?, members, options)
}
