//! Linearizable reads: all that wait share one ReadIndex round and one view.
//!
//! A round started before a read was asked for proves nothing for it, so a read waits for the next one; while a round
//! is under way, those that come gather for the one after. Each round is a fresh question to the quorum.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_store::{Reader, StoreView};
use tokio::sync::{Notify, oneshot};

use super::RequestError;
use super::limits::READS_WAITING_MAX;
use crate::raft::{Raft, ReadFailure};

type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

struct Gathering<T> {
    waiting: Mutex<Vec<Reply<T>>>,
    wake: Notify,
}

/// One question after the other, each for all who wait when it begins.
pub(super) struct Rounds<T> {
    gathering: Arc<Gathering<T>>,
    rounds: tokio::task::JoinHandle<()>,
}

/// The state, not older than the question.
pub(super) fn views(raft: Raft, reader: Reader) -> Rounds<Arc<StoreView>> {
    Rounds::start(move || {
        let (raft, reader) = (raft.clone(), reader.clone());
        async move {
            raft.read_index().await?;
            Ok(Arc::new(reader.view()?))
        }
    })
}

/// That this member leads.
pub(super) fn confirmations(raft: Raft) -> Rounds<()> {
    Rounds::start(move || {
        let raft = raft.clone();
        async move {
            raft.confirm_leadership().await?;
            Ok(())
        }
    })
}

impl<T: Clone + Send + 'static> Rounds<T> {
    fn start<Answer>(ask: impl Fn() -> Answer + Send + 'static) -> Self
    where
        Answer: Future<Output = Result<T, RequestError>> + Send + 'static,
    {
        let gathering = Arc::new(Gathering { waiting: Mutex::default(), wake: Notify::new() });
        let rounds = tokio::spawn(rounds(gathering.clone(), ask));
        Self { gathering, rounds }
    }

    /// The answer of the next round to begin.
    pub(super) async fn next(&self) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.gathering.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= READS_WAITING_MAX {
                waiting.retain(|reply| !reply.is_closed());
            }
            if waiting.len() >= READS_WAITING_MAX {
                return Err(RequestError::TooManyRequests);
            }
            waiting.push(reply);
        }
        self.gathering.wake.notify_one();
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }
}

impl<T> Drop for Rounds<T> {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}

async fn rounds<T: Clone, Answer>(gathering: Arc<Gathering<T>>, ask: impl Fn() -> Answer)
where
    Answer: Future<Output = Result<T, RequestError>>,
{
    loop {
        gathering.wake.notified().await;
        let waiting = std::mem::take(&mut *gathering.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            continue;
        }
        let answer = ask().await;
        for reply in waiting {
            let _ = reply.send(answer.clone());
        }
    }
}

impl From<ReadFailure> for RequestError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::NotLeader { leader: None } => Self::NoLeader,
            ReadFailure::NotLeader { leader: Some(_) } => Self::NotLeader,
            ReadFailure::NoQuorum => Self::TimedOut,
            ReadFailure::Stopped => Self::Stopped,
        }
    }
}
