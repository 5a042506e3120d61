//! Clients that do not read: HAZARDS 27, 34, 35. Numbers are etcd's threads.

use std::sync::Arc;

use super::support::{World, everything, key, request, say, small_ring, span};
use crate::watch::{Inline, Limits, Output, WatchCreate};

// ---- 27, 34: starvation, lost events (#17529), memory (#16839) ----

/// Hundreds of watchers with prev_kv and a client that does not read, at first.
#[test]
fn hundreds_of_watchers_of_a_slow_client_lose_nothing_and_queue_nothing() {
    let limits = Limits { stream_bytes: 64 << 10, ring_bytes: 256 << 10, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut client = world.client();
    for _ in 0..700 {
        client.create(&WatchCreate { prev_kv: true, ..request(span("k", "l")) });
    }
    client.drain();
    for n in 0..2000 {
        world.put(&format!("k{:02}", n % 100), &"v".repeat(200));
        assert!(world.hub.stats().queued_bytes <= 64 << 10);
    }
    assert_eq!(world.hub.stats().queued_bytes, 0, "a number is left of the queue");
    assert_eq!(world.hub.stats().slow_watchers, 700);
    let mut last = vec![1_i64; 700];
    let mut seen = 0;
    for output in client.drain() {
        let Output::Events(delivery) = output else { panic!("{output:?}") };
        for (record, change) in delivery.events() {
            let event = record.event(change, true);
            assert_eq!(event.prev_kv.is_some(), record.revision() > 101);
            assert_eq!(record.revision(), last[delivery.watch_id as usize] + 1);
            last[delivery.watch_id as usize] += 1;
            seen += 1;
        }
    }
    assert_eq!(seen, 700 * 2000);
    assert_eq!(world.hub.stats().slow_watchers, 0);
}

#[test]
fn a_slow_watcher_that_compaction_passes_is_told_and_not_skipped() {
    let limits = Limits { stream_bytes: 200, ..small_ring() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.watch(2, key("a"), 1_000);
    client.drain();
    for n in 0..50 {
        world.put("a", &n.to_string());
    }
    world.compact(40);
    assert_eq!(client.words(), ["1 compacted@40"]);
    assert_eq!(world.hub.stats().watchers, 1, "who waits for the future has lost nothing");
    client.watch(3, key("a"), 51);
    assert_eq!(client.words(), ["3 created@51", "3 events@51 a=49"]);
}

#[test]
fn no_watcher_of_a_stream_waits_for_another_that_reads_a_long_past() {
    let limits = Limits { page_revisions: 10, page_spread: 10, ..small_ring() };
    let mut world = World::with(limits, Arc::new(Inline));
    for n in 0..2000 {
        world.put("a", &n.to_string());
    }
    let mut client = world.client();
    client.watch(1, key("a"), 2);
    client.watch(2, key("a"), 1_990);
    client.watch(3, key("a"), 0);
    world.put("a", "live");
    let words: Vec<String> = (0..8).flat_map(|_| client.poll()).map(|output| say(&output)).collect();
    assert!(words.iter().any(|word| word.starts_with("3 events")), "{words:?}");
    assert!(words.iter().any(|word| word.contains("2 events") && word.contains("a=1999")), "{words:?}");
    assert!(words.iter().filter(|word| word.starts_with("1 events")).count() < 8);
}

#[test]
fn a_thousand_stalled_streams_hold_nothing_but_numbers() {
    let limits = Limits { ring_bytes: 1 << 20, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut clients: Vec<_> = (0..1000).map(|_| world.client()).collect();
    for client in &mut clients {
        client.watch(0, everything(), 0);
        client.drain();
    }
    let value = "v".repeat(100_000);
    for _ in 0..100 {
        world.put("a", &value);
        let stats = world.hub.stats();
        assert!(stats.queued_bytes <= 1000 * 100 * 64, "{stats:?}");
    }
    let (weak, strong) = {
        let ring = crate::watch::lock(&world.hub.core().ring);
        let record = ring.read(ring.first(), 101, 1).unwrap().remove(0);
        (Arc::weak_count(&record), Arc::strong_count(&record))
    };
    assert_eq!((weak, strong), (1000, 2), "the ring's and this test's");
    let words = clients.remove(500).words();
    let events: usize = words.iter().map(|word| word.matches("a=").count()).sum();
    assert_eq!(events, 100, "and nothing is lost");
}

#[test]
fn all_queues_together_are_bounded() {
    let limits = Limits { queues_bytes: 10_000, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut clients: Vec<_> = (0..100).map(|_| world.client()).collect();
    for client in &mut clients {
        client.watch(0, everything(), 0);
        client.drain();
    }
    for n in 0..200 {
        world.put("a", &n.to_string());
        // One item each is always allowed: who keeps up is never closed.
        assert!(world.hub.stats().queued_bytes <= 10_000 + 100 * 64);
        assert_eq!(clients[0].words(), [format!("0 events@{} a={n}", n + 2)]);
    }
    for client in &mut clients[1..] {
        assert_eq!(client.words().iter().map(|word| word.matches("a=").count()).sum::<usize>(), 200);
    }
    assert_eq!(world.hub.stats().queued_bytes, 0);
}

// ---- 35: nobody waits for a stalled stream ----

#[test]
fn a_hundred_streams_are_served_while_one_does_not_read() {
    let limits = Limits { stream_bytes: 1000, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut stalled = world.client();
    stalled.watch(0, everything(), 0);
    let mut healthy: Vec<_> = (0..99).map(|_| world.client()).collect();
    for client in &mut healthy {
        client.watch(0, everything(), 0);
        client.drain();
    }
    for n in 0..1000 {
        let revision = world.put("a", &n.to_string());
        for client in &mut healthy {
            assert_eq!(client.words(), [format!("0 events@{revision} a={n}")]);
        }
    }
    let words = stalled.words();
    assert_eq!(words.iter().map(|word| word.matches("a=").count()).sum::<usize>(), 1000);
}
