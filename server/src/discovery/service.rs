//! A discovery service: any etcd v3 server, at which the members of a new cluster leave their addresses for each other.
//!
//! ```text
//!   /_etcd/registry/TOKEN/_config/size      3                      put there by who starts the cluster
//!   /_etcd/registry/TOKEN/members/ID        NAME=URL,NAME=URL      put there by each member, found and waited for by all
//! ```
//!
//! Who registered first is a member: the order is that of the create revisions. A member that comes again finds its own place.
//! The watch is only a bell: what counts is read again, so it may end or be lost at any time. Keys and refusals are etcd's.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use tokio_stream::StreamExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::config::{Config, ServiceDiscovery, Url};
use crate::net::Dial;
use crate::node::member_id;

const REGISTRY: &str = "/_etcd/registry";
/// Until a service that failed is asked again: doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// Go's clients ping no more often, whatever `--discovery-keepalive-time` says, and servers close connections that do.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("discovery: size key not found")]
    SizeNotFound,
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    #[error("{0}")]
    NotLetIn(String),
}

/// Registers this member, and returns its configuration with the cluster that comes together. Waits for as long as that takes.
pub(super) async fn join(settings: &ServiceDiscovery, config: &Config, dial: &Dial) -> anyhow::Result<Config> {
    let urls: Vec<String> = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    let id = member_id(&urls, &settings.token, None);
    let mut service = Service::new(settings, dial)?;
    let cluster = service.join(&member_key(&settings.token, id), &config.initial_cluster_text()).await;
    let cluster = cluster.map_err(|refusal| anyhow::anyhow!("failed to join discovery cluster ({refusal})"))?;
    tracing::info!(cluster, "the cluster has come together at the discovery service");
    let joined = config.with_initial_cluster(&cluster).map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        joined.initial_cluster.get(&config.name) == config.initial_cluster.get(&config.name),
        "the members of the discovered cluster {cluster} are not of different names"
    );
    let mut seen = std::collections::BTreeSet::new();
    anyhow::ensure!(
        joined.initial_cluster.values().flatten().all(|url| seen.insert(url.as_str())),
        "discovery cluster {cluster} has duplicate url"
    );
    Ok(joined)
}

fn size_key(token: &str) -> String {
    format!("{REGISTRY}/{token}/_config/size")
}

/// Of all members' keys.
fn members_prefix(token: &str) -> String {
    format!("{REGISTRY}/{token}/members/")
}

fn member_key(token: &str, id: u64) -> String {
    format!("{}{id:x}", members_prefix(token))
}

/// The first key behind all that start with `prefix`, which ends with '/'.
fn behind(prefix: &str) -> String {
    let end = prefix.strip_suffix('/').expect("every prefix here ends so");
    format!("{end}0")
}

fn read_size(text: &[u8]) -> Result<usize, Refusal> {
    let size = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    size.filter(|size| *size > 0).ok_or(Refusal::BadSize)
}

/// One that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    key: String,
    /// `name=URL,name=URL`
    urls: String,
}

/// First come, first; what is no member's is left out.
fn registered(mut rows: Vec<KeyValue>) -> Vec<Registered> {
    rows.sort_by_key(|row| row.create_revision);
    let read = |row: KeyValue| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let found = Registered { key: text(&row.key), urls: text(&row.value) };
        let valid = found.urls.contains('=');
        if !valid {
            tracing::warn!(found.key, found.urls, "invalid peer info returned from discovery service");
        }
        valid.then_some(found)
    };
    rows.into_iter().filter_map(read).collect()
}

/// Whether there is no place for `own`: others have taken all.
fn is_full(members: &[Registered], size: usize, own: &str) -> bool {
    members.len() >= size && members.iter().take(size).all(|member| member.key != own)
}

fn initial_cluster(members: &[Registered], size: usize) -> Result<String, Refusal> {
    let urls: Vec<&str> = members.iter().take(size).map(|member| member.urls.as_str()).collect();
    let parse = |pair: &str| pair.split_once('=').is_some_and(|(_, url)| Url::parse(url).is_ok());
    if urls.iter().flat_map(|urls| urls.split(',')).all(parse) { Ok(urls.join(",")) } else { Err(Refusal::InvalidUrl) }
}

struct Service<'a> {
    settings: &'a ServiceDiscovery,
    /// One for each endpoint.
    channels: Vec<(&'a str, Channel)>,
    /// Which of them is asked first: the one that answered last.
    first: usize,
    /// The user's token, where there is a user.
    token: Option<MetadataValue<Ascii>>,
}

impl<'a> Service<'a> {
    fn new(settings: &'a ServiceDiscovery, dial: &Dial) -> anyhow::Result<Self> {
        let connect = |endpoint: &'a String| {
            let address = endpoint.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
            let target = Endpoint::from_shared(format!("http://{address}"));
            let target = target.with_context(|| format!("read --discovery-endpoints: {endpoint}"))?;
            let target = target.connect_timeout(settings.dial_timeout);
            let target = target.http2_keep_alive_interval(settings.keepalive_time.max(KEEPALIVE_TIME_MIN));
            let target = target.keep_alive_timeout(settings.keepalive_timeout);
            let dial = dial.clone();
            let connector = tower::service_fn(move |_| {
                let (dial, address) = (dial.clone(), address.clone());
                async move { dial.connect(&address).await.map(TokioIo::new) }
            });
            Ok((endpoint.as_str(), target.connect_with_connector_lazy(connector)))
        };
        let channels = settings.endpoints.iter().map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { settings, channels, first: 0, token: None })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Asks one endpoint after the other until one answers or refuses for good; a service that is not there yet may come.
    async fn ask<M: Clone, T, F>(&mut self, message: M, call: impl Fn(Channel, Request<M>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let patience = self.settings.dial_timeout + self.settings.request_timeout;
        let mut pause = PAUSE_MIN;
        loop {
            for _ in 0..self.channels.len() {
                let answer = tokio::time::timeout(patience, self.ask_first(message.clone(), &call)).await;
                let late = |_| Err(Status::deadline_exceeded(format!("no answer within {patience:?}")));
                let status = match answer.unwrap_or_else(late) {
                    Ok(answer) => return Ok(answer),
                    Err(refused) if refused.code() == Code::InvalidArgument => return Err(refused),
                    Err(status) => status,
                };
                if status.code() == Code::Unauthenticated {
                    // Tokens have an end.
                    self.token = None;
                }
                let (endpoint, reason) = (self.channels[self.first].0, status.message());
                tracing::warn!(endpoint, code = ?status.code(), reason, "the discovery service failed");
                self.first = (self.first + 1) % self.channels.len();
            }
            tracing::warn!(backoff_ms = pause.as_millis() as u64, "retry connecting to discovery service");
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn ask_first<M, T, F>(&mut self, message: M, call: impl Fn(Channel, Request<M>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channels[self.first].1.clone();
        let ServiceDiscovery { user, password, .. } = self.settings;
        // As etcd's client: a name without a password is no user.
        if self.token.is_none() && !user.is_empty() && !password.is_empty() {
            let request = pb::AuthenticateRequest { name: user.clone(), password: password.clone() };
            let answer = pb::auth_client::AuthClient::new(channel.clone()).authenticate(request).await?;
            let token = answer.into_inner().token.parse();
            self.token = Some(token.map_err(|_| Status::internal("the user's token is no text"))?);
        }
        call(channel, self.request(message)).await.map(Response::into_inner)
    }

    async fn read(&mut self, key: String, range_end: String) -> Result<(Vec<KeyValue>, i64), Refusal> {
        let request = pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        let answer = self
            .ask(request, |channel, request| async move { pb::kv_client::KvClient::new(channel).range(request).await });
        let answer = answer.await.map_err(not_let_in)?;
        Ok((answer.kvs, answer.header.map_or(0, |header| header.revision)))
    }

    async fn size(&mut self) -> Result<usize, Refusal> {
        let (rows, _) = self.read(size_key(&self.settings.token), String::new()).await?;
        read_size(&rows.first().ok_or(Refusal::SizeNotFound)?.value)
    }

    /// And the revision they were read at.
    async fn members(&mut self) -> Result<(Vec<Registered>, i64), Refusal> {
        let prefix = members_prefix(&self.settings.token);
        let (rows, revision) = self.read(prefix.clone(), behind(&prefix)).await?;
        Ok((registered(rows), revision))
    }

    async fn join(&mut self, own: &str, urls: &str) -> Result<String, Refusal> {
        let size = self.size().await?;
        if is_full(&self.members().await?.0, size, own) {
            return Err(Refusal::Full);
        }
        let put = pb::PutRequest { key: own.to_owned().into(), value: urls.to_owned().into(), ..Default::default() };
        let answer =
            self.ask(put, |channel, request| async move { pb::kv_client::KvClient::new(channel).put(request).await });
        answer.await.map_err(not_let_in)?;
        tracing::info!(key = own, urls, "registered at the discovery service");
        loop {
            let (members, revision) = self.members().await?;
            if is_full(&members, size, own) {
                return Err(Refusal::Full);
            }
            if members.len() >= size {
                return initial_cluster(&members, size);
            }
            tracing::info!(size, found = members.len(), "waiting for peers from discovery service");
            if self.changed_after(revision).await.is_none() {
                tokio::time::sleep(PAUSE_MIN).await;
            }
        }
    }

    /// Returns when a member comes or goes; `None` where that is not told.
    async fn changed_after(&self, revision: i64) -> Option<()> {
        let prefix = members_prefix(&self.settings.token);
        let create = pb::WatchCreateRequest {
            range_end: behind(&prefix).into(),
            key: prefix.into(),
            start_revision: revision + 1,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let create = tokio_stream::once(pb::WatchRequest { request_union: Some(create) });
        let channel = self.channels[self.first].1.clone();
        let request = self.request(create.chain(tokio_stream::pending()));
        let mut watching = pb::watch_client::WatchClient::new(channel).watch(request).await.ok()?.into_inner();
        loop {
            let told = watching.message().await.ok()??;
            if !told.events.is_empty() {
                return Some(());
            }
            if told.canceled {
                return None;
            }
        }
    }
}

fn not_let_in(status: Status) -> Refusal {
    Refusal::NotLetIn(status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: &str, create_revision: i64) -> KeyValue {
        KeyValue { key: key.to_owned().into(), value: value.to_owned().into(), create_revision, ..Default::default() }
    }

    fn three() -> Vec<Registered> {
        registered(vec![
            row("k/a", "a=http://a:1", 9),
            row("k/b", " b=http://b:1,b=http://b:2 ", 7),
            row("k/x", "nonsense", 1),
            row("k/c", "c=http://c:1", 8),
        ])
    }

    #[test]
    fn who_registered_first_is_a_member() {
        let members = three();
        assert_eq!(initial_cluster(&members, 2).unwrap(), "b=http://b:1,b=http://b:2,c=http://c:1");
        for (size, own, full) in [
            (2, "k/a", true),
            (2, "k/c", false),
            (3, "k/a", false),
            (3, "k/d", true),
            (4, "k/d", false),
            (1, "k/b", false),
        ] {
            assert_eq!(is_full(&members, size, own), full, "{size} {own}");
        }
    }

    #[test]
    fn what_makes_no_cluster_is_refused_in_etcds_words() {
        for text in ["", "0", "-1", "three", "3 "] {
            assert_eq!(read_size(text.as_bytes()), Err(Refusal::BadSize), "{text:?}");
        }
        assert_eq!(read_size(b"3"), Ok(3));
        let members = registered(vec![row("k/a", "a=ftp://a", 1)]);
        assert_eq!(initial_cluster(&members, 1).unwrap_err().to_string(), "discovery: invalid peer URL");
        assert_eq!(Refusal::Full.to_string(), "discovery: cluster is full");
    }

    #[test]
    fn keys_are_etcds() {
        assert_eq!(size_key("t"), "/_etcd/registry/t/_config/size");
        assert_eq!(member_key("t", 0x8e9e), "/_etcd/registry/t/members/8e9e");
        assert_eq!(behind(&members_prefix("t")), "/_etcd/registry/t/members0");
    }
}
