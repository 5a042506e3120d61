//! Puts at a steady rate, whatever becomes of them; each key once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

const TIMEOUT: Duration = Duration::from_secs(10);
const PREFIX: &str = "load/";
/// Keys read back at once.
const PAGE: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Numbers of the keys.
    pub(super) acknowledged: Vec<usize>,
    pub(super) failed: usize,
    pub(super) failed_at_survivors: usize,
}

#[derive(Default)]
struct Shared {
    sent: Mutex<Sent>,
    /// Numbers of members that are out; usize::MAX for none.
    out: AtomicUsize,
    stop: AtomicBool,
}

pub(super) struct Load {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(channels: Vec<Channel>, rate: u32) -> Self {
        let shared = Arc::new(Shared { out: AtomicUsize::new(usize::MAX), ..Shared::default() });
        let task = tokio::spawn(send(channels, rate, shared.clone()));
        Self { shared, task }
    }

    /// What the member is asked from now on is lost with it.
    pub(super) fn leaves(&self, member: usize) {
        self.shared.out.store(member, Ordering::Relaxed);
    }

    pub(super) fn comes_back(&self, _member: usize) {
        self.shared.out.store(usize::MAX, Ordering::Relaxed);
    }

    pub(super) async fn stop(&mut self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = (&mut self.task).await;
        std::mem::take(&mut *self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn send(channels: Vec<Channel>, rate: u32, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let mut puts = tokio::task::JoinSet::new();
    for number in 0.. {
        ticks.tick().await;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let member = number % channels.len();
        let (channel, shared) = (channels[member].clone(), shared.clone());
        puts.spawn(async move {
            let put = pb::PutRequest { key: key(number).into(), value: vec![b'v'; 256].into(), ..Default::default() };
            let done = tokio::time::timeout(TIMEOUT, KvClient::new(channel).put(put)).await;
            let mut sent = shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
            match done {
                Ok(Ok(_)) => sent.acknowledged.push(number),
                Ok(Err(_)) | Err(_) => {
                    sent.failed += 1;
                    sent.failed_at_survivors += usize::from(shared.out.load(Ordering::Relaxed) != member);
                }
            }
        });
        while puts.try_join_next().is_some() {}
    }
    while puts.join_next().await.is_some() {}
}

fn key(number: usize) -> String {
    format!("{PREFIX}{number:010}")
}

/// Every one of `numbers` is there.
pub(super) async fn check(channel: Channel, numbers: &[usize]) -> Result<()> {
    let mut client = KvClient::new(channel);
    let mut found = std::collections::BTreeSet::new();
    let mut from = PREFIX.as_bytes().to_vec();
    loop {
        let request = pb::RangeRequest {
            key: from.clone().into(),
            range_end: b"load0".to_vec().into(),
            limit: PAGE as i64,
            keys_only: true,
            serializable: true,
            ..Default::default()
        };
        let page = client.range(request).await?.into_inner();
        let Some(last) = page.kvs.last() else { break };
        from = [&last.key[..], &[0]].concat();
        found.extend(page.kvs.into_iter().map(|kv| kv.key));
    }
    let lost: Vec<usize> = numbers.iter().copied().filter(|number| !found.contains(key(*number).as_bytes())).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged puts are lost, the first is {}",
        lost.len(),
        numbers.len(),
        lost[0]
    );
    Ok(())
}
