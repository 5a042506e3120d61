//! What is left of long leases, written down for the next leader.

use std::time::Duration;

use quorate_proto::log::{LeaseRemaining, proposal::Command};
use quorate_store::LeaseEffect;
use tokio::time::Instant;

use super::fake::{Proposed, Stage, advance, rejected};
use crate::keepers::CHECKPOINT_INTERVAL;
use crate::node::RequestError;

const EVERY_SECS: i64 = CHECKPOINT_INTERVAL.as_secs() as i64;

/// Leading in term 1, with checkpoints.
async fn leading(leases: &[(i64, i64, i64)]) -> Stage {
    let stage = Stage::following(leases);
    stage.leases.checkpoint_every(CHECKPOINT_INTERVAL);
    stage.stands(1, true);
    stage.settle().await;
    stage
}

/// The term of its leader, and what is left of each lease.
fn left(proposed: &Proposed) -> (u64, Vec<(i64, i64)>) {
    let Command::LeaseRemaining(LeaseRemaining { leader_term, checkpoints }) = &proposed.command else {
        panic!("not a checkpoint: {:?}", proposed.command)
    };
    (*leader_term, checkpoints.iter().map(|checkpoint| (checkpoint.id, checkpoint.remaining_ttl)).collect())
}

/// It is applied, and then its proposer hears of it.
fn apply(stage: &Stage, checkpoint: Proposed) {
    let (_, left) = left(&checkpoint);
    let effect = |(id, remaining_ttl_secs)| LeaseEffect::Checkpointed { id, remaining_ttl_secs };
    stage.follow(left.into_iter().map(effect).collect());
    checkpoint.end(Ok(()));
}

async fn next(stage: &mut Stage) -> Proposed {
    stage.proposed.recv().await.unwrap()
}

fn is_taken_back(proposed: &Proposed) -> bool {
    matches!(&proposed.command, Command::LeaseCheckpoint(request) if request.checkpoints[0].remaining_ttl == 0)
}

#[tokio::test(start_paused = true)]
async fn long_leases_are_checkpointed_again_and_again_and_short_ones_never() {
    let mut stage = leading(&[]).await;
    stage.grant(7, 4 * EVERY_SECS);
    stage.grant(8, EVERY_SECS);
    let granted = Instant::now();
    for times in 1..4 {
        let checkpoint = loop {
            // The short one ends meanwhile.
            let proposed = next(&mut stage).await;
            match &proposed.command {
                Command::LeaseExpire(_) => stage.apply(proposed),
                _ => break proposed,
            }
        };
        assert_eq!(checkpoint.at - granted, times * CHECKPOINT_INTERVAL);
        assert_eq!(left(&checkpoint), (1, vec![(7, (4 - i64::from(times)) * EVERY_SECS)]));
        apply(&stage, checkpoint);
    }
    // What is left now is not more than what lies between two.
    let expiry = next(&mut stage).await;
    assert_eq!((expiry.at - granted, expiry.expired()), (4 * CHECKPOINT_INTERVAL, (1, vec![7])));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_starts_from_the_checkpoint() {
    let mut stage = leading(&[(7, 4 * EVERY_SECS, 0)]).await;
    let checkpoint = next(&mut stage).await;
    apply(&stage, checkpoint);
    stage.settle().await;
    stage.stands(2, false);
    stage.settle().await;
    stage.stands(3, true);
    stage.settle().await;
    let slack = 1;
    assert_eq!(stage.left(7), left_after(1) + slack + slack);
}

/// Of a lease of four intervals.
fn left_after(intervals: i64) -> i64 {
    (4 - intervals) * EVERY_SECS
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_waits_for_a_checkpoint_under_way_and_takes_it_back() {
    let mut stage = leading(&[]).await;
    stage.grant(7, 4 * EVERY_SECS);
    let checkpoint = next(&mut stage).await;
    let renewing = stage.renewing(7);
    advance(1.0).await;
    stage.settle().await;
    assert!(!renewing.is_finished(), "the checkpoint would stand behind the renewal");
    apply(&stage, checkpoint);
    let back = next(&mut stage).await;
    assert!(is_taken_back(&back) && !renewing.is_finished());
    stage.follow(vec![LeaseEffect::Checkpointed { id: 7, remaining_ttl_secs: 0 }]);
    back.end(Ok(()));
    assert_eq!(renewing.await.unwrap(), Ok(Some(4 * EVERY_SECS)));
    let renewed = Instant::now();
    assert_eq!(next(&mut stage).await.at - renewed, CHECKPOINT_INTERVAL, "and the next one comes in its time");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_unknown_outcome_is_taken_back_too() {
    for (outcome, in_doubt) in [(Err(RequestError::TimedOut), true), (rejected(), false)] {
        let mut stage = leading(&[]).await;
        stage.grant(7, 4 * EVERY_SECS);
        next(&mut stage).await.end(outcome);
        stage.settle().await;
        let renewing = stage.renewing(7);
        if in_doubt {
            let back = next(&mut stage).await;
            assert!(is_taken_back(&back));
            stage.follow(vec![LeaseEffect::Checkpointed { id: 7, remaining_ttl_secs: 0 }]);
            back.end(Ok(()));
        }
        assert_eq!(renewing.await.unwrap(), Ok(Some(4 * EVERY_SECS)));
        assert_eq!(stage.renew(7).await, Ok(Some(4 * EVERY_SECS)), "once");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_checkpointed_unless_it_is_asked_for() {
    let mut stage = Stage::leading(&[(7, 4 * EVERY_SECS, 0)]).await;
    let started = Instant::now();
    let expiry = next(&mut stage).await;
    assert_eq!(expiry.expired(), (1, vec![7]));
    assert!(expiry.at - started >= Duration::from_secs(4 * EVERY_SECS.unsigned_abs()));
}
