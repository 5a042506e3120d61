use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn figures(highs: &[Duration]) -> Vec<Figure> {
    highs.iter().enumerate().map(|(at, high)| Figure { of: format!("m{at}"), high: *high }).collect()
}

fn measured(round_trips: &[Duration], syncs: &[Duration]) -> Measured {
    Measured { round_trips: figures(round_trips), syncs: figures(syncs) }
}

#[test]
fn each_reason_decides_where_it_must() {
    let open = Bounds::open();
    let fixed = Bounds::of_election(ms(1_000), ms(20), ms(150));
    let figure = |of: &str, high| Figure { of: of.into(), high };
    let micros = Duration::from_micros;
    for (bounds, round_trips, syncs, heartbeat, election, reason) in [
        (open, vec![], vec![ms(3)], 100, 1_000, Reason::NothingMeasured),
        (open, vec![micros(200)], vec![], 50, 1_000, Reason::LowerBound),
        (open, vec![ms(80), ms(120)], vec![ms(4)], 240, 2_400, Reason::RoundTrip(figure("m1", ms(120)))),
        (open, vec![micros(40_100)], vec![], 81, 1_000, Reason::RoundTrip(figure("m0", micros(40_100)))),
        (
            open,
            vec![ms(10), ms(30)],
            vec![ms(90), ms(1)],
            120,
            1_200,
            Reason::Disk { round_trip: figure("m1", ms(30)), sync: figure("m0", ms(90)) },
        ),
        (open, vec![ms(20_000)], vec![], 10_000, 50_000, Reason::UpperBound { wanted: ms(40_000) }),
        (fixed, vec![micros(200)], vec![ms(2)], 20, 1_000, Reason::LowerBound),
        (fixed, vec![ms(40)], vec![], 80, 1_000, Reason::RoundTrip(figure("m0", ms(40)))),
        (fixed, vec![ms(90)], vec![], 150, 1_000, Reason::UpperBound { wanted: ms(180) }),
    ] {
        let advice = advise(&measured(&round_trips, &syncs), &bounds);
        assert_eq!((advice.heartbeat, advice.election), (ms(heartbeat), ms(election)), "{round_trips:?} {syncs:?}");
        assert_eq!(advice.heartbeat_reason, reason);
    }
}

#[test]
fn reasons_read_as_sentences() {
    let advice = advise(&measured(&[ms(30)], &[ms(90)]), &Bounds::open());
    let said = advice.heartbeat_reason.to_string();
    assert_eq!(said, "a round trip to m0 (30.0ms) and a sync of the log of m0 (90.0ms)");
    let held = advise(&measured(&[ms(300)], &[]), &Bounds::of_election(ms(1_000), ms(10), ms(200)));
    assert_eq!(held.heartbeat_reason.to_string(), "the upper bound: 600ms would be needed");
}

#[test]
fn auto_has_a_twentieth_to_a_fifth_of_the_election_time_out() {
    assert_eq!(Interval::auto(ms(1_000)), Interval::Auto { min: ms(50), max: ms(200) });
    assert_eq!(Interval::auto(ms(5)), Interval::Auto { min: ms(1), max: ms(1) });
}

/// From a microsecond to some minutes, as likely short as long.
fn durations() -> impl Strategy<Value = Duration> {
    (0u32..28, 1u64..1_000).prop_map(|(shift, micros)| Duration::from_micros(micros << shift))
}

fn measurements() -> impl Strategy<Value = (Vec<Duration>, Vec<Duration>)> {
    (prop::collection::vec(durations(), 0..5), prop::collection::vec(durations(), 0..5))
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let of_election = (0u64..60_000, 0u64..20_000, 0u64..20_000)
        .prop_map(|(election, min, max)| Bounds::of_election(ms(election), ms(min), ms(max)));
    prop_oneof![Just(Bounds::open()), of_election]
}

proptest! {
    #[test]
    fn what_is_advised_could_be_set((round_trips, syncs) in measurements(), bounds in bounds()) {
        let advice = advise(&measured(&round_trips, &syncs), &bounds);
        prop_assert!(bounds.heartbeat_min <= advice.heartbeat && advice.heartbeat <= bounds.heartbeat_max);
        prop_assert!(bounds.election_min <= advice.election && advice.election <= bounds.election_max);
        prop_assert!(advice.heartbeat >= ms(1));
        prop_assert!(advice.heartbeat * HEARTBEATS_PER_ELECTION_MIN <= advice.election);
        prop_assert!(advice.election <= ELECTION_MAX);
        prop_assert_eq!(advice.heartbeat.subsec_nanos() % 1_000_000, 0, "flags are in milliseconds");
    }

    #[test]
    fn what_disk_and_network_take_is_given_or_the_bound_is_named(
        (round_trips, syncs) in measurements(),
        bounds in bounds(),
    ) {
        let advice = advise(&measured(&round_trips, &syncs), &bounds);
        let (trip, sync) = (round_trips.iter().max(), syncs.iter().max().copied().unwrap_or_default());
        if let Some(trip) = trip
            && !matches!(advice.heartbeat_reason, Reason::UpperBound { .. })
        {
            prop_assert!(advice.heartbeat >= *trip * 2 && advice.heartbeat >= *trip + sync);
        }
    }

    #[test]
    fn slower_links_and_disks_never_get_less(
        (mut round_trips, syncs) in measurements(),
        more in durations(),
        of_peer in any::<prop::sample::Index>(),
        bounds in bounds(),
    ) {
        round_trips.push(ms(1));
        let before = advise(&measured(&round_trips, &syncs), &bounds);
        let slower = of_peer.index(round_trips.len());
        round_trips[slower] += more;
        let after = advise(&measured(&round_trips, &syncs), &bounds);
        prop_assert!(after.heartbeat >= before.heartbeat && after.election >= before.election);
        let slower_syncs: Vec<Duration> = syncs.iter().map(|sync| *sync + more).collect();
        let worst = advise(&measured(&round_trips, &slower_syncs), &bounds);
        prop_assert!(worst.heartbeat >= after.heartbeat && worst.election >= after.election);
    }

    #[test]
    fn what_is_set_comes_near_what_is_wanted_and_then_stands_still(
        wanted in prop::collection::vec(10u64..500, 1..50),
        start in 1u64..2_000,
    ) {
        let (min, max) = (ms(10), ms(400));
        let bounds = Bounds::of_election(ms(2_000), min, max);
        let mut current = ms(start);
        for wanted in wanted {
            let wanted = ms(wanted).clamp(min, max);
            let next = steady(current, wanted, &bounds);
            prop_assert!(min <= next && next <= max);
            prop_assert!(next == wanted || next.abs_diff(wanted) < next / 4);
            prop_assert!(steady(next, wanted, &bounds) == next, "the same again changes nothing");
            current = next;
        }
    }
}

#[test]
fn what_jumps_a_little_does_not_move_what_is_set() {
    let bounds = Bounds::of_election(ms(2_000), ms(10), ms(400));
    let set = |current, wanted| steady(ms(current), ms(wanted), &bounds).as_millis();
    assert_eq!((set(100, 80), set(100, 124), set(100, 125), set(100, 75)), (100, 100, 125, 75));
    // The ends are reached: nothing is left that would ever bring the value there.
    assert_eq!((set(11, 10), set(390, 400), set(9, 10), set(500, 400)), (10, 400, 10, 400));
}

#[test]
fn the_recent_past_forgets_single_stalls_and_what_is_old() {
    let mut recent = Recent::default();
    assert_eq!(recent.high(ms(0)), None);
    recent.record(ms(0), ms(9));
    assert_eq!(recent.high(ms(100)), Some(ms(9)), "while there are few the longest counts");
    for at in 1..40 {
        recent.record(ms(500 * at), ms(1));
        recent.record(ms(500 * at + 1), ms(2));
    }
    assert_eq!(recent.high(ms(19_999)), Some(ms(2)), "one stall of forty half seconds is passed over");
    for at in 40..42 {
        recent.record(ms(500 * at), ms(50));
    }
    assert_eq!(recent.high(ms(20_900)), Some(ms(2)), "and so are two");
    recent.record(ms(21_000), ms(40));
    assert_eq!(recent.high(ms(21_000)), Some(ms(40)), "three are not");
    assert_eq!(recent.high(ms(41_000)), None);
}

const SCRAPED: &str = r#"# TYPE etcd_network_peer_round_trip_time_seconds histogram
etcd_network_peer_round_trip_time_seconds_bucket{To="b",le="0.0001"} 0
etcd_network_peer_round_trip_time_seconds_bucket{To="b",le="0.0002"} 100
etcd_network_peer_round_trip_time_seconds_bucket{To="b",le="+Inf"} 100
etcd_network_peer_round_trip_time_seconds_sum{To="b"} 1.5e-2
etcd_network_peer_round_trip_time_seconds_count{To="b"} 100
etcd_network_peer_round_trip_time_seconds_bucket{To="c",le="0.0001"} 0
etcd_network_peer_round_trip_time_seconds_bucket{To="c",le="0.0002"} 0
etcd_network_peer_round_trip_time_seconds_bucket{To="c",le="+Inf"} 0
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 50
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 100
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 200
etcd_server_id{server_id="a"} 1
quorate_raft_heartbeat_interval_seconds 0.1
quorate_raft_election_timeout_seconds 1
other{x="y"} NaN
nonsense
"#;

#[test]
fn figures_are_read_from_prometheus_text() {
    let read = Figures::read("127.0.0.1:1", SCRAPED);
    assert_eq!((read.id.as_str(), read.heartbeat, read.election), ("a", Some(ms(100)), Some(ms(1_000))));
    assert_eq!((read.round_trips["b"].count(), read.round_trips["c"].count(), read.sync.count()), (100, 0, 200));
    assert_eq!(read.sync.quantile(0.25), Some(ms(1)));
    assert_eq!(read.sync.quantile(0.375), Some(Duration::from_micros(1_500)));
    let found = Figures::measured(std::slice::from_ref(&read));
    assert_eq!(found.round_trips, [Figure { of: "b".into(), high: Duration::from_micros(199) }]);
    assert_eq!(found.syncs, [Figure { of: "a".into(), high: ms(2) }], "above the last bound is that bound");
    let nothing_new = read.clone().since(&read);
    assert_eq!(Figures::measured(&[nothing_new]), Measured::default());
    let anew = Figures { sync: Histogram::default(), ..read.clone() }.since(&read);
    assert_eq!(anew.sync.count(), 0);
}
