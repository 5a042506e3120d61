//! What the table promises, with a clock that the tests hold in their hands.

use std::time::Duration;

use quorate_store::LeaseRecord;
use tokio::time::Instant;

use super::super::table::{Due, Table};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn leading(now: Instant) -> Table {
    let mut table = Table::default();
    table.lead(now, Duration::ZERO);
    table
}

fn due(id: i64) -> Due {
    Due { id, in_doubt: false }
}

#[test]
fn a_lease_is_never_due_before_its_time() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 10, now);
    assert!(table.take_due(now + secs(10) - Duration::from_nanos(1), 10).is_empty());
    assert_eq!(table.take_due(now + secs(10), 10), [due(1)]);
}

#[test]
fn a_renewal_starts_the_whole_time_again() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 10, now);
    table.start(1, now + secs(9), Duration::ZERO);
    assert!(table.take_due(now + secs(18), 10).is_empty());
    assert_eq!(table.take_due(now + secs(19), 10), [due(1)]);
}

#[test]
fn a_new_leader_starts_all_leases_afresh_and_adds_its_slack() {
    let now = Instant::now();
    let mut table = Table::default();
    table.load(1, LeaseRecord { ttl_secs: 10, remaining_ttl_secs: 0 });
    assert!(table.take_due(now + secs(1_000), 10).is_empty(), "nobody expires while another member leads");
    table.lead(now + secs(100), secs(1));
    assert!(table.take_due(now + secs(110), 10).is_empty());
    assert_eq!(table.take_due(now + secs(111), 10), [due(1)]);
}

#[test]
fn a_new_leader_starts_a_checkpointed_lease_where_the_checkpoint_left_it() {
    let now = Instant::now();
    let mut table = Table::default();
    table.load(1, LeaseRecord { ttl_secs: 1_000, remaining_ttl_secs: 5 });
    table.lead(now, Duration::ZERO);
    assert_eq!(table.take_due(now + secs(5), 10), [due(1)]);
}

#[test]
fn a_leader_that_stands_down_expires_nothing_more() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 1, now);
    table.stand_down();
    assert!(table.take_due(now + secs(100), 10).is_empty());
}

#[test]
fn a_lease_under_expiry_is_taken_once_and_shows_no_time_left() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 10, now);
    assert_eq!(table.take_due(now + secs(10), 10), [due(1)]);
    assert!(table.take_due(now + secs(20), 10).is_empty());
    assert_eq!(table.time_to_live(1, now + secs(10)).map(|left| left.remaining_secs), Some(0));
}

#[test]
fn a_lease_that_survived_a_failed_expiry_is_looked_at_again() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 10, now);
    table.take_due(now + secs(10), 10);
    table.survived(1, now + secs(11), true);
    assert_eq!(table.take_due(now + secs(11), 10), [Due { id: 1, in_doubt: true }]);
}

#[test]
fn a_revoked_lease_is_gone_and_its_id_may_come_again() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 10, now);
    table.revoked(1);
    assert_eq!(table.time_to_live(1, now), None);
    table.granted(1, 20, now);
    assert!(table.take_due(now + secs(10), 10).is_empty(), "the first grant's time must not count");
    assert_eq!(table.take_due(now + secs(20), 10), [due(1)]);
}

#[test]
fn ten_thousand_leases_due_at_once_leave_in_ten_batches() {
    let now = Instant::now();
    let mut table = leading(now);
    (1..=10_000).for_each(|id| table.granted(id, 10, now));
    for _ in 0..10 {
        assert_eq!(table.take_due(now + secs(10), 1_000).len(), 1_000);
    }
    assert!(table.take_due(now + secs(10), 1_000).is_empty());
}

#[test]
fn a_time_beyond_the_clock_never_comes() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, i64::MAX, now);
    assert_eq!(table.first_due(), None);
    assert_eq!(table.by_expiry(), [1]);
}

#[test]
fn leases_are_listed_soonest_first() {
    let now = Instant::now();
    let mut table = leading(now);
    table.granted(1, 30, now);
    table.granted(2, 10, now);
    table.granted(3, 20, now);
    assert_eq!(table.by_expiry(), [2, 3, 1]);
}

#[test]
fn other_leases_take_the_place_of_all_and_start_afresh_where_somebody_leads() {
    let now = Instant::now();
    let record = |ttl_secs| LeaseRecord { ttl_secs, remaining_ttl_secs: 0 };
    let mut table = leading(now);
    for id in [1, 2, 3] {
        table.granted(id, 10 * id, now);
    }
    assert_eq!(table.take_due(now + secs(10), 10), [due(1)]);
    table.replace(&[(1, record(10)), (2, record(100)), (4, record(50))], now + secs(15), secs(1));
    assert_eq!(table.by_expiry(), [4, 2, 1]);
    assert_eq!(table.time_to_live(1, now + secs(15)).map(|left| left.remaining_secs), Some(0), "undecided as before");
    assert!(table.take_due(now + secs(65), 10).is_empty());
    assert_eq!(table.take_due(now + secs(116), 10), [due(4), due(2)], "and not the third, which is gone");
    table.survived(1, now + secs(120), false);
    assert_eq!(table.take_due(now + secs(120), 10), [due(1)]);
    table.stand_down();
    table.replace(&[(5, record(1))], now, secs(1));
    assert!(table.take_due(now + secs(1_000), 10).is_empty(), "another member leads");
    assert_eq!(table.by_expiry(), [5]);
}
