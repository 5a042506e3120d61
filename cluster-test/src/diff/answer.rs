//! What was answered, masked and in words: two answers are the same if the words are.

use std::fmt::Debug;

use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use super::mask::Mask;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// Where more than the words is needed to tell whether both are right.
    pub(super) message: Message,
    /// Of the header, where there is one.
    pub(super) revision: Option<i64>,
    /// By a gRPC code.
    pub(super) refused: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    Range(pb::RangeResponse),
    Txn(pb::TxnResponse),
    Other,
}

/// What can be answered: it has a header.
pub(super) trait Said: Mask + Debug {
    fn header(&self) -> Option<&pb::ResponseHeader>;

    fn keep(self) -> Message
    where
        Self: Sized,
    {
        Message::Other
    }
}

impl Said for pb::RangeResponse {
    fn header(&self) -> Option<&pb::ResponseHeader> {
        self.header.as_ref()
    }

    fn keep(self) -> Message {
        Message::Range(self)
    }
}

impl Said for pb::TxnResponse {
    fn header(&self) -> Option<&pb::ResponseHeader> {
        self.header.as_ref()
    }

    fn keep(self) -> Message {
        Message::Txn(self)
    }
}

macro_rules! said {
    ($($answer:ident)*) => {
        $(impl Said for pb::$answer {
            fn header(&self) -> Option<&pb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

said!(PutResponse DeleteRangeResponse CompactionResponse LeaseGrantResponse LeaseRevokeResponse
    LeaseTimeToLiveResponse LeaseLeasesResponse LeaseKeepAliveResponse HashKvResponse AlarmResponse WatchResponse);

impl Answer {
    pub(super) fn of<M: Said>(answer: Result<M, Status>) -> Self {
        match answer {
            Ok(mut message) => {
                message.mask();
                let revision = message.header().map(|header| header.revision);
                Self { text: format!("{message:?}"), message: message.keep(), revision, refused: false }
            }
            Err(status) => Self::refusal(&status),
        }
    }

    pub(super) fn refusal(status: &Status) -> Self {
        Self { text: in_words(status), message: Message::Other, revision: None, refused: true }
    }

    /// Neither an answer nor an error.
    pub(super) fn note(text: impl Into<String>) -> Self {
        Self { text: text.into(), message: Message::Other, revision: None, refused: false }
    }
}

pub(super) fn in_words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(member_id: u64, revision: i64) -> Answer {
        let header = Some(pb::ResponseHeader { cluster_id: 1, member_id, revision, raft_term: member_id });
        Answer::of(Ok(pb::PutResponse { header, prev_kv: None }))
    }

    #[test]
    fn another_revision_another_code_and_another_text_are_seen() {
        assert_eq!(put(1, 5), put(2, 5));
        assert_eq!(put(1, 5).revision, Some(5));
        assert_ne!(put(1, 5), put(1, 6));
        let refusal = |status| Answer::of::<pb::PutResponse>(Err(status));
        assert_eq!(refusal(Status::not_found("x")), refusal(Status::not_found("x")));
        assert_ne!(refusal(Status::not_found("x")), refusal(Status::unknown("x")));
        assert_ne!(refusal(Status::not_found("x")), refusal(Status::not_found("y")));
        assert_ne!(put(1, 5), refusal(Status::not_found("x")));
    }
}
