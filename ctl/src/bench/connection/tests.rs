//! The client against a server that answers as it is told.

use http::{Response, StatusCode};
use quorate_client::proto::etcdserverpb as pb;
use tokio::net::TcpListener;

use super::*;

/// What the server sends back for one request.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    head: &'static [(&'static str, &'static str)],
    /// Messages of this many bytes of value, each in pieces of at most `piece`.
    messages: &'static [usize],
    piece: usize,
    trailers: Option<&'static [(&'static str, &'static str)]>,
}

const OK: &[(&str, &str)] = &[("grpc-status", "0")];
const ANSWER: Answer = Answer { status: 200, head: &[], messages: &[10], piece: 16_384, trailers: Some(OK) };

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

fn message(size: usize) -> pb::RangeRequest {
    pb::RangeRequest { key: vec![b'k'; size].into(), ..Default::default() }
}

async fn serve(listener: TcpListener, answer: Answer) {
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(answer.status).unwrap();
        *head.headers_mut() = fields(answer.head);
        let bare = answer.messages.is_empty() && answer.trailers.is_none();
        let mut body = respond.send_response(head, bare).unwrap();
        if bare {
            continue;
        }
        let wire: Vec<u8> = answer.messages.iter().flat_map(|size| frame(&message(*size))).collect();
        for piece in wire.chunks(answer.piece) {
            body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
        match answer.trailers {
            Some(trailers) => body.send_trailers(fields(trailers)).unwrap(),
            None => body.send_data(Bytes::new(), true).unwrap(),
        }
    }
}

async fn ask(answer: Answer) -> Result<pb::RangeRequest, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(serve(listener, answer));
    let answer = Connection::open(&address).await.unwrap().unary(Method::Range, &message(3)).await;
    server.abort();
    answer
}

#[test]
fn every_method_has_its_place() {
    for (place, (method, _)) in Method::ALL.into_iter().enumerate() {
        assert_eq!(method as usize, place);
    }
}

#[tokio::test]
async fn an_answer_is_read_however_it_is_cut() {
    for (size, piece) in [(0, 1), (10, 3), (100_000, 16_384), (5_000_000, 16_384)] {
        let sizes: &'static [usize] = vec![size].leak();
        let answer = ask(Answer { messages: sizes, piece, ..ANSWER }).await;
        assert_eq!(answer, Ok(message(size)), "{size} bytes in pieces of {piece}");
    }
}

/// The head and the message are fine: what counts comes last.
#[tokio::test]
async fn a_status_in_the_trailers_counts_after_a_whole_message() {
    let trailers = Some(&[("grpc-status", "8"), ("grpc-message", "too many")][..]);
    let refused = Failure::Status { code: 8, message: "too many".to_owned() };
    assert_eq!(ask(Answer { trailers, ..ANSWER }).await, Err(refused));
}

#[tokio::test]
async fn a_refusal_may_come_in_the_head_alone() {
    let head = &[("grpc-status", "14"), ("grpc-message", "no leader")];
    let answer = ask(Answer { head, messages: &[], trailers: None, ..ANSWER }).await;
    assert_eq!(answer, Err(Failure::Status { code: 14, message: "no leader".to_owned() }));
}

#[tokio::test]
async fn what_is_no_grpc_is_no_success() {
    let wrong: [Answer; 7] = [
        Answer { trailers: None, ..ANSWER },
        Answer { trailers: Some(&[("grpc-message", "fine")]), ..ANSWER },
        Answer { trailers: Some(&[("grpc-status", "none")]), ..ANSWER },
        Answer { status: 502, ..ANSWER },
        Answer { messages: &[], ..ANSWER },
        Answer { messages: &[1, 1], ..ANSWER },
        Answer { head: OK, messages: &[], trailers: None, ..ANSWER },
    ];
    for (number, answer) in wrong.into_iter().enumerate() {
        let answer = ask(answer).await;
        assert!(matches!(answer, Err(Failure::Transport(_))), "{number}: {answer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_a_failure_of_every_operation_after() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let mut connection = Connection::open(&address).await.unwrap();
    server.await.unwrap();
    for _ in 0..2 {
        let answer: Result<pb::RangeRequest, _> = connection.unary(Method::Range, &message(1)).await;
        assert!(matches!(answer, Err(Failure::Transport(_))), "{answer:?}");
    }
}
