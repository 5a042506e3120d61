//! What the clients of each row do, and how they know that the answer is right.

mod bulk;
mod kube;
mod kv;
mod lease;
mod load;
mod txn;
mod watch;
mod watchers;

use anyhow::Result;
use quorate_client::proto::etcdserverpb as pb;

use super::drive::{Bench, Measured};
use super::failure::Failure;
use super::rows::Work;

pub(crate) async fn run(bench: &Bench) -> Result<Measured> {
    match bench.row.work {
        Work::Put => kv::put(bench).await,
        Work::GetLinearizable | Work::GetSerializable => kv::get(bench).await,
        Work::Scan => kv::scan(bench).await,
        Work::Mixed => kv::mixed(bench).await,
        Work::Txn => txn::own(bench).await,
        Work::TxnContend => txn::contend(bench).await,
        Work::WatchLatency => watch::latency(bench).await,
        Work::Fanout => watch::fanout(bench).await,
        Work::LeaseGrant => lease::grant(bench).await,
        Work::LeaseKeepAlive => lease::keep_alive(bench).await,
        Work::LeaseRevoke => lease::revoke(bench).await,
        Work::KubeCreate | Work::KubeSteady | Work::KubeDelete | Work::KubeAll => kube::run(bench).await,
        Work::Fill => bulk::fill(bench).await,
        Work::List => bulk::list(bench).await,
        Work::Count => bulk::count(bench).await,
    }
}

/// The revisions that one client was told, on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Revisions {
    last: i64,
}

impl Revisions {
    /// A write has a revision above all that were seen before.
    pub(crate) fn wrote(&mut self, header: Option<&pb::ResponseHeader>) -> Result<i64, Failure> {
        let last = self.last;
        match self.read(header)? {
            revision if revision > last => Ok(revision),
            revision => Err(Failure::wrong(format!("a write at revision {revision}, after {last} was seen"))),
        }
    }

    /// A read is not older than what was seen before.
    pub(crate) fn read(&mut self, header: Option<&pb::ResponseHeader>) -> Result<i64, Failure> {
        let revision = header.ok_or_else(|| Failure::wrong("no header"))?.revision;
        if revision < self.last {
            return Err(Failure::wrong(format!("revision {revision}, after {} was seen", self.last)));
        }
        self.last = revision;
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_writes_grow_and_of_reads_do_not_shrink() {
        let header = |revision| pb::ResponseHeader { revision, ..Default::default() };
        let mut revisions = Revisions::default();
        assert_eq!(revisions.wrote(Some(&header(2))), Ok(2));
        assert_eq!(revisions.read(Some(&header(2))), Ok(2));
        assert!(revisions.wrote(Some(&header(2))).is_err());
        assert!(revisions.read(Some(&header(1))).is_err());
        assert!(revisions.read(None).is_err());
        assert_eq!(revisions.wrote(Some(&header(3))), Ok(3));
    }
}
