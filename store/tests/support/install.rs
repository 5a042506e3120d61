//! A snapshot from one store to another that lags behind, with everything that may happen on the way.

use quorate_store::{Entry, Reader, ReceivedSnapshot, SnapshotSink, Store, TransferError};

use super::chance::Chance;
use super::model::Model;
use super::physical;
use super::run::{Verdict, fault, same};
use super::subject::{Kind, Subject};

/// A member that has applied less than all of `log` gets the rest from `from`, as a snapshot.
pub(crate) fn install(from: &Store, log: &[Entry], model: &Model, kind: Kind, seed: u64) -> Result<Subject, String> {
    let chance = &mut Chance(seed);
    // The transfer does not ask what the other end is made of.
    let mut member = Subject::new(if chance.one_in(4) { Kind::Memory } else { kind });
    behind(member.store(), log, chance)?;
    let reader = member.store().reader();
    let before = reader.view().map_err(fault)?;
    let rows_before = rows(&before)?;
    if chance.one_in(3) {
        interrupted(&from.reader(), &reader, chance)?;
    }
    let chunk_bytes = chance.pick(&[1, 7, 64, 1000, 1 << 18]);
    let received = transfer(&from.reader(), &reader, chunk_bytes).map_err(|error| error.to_string())?;
    same(|| "rows served during a transfer".into(), &rows(&reader.view().map_err(fault)?)?, &rows_before)?;

    let revision_before = reader.revision();
    let installed = member.store().install(received).map_err(|error| error.to_string())?;
    same(|| "installed at".into(), &installed.position, &from.applied())?;
    same(|| "membership".into(), &installed.membership, &from.membership())?;
    same(|| "revision before".into(), &installed.revision_before, &revision_before)?;
    same(|| "revision".into(), &installed.revision, &model.revision)?;
    same(|| "compacted".into(), &installed.compacted, &model.compacted)?;
    same(|| "leases".into(), &installed.leases.iter().copied().collect(), &model.leases)?;
    same(|| "flushed by an install".into(), &reader.flushed().map_err(fault)?, &from.applied())?;

    let sent = rows(&from.reader().view().map_err(fault)?)?;
    same(|| "rows installed".into(), &rows(&reader.view().map_err(fault)?)?, &sent)?;
    same(|| "rows of a view from before".into(), &rows(&before)?, &rows_before)?;
    drop(before);
    same(|| "still read".into(), &reader.reclaim().map_err(fault)?, &0)?;
    if chance.one_in(2) {
        drop(reader);
        member.crash();
        same(|| "applied after a crash".into(), &member.store().applied(), &from.applied())?;
        same(|| "rows after a crash".into(), &rows(&member.store().reader().view().map_err(fault)?)?, &sent)?;
    }
    Ok(member)
}

/// Some of the log, applied, and perhaps compacted and flushed in part.
fn behind(store: &mut Store, log: &[Entry], chance: &mut Chance) -> Verdict {
    let applied = chance.below(log.len() as u64) as usize;
    let flushed = chance.below(applied as u64 + 1) as usize;
    for group in [&log[..flushed], &log[flushed..applied]] {
        store.apply(group).map_err(fault)?;
        if chance.one_in(2) {
            store.compact_step(2).map_err(fault)?;
        }
        if chance.one_in(2) {
            store.reader().flush().map_err(fault)?;
        }
    }
    Ok(())
}

/// A transfer that ends somewhere and leaves nothing behind.
fn interrupted(from: &Reader, to: &Reader, chance: &mut Chance) -> Verdict {
    let mut chunks = from.snapshot().map_err(fault)?.with_chunk_bytes(64);
    let head = chunks.next().ok_or("no head")?.map_err(fault)?;
    let mut sink = to.receive(&head).map_err(|error| error.to_string())?;
    let mut pushed = 1;
    for chunk in chunks.take(chance.below(20) as usize) {
        sink.push(&chunk.map_err(fault)?).map_err(|error| error.to_string())?;
        pushed += 1;
    }
    match sink.finish() {
        Ok(_) | Err(TransferError::Cut { .. }) => Ok(()),
        Err(error) => Err(format!("interrupted after {pushed} chunks: {error}")),
    }
}

pub(crate) fn transfer(from: &Reader, to: &Reader, chunk_bytes: usize) -> Result<ReceivedSnapshot, TransferError> {
    let mut chunks = from.snapshot().unwrap().with_chunk_bytes(chunk_bytes).map(Result::unwrap);
    let mut sink: SnapshotSink = to.receive(&chunks.next().unwrap())?;
    let mut last = false;
    for chunk in chunks {
        assert!(!last, "nothing follows the end");
        last = sink.push(&chunk)?;
    }
    sink.finish()
}

fn rows(view: &quorate_store::StoreView) -> Result<Vec<physical::Rows>, String> {
    quorate_store::engine::Family::ALL.into_iter().map(|family| physical::rows(view, family)).collect()
}
