//! What is written by hand is what prost would write.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

use super::support::{World, delete, everything, key, put, request};
use crate::watch::wire::{self, Frames};
use crate::watch::{Output, WatchCreate};

fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision, raft_term: 300 }
}

/// The messages in the chunks of `outputs`, and how many chunks there were.
fn decoded(outputs: &[Output], fragment_bytes: usize) -> (Vec<pb::WatchResponse>, usize) {
    let mut frames = Frames::default();
    for output in outputs {
        frames.push(output, &header, fragment_bytes);
    }
    frames.flush();
    let chunks: Vec<Bytes> = std::iter::from_fn(|| frames.next_chunk()).collect();
    let mut bytes: Bytes = chunks.concat().into();
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        assert_eq!(bytes.get_u8(), 0, "not compressed");
        let len = bytes.get_u32() as usize;
        messages.push(pb::WatchResponse::decode(bytes.split_to(len)).unwrap());
    }
    (messages, chunks.len())
}

fn assert_same(outputs: &[Output], fragment_bytes: usize) -> Vec<pb::WatchResponse> {
    let (written, _) = decoded(outputs, fragment_bytes);
    let expected: Vec<_> = outputs.iter().flat_map(|output| wire::messages(output, &header, fragment_bytes)).collect();
    assert_eq!(written, expected);
    written
}

#[test]
fn every_output_reads_back_as_its_message() {
    let mut world = World::new();
    let mut client = world.client();
    client.create(&request(everything()));
    client.create(&WatchCreate { watch_id: 1 << 40, prev_kv: true, ..request(everything()) });
    client.create(&WatchCreate { watch_id: -7, prev_kv: true, start_revision: 1, ..request(everything()) });
    client.create(&WatchCreate { watch_id: -7, ..request(everything()) });
    world.put("a", "1");
    world.txn(vec![put("a", &"x".repeat(20_000)), delete("a"), put("b", "")]);
    world.delete("b");
    client.stream.handle().progress();
    let mut outputs = client.drain();
    client.stream.handle().cancel(1 << 40);
    outputs.extend(client.drain());
    outputs.push(Output::Compacted { watch_id: 3, compact_revision: 99 });
    let messages = assert_same(&outputs, usize::MAX);
    assert!(messages.iter().any(|message| message.watch_id == 1 << 40 && message.canceled));
    let compacted = messages.last().unwrap();
    assert_eq!((compacted.canceled, compacted.compact_revision), (true, 99));
    assert_eq!((compacted.header.unwrap().revision, compacted.cancel_reason.as_str()), (0, ""));
    let refused = messages.iter().find(|message| !message.cancel_reason.is_empty()).unwrap();
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
}

#[test]
fn prev_kv_is_only_for_those_who_asked_and_absent_for_creates() {
    let mut world = World::new();
    let mut client = world.client();
    client.create(&request(key("a")));
    client.create(&WatchCreate { prev_kv: true, ..request(key("a")) });
    world.put("a", "1");
    world.put("a", "2");
    world.delete("a");
    let events: Vec<_> = assert_same(&client.drain(), usize::MAX)
        .into_iter()
        .flat_map(|message| message.events.into_iter().map(move |event| (message.watch_id, event)))
        .collect();
    let prev = |id: i64| {
        let mine = events.iter().filter(move |(watch_id, _)| *watch_id == id);
        mine.map(|(_, event)| event.prev_kv.as_ref().map(|kv| kv.value.clone())).collect::<Vec<_>>()
    };
    assert_eq!(prev(0), [None, None, None]);
    assert_eq!(prev(1), [None, Some(Bytes::from("1")), Some(Bytes::from("2"))]);
}

#[test]
fn fragments_stay_below_the_limit_and_all_but_the_last_say_so() {
    let mut world = World::new();
    let mut client = world.client();
    client.create(&WatchCreate { fragment: true, ..request(everything()) });
    client.create(&request(everything()));
    world.txn((0..50).map(|n| put(&format!("k{n:02}"), &"v".repeat(100))).collect());
    let outputs = client.drain();
    for limit in [0, 1, 200, 400, 1000, 5000, 100_000] {
        let messages = assert_same(&outputs, limit);
        let (whole, pieces): (Vec<_>, Vec<_>) =
            messages.into_iter().filter(|message| !message.created).partition(|message| message.watch_id == 1);
        assert_eq!(whole.len(), 1, "never split for those who did not ask");
        let keys: Vec<_> = pieces.iter().flat_map(|piece| &piece.events).map(|e| e.kv.clone().unwrap().key).collect();
        assert_eq!(keys, (0..50).map(|n| Bytes::from(format!("k{n:02}"))).collect::<Vec<_>>());
        for (number, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.fragment, number + 1 < pieces.len(), "all but the last");
            assert!(piece.events.len() == 1 || piece.encoded_len() < limit, "{} >= {limit}", piece.encoded_len());
        }
        if limit >= 100_000 {
            assert_eq!(pieces.len(), 1);
        }
    }
}

#[test]
fn many_small_answers_are_one_chunk_and_a_large_event_is_shared() {
    let mut world = World::new();
    let mut client = world.client();
    for _ in 0..100 {
        client.create(&request(key("a")));
    }
    client.drain();
    world.put("a", "small");
    let mut outputs = Vec::new();
    while outputs.len() < 100 {
        outputs.extend(client.poll());
    }
    assert_eq!(decoded(&outputs, usize::MAX).1, 1);

    world.put("a", &"x".repeat(1 << 20));
    let outputs = client.drain();
    assert_eq!(outputs.len(), 100);
    let mut frames = Frames::default();
    outputs.iter().for_each(|output| frames.push(output, &header, usize::MAX));
    frames.flush();
    let large: Vec<Bytes> = std::iter::from_fn(|| frames.next_chunk()).filter(|chunk| chunk.len() > 1 << 19).collect();
    assert_eq!(large.len(), 100);
    assert!(large.iter().all(|chunk| chunk.as_ptr() == large[0].as_ptr()), "one allocation for all");
}
