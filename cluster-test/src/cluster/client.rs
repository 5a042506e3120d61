//! The services of one member for code without a runtime: a call is made, and waited for.

use std::future::Future;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A call that is not answered by then fails: longer than any server takes to say that it cannot.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    channel: Channel,
}

impl Client {
    /// Connects when the first call is made, and anew when the connection was lost.
    pub fn connect(url: &str) -> Result<Self> {
        // A thread of its own, so that what is open lives on between two calls.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().context("start tokio")?;
        let endpoint = Endpoint::from_shared(url.to_owned()).context("read the URL")?.connect_timeout(CONNECT_TIMEOUT);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { runtime: Some(runtime), channel })
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Makes one call and waits for its answer.
    pub fn run<T: Send>(&self, call: impl Future<Output = Result<Response<T>, Status>> + Send) -> Result<T, Status> {
        let within = async {
            match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded(format!("no answer within {CALL_TIMEOUT:?}"))),
            }
        };
        self.block_on(within)
    }

    /// Waits for anything. The caller may be inside of a runtime, where another one must not block: hence the thread.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime.block_on(future));
            match waiting.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel())
    }

    pub fn put(&self, key: &str, value: &str) -> Result<pb::PutResponse, Status> {
        let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        self.run(self.kv().put(put))
    }

    pub fn get(&self, key: &str, serializable: bool) -> Result<pb::RangeResponse, Status> {
        let range = pb::RangeRequest { key: key.to_owned().into(), serializable, ..Default::default() };
        self.run(self.kv().range(range))
    }

    pub fn members(&self) -> Result<pb::MemberListResponse, Status> {
        self.run(self.cluster().member_list(pb::MemberListRequest { linearizable: true }))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for nobody, so that it may be dropped inside of another runtime.
            runtime.shutdown_background();
        }
    }
}
