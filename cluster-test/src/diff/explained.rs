//! The differences that stay, each with its reason and as narrow as it can be said. Everything else ends a run with failure.

use super::answer::{Answer, Message};
use super::call::Call;
use super::ties::{same_range, same_txn};

pub(super) struct Explained {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    applies: fn(&Subject<'_>) -> bool,
}

/// What differs, and what has to be known to explain it.
pub(super) enum Subject<'a> {
    Answers {
        call: &'a Call,
        theirs: &'a Answer,
        ours: &'a Answer,
        /// Revisions that were compacted to, in order.
        compactions: &'a [i64],
    },
    /// What one watcher was told since the last time that all were asked.
    Told {
        watch_id: i64,
        theirs: &'a [String],
        ours: &'a [String],
        /// Whether progress was asked for while there was a watcher of the future, or one that a compaction had ended and the
        /// client had not cancelled as well; and ours has not answered since.
        owed: bool,
    },
    /// The marker, and the hash of all that is stored: nothing explains these.
    Settled,
}

/// Watch ID of what is told to all watchers of a stream.
const EVERYBODY: i64 = -1;
/// Hashes that etcd keeps.
const ETCD_HASHES_KEPT: usize = 10;

pub(super) const EXPLAINED: &[Explained] = &[
    Explained {
        name: "HashKV at a revision that was compacted to",
        reason: "etcd answers from a list of what its last ten compactions have hashed, with the compacted revision of \
                 before; ours from what is stored now, or that the revision is compacted",
        applies: hash_of_compaction,
    },
    Explained {
        name: "progress beside a watcher of the future, or one that compaction ended",
        reason: "etcd forgets the question; ours answers when the watcher has begun or is cancelled, or at once beside an \
                 ended one, so that whoever waits for progress never waits for ever",
        applies: progress_owed,
    },
    Explained {
        name: "order of keys that are equal in what they are sorted by",
        reason: "etcd leaves it to an unstable sort if they are more than 12; ours keeps them in the order of keys",
        applies: ties,
    },
];

pub(super) fn explain(subject: &Subject<'_>) -> Option<&'static Explained> {
    EXPLAINED.iter().find(|explained| (explained.applies)(subject))
}

fn hash_of_compaction(subject: &Subject<'_>) -> bool {
    let Subject::Answers { call: Call::HashKv(request), theirs, ours, compactions } = subject else { return false };
    let Some(at) = compactions.iter().rposition(|revision| *revision == request.revision) else { return false };
    if compactions.len() - at > ETCD_HASHES_KEPT {
        return false;
    }
    let before = if at == 0 { -1 } else { compactions[at - 1] };
    let kept = format!("compact_revision: {before}, hash_revision: {} }}", request.revision);
    let last = compactions.len() == at + 1;
    let own = format!("compact_revision: {}, hash_revision: ", request.revision);
    let as_now = |ours: &Answer| !ours.refused && theirs.revision == ours.revision;
    theirs.text.contains(&kept)
        && match request.revision {
            // "Now", for ours.
            0 => as_now(ours),
            _ if last => as_now(ours) && ours.text.contains(&own),
            _ => ours.refused && ours.text.ends_with("required revision has been compacted"),
        }
}

fn progress_owed(subject: &Subject<'_>) -> bool {
    let Subject::Told { watch_id: EVERYBODY, theirs: [], ours: [line], owed: true } = subject else { return false };
    line.contains("created: false, canceled: false") && line.ends_with("events: [] }")
}

fn ties(subject: &Subject<'_>) -> bool {
    let Subject::Answers { call, theirs, ours, .. } = subject else { return false };
    match (call, &theirs.message, &ours.message) {
        (Call::Range(request), Message::Range(theirs), Message::Range(ours)) => same_range(request, theirs, ours),
        (Call::Txn(request), Message::Txn(theirs), Message::Txn(ours)) => same_txn(request, theirs, ours),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb as pb;

    use super::*;

    fn hash(compact_revision: i64, hash_revision: i64) -> Answer {
        let header = Some(pb::ResponseHeader { revision: 50, ..Default::default() });
        Answer::of(Ok(pb::HashKvResponse { header, hash: 7, compact_revision, hash_revision }))
    }

    fn name(call: &Call, theirs: &Answer, ours: &Answer, compactions: &[i64]) -> Option<&'static str> {
        explain(&Subject::Answers { call, theirs, ours, compactions }).map(|explained| explained.name)
    }

    #[test]
    fn a_kept_hash_is_explained_only_where_etcd_may_have_kept_it() {
        let call = |revision| Call::HashKv(pb::HashKvRequest { revision });
        let compacted =
            Answer::refusal(&tonic::Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
        let compactions = [10, 20, 30];
        assert!(name(&call(30), &hash(20, 30), &hash(30, 30), &compactions).is_some());
        assert!(name(&call(20), &hash(10, 20), &compacted, &compactions).is_some());
        assert!(name(&call(10), &hash(-1, 10), &compacted, &compactions).is_some());
        assert!(name(&call(30), &hash(20, 300), &hash(30, 30), &compactions).is_none(), "another revision");
        assert!(name(&call(40), &hash(20, 40), &hash(30, 40), &compactions).is_none(), "never compacted to");
        assert!(name(&call(30), &hash(30, 30), &hash(30, 30), &compactions).is_none(), "not what was kept");
        assert!(
            name(&call(20), &hash(10, 20), &hash(30, 20), &compactions).is_none(),
            "ours must not know it any more"
        );
        let many: Vec<i64> = (1..=11).collect();
        assert!(name(&call(1), &hash(-1, 1), &compacted, &many).is_none(), "kept no longer");
        let other = Call::Put(pb::PutRequest::default());
        assert!(name(&other, &hash(20, 30), &hash(30, 30), &compactions).is_none());
    }

    #[test]
    fn progress_is_explained_only_where_it_was_owed() {
        let progress = format!("{:?}", pb::WatchResponse { watch_id: EVERYBODY, ..Default::default() });
        let explained = |watch_id, theirs: &[String], ours: &[String], owed| {
            explain(&Subject::Told { watch_id, theirs, ours, owed }).is_some()
        };
        let said = std::slice::from_ref(&progress);
        assert!(explained(EVERYBODY, &[], said, true));
        assert!(!explained(EVERYBODY, &[], said, false));
        assert!(!explained(EVERYBODY, said, &[], true), "ours is silent");
        assert!(!explained(4, &[], said, true), "for one watcher");
        assert!(!explained(EVERYBODY, &[], &[progress.clone(), progress.clone()], true), "twice");
    }

    #[test]
    fn nothing_explains_another_state() {
        assert!(explain(&Subject::Settled).is_none());
    }
}
