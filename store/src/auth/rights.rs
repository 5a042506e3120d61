//! The permissions of all roles of a user, merged into disjoint spans: one search answers one question.
//!
//! ```text
//! granted      [a------d)   [f--h)
//!                  [c----f)           [m, m]   [x-----
//! merged       [a-----------h)        [m, m\0) [x-----      touching spans are one: a request may lie across the seam
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type;

use crate::mvcc::KeyRange;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rights {
    read: Spans,
    write: Spans,
}

impl Rights {
    pub(super) fn of<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            // A type that this release does not know grants nothing.
            let (reads, writes) = match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => (true, false),
                Ok(Type::Write) => (false, true),
                Ok(Type::Readwrite) => (true, true),
                Err(_) => (false, false),
            };
            let Some(span) = granted(permission) else { continue };
            if reads {
                read.push(span.clone());
            }
            if writes {
                write.push(span);
            }
        }
        Self { read: Spans::merge(read), write: Spans::merge(write) }
    }

    pub(super) fn cover(&self, right: Right, range: &KeyRange) -> bool {
        match right {
            Right::Read => self.read.cover(range),
            Right::Write => self.write.cover(range),
        }
    }
}

/// `[from, until)`, without end when `until` is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenSpan {
    from: Bytes,
    until: Option<Bytes>,
}

/// What a permission names. Nothing, for what no grant lets in: an empty key is no key, and a crossed range holds none.
fn granted(permission: &Permission) -> Option<OpenSpan> {
    if permission.key.is_empty() {
        return None;
    }
    match KeyRange::new(&permission.key, &permission.range_end) {
        KeyRange::One(key) => {
            let mut until = BytesMut::with_capacity(key.len() + 1);
            until.put_slice(&key);
            until.put_u8(0);
            Some(OpenSpan { from: key, until: Some(until.freeze()) })
        }
        KeyRange::Span { from, until } => (from < until).then_some(OpenSpan { from, until: Some(until) }),
        KeyRange::AtLeast(from) => Some(OpenSpan { from, until: None }),
    }
}

/// Ascending, neither overlapping nor touching.
#[derive(Clone, Debug, Default, PartialEq)]
struct Spans(Vec<OpenSpan>);

impl Spans {
    fn merge(mut spans: Vec<OpenSpan>) -> Self {
        spans.sort_by(|one, other| one.from.cmp(&other.from));
        let mut merged: Vec<OpenSpan> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if last.until.as_ref().is_none_or(|until| *until >= span.from) => {
                    last.until = furthest(last.until.take(), span.until);
                }
                Some(_) | None => merged.push(span),
            }
        }
        Self(merged)
    }

    /// A range that holds no key still needs the right to the key it begins with. etcd mostly says the same; with many
    /// permissions its answer hangs on the shape of a tree.
    fn cover(&self, range: &KeyRange) -> bool {
        let (KeyRange::One(from) | KeyRange::Span { from, .. } | KeyRange::AtLeast(from)) = range;
        let after = self.0.partition_point(|span| span.from <= from);
        let Some(span) = after.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let Some(end) = &span.until else { return true };
        end > from
            && match range {
                KeyRange::One(_) => true,
                KeyRange::Span { until, .. } => until <= end,
                KeyRange::AtLeast(_) => false,
            }
    }
}

fn furthest(one: Option<Bytes>, other: Option<Bytes>) -> Option<Bytes> {
    Some(one?.max(other?))
}
