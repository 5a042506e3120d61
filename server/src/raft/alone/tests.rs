//! Logs as they may be found, and what forcing leaves of them.

use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftLogStorageExt;
use quorate_store::engine::MemoryEngine;
use quorate_store::{Effects, Installed, LogPosition, Payload, Store};
use tempfile::TempDir;

use super::*;
use crate::raft::applier::{Applier, CompactionPace};
use crate::raft::log::{LogOptions, LogThreads, RaftLog};
use crate::raft::proposals::Pending;
use crate::raft::types::{position, store_membership};

const OWN: MemberId = 1;

struct Found {
    log: LogStore<TypeConfig, Codec>,
    machine: Machine,
    _threads: LogThreads,
    _dir: TempDir,
}

fn peer(id: MemberId) -> Peer {
    Peer { peer_urls: vec![format!("http://m{id}:2380")], will_vote: false }
}

fn membership(index: u64, voters: &[MemberId], learners: &[MemberId]) -> Entry {
    let nodes = voters.iter().chain(learners).map(|id| (*id, peer(*id))).collect::<BTreeMap<_, _>>();
    let membership = Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap();
    Entry::new(LogId::new_term_index(3, index), EntryPayload::Membership(membership))
}

fn blank(index: u64) -> Entry {
    Entry::new(LogId::new_term_index(3, index), EntryPayload::Blank)
}

impl Found {
    /// `entries` in the log, those up to `committed` known to be committed, and `applied` in the state, which is flushed.
    async fn new(entries: Vec<Entry>, committed: Option<u64>, applied: Vec<Entry>) -> Self {
        let dir = TempDir::new().unwrap();
        let options = LogOptions::new(dir.path().join("log"), Arc::new(|reason: &str| panic!("{reason}")));
        let (log, threads, _) = RaftLog::open(Arc::new(crate::raft::log::StdFs::default()), options).unwrap();
        let mut log = LogStore::<TypeConfig, Codec>::new(log);
        if !entries.is_empty() {
            log.save_vote(&VoteOf::<TypeConfig>::from_leader_id(LeaderIdOf::<TypeConfig>::new(3, 2), true))
                .await
                .unwrap();
            log.blocking_append(entries).await.unwrap();
        }
        if let Some(index) = committed {
            log.save_committed(Some(LogId::new_term_index(3, index))).await.unwrap();
        }
        let mut store = Store::open(Arc::new(MemoryEngine::default())).unwrap();
        let group: Vec<_> = applied.iter().map(as_applied).collect();
        if !group.is_empty() {
            store.apply(&group).unwrap();
        }
        let reader = store.reader();
        if let Some(flushed) = crate::raft::types::log_id_or_none(reader.flush().unwrap()) {
            log.set_flushed(&flushed).unwrap();
        }
        let pace = CompactionPace { entries_per_step: 1, pause: Duration::ZERO };
        let (applier, _) = Applier::start(
            store,
            Arc::new(|_: &Effects| {}),
            Arc::new(|_, _| {}),
            Box::new(|_| {}),
            Arc::new(|_: &Installed| {}),
            Arc::new(|reason: &str| panic!("{reason}")),
            pace,
        )
        .unwrap();
        let machine = Machine::new(applier, Pending::new(OWN, 0), reader, log.clone());
        Self { log, machine, _threads: threads, _dir: dir }
    }

    async fn force(&mut self) -> anyhow::Result<()> {
        leave_others(OWN, &mut self.log, &mut self.machine).await
    }

    /// The last entry: term and index as Raft counts them, voters, all members.
    async fn last(&mut self) -> Option<(u64, u64, Vec<MemberId>, Vec<MemberId>)> {
        let last = self.log.get_log_state().await.unwrap().last_log_id?;
        let entry = self.log.try_get_log_entries(last.index()..last.index() + 1).await.unwrap().pop()?;
        let EntryPayload::Membership(members) = entry.payload else { return None };
        let nodes = members.nodes().map(|(id, _)| *id).collect();
        Some((last.committed_leader_id().term, last.index(), members.voter_ids().collect(), nodes))
    }
}

fn as_applied(entry: &Entry) -> quorate_store::Entry {
    let at: LogPosition = position(&entry.log_id);
    let payload = match &entry.payload {
        EntryPayload::Membership(membership) => Payload::Membership(store_membership(at, membership)),
        EntryPayload::Blank | EntryPayload::Normal(_) => Payload::Blank,
    };
    quorate_store::Entry { position: at, payload }
}

#[tokio::test]
async fn whether_it_voted_or_learned_it_votes_alone_in_a_term_of_its_own() {
    for (voters, learners) in [(&[1, 2, 3][..], &[4][..]), (&[2], &[1]), (&[1], &[2]), (&[1, 2], &[])] {
        for applied in [vec![], vec![membership(0, voters, learners)]] {
            let mut found = Found::new(vec![membership(0, voters, learners), blank(1)], None, applied).await;
            for _ in 0..2 {
                found.force().await.unwrap();
                assert_eq!(found.last().await, Some((4, 2, vec![1], vec![1])), "{voters:?} {learners:?}");
                let vote = found.log.read_vote().await.unwrap().unwrap();
                assert_eq!((vote.leader_id().term, *vote.leader_id().node_id(), vote.is_committed()), (4, OWN, false));
            }
        }
    }
}

#[tokio::test]
async fn its_addresses_stay() {
    let mut found = Found::new(vec![membership(0, &[1, 2], &[])], None, vec![]).await;
    found.force().await.unwrap();
    let entry = found.log.try_get_log_entries(1..2).await.unwrap().pop().unwrap();
    let EntryPayload::Membership(members) = entry.payload else { panic!("{entry:?}") };
    assert_eq!(members.get_node(&OWN), Some(&peer(OWN)));
}

#[tokio::test]
async fn a_log_that_ends_before_the_state_is_continued_behind_it() {
    let state = vec![membership(0, &[1, 2], &[]), blank(1), blank(2)];
    for entries in [vec![], vec![membership(0, &[1, 2], &[])]] {
        let mut found = Found::new(entries, None, state.clone()).await;
        found.force().await.unwrap();
        assert_eq!(found.last().await.map(|last| (last.1, last.2)), Some((3, vec![1])));
    }
}

#[tokio::test]
async fn its_own_removal_is_dropped_unless_it_was_decided() {
    let entries = || vec![membership(0, &[1, 2, 3], &[]), blank(1), membership(2, &[2, 3], &[]), blank(3)];
    for committed in [None, Some(1)] {
        let mut found = Found::new(entries(), committed, vec![]).await;
        found.force().await.unwrap();
        assert_eq!(found.last().await, Some((4, 2, vec![1], vec![1])));
    }
    let mut found = Found::new(entries(), Some(2), vec![]).await;
    let refused = found.force().await.unwrap_err().to_string();
    assert!(refused.contains("by its own log 1 is no member"), "{refused}");
    assert_eq!(found.log.get_log_state().await.unwrap().last_log_id, Some(LogId::new_term_index(3, 3)));
}

#[tokio::test]
async fn without_anything_or_anybody_to_leave_it_does_nothing() {
    let mut found = Found::new(vec![], None, vec![]).await;
    found.force().await.unwrap();
    assert_eq!(found.log.get_log_state().await.unwrap().last_log_id, None);
    let mut found = Found::new(vec![membership(0, &[1], &[])], None, vec![]).await;
    found.force().await.unwrap();
    assert_eq!(found.last().await, Some((3, 0, vec![1], vec![1])));
    // One that was added and has received only what was before.
    let mut found = Found::new(vec![membership(0, &[2, 3], &[])], None, vec![]).await;
    assert!(found.force().await.is_err());
}
