//! Alters what a member that does not run has on its disk, through its own engine: every row stays whole, and one is wrong.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use cluster_test::cluster::Member;
use quorate_store::engine::{Batch, Engine as _, Family, RocksEngine, RocksSettings};
use quorate_store::keys::{ChangeRecord, HeadRecord, HeadValue, revision_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// The change itself, and the newest version that readers find: as a wrong apply would leave it.
    Both,
    /// Only what readers find.
    NewestVersion,
}

/// Gives `key` another value of the same length. It fails where the key is not on the disk yet, but only in the log.
pub(crate) fn value(member: &mut Member, key: &str, row: Row) -> Result<()> {
    ensure!(!member.is_running()?, "{} runs", member.name());
    let engine = RocksEngine::open(&member.data_dir().join("member/state"), &RocksSettings::default())?;
    let head = engine.get(Family::Heads, key.as_bytes())?.context("find the newest version")?;
    let mut head = HeadRecord::decode(head)?;
    let change = engine.get(Family::Revisions, &revision_key(head.modified))?.context("find the change")?;
    let mut change = ChangeRecord::decode(change)?;
    let altered = change.value.as_ref().context("find a value")?.iter().map(|byte| byte ^ 1).collect::<Bytes>();
    ensure!(head.value == HeadValue::Inline(change.value.clone().unwrap_or_default()), "{head:?} is not {change:?}");
    head.value = HeadValue::Inline(altered.clone());
    change.value = Some(altered);
    let mut batch = Batch::default();
    batch.put(Family::Heads, key.as_bytes().to_vec(), head.encode());
    if row == Row::Both {
        batch.put(Family::Revisions, revision_key(head.modified), change.encode());
    }
    engine.write(batch)?;
    engine.flush()?;
    Ok(())
}
