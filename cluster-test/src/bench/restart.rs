//! A member that holds many keys: what it takes in memory, and how long it is away when it is stopped and started.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use serde::Serialize;
use tonic::transport::Endpoint;

use crate::cluster::Member;

const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    pub rss_before_bytes: u64,
    /// From the start of the process to the first linearizable read.
    pub start_ms: f64,
    pub rss_after_bytes: u64,
    pub disk_bytes: u64,
}

pub(super) fn measure(member: &mut Member) -> Result<Restart> {
    let rss_before_bytes = member.rss_bytes()?;
    member.stop()?;
    let disk_bytes = member.disk_bytes()?;
    let started = Instant::now();
    member.spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    while let Err(error) = runtime.block_on(read(member.url())) {
        if started.elapsed() > READY_WITHIN || !member.is_running()? {
            bail!("no read within {READY_WITHIN:?} after the start: {error:#}\n{}", member.log_tail());
        }
        thread::sleep(POLL);
    }
    let start_ms = started.elapsed().as_secs_f64() * 1e3;
    Ok(Restart { rss_before_bytes, start_ms, rss_after_bytes: member.rss_bytes()?, disk_bytes })
}

async fn read(url: String) -> Result<()> {
    let mut client = KvClient::new(Endpoint::from_shared(url)?.connect().await?);
    client.range(pb::RangeRequest { key: b"~".to_vec().into(), ..Default::default() }).await?;
    Ok(())
}
