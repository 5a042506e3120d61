//! Proof, before each run, that a cut of this disk loses what was not synced and keeps what was.
//!
//! Without it a machine on which the cut does nothing would pass every run.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::disk::{Cut, Disk};
use super::not_run::not_run;

const CONTENT: &[u8] = b"written before the cut";
/// In the middle of a file whose blocks are reserved, as the Raft log writes.
const PREALLOCATED_BYTES: u64 = 1 << 20;
const WRITTEN_AT: u64 = 512 << 10;

/// Leaves the disk mounted and empty again.
pub(crate) fn cut_loses_what_was_not_synced(disk: &mut Disk) -> Result<()> {
    let [synced, unsynced, overwritten, late] =
        ["synced", "unsynced", "overwritten", "late"].map(|name| disk.path().join(name));
    let mut file = File::create(&synced).context("create a file")?;
    file.write_all(CONTENT)?;
    file.sync_all()?;
    let reserved = File::create(&overwritten).context("create a file")?;
    reserved.write_all_at(&vec![0; PREALLOCATED_BYTES as usize], 0)?;
    reserved.sync_all()?;
    File::open(disk.path())?.sync_all().context("sync the directory")?;

    fs::write(&unsynced, CONTENT).context("write a file")?;
    reserved.write_all_at(CONTENT, WRITTEN_AT)?;
    drop((file, reserved));
    disk.cut(Cut::Hard).map_err(|error| not_run("EXT4_IOC_SHUTDOWN", error))?;
    ensure!(fs::write(&late, CONTENT).is_err(), "a file was written after the cut: the cut does not stop the disk");
    disk.remount()?;

    ensure!(fs::read(&synced)? == CONTENT, "a file that was synced is not there after the cut");
    ensure!(!unsynced.exists(), "a file that was never synced is there after the cut: the cut loses nothing");
    let mut found = vec![0; CONTENT.len()];
    File::open(&overwritten)?.read_exact_at(&mut found, WRITTEN_AT)?;
    ensure!(found.iter().all(|byte| *byte == 0), "bytes that were never synced are there after the cut");
    remove(&[&synced, &overwritten])
}

fn remove(files: &[&Path]) -> Result<()> {
    for file in files {
        if let Err(error) = fs::remove_file(file) {
            bail!("remove {}: {error}", file.display());
        }
    }
    Ok(())
}
