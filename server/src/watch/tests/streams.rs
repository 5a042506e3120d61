//! etcd's rules for what a stream answers.

use std::sync::Arc;

use super::support::{Later, World, delete, everything, key, put, request, span};
use crate::watch::{End, Filters, Limits, WatchCreate};

#[test]
fn created_comes_first_and_events_follow_in_order() {
    let mut world = World::new();
    world.put("a", "1");
    let mut client = world.client();
    client.watch(0, key("a"), 2);
    world.put("a", "2");
    assert_eq!(client.words(), ["0 created@2", "0 events@3 a=1 a=2"]);
    world.put("a", "3");
    world.put("b", "3");
    world.delete("a");
    assert_eq!(client.words(), ["0 events@4 a=3", "0 events@6 -a"]);
}

#[test]
fn ids_are_picked_from_zero_and_skip_those_in_use() {
    let world = World::new();
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.watch(0, key("a"), 0);
    client.watch(0, key("a"), 0);
    client.watch(1, key("a"), 0);
    assert_eq!(
        client.words(),
        ["1 created@1", "0 created@1", "2 created@1", "refused: mvcc: duplicate watch ID provided on the WatchStream"]
    );
}

#[test]
fn an_empty_range_is_refused() {
    let world = World::new();
    let mut client = world.client();
    client.watch(0, span("b", "a"), 0);
    client.watch(0, span("b", "b"), 0);
    assert_eq!(client.words(), ["refused: mvcc: watcher range is empty"; 2]);
    assert_eq!(world.hub.stats().watchers, 0);
}

#[test]
fn cancel_is_answered_once_and_unknown_ids_are_not() {
    let mut world = World::new();
    let mut client = world.client();
    client.watch(5, key("a"), 0);
    client.stream.handle().cancel(6);
    client.stream.handle().cancel(-1);
    client.stream.handle().cancel(5);
    client.stream.handle().cancel(5);
    world.put("a", "1");
    assert_eq!(client.words(), ["5 created@1", "5 canceled"]);
    assert_eq!(world.hub.stats().watchers, 0);
}

#[test]
fn events_queued_for_a_canceled_watcher_are_not_for_the_next_one_in_its_place() {
    let mut world = World::new();
    let mut client = world.client();
    client.watch(1, everything(), 0);
    world.put("a", "1");
    client.stream.handle().cancel(1);
    client.watch(2, everything(), 0);
    client.watch(3, key("b"), 1);
    world.put("b", "2");
    let mut words = client.words();
    words.sort();
    assert_eq!(words, ["1 canceled", "1 created@1", "2 created@2", "2 events@3 b=2", "3 created@2", "3 events@3 b=2"]);
}

#[test]
fn filters_drop_events_and_answers_that_they_empty() {
    let mut world = World::new();
    let mut client = world.client();
    let (no_put, no_delete) = (Filters { no_put: true, no_delete: false }, Filters { no_put: false, no_delete: true });
    for (id, filters, start) in [(1, no_put, 0), (2, no_delete, 0), (3, no_put, 1), (4, no_delete, 1)] {
        client.create(&WatchCreate { watch_id: id, filters, start_revision: start, ..request(everything()) });
    }
    client.drain();
    world.txn(vec![put("a", "1"), put("b", "1")]);
    world.txn(vec![delete("a"), put("b", "2")]);
    world.delete("b");
    let mut words = client.words();
    words.sort();
    assert_eq!(
        words,
        [
            "1 events@3 -a",
            "1 events@4 -b",
            "2 events@2 a=1 b=1",
            "2 events@3 b=2",
            "3 events@3 -a",
            "3 events@4 -b",
            "4 events@2 a=1 b=1",
            "4 events@3 b=2"
        ]
    );
    let mut late = world.client();
    late.create(&WatchCreate { filters: no_put, start_revision: 2, ..request(everything()) });
    assert_eq!(late.words(), ["0 created@4", "0 events@4 -a -b"]);
}

#[test]
fn a_page_of_history_holds_at_most_a_thousand_revisions() {
    let mut world = World::with(Limits { ring_bytes: 0, ..Limits::default() }, Arc::new(crate::watch::Inline));
    for n in 0..2500 {
        world.put("a", &n.to_string());
    }
    let mut client = world.client();
    client.watch(0, key("a"), 1);
    let words = client.words();
    let counts: Vec<_> = words.iter().map(|word| word.split(' ').count() - 2).collect();
    assert_eq!(counts, [0, 1000, 1000, 499, 1], "the newest is always in the ring");
}

#[test]
fn progress_by_interval_is_for_those_who_asked_and_heard_nothing() {
    let mut world = World::new();
    let mut client = world.client();
    client.create(&WatchCreate { watch_id: 1, progress_notify: true, ..request(key("a")) });
    client.create(&WatchCreate { watch_id: 2, progress_notify: true, ..request(key("b")) });
    client.create(&WatchCreate { watch_id: 3, progress_notify: false, ..request(key("b")) });
    client.create(&WatchCreate { watch_id: 4, progress_notify: true, start_revision: 9, ..request(key("b")) });
    client.drain();
    world.put("a", "1");
    world.put("c", "1");
    client.drain();
    client.stream.tick();
    assert_eq!(client.words(), ["2 progress@3"]);
    client.stream.tick();
    assert_eq!(client.words(), ["1 progress@3", "2 progress@3"]);
    client.stream.handle().cancel(1);
    client.drain();
    client.stream.tick();
    assert_eq!(client.words(), ["2 progress@3"]);
}

#[test]
fn a_disk_that_cannot_be_read_ends_the_stream_and_not_in_silence() {
    let mut world = World::with(Limits { ring_bytes: 0, ..Limits::default() }, Arc::new(crate::watch::Inline));
    for _ in 0..3 {
        world.put("a", "1");
    }
    world.history.break_disk();
    let mut client = world.client();
    client.watch(0, key("a"), 2);
    client.poll();
    let mut out = Vec::new();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let end = client.stream.poll_outputs(&mut context, &mut out);
    assert_eq!(end, std::task::Poll::Ready(Err(End::Fault("disk".to_owned()))));
}

#[test]
fn a_page_that_is_never_read_ends_the_stream_and_not_in_silence() {
    let later = Arc::new(Later::default());
    let mut world = World::with(Limits { ring_bytes: 0, ..Limits::default() }, later.clone());
    for _ in 0..3 {
        world.put("a", "1");
    }
    let mut client = world.client();
    client.watch(0, key("a"), 2);
    assert_eq!(client.words(), ["0 created@4"]);
    later.drop_all();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let end = client.stream.poll_outputs(&mut context, &mut Vec::new());
    assert!(matches!(end, std::task::Poll::Ready(Err(End::Fault(_)))));
}

#[test]
fn a_few_pages_are_read_at_once_and_the_others_stand_in_line() {
    let later = Arc::new(Later::default());
    let limits = Limits { ring_bytes: 0, pages_at_once: 2, ..Limits::default() };
    let mut world = World::with(limits, later.clone());
    for n in 0..3 {
        world.put("a", &n.to_string());
    }
    let mut clients: Vec<_> = (0..50).map(|_| world.client()).collect();
    for client in &mut clients {
        client.watch(0, key("a"), 2);
        assert_eq!(client.words(), ["0 created@4"]);
    }
    drop(clients.split_off(40));
    assert_eq!(later.run_all(), 2, "two threads that read everything");
    for client in &mut clients {
        assert_eq!(client.words(), ["0 events@4 a=0 a=1", "0 events@4 a=2"]);
    }
    assert_eq!(later.run_all(), 0);

    for client in &mut clients {
        client.watch(1, key("a"), 2);
        client.drain();
    }
    later.drop_all();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for client in &mut clients {
        let end = client.stream.poll_outputs(&mut context, &mut Vec::new());
        assert!(matches!(end, std::task::Poll::Ready(Err(End::Fault(_)))), "nobody waits for a reader that is gone");
    }
}
