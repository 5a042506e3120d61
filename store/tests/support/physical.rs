//! What must be on disk, row by row, once compaction has done its work; and what the byte counter must say at any time.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_store::engine::Family;
use quorate_store::keys::{self, BucketRecord, ChangeRecord, VERSION_OVERHEAD_BYTES};
use quorate_store::{Revision, Store, StoreView};

use super::history::all_keys;
use super::model::{Change, Model};
use super::run::{Verdict, fault, same};

pub(crate) type Rows = Vec<(Bytes, Bytes)>;

pub(crate) fn rows(view: &StoreView, family: Family) -> Result<Rows, String> {
    view.rows(family).collect::<Result<Rows, _>>().map_err(fault)
}

/// Checks every family against the model. Returns all rows, with what may differ between members taken out: the link
/// to a deletion that one member's compaction had already dropped when the next version came.
pub(crate) fn at_rest(store: &Store, model: &Model) -> Result<Vec<Rows>, String> {
    let view = store.reader().view().map_err(fault)?;
    let kept = model.kept();
    versions(&view, model, &kept)?;
    let tallied = kept.iter().filter(|change| change.value.is_none() || change.version == 1);
    let tallied = tallied.filter(|change| change.at.main > model.compacted);
    let tallies = tallied.map(|change| {
        let sign = if change.value.is_some() { 1 } else { -1 };
        (keys::revision_key(change.at), keys::encode_tally(sign, &change.key))
    });
    same(|| "tallies".into(), &rows(&view, Family::Tallies)?, &tallies.collect())?;
    buckets(&view, model)?;

    let mut attached = BTreeSet::new();
    for id in model.leases.keys() {
        attached
            .extend(model.lease_keys(*id).into_iter().map(|key| (keys::lease_attachment_key(*id, &key), Bytes::new())));
    }
    same(|| "lease keys".into(), &rows(&view, Family::LeaseKeys)?, &attached.into_iter().collect())?;
    bytes(store, model)?;

    let mut all = Vec::new();
    for family in Family::ALL {
        let mut rows = rows(&view, family)?;
        if family == Family::Revisions {
            for (_, record) in &mut rows {
                let change = ChangeRecord::decode(record.clone()).map_err(fault)?;
                *record = ChangeRecord { previous: None, ..change }.encode();
            }
        }
        all.push(rows);
    }
    Ok(all)
}

/// The log of revisions, the heads and the history.
fn versions(view: &StoreView, model: &Model, kept: &[&Change]) -> Verdict {
    let mut found = Vec::new();
    for (key, record) in rows(view, Family::Revisions)? {
        let at = keys::parse_revision_key(&key).map_err(fault)?;
        found.push((at, ChangeRecord::decode(record).map_err(fault)?));
    }
    let changes: Vec<Change> = found.iter().map(|(at, record)| change(*at, record)).collect();
    same(|| "revisions".into(), &changes, &kept.iter().copied().cloned().collect())?;
    for (at, record) in &found {
        let before = model.changes.iter().rev().find(|change| change.key == record.key && change.at < *at);
        let expected = before.map(|before| (before.at, before.value.as_ref().map_or(0, Bytes::len) as u32));
        let link = record.previous.map(|previous| (previous.revision, previous.value_bytes));
        // A deletion that was dropped already cannot be linked to.
        if link.is_some() || before.is_some_and(|before| before.value.is_some()) {
            same(|| format!("link of {at}"), &link, &expected)?;
        }
    }
    let is_newest = |change: &&&Change| model.newest(&change.key, i64::MAX) == Some(**change);
    let heads = rows(view, Family::Heads)?.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();
    let newest = kept.iter().filter(is_newest).map(|change| change.key.clone()).collect();
    same(|| "heads".into(), &heads, &newest)?;
    let history = rows(view, Family::History)?.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();
    let replaced = kept.iter().filter(|change| !is_newest(change));
    let replaced = replaced.map(|change| keys::history_key(&change.key, change.at)).collect();
    same(|| "history".into(), &history, &replaced)
}

fn change(at: Revision, record: &ChangeRecord) -> Change {
    let ChangeRecord { key, create_revision, version, lease, value, .. } = record.clone();
    Change { at, key, create: create_revision, version, lease, value }
}

/// Every bucket counts the keys alive, and the heads, from its first key up to that of the next.
fn buckets(view: &StoreView, model: &Model) -> Verdict {
    let buckets = rows(view, Family::Buckets)?;
    let (from, until) = all_keys();
    let live = model.live(&from, &until, i64::MAX);
    if !live.is_empty() && buckets.first().is_none_or(|(start, _)| !start.is_empty()) {
        return Err("no bucket starts at the empty key".into());
    }
    let heads = rows(view, Family::Heads)?;
    for (number, (start, bucket)) in buckets.iter().enumerate() {
        let end = buckets.get(number + 1).map(|(end, _)| end);
        let inside = |key: &Bytes| key >= start && end.is_none_or(|end| key < end);
        let counted = BucketRecord {
            live: live.iter().filter(|kv| inside(&kv.key)).count() as i64,
            heads: heads.iter().filter(|(key, _)| inside(key)).count() as i64,
        };
        same(|| format!("bucket {start:?}"), &BucketRecord::decode(bucket).map_err(fault)?, &counted)?;
    }
    Ok(())
}

/// The counter is the sum over what is there; at rest that is what the model keeps.
pub(crate) fn bytes(store: &Store, model: &Model) -> Verdict {
    let reader = store.reader();
    let view = reader.view().map_err(fault)?;
    let mut sum = 0;
    for (_, record) in rows(&view, Family::Revisions)? {
        let change = ChangeRecord::decode(record).map_err(fault)?;
        sum += (change.key.len() + change.value.map_or(0, |value| value.len())) as i64 + VERSION_OVERHEAD_BYTES;
    }
    same(|| "logical bytes of the rows".into(), &reader.logical_bytes(), &sum.max(VERSION_OVERHEAD_BYTES))?;
    if store.compaction_done() {
        let weigh = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        let weigh = |change: &&Change| weigh(change) as i64 + VERSION_OVERHEAD_BYTES;
        let kept: i64 = model.kept().iter().map(weigh).sum();
        same(|| "logical bytes at rest".into(), &sum, &kept)?;
    }
    Ok(())
}
