//! Whether a member's rows agree with each other: what [`super::hash`] cannot see, for it hashes the log of changes alone, and
//! readers of now are answered from `heads`.
//!
//! Compared are each newest version and the change that it says it is; a key whose change is not there is one, too.

use bytes::Bytes;

use super::Keyspace;
use crate::engine::{Direction, Family, Span};
use crate::keys::{self, ChangeRecord, HeadRecord, HeadValue};
use crate::types::Fault;

impl Keyspace<'_> {
    pub(crate) fn contradiction(&self) -> Result<Option<String>, Fault> {
        for row in self.read.scan(Family::Heads, Span::all(), Direction::Forward) {
            let (key, head) = row?;
            let head = HeadRecord::decode(head)?;
            let change = self.read.get(Family::Revisions, &keys::revision_key(head.modified))?;
            let differs = match change.map(ChangeRecord::decode).transpose()? {
                Some(change) => difference(&key, &head, &change),
                None => Some("is not there"),
            };
            if let Some(differs) = differs {
                let key = String::from_utf8_lossy(&key).into_owned();
                return Ok(Some(format!("the change {} that key {key:?} stands at {differs}", head.modified)));
            }
        }
        Ok(None)
    }
}

fn difference(key: &Bytes, head: &HeadRecord, change: &ChangeRecord) -> Option<&'static str> {
    let same_value = match (&head.value, &change.value) {
        (HeadValue::Inline(inline), Some(value)) => inline == value,
        (HeadValue::Elsewhere { bytes }, Some(value)) => value.len() == *bytes as usize,
        (HeadValue::Deleted, None) => true,
        (HeadValue::Inline(_) | HeadValue::Elsewhere { .. }, None) | (HeadValue::Deleted, Some(_)) => false,
    };
    let numbers = |create, version, lease| (create, version, lease);
    match () {
        () if *key != change.key => Some("is of another key"),
        () if !same_value => Some("has another value"),
        () if numbers(head.create_revision, head.version, head.lease)
            != numbers(change.create_revision, change.version, change.lease) =>
        {
            Some("has another version or lease")
        }
        () => None,
    }
}
