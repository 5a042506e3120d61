//! Progress, and waking: HAZARDS 26. Numbers are etcd's threads.

use std::sync::Arc;
use std::task::{Context, Waker};

use super::support::{Bell, Later, World, everything, key, listen, small_ring};
use crate::watch::{Inline, Limits};

// ---- 26: progress ahead of events (#15220), and then never (#17507, #17557) ----

#[test]
fn progress_comes_after_all_events_up_to_it() {
    let limits = Limits { poll_bytes: 1, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Inline));
    let mut client = world.client();
    client.watch(1, key("a"), 0);
    client.watch(2, everything(), 0);
    world.put("a", "1");
    client.stream.handle().progress();
    world.put("b", "2");
    world.put("c", "3");
    assert_eq!(
        client.words(),
        [
            "1 created@1",
            "2 created@1",
            "1 events@2 a=1",
            "2 events@2 a=1",
            "-1 progress@2",
            "2 events@3 b=2",
            "2 events@4 c=3"
        ],
        "told as soon as everything up to the revision of the request is said"
    );
}

#[test]
fn progress_waits_until_every_watcher_of_the_stream_is_synced() {
    let later = Arc::new(Later::default());
    let mut world = World::with(small_ring(), later.clone());
    for n in 0..5 {
        world.put("a", &n.to_string());
    }
    let bell = Arc::new(Bell::default());
    let mut client = world.client();
    client.watch(1, key("z"), 0);
    client.watch(2, key("a"), 4);
    client.stream.handle().progress();
    assert_eq!(listen(&mut client, &bell), ["1 created@6", "2 created@6"]);
    world.put("z", "9");
    assert_eq!(listen(&mut client, &bell), ["1 events@7 z=9"], "the live one is served, progress waits");
    later.run_all();
    assert!(bell.rings() > 0, "woken by the page");
    let words = listen(&mut client, &bell);
    assert_eq!(words, ["2 events@6 a=2 a=3"]);
    later.run_all();
    assert!(bell.rings() > 0);
    assert_eq!(listen(&mut client, &bell), ["2 events@7 a=4", "-1 progress@7"]);
}

#[test]
fn progress_is_answered_without_watchers_and_without_events() {
    let mut world = World::new();
    world.put("a", "1");
    let bell = Arc::new(Bell::default());
    let mut client = world.client();
    assert_eq!(listen(&mut client, &bell), [""; 0]);
    client.stream.handle().progress();
    assert_eq!(bell.rings(), 1);
    assert_eq!(listen(&mut client, &bell), ["-1 progress@2"]);
    client.watch(0, key("b"), 0);
    client.stream.handle().progress();
    client.stream.handle().progress();
    assert_eq!(listen(&mut client, &bell), ["0 created@2", "-1 progress@2"], "one answer for those that wait");
    world.put("a", "2");
    client.stream.handle().progress();
    assert_eq!(listen(&mut client, &bell), ["-1 progress@3"], "also beyond what the watchers see");
}

#[test]
fn progress_that_a_future_watcher_holds_back_comes_when_its_revision_does() {
    let mut world = World::new();
    let bell = Arc::new(Bell::default());
    let mut client = world.client();
    client.watch(0, key("a"), 4);
    client.watch(0, key("b"), 3);
    client.stream.handle().progress();
    assert_eq!(listen(&mut client, &bell), ["0 created@1", "1 created@1"]);
    world.put("x", "1");
    world.put("x", "2");
    assert_eq!(bell.rings(), 0, "no news for this stream");
    world.put("x", "3");
    assert_eq!(bell.rings(), 1);
    assert_eq!(listen(&mut client, &bell), ["-1 progress@4"]);
}

// ---- waking ----

#[test]
fn a_herald_wakes_everybody_and_its_end_silences_nobody() {
    let mut world = World::new();
    let bells: Vec<_> = (0..600).map(|_| Arc::new(Bell::default())).collect();
    let mut clients: Vec<_> = bells.iter().map(|_| world.client()).collect();
    let mut herald = Some(Box::pin(world.hub.herald()));
    let called = Arc::new(Bell::default());
    let waker = Waker::from(called.clone());
    let mut rung = [0, 0];
    for (round, ends) in [(0, false), (1, true)] {
        for (client, bell) in clients.iter_mut().zip(&bells) {
            client.watch(0, key("a"), 0);
            listen(client, bell);
        }
        if let Some(herald) = &mut herald {
            assert!(herald.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        called.rings();
        world.put("a", "1");
        assert_eq!(bells.iter().map(|bell| bell.rings()).sum::<usize>(), 0, "publish wakes one");
        assert_eq!(called.rings(), 1);
        while let Some(herald) = &mut herald
            && !ends
        {
            assert!(herald.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            if called.rings() == 0 {
                break;
            }
        }
        if ends {
            herald = None;
        }
        rung[round] = bells.iter().map(|bell| bell.rings()).sum();
    }
    assert_eq!(rung, [600, 600]);
    for (client, bell) in clients.iter_mut().zip(&bells) {
        listen(client, bell);
    }
    world.put("a", "2");
    assert!(bells.iter().all(|bell| bell.rings() == 1), "without a herald, publish wakes all");
}
