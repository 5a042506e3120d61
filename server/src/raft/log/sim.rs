//! A disk in memory that behaves badly on purpose: what was not synced is lost or torn at a power cut, names vanish
//! unless their directory was synced, any call can be told to fail.
//!
//! ```text
//! file: now (what reads see) = durable (what a power cut leaves) + pending (writes since the last sync)
//! cut: of each pending write every 512-byte sector survives or not, one of them perhaps in part
//! ```
//!
//! Models fsyncgate: a sync that fails forgets the pending writes, reads still see them, the next sync succeeds.
//! Left out: damage at rest (see [`SimFs::edit`]), delays, several directories.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::fs::{Fs, FsFile};

/// What a power cut leaves or takes as one.
const SECTOR_BYTES: usize = 512;
/// Each look at the clock takes this long.
const CLOCK_STEP: Duration = Duration::from_micros(1);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    CreateDir,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Size,
    Preallocate,
    Read,
    Write,
    SyncData,
    SyncAll,
}

impl Call {
    pub const ALL: [Self; 13] = [
        Self::CreateDir,
        Self::List,
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Size,
        Self::Preallocate,
        Self::Read,
        Self::Write,
        Self::SyncData,
        Self::SyncAll,
    ];

    fn changes_disk(self) -> bool {
        !matches!(self, Self::List | Self::Open | Self::Size | Self::Read)
    }
}

enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    random: u64,
    salts: u64,
    ticks: u32,
    calls: BTreeMap<Call, u64>,
    /// (kind, how many calls from now, error number)
    faults: Vec<(Call, u64, i32)>,
    /// Calls that change the disk until the power goes.
    power_left: Option<u64>,
    /// Handles of an earlier power-up are dead.
    boot: u64,
}

/// Clones are the same disk.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

impl SimFs {
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: seed, ..Disk::default() })) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("nobody panics under it")
    }

    /// The `k`-th call of this kind from now on fails, k = 1 being the next.
    pub fn fail(&self, call: Call, k: u64, errno: i32) {
        self.disk().faults.push((call, k, errno));
    }

    /// Whether every injected fault has struck.
    pub fn faults_struck(&self) -> bool {
        self.disk().faults.is_empty()
    }

    pub fn calls(&self, call: Call) -> u64 {
        self.disk().calls.get(&call).copied().unwrap_or(0)
    }

    /// After `calls` more calls that change the disk nothing works until [`Self::power_cycle`].
    pub fn cut_power_after(&self, calls: u64) {
        self.disk().power_left = Some(calls);
    }

    /// Loses what a power cut loses; files must be opened again.
    pub fn power_cycle(&self) {
        let mut disk = self.disk();
        disk.lose_unsynced();
        disk.restart();
    }

    /// The process dies and the machine does not: everything written stays.
    pub fn restart(&self) {
        self.disk().restart();
    }

    /// Bytes of a file as a reader would see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|inode| disk.inodes[*inode].now.clone())
    }

    /// Damage at rest: changes a file behind the back of everyone, durably.
    pub fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        if let Some(inode) = disk.names.get(path).copied() {
            let inode = &mut disk.inodes[inode];
            edit(&mut inode.now);
            inode.durable.clone_from(&inode.now);
            inode.pending.clear();
        }
    }

    /// A copy of the disk as it is, for trying many damages of one state.
    pub fn fork(&self) -> Self {
        let disk = self.disk();
        let inodes = disk.inodes.iter().map(|inode| Inode {
            now: inode.now.clone(),
            durable: inode.now.clone(),
            pending: Vec::new(),
        });
        let fork = Disk {
            inodes: inodes.collect(),
            names: disk.names.clone(),
            durable_names: disk.names.clone(),
            random: disk.random,
            salts: disk.salts,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(fork)) }
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }
}

impl Disk {
    /// splitmix64
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % (bound.max(1) as u64)) as usize
    }

    fn restart(&mut self) {
        self.power_left = None;
        self.faults.clear();
        self.boot += 1;
    }

    fn call(&mut self, call: Call, boot: u64) -> io::Result<()> {
        *self.calls.entry(call).or_default() += 1;
        if boot != self.boot {
            return Err(io::Error::other("the file is from before the restart"));
        }
        if let Some(left) = &mut self.power_left {
            if *left == 0 {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if call.changes_disk() {
                *left -= 1;
            }
        }
        let mut struck = None;
        self.faults.retain_mut(|(kind, left, errno)| {
            if *kind != call {
                return true;
            }
            *left -= 1;
            if *left == 0 {
                struck = Some(*errno);
            }
            *left > 0
        });
        struck.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn lose_unsynced(&mut self) {
        let mut names = std::mem::take(&mut self.durable_names);
        for change in std::mem::take(&mut self.name_changes) {
            if self.below(2) == 0 {
                continue;
            }
            apply_name(&mut names, change);
        }
        self.names.clone_from(&names);
        self.durable_names = names;
        for inode in 0..self.inodes.len() {
            for pending in std::mem::take(&mut self.inodes[inode].pending) {
                self.settle_torn(inode, pending);
            }
            let inode = &mut self.inodes[inode];
            inode.now.clone_from(&inode.durable);
        }
    }

    /// How much of a write survives: nothing, all, or any of its sectors.
    fn settle_torn(&mut self, inode: usize, pending: Pending) {
        let mood = self.below(4);
        match pending {
            _ if mood == 0 => {}
            Pending::Length(_) => self.inodes[inode].settle(pending),
            Pending::Write { .. } if mood == 1 => self.inodes[inode].settle(pending),
            Pending::Write { offset, data } => {
                let mut at = 0;
                while at < data.len() {
                    let to = ((offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset).min(data.len());
                    let survives = match self.below(8) {
                        0 => at + self.below(to - at),
                        odd if odd % 2 == 1 => to,
                        _ => at,
                    };
                    if survives > at {
                        let data = data[at..survives].to_vec();
                        self.inodes[inode].settle(Pending::Write { offset: offset + at, data });
                    }
                    at = to;
                }
            }
        }
    }
}

impl Inode {
    fn settle(&mut self, pending: Pending) {
        apply(&mut self.durable, pending);
    }

    fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.settle(pending);
        }
    }
}

fn apply(bytes: &mut Vec<u8>, pending: Pending) {
    match pending {
        Pending::Length(length) => bytes.resize(length.max(bytes.len()), 0),
        Pending::Write { offset, data } => {
            let end = offset + data.len();
            bytes.resize(end.max(bytes.len()), 0);
            bytes[offset..end].copy_from_slice(&data);
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Set(path, inode) => drop(names.insert(path, inode)),
        NameChange::Remove(path) => drop(names.remove(&path)),
        NameChange::Rename(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
    }
}

impl SimFs {
    fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        let boot = disk.boot;
        disk.call(call, boot)?;
        Ok(disk)
    }

    fn file(&self, inode: usize, boot: u64) -> Arc<dyn FsFile> {
        Arc::new(SimFile { disk: Arc::clone(&self.disk), inode, boot })
    }
}

impl Fs for SimFs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.begin(Call::CreateDir).map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.begin(Call::List)?;
        let names = disk.names.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.begin(Call::Create)?;
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.names.insert(path.to_path_buf(), inode);
        disk.name_changes.push(NameChange::Set(path.to_path_buf(), inode));
        Ok(self.file(inode, disk.boot))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let disk = self.begin(Call::Open)?;
        let inode = disk.names.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(self.file(*inode, disk.boot))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.begin(Call::Rename)?;
        let inode = disk.names.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        disk.names.insert(to.to_path_buf(), inode);
        disk.name_changes.push(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.begin(Call::Remove)?;
        disk.names.remove(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        disk.name_changes.push(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut disk = match self.begin(Call::SyncDir) {
            Ok(disk) => disk,
            Err(error) => {
                // As with data: what failed once is not tried again by the kernel.
                self.disk().name_changes.clear();
                return Err(error);
            }
        };
        let changes = std::mem::take(&mut disk.name_changes);
        for change in changes {
            apply_name(&mut disk.durable_names, change);
        }
        Ok(())
    }

    fn salt(&self) -> u64 {
        let mut disk = self.disk();
        disk.salts += 1;
        disk.salts.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn now(&self) -> Duration {
        let mut disk = self.disk();
        disk.ticks += 1;
        CLOCK_STEP * disk.ticks
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    boot: u64,
}

impl SimFile {
    fn begin(&self, call: Call) -> (MutexGuard<'_, Disk>, io::Result<()>) {
        let mut disk = self.disk.lock().expect("nobody panics under it");
        let result = disk.call(call, self.boot);
        (disk, result)
    }

    fn sync(&self, call: Call) -> io::Result<()> {
        let (mut disk, result) = self.begin(call);
        if self.boot != disk.boot {
            return result;
        }
        match result {
            Ok(()) => disk.inodes[self.inode].sync(),
            // A cut power loses in its own way; a failed sync forgets what it should have written.
            Err(_) if disk.power_left == Some(0) => {}
            Err(_) => disk.inodes[self.inode].pending.clear(),
        }
        result
    }
}

impl FsFile for SimFile {
    fn size_bytes(&self) -> io::Result<u64> {
        let (disk, result) = self.begin(Call::Size);
        result.map(|()| disk.inodes[self.inode].now.len() as u64)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let (mut disk, result) = self.begin(Call::Preallocate);
        result?;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let inode = &mut disk.inodes[self.inode];
        apply(&mut inode.now, Pending::Length(length));
        inode.pending.push(Pending::Length(length));
        Ok(())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let (disk, result) = self.begin(Call::Size);
        result?;
        let size = disk.inodes[self.inode].now.len() as u64;
        Ok((offset < size).then_some(offset..size))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (disk, result) = self.begin(Call::Read);
        result?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = disk.inodes[self.inode].now.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (mut disk, result) = self.begin(Call::Write);
        if self.boot != disk.boot {
            return result;
        }
        // A write that fails has often written a part.
        let written = if result.is_ok() { buf.len() } else { disk.below(buf.len() + 1) };
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let inode = &mut disk.inodes[self.inode];
        apply(&mut inode.now, Pending::Write { offset, data: buf[..written].to_vec() });
        inode.pending.push(Pending::Write { offset, data: buf[..written].to_vec() });
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }
}
