//! Hashes of what compactions left, to be compared later: all members compact to the same revisions, though not at the same time.
//!
//! ```text
//!  apply thread ─ compacted to C ─▶ a frozen view ─▶ hashed beside everything else ─▶ C: hash of what is alive at C
//! ```
//!
//! etcd's hash of a compaction covers what stood between it and the one before. Ours covers what is left at C alone: it is then
//! the same however compactions were grouped with other entries, and what it leaves out is gone anyway.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_proto::peer::HashAnswer;
use quorate_store::{Reader, StoreView};
use tokio::sync::mpsc;

/// Compactions that are remembered (etcd's number).
const REMEMBERED_MAX: usize = 10;
/// Compactions that wait to be hashed. One more is not remembered.
const WAITING_MAX: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Remembered(BTreeMap<i64, HashAnswer>);

impl Remembered {
    pub(super) fn insert(&mut self, revision: i64, hash: HashAnswer) {
        self.0.insert(revision, hash);
        while self.0.len() > REMEMBERED_MAX {
            self.0.pop_first();
        }
    }

    pub(super) fn get(&self, revision: i64) -> Option<HashAnswer> {
        self.0.get(&revision).cloned()
    }

    /// Newest first.
    pub(super) fn newer_than(&self, revision: i64) -> Vec<(i64, HashAnswer)> {
        self.0.iter().rev().take_while(|(at, _)| **at > revision).map(|(at, hash)| (*at, hash.clone())).collect()
    }
}

/// A cheap handle.
#[derive(Clone)]
pub struct CompactionHashes(Arc<Inner>);

struct Inner {
    reader: Reader,
    remembered: Mutex<Remembered>,
    /// `None` where nothing is to be remembered.
    waiting: Option<mpsc::Sender<StoreView>>,
}

impl CompactionHashes {
    /// Remembers nothing unless `enabled` (gate `CompactHashCheck`): each hash reads all keys. Called on a runtime.
    pub fn new(reader: Reader, enabled: bool) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let sender = enabled.then_some(sender);
        let hashes = Self(Arc::new(Inner { reader, remembered: Mutex::default(), waiting: sender }));
        if enabled {
            tokio::spawn(hash(Arc::downgrade(&hashes.0), waiting));
        }
        hashes
    }

    /// The state was compacted, to the revision that it has now. Called on the apply thread, before anything else is applied.
    pub fn compacted(&self) {
        let Some(waiting) = &self.0.waiting else { return };
        match self.0.reader.view() {
            Ok(view) => {
                let revision = view.compacted();
                if waiting.try_send(view).is_err() {
                    tracing::info!(
                        revision,
                        "compactions come faster than they can be hashed: this one is not remembered"
                    );
                }
            }
            Err(fault) => crate::fault::stop(&format!("failed to read the state: {fault}")),
        }
    }

    pub(crate) fn at(&self, revision: i64) -> Option<HashAnswer> {
        self.remembered().get(revision)
    }

    pub(super) fn newer_than(&self, revision: i64) -> Vec<(i64, HashAnswer)> {
        self.remembered().newer_than(revision)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hash(hashes: std::sync::Weak<Inner>, mut waiting: mpsc::Receiver<StoreView>) {
    while let Some(view) = waiting.recv().await {
        let revision = view.compacted();
        let Ok(hash) = super::hash_of(Arc::new(view), revision, false).await else { return };
        let Some(inner) = hashes.upgrade() else { return };
        tracing::info!(hash = hash.hash, revision, "remembering the hash of a compaction");
        CompactionHashes(inner).remembered().insert(revision, hash);
    }
}
