//! Linearizable reads: all that wait share one ReadIndex round and one view.
//!
//! A round started before a read was asked for proves nothing for it, so a read waits for the next one; while a round
//! is under way, those that come gather for the one after. Each round is a fresh question to the quorum.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_store::{Reader, StoreView};
use tokio::sync::{Notify, oneshot};

use super::RequestError;
use crate::raft::{Raft, ReadFailure};

type Reply = oneshot::Sender<Result<Arc<StoreView>, RequestError>>;

#[derive(Default)]
struct Gathering {
    waiting: Mutex<Vec<Reply>>,
    wake: Notify,
}

pub(super) struct ReadRounds {
    gathering: Arc<Gathering>,
    rounds: tokio::task::JoinHandle<()>,
}

impl ReadRounds {
    pub(super) fn start(raft: Raft, reader: Reader) -> Self {
        let gathering = Arc::new(Gathering::default());
        let rounds = tokio::spawn(rounds(gathering.clone(), raft, reader));
        Self { gathering, rounds }
    }

    pub(super) async fn view(&self) -> Result<Arc<StoreView>, RequestError> {
        let (reply, view) = oneshot::channel();
        self.gathering.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
        self.gathering.wake.notify_one();
        view.await.unwrap_or(Err(RequestError::Stopped))
    }
}

impl Drop for ReadRounds {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}

async fn rounds(gathering: Arc<Gathering>, raft: Raft, reader: Reader) {
    loop {
        gathering.wake.notified().await;
        let waiting = std::mem::take(&mut *gathering.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            continue;
        }
        let view = match raft.read_index().await {
            Ok(()) => reader.view().map(Arc::new).map_err(RequestError::from),
            Err(ReadFailure::NotLeader { leader: None }) => Err(RequestError::NoLeader),
            Err(ReadFailure::NotLeader { leader: Some(_) }) => Err(RequestError::NotLeader),
            Err(ReadFailure::NoQuorum) => Err(RequestError::TimedOut),
            Err(ReadFailure::Stopped) => Err(RequestError::Stopped),
        };
        for reply in waiting {
            let _ = reply.send(view.clone());
        }
    }
}
