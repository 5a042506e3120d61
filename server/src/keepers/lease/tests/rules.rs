//! Each rule of the keeper by itself (HAZARDS 1d).

use std::time::Duration;

use quorate_proto::log::proposal::Command;
use quorate_store::{LeaseEffect, LeaseRecord};
use tokio::time::Instant;

use super::fake::{ELECTION, Stage, advance, rejected};
use crate::keepers::{Seat as _, TimeToLive};
use crate::node::RequestError;

#[tokio::test(start_paused = true)]
async fn a_lease_is_due_its_ttl_after_it_was_granted_and_not_earlier() {
    let mut stage = Stage::leading(&[]).await;
    let granted = Instant::now();
    stage.grant(7, 5);
    let expiry = stage.next_expiry().await;
    assert_eq!(expiry.expired(), (1, vec![7]));
    assert_eq!(expiry.at - granted, Duration::from_secs(5));
    stage.apply(expiry);
    stage.settle().await;
    assert!(stage.leases.is_empty());
    assert_eq!(stage.leases.expired(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_due_its_ttl_after_the_last_keep_alive_that_was_answered() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 5);
    for _ in 0..100 {
        advance(4.9).await;
        assert_eq!(stage.renew(7).await, Ok(Some(5)));
    }
    let answered = Instant::now();
    assert_eq!(stage.next_expiry().await.at - answered, Duration::from_secs(5));
    assert_eq!(stage.leases.renewed(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_of_an_unknown_or_revoked_lease_finds_none() {
    let stage = Stage::leading(&[(7, 5, 0)]).await;
    assert_eq!(stage.renew(8).await, Ok(None));
    stage.follow(vec![LeaseEffect::Revoked { id: 7 }]);
    assert_eq!(stage.renew(7).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_lease_is_said_only_of_an_applied_state() {
    let stage = Stage::leading(&[]).await;
    stage.may_prove(false);
    let renewing = stage.renewing(7);
    stage.settle().await;
    assert!(!renewing.is_finished());
    stage.grant(7, 5);
    stage.may_prove(true);
    assert_eq!(renewing.await.unwrap(), Ok(Some(5)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_revoked_while_leadership_is_confirmed_is_not_answered_as_alive() {
    let stage = Stage::leading(&[(7, 5, 0)]).await;
    stage.delay_confirmation(Duration::from_millis(100));
    let renewing = stage.renewing(7);
    stage.settle().await;
    stage.follow(vec![LeaseEffect::Revoked { id: 7 }]);
    assert_eq!(renewing.await.unwrap(), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_races_an_expiry_waits_for_its_outcome() {
    for dies in [true, false] {
        let mut stage = Stage::leading(&[]).await;
        stage.grant(7, 2);
        let expiry = stage.next_expiry().await;
        let renewing = stage.renewing(7);
        advance(1.0).await;
        stage.settle().await;
        assert!(!renewing.is_finished());
        if dies {
            stage.apply(expiry);
            assert_eq!(renewing.await.unwrap(), Ok(None));
        } else {
            expiry.end(rejected());
            assert_eq!(renewing.await.unwrap(), Ok(Some(2)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_outcome_of_an_expiry_is_unknown_only_a_later_one_decides() {
    for unknown in [RequestError::TimedOut, RequestError::LeaderChanged, RequestError::Stopped] {
        let mut stage = Stage::leading(&[]).await;
        stage.grant(7, 2);
        stage.next_expiry().await.end(Err(unknown));
        let renewing = stage.renewing(7);
        // Not executed for certain, which says nothing of the first.
        stage.next_expiry().await.end(Err(RequestError::TooManyRequests));
        stage.settle().await;
        assert!(!renewing.is_finished());
        let third = stage.next_expiry().await;
        assert_eq!(third.expired(), (1, vec![]), "named twice: its id may have been granted again meanwhile");
        assert!(!renewing.is_finished());
        third.end(rejected());
        assert_eq!(renewing.await.unwrap(), Ok(Some(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_was_not_executed_leaves_its_lease_alive() {
    for refusal in [RequestError::TooManyRequests, RequestError::NoLeader, RequestError::NotLeader] {
        let mut stage = Stage::leading(&[]).await;
        stage.grant(7, 2);
        stage.next_expiry().await.end(Err(refusal));
        assert_eq!(stage.renew(7).await, Ok(Some(2)));
        let renewed = Instant::now();
        assert_eq!(stage.next_expiry().await.at - renewed, Duration::from_secs(2));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_failed_is_tried_again_half_a_second_later() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let failed = stage.next_expiry().await;
    let at = failed.at;
    failed.end(Err(RequestError::TooManyRequests));
    assert_eq!(stage.next_expiry().await.at - at, Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_does_not_wait_for_an_outcome_for_ever() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let _never_ends = stage.next_expiry().await;
    assert_eq!(stage.renew(7).await, Err(RequestError::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn an_expiry_rejected_for_its_term_leaves_the_lease_to_the_new_leadership() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let expiry = stage.next_expiry().await;
    stage.stands(2, true);
    expiry.end(rejected());
    stage.settle().await;
    let led = Instant::now();
    assert_eq!(stage.left(7), 3);
    let expiry = stage.next_expiry().await;
    assert_eq!(expiry.expired(), (2, vec![7]));
    assert_eq!(expiry.at - led, Duration::from_secs(2) + ELECTION);
}

#[tokio::test(start_paused = true)]
async fn leadership_lost_while_an_expiry_is_stuck_is_noticed_at_once() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let _stuck = stage.next_expiry().await;
    stage.stands(2, false);
    stage.settle().await;
    assert_eq!(stage.renew(7).await, Err(RequestError::NotLeader));
    stage.stands(3, true);
    stage.settle().await;
    assert_eq!(stage.renew(7).await, Ok(Some(2)));
}

#[tokio::test(start_paused = true)]
async fn new_leadership_extends_every_lease_by_an_election_time_out() {
    let mut stage = Stage::following(&[(1, 10, 0), (2, 3, 0), (3, 600, 60)]);
    advance(3_600.0).await;
    stage.stands(5, true);
    stage.settle().await;
    let led = Instant::now();
    assert_eq!([1, 2, 3].map(|id| stage.left(id)), [11, 4, 61]);
    assert_eq!(stage.leases.by_expiry(), [2, 1, 3]);
    let first = stage.next_expiry().await;
    assert_eq!((first.expired(), first.at - led), ((5, vec![2]), Duration::from_secs(3) + ELECTION));
}

#[tokio::test(start_paused = true)]
async fn leadership_lost_and_won_again_unseen_counts_as_new() {
    let mut stage = Stage::leading(&[(1, 10, 0)]).await;
    advance(9.0).await;
    stage.stands(3, true);
    stage.settle().await;
    let led = Instant::now();
    assert_eq!(stage.next_expiry().await.at - led, Duration::from_secs(10) + ELECTION);
}

#[tokio::test(start_paused = true)]
async fn leadership_counts_once_what_earlier_leaders_left_is_applied() {
    let stage = Stage::following(&[(7, 2, 0)]);
    stage.may_prove(false);
    stage.stands(2, true);
    let renewing = stage.renewing(7);
    advance(4.0).await;
    stage.settle().await;
    assert!(!renewing.is_finished());
    // An expiry of the leader before.
    stage.follow(vec![LeaseEffect::Revoked { id: 7 }]);
    stage.may_prove(true);
    assert_eq!(renewing.await.unwrap(), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_renews_nothing_and_ends_nothing() {
    let mut stage = Stage::leading(&[(7, 2, 0)]).await;
    stage.stands(2, false);
    stage.settle().await;
    assert_eq!(stage.renew(7).await, Err(RequestError::NotLeader));
    advance(3_600.0).await;
    stage.settle().await;
    assert!(stage.proposed.try_recv().is_err());
    let left = TimeToLive { granted_secs: 2, remaining_secs: 2 };
    assert_eq!(stage.leases.time_to_live(7), Some(left));
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_older_than_an_election_time_out_is_asked_for_again() {
    let stage = Stage::leading(&[(7, 20, 0)]).await;
    let before = stage.confirmations();
    stage.delay_confirmation(Duration::from_secs(2));
    assert_eq!(stage.renew(7).await, Ok(Some(20)));
    assert_eq!(stage.confirmations() - before, 2);
    assert_eq!(stage.left(7), 20);
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_takes_back_the_checkpoint_first_and_gives_the_whole_ttl() {
    let mut stage = Stage::leading(&[(7, 600, 60)]).await;
    let renewing = stage.renewing(7);
    let checkpoint = stage.proposed.recv().await.unwrap();
    let Command::LeaseCheckpoint(request) = &checkpoint.command else { panic!("{:?}", checkpoint.command) };
    assert_eq!((request.checkpoints[0].id, request.checkpoints[0].remaining_ttl), (7, 0));
    assert!(!renewing.is_finished());
    stage.follow(vec![LeaseEffect::Checkpointed { id: 7, remaining_ttl_secs: 0 }]);
    checkpoint.end(Ok(()));
    assert_eq!(renewing.await.unwrap(), Ok(Some(600)));
    assert_eq!(stage.left(7), 600);
}

#[tokio::test(start_paused = true)]
async fn an_id_granted_again_has_a_time_of_its_own() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let expiry = stage.next_expiry().await;
    stage.follow(vec![LeaseEffect::Revoked { id: 7 }, LeaseEffect::Granted { id: 7, ttl_secs: 9 }]);
    expiry.end(rejected());
    stage.settle().await;
    assert_eq!(stage.left(7), 9);
    assert_eq!(stage.renew(7).await, Ok(Some(9)));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_leases_due_at_once_end_in_ten_entries() {
    let mut stage = Stage::leading(&[]).await;
    for id in 1..=10_000 {
        stage.grant(id, 3);
    }
    let (mut entries, mut started) = (0, None);
    while !stage.leases.is_empty() {
        let expiry = stage.next_expiry().await;
        started.get_or_insert(expiry.at);
        assert_eq!(Some(expiry.at), started, "one waits for the clock");
        entries += 1;
        stage.apply(expiry);
        stage.settle().await;
    }
    assert_eq!(entries, 10);
}

#[tokio::test(start_paused = true)]
async fn leases_are_listed_soonest_first() {
    let stage = Stage::leading(&[]).await;
    for (id, ttl) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        stage.grant(id, ttl);
    }
    assert_eq!(stage.leases.by_expiry(), [2, 4, 3, 1]);
    advance(5.0).await;
    stage.renew(2).await.unwrap();
    assert_eq!(stage.leases.by_expiry(), [4, 2, 3, 1]);
    advance(5.5).await;
    assert_eq!((stage.left(4), stage.leases.by_expiry()), (0, vec![4, 2, 3, 1]));
}

#[tokio::test(start_paused = true)]
async fn the_longest_ttl_is_kept() {
    let stage = Stage::leading(&[]).await;
    stage.grant(1, quorate_store::LEASE_TTL_SECS_MAX);
    assert_eq!(stage.left(1), quorate_store::LEASE_TTL_SECS_MAX);
    assert_eq!(stage.renew(1).await, Ok(Some(quorate_store::LEASE_TTL_SECS_MAX)));
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_with_its_member() {
    let stage = Stage::leading(&[(7, 2, 0)]).await;
    stage.stop();
    stage.keeper.await.unwrap();
    assert!(!stage.seat.standing().leads);
}

// ---- snapshots ----

const fn record(ttl_secs: i64) -> LeaseRecord {
    LeaseRecord { ttl_secs, remaining_ttl_secs: 0 }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_got_a_snapshot_leads_with_the_leases_in_it() {
    let mut stage = Stage::following(&[(1, 5, 0), (2, 5, 0)]);
    stage.leases.installed(&[(2, record(20)), (3, record(30))]);
    assert_eq!(stage.leases.len(), 2);
    assert_eq!(stage.leases.time_to_live(1), None);
    assert_eq!(stage.leases.time_to_live(2), Some(TimeToLive { granted_secs: 20, remaining_secs: 20 }));
    advance(1_000.0).await;
    stage.stands(2, true);
    stage.settle().await;
    let led = Instant::now();
    let expiry = stage.next_expiry().await;
    assert_eq!((expiry.at - led, expiry.expired()), (Duration::from_secs(20) + ELECTION, (2, vec![2])));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_decides_what_became_of_an_expiry() {
    let mut stage = Stage::leading(&[]).await;
    stage.grant(7, 2);
    let expiry = stage.next_expiry().await;
    let renewing = stage.renewing(7);
    advance(1.0).await;
    stage.settle().await;
    assert!(!renewing.is_finished());
    stage.leases.installed(&[(8, record(2))]);
    assert_eq!(renewing.await.unwrap(), Ok(None));
    expiry.end(Err(RequestError::LeaderChanged));
    stage.settle().await;
    assert_eq!(stage.leases.by_expiry(), [8]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_came_with_a_snapshot_is_found_by_who_was_waiting() {
    let stage = Stage::leading(&[]).await;
    stage.may_prove(false);
    let renewing = stage.renewing(7);
    stage.settle().await;
    stage.leases.installed(&[(7, record(5))]);
    stage.may_prove(true);
    assert_eq!(renewing.await.unwrap(), Ok(Some(5)));
}
