//! etcd's own client library (cluster-test/go, built by `scripts/etcd go-client`) against real etcd and against ours.

use anyhow::Result;
use cluster_test::cluster::Options;
use cluster_test::{programs, same};

#[test]
fn etcds_own_client_is_answered_as_by_etcd() -> Result<()> {
    let options = Options::quick().and("--watch-progress-notify-interval=200ms");
    same::prints_the_same(&programs::go_client("clientv3")?, &options, 250)
}
