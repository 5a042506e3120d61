//! Puts at a steady rate, whatever becomes of the members; each key once.
//!
//! Two kinds of client. One that asks once shows what each member answers; one that tries again at the next member, for as long as
//! it takes, shows what people see who use a client library: see [`Sent::longest_gap`]. It has a thread of its own, so that
//! whoever starts and stops members meanwhile does not stop it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};

/// Of one request. A member that is frozen answers nothing.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same where it is tried again elsewhere.
const RETRY_TIMEOUT: Duration = Duration::from_millis(500);
/// Before a member is asked after another one has failed.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Who tries again gives up by then.
const RETRY_WITHIN: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PREFIX: &str = "load/";
/// Keys read back at once.
const PAGE: usize = 1_000;
/// [`Shared::out`] while nobody is.
const NOBODY: usize = usize::MAX;

/// What a client does with a put that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Count,
    TryNextMember,
}

#[derive(Debug, Default)]
pub struct Sent {
    /// Numbers of the keys.
    pub acknowledged: Vec<usize>,
    /// Puts that were given up.
    pub failed: usize,
    /// Of these, of members that were there.
    pub failed_at_survivors: usize,
    /// The longest time without any success, from the first one on.
    pub longest_gap: Duration,
    last_success: Option<Instant>,
}

struct Shared {
    sent: Mutex<Sent>,
    members: Mutex<Vec<String>>,
    on_failure: OnFailure,
    /// Number of the member that is out.
    out: AtomicUsize,
    stop: AtomicBool,
}

impl Shared {
    fn members(&self) -> Vec<String> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn succeeded(&self, number: usize) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = sent.last_success.replace(Instant::now()).map_or(Duration::ZERO, |last| last.elapsed());
        sent.longest_gap = sent.longest_gap.max(gap);
        sent.acknowledged.push(number);
    }

    fn failed(&self, member: usize) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.failed += 1;
        sent.failed_at_survivors += usize::from(self.out.load(Ordering::Relaxed) != member);
    }
}

/// Stopped when it is dropped.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// `rate` puts a second, at each of `urls` in turn.
    pub fn start(urls: Vec<String>, rate: u32, on_failure: OnFailure) -> Result<Self> {
        let shared = Arc::new(Shared {
            sent: Mutex::default(),
            members: Mutex::new(urls),
            on_failure,
            out: AtomicUsize::new(NOBODY),
            stop: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
        let own = shared.clone();
        let thread = thread::spawn(move || runtime.block_on(send(&own, rate)));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on these are asked.
    pub fn set_members(&self, urls: Vec<String>) {
        *self.shared.members.lock().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// What the member is asked from now on is lost with it.
    pub fn leaves(&self, member: usize) {
        self.shared.out.store(member, Ordering::Relaxed);
    }

    pub fn comes_back(&self) {
        self.shared.out.store(NOBODY, Ordering::Relaxed);
    }

    pub fn acknowledged(&self) -> usize {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.len()
    }

    /// Waits for what is under way.
    pub fn stop(mut self) -> Sent {
        self.end();
        std::mem::take(&mut *self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It fails only where the load has panicked, which has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn send(shared: &Arc<Shared>, rate: u32) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let mut channels: BTreeMap<String, Channel> = BTreeMap::new();
    let mut puts = tokio::task::JoinSet::new();
    for number in 0.. {
        ticks.tick().await;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let members: Vec<Channel> = shared
            .members()
            .into_iter()
            .map(|url| channels.entry(url.clone()).or_insert_with(|| connect(url)).clone())
            .collect();
        let shared = shared.clone();
        puts.spawn(async move {
            match shared.on_failure {
                OnFailure::Count => put_once(&shared, number, &members).await,
                OnFailure::TryNextMember => put_until_it_succeeds(&shared, number, &members).await,
            }
        });
        while puts.try_join_next().is_some() {}
    }
    while puts.join_next().await.is_some() {}
}

fn connect(url: String) -> Channel {
    let endpoint = Endpoint::from_shared(url).expect("a member's URL is one");
    endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy()
}

async fn put(number: usize, channel: Channel, timeout: Duration) -> bool {
    let put = pb::PutRequest { key: key(number).into(), value: vec![b'v'; 256].into(), ..Default::default() };
    matches!(tokio::time::timeout(timeout, KvClient::new(channel).put(put)).await, Ok(Ok(_)))
}

async fn put_once(shared: &Shared, number: usize, members: &[Channel]) {
    let member = number % members.len();
    if put(number, members[member].clone(), TIMEOUT).await {
        shared.succeeded(number);
    } else {
        shared.failed(member);
    }
}

async fn put_until_it_succeeds(shared: &Shared, number: usize, members: &[Channel]) {
    let until = Instant::now() + RETRY_WITHIN;
    let mut member = number % members.len();
    while !put(number, members[member].clone(), RETRY_TIMEOUT).await {
        if Instant::now() > until {
            return shared.failed(member);
        }
        member = (member + 1) % members.len();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    shared.succeeded(number);
}

fn key(number: usize) -> String {
    format!("{PREFIX}{number:010}")
}

/// Every one of `numbers` is there, by the word of this member alone.
pub async fn check(channel: Channel, numbers: &[usize]) -> Result<()> {
    let mut client = KvClient::new(channel);
    let mut found = BTreeSet::new();
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
