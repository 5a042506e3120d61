//! A leader whose disk does not answer gives way.
//!
//! Its followers acknowledge and commit without it, and its heartbeats wait for no disk, so nothing else would end its time in
//! office; but it is one failure away from a cluster that stands still, and it cannot vote. etcd's leaders hang on to it
//! (etcd-io/etcd#13527).

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, Raft};

/// Looks in an election time-out.
const LOOKS: u32 = 10;

/// How long the same write has been under way, as far as it was seen.
#[derive(Default)]
struct Stall(Option<(u64, Instant)>);

impl Stall {
    fn look(&mut self, under_way: Option<u64>) -> Duration {
        match (self.0, under_way) {
            (Some((seen, since)), Some(number)) if seen == number => since.elapsed(),
            (_, Some(number)) => {
                self.0 = Some((number, Instant::now()));
                Duration::ZERO
            }
            (_, None) => {
                self.0 = None;
                Duration::ZERO
            }
        }
    }
}

pub(super) async fn keep(raft: Weak<Inner>) {
    let mut stall = Stall::default();
    loop {
        let Some(raft) = raft.upgrade().map(Raft) else { return };
        let election_timeout = raft.0.election_timeout;
        let stalled = stall.look(raft.0.log.write_under_way());
        if stalled > election_timeout && raft.status().is_leader {
            raft.give_way(stalled).await;
        }
        drop(raft);
        tokio::time::sleep(election_timeout / LOOKS).await;
    }
}

impl Raft {
    async fn give_way(&self, stalled: Duration) {
        let Some(successor) = self.best_successor() else { return };
        tracing::warn!(stalled_ms = %stalled.as_millis(), to = format!("{successor:x}"), "the disk of the Raft log does not answer: giving way");
        self.hand_over(successor).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_one_and_the_same_write_is_a_stall() {
        let mut stall = Stall::default();
        for number in 1..5 {
            assert_eq!(stall.look(Some(number)), Duration::ZERO, "another one each time");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(stall.look(Some(4)), Duration::from_secs(1));
        assert_eq!(stall.look(None), Duration::ZERO);
        assert_eq!(stall.look(Some(4)), Duration::ZERO);
    }
}
