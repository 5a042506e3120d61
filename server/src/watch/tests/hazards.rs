//! The past, the future, snapshots, doubles, atomicity, leaks: HAZARDS 28 to 33 and 36. Numbers are etcd's threads.

use std::sync::Arc;

use bytes::Bytes;
use quorate_store::{Effects, KeyRange};

use super::support::{Bell, Client, Later, World, delete, everything, key, listen, put, request, small_ring, span};
use crate::watch::{Inline, Limits, Output, WatchCreate};

// ---- 28: compacted revisions (#18089, #19179) ----

#[test]
fn a_watch_from_the_compacted_revision_sees_it_also_when_it_is_a_delete() {
    let mut world = World::with(small_ring(), Arc::new(Inline));
    world.put("a", "1");
    let deleted = world.delete("a");
    world.put("b", "1");
    world.put("b", "2");
    world.compact(deleted);
    let mut client = world.client();
    client.watch(1, everything(), deleted);
    client.watch(2, everything(), deleted - 1);
    assert_eq!(
        client.words(),
        ["1 created@5", "2 created@5", "2 compacted@3", "1 events@5 -a b=1", "1 events@5 b=2"],
        "below it is gone, from it on is there"
    );
}

#[test]
fn what_a_change_at_the_compacted_revision_replaced_is_not_told_even_where_the_ring_has_it() {
    let mut world = World::new();
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    let mut client = world.client();
    let replaced = |client: &mut Client, watch_id| -> Vec<_> {
        client.create(&WatchCreate { watch_id, start_revision: 3, prev_kv: true, ..request(key("a")) });
        let outputs = client.drain();
        let deliveries = outputs.iter().filter_map(|output| match output {
            Output::Events(delivery) => Some(delivery),
            _ => None,
        });
        let events =
            deliveries.flat_map(|delivery| delivery.events().map(|(record, change)| record.event(change, true)));
        events.map(|event| event.prev_kv.map(|kv| kv.value)).collect()
    };
    assert_eq!(replaced(&mut client, 1), [Some("1".into()), Some("2".into())]);
    world.compact(3);
    assert_eq!(replaced(&mut client, 2), [None, Some(Bytes::from("2"))]);
}

#[test]
fn the_id_of_a_watcher_that_compaction_ended_is_taken_until_the_client_cancels_it() {
    let mut world = World::new();
    for _ in 0..3 {
        world.put("a", "1");
    }
    world.compact(4);
    let mut client = world.client();
    client.watch(7, key("a"), 2);
    client.watch(0, key("a"), 2);
    assert_eq!(client.words(), ["7 created@4", "7 compacted@4", "0 created@4", "0 compacted@4"]);
    client.watch(7, key("a"), 0);
    client.watch(0, key("a"), 0);
    client.stream.handle().cancel(7);
    client.stream.handle().cancel(7);
    client.watch(7, key("a"), 0);
    let refused = "refused: mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(client.words(), [refused, "1 created@4", "7 canceled", "7 created@4"]);
    assert_eq!(world.hub.stats().watchers, 2);
}

#[test]
fn that_is_so_also_for_a_watcher_that_compaction_passes_later() {
    let mut world = World::with(small_ring(), Arc::new(Later::default()));
    let mut client = world.client();
    for _ in 0..3 {
        world.put("a", "1");
    }
    client.watch(7, key("a"), 2);
    world.compact(4);
    assert_eq!(client.words(), ["7 created@4", "7 compacted@4"]);
    client.watch(7, key("a"), 0);
    client.stream.handle().cancel(7);
    assert_eq!(client.words(), ["refused: mvcc: duplicate watch ID provided on the WatchStream", "7 canceled"]);
}

#[test]
fn a_compaction_while_a_page_is_read_cancels_those_it_passed() {
    let later = Arc::new(Later::default());
    let mut world = World::with(small_ring(), later.clone());
    for n in 0..10 {
        world.put("a", &n.to_string());
    }
    let mut client = world.client();
    client.watch(1, key("a"), 3);
    client.watch(2, key("a"), 8);
    client.drain();
    world.compact(8);
    later.run_all();
    assert_eq!(client.words()[0], "1 compacted@8");
    later.run_all();
    let mut words = client.words();
    later.run_all();
    words.extend(client.words());
    assert_eq!(words, ["2 events@11 a=6 a=7 a=8", "2 events@11 a=9"], "the newest is always in the ring");
}

// ---- 29, 30: future revisions, snapshot installs (#20221, #19487, #15271, #8411) ----

#[test]
fn a_watch_on_the_future_hears_nothing_before_also_across_an_install() {
    let mut world = World::new();
    let mut client = world.client();
    client.create(&WatchCreate { watch_id: 1, start_revision: 8, progress_notify: true, ..request(everything()) });
    client.watch(2, everything(), i64::MAX);
    client.watch(3, everything(), i64::MAX - 2);
    assert_eq!(client.words().len(), 3);
    world.put("a", "2");
    client.stream.tick();
    for n in 3..=5 {
        world.apply(vec![put("a", &n.to_string())]);
    }
    world.install(-1);
    client.stream.tick();
    client.stream.handle().progress();
    assert_eq!(client.words(), [""; 0]);
    for n in 6..=9 {
        world.put("a", &n.to_string());
    }
    assert_eq!(client.words(), ["1 events@8 a=8", "1 events@9 a=9"]);
}

#[test]
fn an_install_loses_nothing_and_repeats_nothing() {
    let mut world = World::new();
    let bell = Arc::new(Bell::default());
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.watch(2, key("b"), 0);
    assert_eq!(listen(&mut client, &bell).len(), 2);
    world.put("a", "2");
    assert_eq!(listen(&mut client, &bell), ["1 events@2 a=2"]);
    world.put("a", "3");
    for n in 4..=6 {
        world.apply(vec![put("a", &n.to_string())]);
    }
    bell.rings();
    world.install(-1);
    assert_eq!(bell.rings(), 0, "rung already by the event before");
    world.put("a", "7");
    assert_eq!(listen(&mut client, &bell), ["1 events@7 a=3 a=4 a=5 a=6", "1 events@7 a=7"]);
    world.put("a", "8");
    world.put("b", "9");
    assert_eq!(listen(&mut client, &bell), ["1 events@8 a=8", "2 events@9 b=9"]);
    world.apply(vec![put("b", "10")]);
    world.install(-1);
    assert!(bell.rings() > 0, "an install alone is news");
    assert_eq!(listen(&mut client, &bell), ["2 events@10 b=10"]);
    client.stream.handle().progress();
    assert_eq!(listen(&mut client, &bell), ["-1 progress@10"]);
}

#[test]
fn an_install_with_a_compaction_beyond_a_watcher_cancels_it() {
    let mut world = World::new();
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.watch(2, key("a"), 7);
    client.drain();
    for n in 2..=9 {
        world.apply(vec![put("a", &n.to_string())]);
    }
    world.install(6);
    assert_eq!(client.words(), ["1 compacted@6", "2 events@9 a=7 a=8 a=9"]);
    world.put("a", "10");
    assert_eq!(client.words(), ["2 events@10 a=10"]);
}

#[test]
fn two_installs_in_a_row_are_one_gap() {
    let mut world = World::new();
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.drain();
    world.apply(vec![put("a", "2")]);
    world.install(-1);
    world.install(-1);
    world.apply(vec![put("a", "3")]);
    world.install(-1);
    assert_eq!(client.words(), ["1 events@3 a=2 a=3"]);
}

#[test]
fn an_install_that_goes_back_stops_the_member() {
    let mut world = World::new();
    world.put("a", "1");
    let install = std::panic::AssertUnwindSafe(|| world.hub.installed(1, -1));
    let stopped = std::panic::catch_unwind(install).unwrap_err();
    let reason = stopped.downcast_ref::<String>().map(String::as_str).or_else(|| stopped.downcast_ref().copied());
    assert!(reason.is_some_and(|reason| reason.contains("a snapshot goes back")), "{reason:?}");
}

// ---- 31: doubles (#17247) ----

#[test]
fn a_watcher_whose_history_overlaps_what_is_queued_sees_each_event_once() {
    let later = Arc::new(Later::default());
    let mut world = World::with(small_ring(), later.clone());
    for n in 2..=4 {
        world.put("a", &n.to_string());
    }
    let mut client = world.client();
    client.watch(1, key("a"), 2);
    client.watch(2, key("a"), 0);
    client.drain();
    world.put("a", "5");
    world.put("a", "6");
    let mut words = Vec::new();
    for _ in 0..6 {
        later.run_all();
        words.extend(client.words());
    }
    let of = |id: &str| words.iter().filter(|word| word.starts_with(id)).map(|word| &word[11..]).collect::<Vec<_>>();
    assert_eq!(of("1").join(" ").matches("a=").count(), 5, "{words:?}");
    assert_eq!(of("2").join(" ").matches("a=").count(), 2, "{words:?}");
}

// ---- 32: revisions at the edge ----

#[test]
fn the_greatest_start_revision_overflows_nothing() {
    let mut world = World::with(small_ring(), Arc::new(Inline));
    let mut client = world.client();
    client.watch(1, everything(), i64::MAX);
    client.watch(2, everything(), 1);
    world.put("a", "1");
    client.stream.handle().progress();
    client.stream.tick();
    world.apply(vec![put("a", "2")]);
    world.install(-1);
    assert_eq!(client.words(), ["1 created@1", "2 created@1", "2 events@3 a=1 a=2"]);
}

// ---- 33: atomicity ----

#[test]
fn a_revision_is_never_split_also_when_room_ends_in_it() {
    for poll_bytes in [1, 50, 100, 300] {
        let limits = Limits { poll_bytes, page_bytes: 1, page_matches: 1, ..Limits::default() };
        let mut world = World::with(limits, Arc::new(Inline));
        let mut client = world.client();
        client.watch(1, everything(), 0);
        client.watch(2, span("b", "d"), 0);
        client.drain();
        world.txn(vec![put("a", "1"), put("b", "1"), put("c", "1")]);
        world.txn(vec![delete("a"), put("c", "2"), delete("b")]);
        let mut late = world.client();
        late.watch(3, span("a", "c"), 1);
        let mut words = client.words();
        words.extend(late.words());
        words.sort();
        let expected = [
            "1 events@2 a=1 b=1 c=1",
            "1 events@3 -a c=2 -b",
            "2 events@2 b=1 c=1",
            "2 events@3 c=2 -b",
            "3 created@3",
            "3 events@3 -a -b",
            "3 events@3 a=1 b=1",
        ];
        assert_eq!(words, expected, "with {poll_bytes} bytes a poll");
    }
}

// ---- 36: nothing is left behind ----

#[test]
fn a_hundred_thousand_watchers_that_came_and_went_leave_nothing() {
    let mut world = World::new();
    let mut client = world.client();
    for round in 0..10 {
        for n in 0..5000 {
            client.watch(0, key(&format!("k{n}")), i64::from(round % 3 == 0) * 100_000);
            client.create(&WatchCreate { progress_notify: true, ..request(span("a", &format!("b{n}"))) });
        }
        let ids: Vec<_> = client.drain().iter().filter_map(created).collect();
        assert_eq!(ids.len(), 10_000);
        world.put("b", "1");
        ids.into_iter().for_each(|id| client.stream.handle().cancel(id));
        client.drain();
    }
    assert_eq!(world.hub.stats(), crate::watch::HubStats { streams: 1, ..Default::default() });
    assert!(crate::watch::lock(&world.hub.core().registry).index.is_empty());
    assert!(!client.stream.wants_ticks());
    drop(client);
    for _ in 0..100_000 {
        let client = world.client();
        client.watch(0, key("a"), 0);
        client.stream.handle().progress();
    }
    assert_eq!(world.hub.stats(), crate::watch::HubStats::default());
    assert_eq!(world.hub.stream().number(), 0, "numbers are used again");
}

#[test]
fn a_stream_that_ends_while_its_page_is_read_leaves_nothing() {
    let later = Arc::new(Later::default());
    let mut world = World::with(small_ring(), later.clone());
    for n in 0..3 {
        world.put("a", &n.to_string());
    }
    let mut client = world.client();
    let handle = client.stream.handle().clone();
    client.watch(1, key("a"), 2);
    client.drain();
    drop(client);
    handle.create(&request(key("a")));
    handle.cancel(1);
    later.run_all();
    world.put("a", "1");
    assert_eq!(world.hub.stats(), crate::watch::HubStats::default());
    assert!(crate::watch::lock(&world.hub.core().registry).index.is_empty());
}

#[test]
fn idle_watchers_cost_little_and_no_wakeups() {
    let mut world = World::new();
    let bell = Arc::new(Bell::default());
    let mut client = world.client();
    (0..10_000).for_each(|n| client.watch(0, key(&format!("idle{n}")), 0));
    listen(&mut client, &bell);
    for n in 0..100 {
        world.put("busy", &n.to_string());
    }
    assert_eq!(bell.rings(), 0);
    world.put("idle77", "1");
    assert_eq!(bell.rings(), 1);
    let entry = size_of::<Option<crate::watch::state::Watcher>>();
    assert!(entry <= 160, "{entry} bytes a watcher");
}

#[test]
fn publish_demands_revisions_without_holes() {
    let mut world = World::new();
    world.put("a", "1");
    let skipped = world.apply(vec![put("a", "2")]).unwrap();
    let next = world.apply(vec![put("a", "3")]).unwrap();
    let hub = world.hub.clone();
    let hole = Effects { revisions: vec![next], ..Effects::default() };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hub.publish(&hole)));
    assert!(outcome.is_err(), "stops the member; {} was never published", skipped.revision);
}

#[test]
fn a_group_of_revisions_is_published_in_order() {
    let mut world = World::new();
    let mut client = world.client();
    client.watch(0, everything(), 0);
    let revisions = (0..3).filter_map(|n| world.apply(vec![put("a", &n.to_string())])).collect();
    world.hub.publish(&Effects { revisions, compacted: Some(3), ..Effects::default() });
    assert_eq!(client.words()[1..], ["0 events@2 a=0", "0 events@3 a=1", "0 events@4 a=2"]);
    let mut late = world.client();
    late.watch(0, KeyRange::One(Bytes::from("a")), 2);
    assert_eq!(late.words(), ["0 created@4", "0 compacted@3"]);
}

fn created(output: &Output) -> Option<i64> {
    if let Output::Created { watch_id, .. } = output { Some(*watch_id) } else { None }
}
