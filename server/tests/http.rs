//! One port: HTTP/1.0, HTTP/1.1, HTTP/2 and gRPC, and whatever else somebody sends. Answers are those of etcd 3.7.3.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use quorate_proto::etcdserverpb as pb;
use quorate_server::config::{Start, Surroundings, Url};
use quorate_server::http::bind;
use support::client::{put, says};
use support::clock::{jump, still, until};
use support::member::{Member, Place};
use support::process::Home;
use support::raw::{Answer, exchange, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::Code;

const VERSION: &str = r#"{"etcdserver":"3.7.3","etcdcluster":"not_decided","storage":"unknown"}"#;
const TEXT: &str = "text/plain; charset=utf-8";

/// A request of HTTP/2 without TLS, whose client knows beforehand that it may.
async fn get_h2(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = hyper::Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap();
    let answer = sender.send_request(asked).await.unwrap();
    let code = answer.status().as_u16();
    let body = to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn one_port_speaks_every_version_of_http_and_grpc() {
    let member = Place::memory().start().await;
    for version in ["1.0", "1.1"] {
        let answer = request(member.address, "GET", "/version", version).await;
        assert_eq!((answer.code, answer.body.as_str()), (200, VERSION));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(get_h2(member.address, "/version").await, (200, VERSION.into()));
    assert_eq!(get_h2(member.address, "/nothing").await, (404, "404 page not found\n".into()));
    member.client.put("k", "v").await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_connection_of_http_1_1_serves_one_request_after_the_other() {
    let member = Place::memory().start().await;
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    let ask = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(ask.repeat(3).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("\r\n\r\nok\n").count(), 3, "{text}");
    member.stop().await;
}

#[tokio::test]
async fn probes_are_asked_by_get_alone() {
    let member = Place::memory().start().await;
    for path in ["/version", "/health", "/livez", "/livez/serializable_read", "/readyz", "/readyz/non_learner"] {
        for method in ["HEAD", "POST", "PUT", "DELETE"] {
            let answer = request(member.address, method, path, "1.1").await;
            let body = if method == "HEAD" { "" } else { "Method Not Allowed\n" };
            assert_eq!((answer.code, answer.body.as_str()), (405, body), "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET"), "{method} {path}");
            assert_eq!(answer.header("content-type"), Some(TEXT), "{method} {path}");
        }
    }
    member.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_a_page_not_found() {
    let member = Place::memory().start().await;
    for path in
        ["/", "/nothing", "/livez/", "/livez/nothing", "/readyz/nothing", "/health/", "/metrics/", "/etcdserverpb.KV"]
    {
        for method in ["GET", "POST"] {
            let answer = request(member.address, method, path, "1.1").await;
            let expected = if method == "POST" && path.ends_with("z/nothing") { 405 } else { 404 };
            assert_eq!(answer.code, expected, "{method} {path}");
            if expected == 404 {
                assert_eq!(answer.body, "404 page not found\n", "{method} {path}");
                assert_eq!(answer.header("content-type"), Some(TEXT), "{method} {path}");
            }
        }
    }
    member.stop().await;
}

fn expect(answer: &Answer, code: u16, body: &str) {
    assert_eq!((answer.code, answer.body.as_str(), answer.header("content-type")), (code, body, Some(TEXT)));
}

#[tokio::test]
async fn health_names_the_alarm_unless_it_is_excluded() {
    let member = Place::memory().start().await;
    let well = r#"{"health":"true","reason":""}"#;
    let ill = |alarm: &str| format!("{{\"health\":\"false\",\"reason\":\"ALARM {alarm}\"}}\n");
    for path in ["/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=", "/health?x"] {
        expect(&get(member.address, path).await, 200, well);
    }
    member.client.set_alarm(true, 1, pb::AlarmType::Nospace).await.unwrap();
    expect(&get(member.address, "/health").await, 503, &ill("NOSPACE"));
    expect(&get(member.address, "/health?serializable=true").await, 503, &ill("NOSPACE"));
    expect(&get(member.address, "/health?exclude=CORRUPT").await, 503, &ill("NOSPACE"));
    expect(&get(member.address, "/health?exclude=NOSPACE").await, 200, well);
    member.client.set_alarm(true, 1, pb::AlarmType::Corrupt).await.unwrap();
    expect(&get(member.address, "/health?exclude=NOSPACE").await, 503, &ill("CORRUPT"));
    expect(&get(member.address, "/health?exclude=NOSPACE&exclude=CORRUPT").await, 200, well);
    member.stop().await;
}

#[tokio::test]
async fn livez_and_readyz_say_what_was_checked_when_asked_and_what_failed_always() {
    let member = Place::memory().start().await;
    let lines = |answer: Answer| answer.body.lines().map(str::to_owned).collect::<Vec<_>>();
    for path in
        ["/livez", "/readyz", "/livez/serializable_read", "/readyz/linearizable_read", "/readyz?exclude=nothing"]
    {
        let answer = get(member.address, path).await;
        expect(&answer, 200, "ok\n");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(lines(get(member.address, "/livez?verbose").await), ["[+]serializable_read ok", "ok"]);
    assert_eq!(lines(get(member.address, "/livez?verbose&exclude=serializable_read").await), ["ok"]);
    let ready =
        ["[+]data_corruption ok", "[+]serializable_read ok", "[+]linearizable_read ok", "[+]non_learner ok", "ok"];
    assert_eq!(lines(get(member.address, "/readyz?verbose").await), ready);
    assert_eq!(lines(get(member.address, "/readyz/non_learner?verbose").await), ["[+]non_learner ok", "ok"]);

    member.client.set_alarm(true, 1, pb::AlarmType::Corrupt).await.unwrap();
    let answer = get(member.address, "/readyz").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("\n[+]linearizable_read ok\n"), "{}", answer.body);
    assert!(answer.body.starts_with("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{}", answer.body);
    assert!(answer.body.ends_with("\n\n"), "{:?}", answer.body);
    expect(&get(member.address, "/readyz?exclude=data_corruption").await, 200, "ok\n");
    expect(&get(member.address, "/livez").await, 200, "ok\n");
    member.stop().await;
}

#[tokio::test]
async fn a_member_that_cannot_apply_is_alive_and_not_ready() {
    let place = Place::memory();
    let member = place.start().await;
    place.engine().close();
    let client = member.client.clone();
    let writing = tokio::spawn(async move { client.put("k", "v").await });
    until("the put is in the log", || member.raft.status().committed_index > member.raft.applied().index).await;
    expect(&get(member.address, "/livez").await, 200, "ok\n");
    expect(&get(member.address, "/health?serializable=true").await, 200, r#"{"health":"true","reason":""}"#);
    let address = member.address;
    let ready = tokio::spawn(async move { get(address, "/readyz/linearizable_read").await });
    let health = tokio::spawn(async move { get(address, "/health").await });
    still("both wait", || !ready.is_finished() && !health.is_finished()).await;
    jump(7).await;
    let failed = "[-]linearizable_read failed: etcdserver: request timed out\n\n";
    expect(&ready.await.unwrap(), 503, failed);
    let ill = "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n";
    expect(&health.await.unwrap(), 503, ill);
    place.engine().open();
    assert!(writing.await.unwrap().is_err());
    member.stop().await;
}

/// Name, labels and value of a sample of the Prometheus text format.
fn sample(line: &str) -> (&str, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let name = series.split('{').next().unwrap();
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)), "{line}");
    assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
    (name, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

#[tokio::test]
async fn metrics_are_prometheus_text_under_etcds_names() {
    let home = Home::new();
    let process = home.start(&[]).await;
    let client = process.client().await;
    client.put("k", "v").await.unwrap();
    client.grant(7, 60).await.unwrap();
    let text = process.get("/metrics").await.body;
    let mut samples = std::collections::BTreeMap::new();
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(typing) => assert!(typed.insert(typing.split(' ').next().unwrap().to_owned()), "twice: {line}"),
            None if line.starts_with("# HELP ") => {}
            None => {
                let (name, value) = sample(line);
                samples.insert(name.to_owned(), value);
            }
        }
    }
    for name in samples.keys() {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(typed.contains(family) || typed.contains(name), "{name} has no type");
    }
    for (name, least) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_proposals_applied_total", 4.0),
        ("etcd_server_proposals_committed_total", 4.0),
        ("etcd_mvcc_put_total", 1.0),
        ("etcd_mvcc_db_total_size_in_bytes", 1.0),
        ("etcd_debugging_mvcc_keys_total", 1.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 4.0),
        ("etcd_disk_backend_commit_duration_seconds_count", 1.0),
        ("etcd_network_client_grpc_received_bytes_total", 0.0),
        ("grpc_server_handled_total", 0.0),
        ("process_resident_memory_bytes", 1.0),
        ("process_open_fds", 1.0),
    ] {
        let value = samples.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(*value >= least, "{name} {value}");
    }
}

async fn small() -> Member {
    Place::memory().with(|settings| settings.request_bytes_max = 10_000).start().await
}

#[tokio::test]
async fn a_message_above_the_limit_gets_the_code_and_the_words_of_gos_grpc() {
    let member = small().await;
    let limit = 10_000 + (512 << 10);
    let request = put("k", &"x".repeat(limit), 0);
    let expected = format!("grpc: received message larger than max ({} vs. {limit})", request.encoded_len());
    let mut kv = member.client.kv.clone();
    assert_eq!(says(kv.put(request).await), (Code::ResourceExhausted, expected));
    let ranged = pb::RangeRequest { key: vec![b'x'; limit].into(), ..Default::default() };
    let expected = format!("grpc: received message larger than max ({} vs. {limit})", ranged.encoded_len());
    assert_eq!(says(kv.range(ranged).await), (Code::ResourceExhausted, expected));

    let create = pb::WatchCreateRequest { key: vec![b'x'; limit].into(), ..Default::default() };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    let watch = pb::WatchRequest { request_union: Some(union) };
    let expected = format!("grpc: received message larger than max ({} vs. {limit})", watch.encoded_len());
    let watching = member.client.watch.clone().watch(tokio_stream::once(watch)).await;
    let refused = match watching {
        Ok(answers) => answers.into_inner().next().await.unwrap().map(|_| ()),
        Err(refused) => Err(refused),
    };
    assert_eq!(says(refused), (Code::ResourceExhausted, expected));
    member.client.put("k", "the connection goes on").await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn what_is_no_service_is_unimplemented_to_who_speaks_grpc() {
    let member = Place::memory().start().await;
    for (path, words) in [("/no.Such/Thing", "unknown service no.Such"), ("/etcdserverpb.KV/Nothing", "")] {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", member.address)).unwrap();
        let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = client.unary(tonic::Request::new(pb::RangeRequest::default()), path, codec).await;
        let (code, text) = says(answer);
        assert_eq!(code, Code::Unimplemented);
        assert!(text.contains(words), "{text}");
    }
    member.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let member = Place::memory().start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frame = |kind: u8, flags: u8, stream: u32, length: u32, body: &[u8]| {
        let mut frame = preface.clone();
        frame.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        frame.extend(&length.to_be_bytes()[1..]);
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(body);
        frame
    };
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        vec![0xff; 100_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nContent-Length: nonsense\r\n\r\n".to_vec(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        b"POST /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
        preface[..10].to_vec(),
        preface.clone(),
        frame(0x00, 0, 0, 5, b"hello"),
        frame(0x01, 0x4, 1, 3, b"\xff\xff\xff"),
        frame(0x01, 0x4, 2, 1, b"\x82"),
        frame(0x03, 0, 1, 4, b"\0\0\0\0"),
        frame(0x04, 0, 0, 5, b"12345"),
        frame(0x08, 0, 0, 4, b"\0\0\0\0"),
        frame(0x09, 0, 1, 4, b"aaaa"),
        frame(0x00, 0, 1, 0xff_ffff, b""),
        frame(0xee, 0xff, 0x7fff_ffff, 3, b"abc"),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(15), exchange(member.address, bytes)).await;
        assert!(answer.is_ok(), "case {number} hangs");
    }
    member.client.put("k", "v").await.unwrap();
    expect(&get(member.address, "/livez").await, 200, "ok\n");
    member.stop().await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_waiting() {
    let member = Place::memory().start().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(member.address).await.unwrap());
    }
    expect(&get(member.address, "/livez").await, 200, "ok\n");
    member.client.put("k", "v").await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_socket_file_is_served_and_removed_and_another_file_is_left_alone() {
    let config = match Start::read(&[], &Surroundings::none()) {
        Start::Run(config) => *config,
        other => panic!("{other:?}"),
    };
    let home = Home::new();
    let socket = home.path("socket");
    let url = Url::parse(&format!("unix://{}", socket.display())).unwrap();
    // Of a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let process = home.start(&[]).await;
    assert_eq!(process.get("/livez").await.body, "ok\n");
    process.client().await.put("k", "v").await.unwrap();
    let ended = process.terminate();
    assert_eq!(ended.signal(), Some(libc::SIGTERM));
    assert!(!socket.exists());
    std::fs::write(&socket, "precious").unwrap();
    let refused = bind(&url, &config).await.err().unwrap();
    assert!(format!("{refused:#}").contains("exists and is not a socket"), "{refused:#}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}
