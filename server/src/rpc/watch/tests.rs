//! The Watch service over real connections, by both of its ways in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status, Streaming};

use super::{Door, HeaderSource, OpenDoor, WatchOptions, WatchService};
use crate::watch::HubStats;
use crate::watch::tests::support::{World, put};

struct Member;

impl HeaderSource for Member {
    fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: 1, member_id: 2, revision, raft_term: 3 }
    }
}

/// Nobody may watch from `secret` on; callers with a `leave` header are shown out.
struct Strict;

impl Door for Strict {
    fn open(
        &self,
        metadata: &MetadataMap,
        _: &http::Extensions,
    ) -> Result<Option<futures::future::BoxFuture<'static, Status>>, Status> {
        let leaves = metadata.contains_key("leave");
        Ok(leaves.then(|| Box::pin(async { Status::unavailable("etcdserver: no leader") }) as _))
    }

    fn authorize(&self, _: &MetadataMap, _: &http::Extensions, key: &Bytes, range_end: &Bytes) -> Result<(), Status> {
        match (key.as_ref(), range_end.as_ref()) {
            (_, [0]) => Err(Status::permission_denied("etcdserver: permission denied")),
            (b"old", _) => Err(Status::invalid_argument("etcdserver: revision of auth store is old")),
            (b"token", _) => Err(Status::unauthenticated("etcdserver: invalid auth token")),
            (b"odd", _) => Err(Status::internal("what")),
            _ => Ok(()),
        }
    }
}

struct Setup {
    world: World,
    channel: Channel,
    shutdown: CancellationToken,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Frames,
    Messages,
}

impl Setup {
    async fn new(way: Way, door: Arc<dyn Door>) -> Self {
        let world = World::new();
        let shutdown = CancellationToken::new();
        let options = WatchOptions { request_bytes_max: 1 << 20, progress_interval: Duration::ZERO };
        let service = WatchService::new(world.hub.clone(), Arc::new(Member), door, options, shutdown.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = match way {
            Way::Frames => Server::builder().add_service(service.into_server()),
            Way::Messages => Server::builder().add_service(pb::watch_server::WatchServer::new(service)),
        };
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { world, channel, shutdown }
    }

    async fn frames() -> Self {
        Self::new(Way::Frames, Arc::new(OpenDoor)).await
    }

    async fn watch(&self) -> Call {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut client = pb::watch_client::WatchClient::new(self.channel.clone()).max_decoding_message_size(1 << 30);
        let answers = client.watch(UnboundedReceiverStream::new(receiver)).await.unwrap().into_inner();
        Call { requests, answers }
    }
}

struct Call {
    requests: mpsc::UnboundedSender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Call {
    fn send(&self, request: pb::watch_request::RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).unwrap();
    }

    fn create(&self, create: pb::WatchCreateRequest) {
        self.send(pb::watch_request::RequestUnion::CreateRequest(create));
    }

    fn cancel(&self, watch_id: i64) {
        self.send(pb::watch_request::RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
    }

    fn progress(&self) {
        self.send(pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.try_next().await.unwrap()
    }

    async fn try_next(&mut self) -> Result<pb::WatchResponse, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.answers.message()).await;
        answer.expect("an answer").map(|answer| answer.expect("not the end"))
    }
}

fn watch(key: &'static str, range_end: &'static str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: Bytes::from(key), range_end: Bytes::from(range_end), ..Default::default() }
}

/// One conversation with everything in it.
async fn conversation(way: Way) -> Vec<pb::WatchResponse> {
    let mut setup = Setup::new(way, Arc::new(OpenDoor)).await;
    setup.world.put("a", "1");
    setup.world.put("a", "2");
    let mut call = setup.watch().await;
    let mut said = Vec::new();
    for create in [
        watch("a", ""),
        pb::WatchCreateRequest { start_revision: 2, prev_kv: true, watch_id: 7, ..watch("a", "\0") },
        pb::WatchCreateRequest { watch_id: 7, ..watch("a", "") },
        pb::WatchCreateRequest { start_revision: -1, ..watch("a", "") },
        watch("b", "a"),
        watch("", "\0"),
        watch("", ""),
        pb::WatchCreateRequest { fragment: true, start_revision: i64::MAX, ..watch("a", "b") },
    ] {
        call.create(create);
        said.push(call.next().await);
        if said.last().is_some_and(|answer| answer.watch_id == 7) {
            said.push(call.next().await);
        }
    }
    call.create(pb::WatchCreateRequest { fragment: true, watch_id: 40, ..watch("f", "g") });
    said.push(call.next().await);
    setup.world.put("a", "3");
    for _ in 0..3 {
        said.push(call.next().await);
    }
    let large = "v".repeat(700_000);
    setup.world.txn((0..4).map(|n| put(&format!("f{n}"), &large)).collect());
    for _ in 0..4 {
        said.push(call.next().await);
    }
    call.cancel(99);
    call.cancel(7);
    said.push(call.next().await);
    setup.world.put("\0", "");
    said.push(call.next().await);
    said.push(call.next().await);
    setup.world.compact(5);
    call.create(pb::WatchCreateRequest { start_revision: 3, watch_id: 50, ..watch("a", "") });
    said.push(call.next().await);
    said.push(call.next().await);
    said
}

#[tokio::test]
async fn a_conversation_is_the_same_by_both_ways() {
    let said = conversation(Way::Frames).await;
    assert!(
        said.iter().all(|answer| answer.header.is_some_and(|h| (h.cluster_id, h.member_id, h.raft_term) == (1, 2, 3)))
    );
    let summary: Vec<_> = said.iter().map(summary).collect();
    let expected = [
        "0@3 created",
        "7@3 created",
        "7@3 a a(prev)",
        "-1@3 created canceled mvcc: duplicate watch ID provided on the WatchStream",
        "-1@3 created canceled etcdserver: mvcc: required revision has been compacted",
        "-1@3 created canceled mvcc: watcher range is empty",
        "1@3 created",
        "2@3 created",
        "3@3 created",
        "40@3 created",
        "0@4 a",
        "7@4 a(prev)",
        "1@4 a",
        "7@5 f0 f1 f2 f3",
        "1@5 f0 f1 f2 f3",
        "40@5 fragment f0 f1",
        "40@5 f2 f3",
        "7@5 canceled",
        "1@6 \0",
        "2@6 \0",
        "50@6 created",
        "50@0 canceled compacted=5",
    ];
    assert_eq!(summary, expected);
    assert_eq!(said, conversation(Way::Messages).await);
}

fn summary(answer: &pb::WatchResponse) -> String {
    let mut line = format!("{}@{}", answer.watch_id, answer.header.map_or(-1, |header| header.revision));
    for (is, word) in [(answer.created, " created"), (answer.canceled, " canceled"), (answer.fragment, " fragment")] {
        if is {
            line += word;
        }
    }
    if answer.compact_revision != 0 {
        line += &format!(" compacted={}", answer.compact_revision);
    }
    if !answer.cancel_reason.is_empty() {
        line += &format!(" {}", answer.cancel_reason);
    }
    for event in &answer.events {
        let key = &event.kv.as_ref().unwrap().key;
        line += &format!(" {}{}", String::from_utf8_lossy(key), if event.prev_kv.is_some() { "(prev)" } else { "" });
    }
    line
}

#[tokio::test]
async fn refusals_name_etcds_reasons_and_see_the_range_as_it_was_sent() {
    let setup = Setup::new(Way::Frames, Arc::new(Strict)).await;
    let mut call = setup.watch().await;
    let cases = [
        (watch("a", "\0"), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        (watch("old", ""), "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"),
        (watch("token", ""), "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        (watch("odd", ""), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    ];
    for (create, reason) in cases {
        call.create(create);
        let answer = call.next().await;
        assert_eq!((answer.watch_id, answer.created, answer.canceled), (-1, true, true));
        assert_eq!(answer.cancel_reason, reason);
    }
    call.create(watch("a", ""));
    assert_eq!(call.next().await.watch_id, 0, "the stream goes on");
}

#[tokio::test]
async fn a_stream_that_has_to_leave_is_told_why() {
    let setup = Setup::new(Way::Frames, Arc::new(Strict)).await;
    let mut client = pb::watch_client::WatchClient::new(setup.channel.clone());
    let mut request = tonic::Request::new(futures::stream::pending());
    request.metadata_mut().insert("leave", "1".parse().unwrap());
    let mut answers = client.watch(request).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}

#[tokio::test]
async fn a_client_that_has_asked_all_goes_on_listening() {
    let mut setup = Setup::frames().await;
    let mut call = setup.watch().await;
    call.create(watch("a", ""));
    assert!(call.next().await.created);
    call.requests = mpsc::unbounded_channel().0;
    for n in 0..3 {
        setup.world.put("a", &n.to_string());
        assert_eq!(call.next().await.events.len(), 1);
    }
}

#[tokio::test]
async fn shutdown_ends_streams_so_that_clients_try_elsewhere() {
    let mut setup = Setup::frames().await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        let mut call = setup.watch().await;
        call.create(watch("a", ""));
        assert!(call.next().await.created);
        calls.push(call);
    }
    setup.world.put("b", "1");
    setup.shutdown.cancel();
    for call in &mut calls {
        let status = call.try_next().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
    }
    gone(&setup.world).await;
}

/// Waits until nothing is left of any stream.
async fn gone(world: &World) {
    let done = async {
        while world.hub.stats() != HubStats::default() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("streams end");
}

#[tokio::test]
async fn progress_comes_by_interval_and_on_request() {
    let mut setup = Setup::frames().await;
    let mut call = setup.watch().await;
    call.create(pb::WatchCreateRequest { progress_notify: true, watch_id: 5, ..watch("a", "") });
    assert!(call.next().await.created);
    setup.world.put("b", "1");
    assert_eq!(summary(&call.next().await), "5@2");
    assert_eq!(summary(&call.next().await), "5@2");
    call.cancel(5);
    while !call.next().await.canceled {}
    call.progress();
    assert_eq!(summary(&call.next().await), "-1@2");
}

/// One connection, its client not reading from one stream while large values are written.
#[tokio::test]
async fn a_stream_that_does_not_read_holds_up_no_other_on_its_connection() {
    let mut setup = Setup::frames().await;
    let mut stalled = setup.watch().await;
    stalled.create(watch("a", "b"));
    let mut healthy = Vec::new();
    for _ in 0..99 {
        let mut call = setup.watch().await;
        call.create(watch("a1", ""));
        assert!(call.next().await.created);
        healthy.push(call);
    }
    let value = "v".repeat(200_000);
    for _ in 0..100 {
        setup.world.put("a0", &value);
        setup.world.put("a1", "1");
        for call in &mut healthy {
            assert_eq!(call.next().await.events.len(), 1);
        }
    }
    assert!(stalled.next().await.created);
    let mut revision = 1;
    while revision < 201 {
        for event in stalled.next().await.events {
            revision += 1;
            assert_eq!(event.kv.unwrap().mod_revision, revision);
        }
    }
}

#[tokio::test]
async fn a_flood_of_requests_without_reading_is_answered_in_the_end() {
    let setup = Setup::frames().await;
    let mut call = setup.watch().await;
    for _ in 0..20_000 {
        call.create(watch("a", ""));
    }
    for watch_id in 0..20_000 {
        let answer = call.next().await;
        assert_eq!((answer.watch_id, answer.created), (watch_id, true));
    }
}

#[tokio::test]
async fn a_hundred_thousand_creates_and_cancels_leave_nothing() {
    let setup = Setup::frames().await;
    let mut call = setup.watch().await;
    call.create(watch("a", ""));
    call.next().await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..100 {
        for _ in 0..1000 {
            call.create(pb::WatchCreateRequest { watch_id: 9, ..watch("b", "c") });
            call.cancel(9);
        }
        for _ in 0..2000 {
            assert_eq!(call.next().await.watch_id, 9);
        }
    }
    assert_eq!(setup.world.hub.stats().watchers, 1);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before, "no task a watcher");
    drop(call);
    gone(&setup.world).await;
}

#[tokio::test]
async fn streams_that_are_reset_or_cut_off_leave_nothing() {
    let setup = Setup::frames().await;
    let mut calls = Vec::new();
    for _ in 0..500 {
        let mut call = setup.watch().await;
        call.create(pb::WatchCreateRequest { progress_notify: true, ..watch("a", "z") });
        call.create(watch("a", ""));
        call.next().await;
        calls.push(call);
    }
    assert_eq!(setup.world.hub.stats().streams, 500);
    calls.truncate(250);
    let half = async {
        while setup.world.hub.stats().streams != 250 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), half).await.expect("half of them end");
    // The connection is cut with its last user.
    let Setup { channel, world, .. } = setup;
    drop((calls, channel));
    gone(&world).await;
}

#[tokio::test]
async fn what_is_not_a_watch_is_refused() {
    use tower::Service as _;
    let world = World::new();
    let options = WatchOptions { request_bytes_max: 1, progress_interval: Duration::ZERO };
    let service = WatchService::new(world.hub, Arc::new(Member), Arc::new(OpenDoor), options, CancellationToken::new());
    let call = |path: &str, encoding: &'static str| {
        let request = http::Request::builder().uri(path).header("grpc-encoding", encoding);
        service.clone().into_server().call(request.body(tonic::body::Body::empty()).unwrap())
    };
    for (path, encoding) in [("/etcdserverpb.Watch/Other", "identity"), ("/etcdserverpb.Watch/Watch", "gzip")] {
        let response = call(path, encoding).await.unwrap();
        assert_eq!(response.headers().get("grpc-status").unwrap(), "12");
    }
    let mut body = call("/etcdserverpb.Watch/Watch", "identity").await.unwrap().into_body();
    let next = futures::future::poll_fn(|cx| {
        std::task::Poll::Ready(hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), cx).is_pending())
    });
    assert!(next.await, "an empty request body is a client that only listens");
}
