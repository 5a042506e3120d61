//! A disk whose power can be cut: an ext4 file system in a file of a temporary directory, mounted through a loop device.
//!
//! ```text
//!  <temporary>/state.img ── loop device ── ext4 ── <temporary>/state/     what a member writes into
//!
//!  cut      EXT4_IOC_SHUTDOWN: from now on every call fails, and what was not synced is not written
//!  remount  the journal is replayed, as after a loss of power
//! ```
//!
//! The loop device frees itself when its file system is unmounted, so unmounting is all there is to clean up: on drop,
//! and by a keeper where this process ends without one. Left out: a disk that loses or reorders what it has confirmed
//! (the image is a file of the running kernel), and file systems other than ext4.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::not_run::not_run;
use super::tool::{ToolError, tool};
use crate::cluster::keeper::Keeper;

/// Sparse: it takes what is written. Twice what state and log come to in the heaviest rounds.
const IMAGE_BYTES: u64 = 4 << 30;
/// The journal is committed when somebody syncs and not by the clock, so that a cut takes all that nobody synced.
const MOUNT_OPTIONS: &str = "loop,noatime,noinit_itable,commit=600";
/// A process that has just ended may hold its files a moment longer.
const UNMOUNT_ATTEMPTS: usize = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(10);

/// Several times: a mount that was under way when this process ended comes after the first.
const KEEPER_SCRIPT: &str =
    r#"PATH="$PATH:/usr/sbin:/sbin"; for _ in 1 2 3; do umount -l "$1"; rm -rf "$1" "$2"; rmdir "$3"; sleep 0.3; done"#;

/// What a cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing that the disk does not have yet.
    Hard,
    /// The journal is written first: names and lengths of files may be there without their contents.
    AfterJournal,
}

#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
    // After the unmount of `drop`: until then it is needed.
    _keeper: Keeper,
}

impl Disk {
    /// A new, empty one. An error that is [`super::NotRun`] names what the machine lacks.
    pub(crate) fn new(directory: &Path, name: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(not_run("root", "only root may mount a file system and cut it"));
        }
        let (image, mount_point) = (directory.join(format!("{name}.img")), directory.join(name));
        let file = File::create_new(&image).with_context(|| format!("create {}", image.display()))?;
        file.set_len(IMAGE_BYTES).with_context(|| format!("extend {}", image.display()))?;
        fs::create_dir(&mount_point).with_context(|| format!("create {}", mount_point.display()))?;
        let make = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=1"].map(OsStr::new);
        tool("mkfs.ext4", &[&make[..], &[image.as_os_str()]].concat())
            .map_err(|error| not_run("mkfs.ext4", error.explained()))?;
        let keeper = Keeper::with(KEEPER_SCRIPT, &[mount_point.as_os_str(), image.as_os_str(), directory.as_os_str()])?;
        let mut disk = Self { image, mount_point, mounted: false, _keeper: keeper };
        disk.mount().map_err(|error| not_run("mount -o loop", error.explained()))?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    pub(crate) fn cut(&self, cut: Cut) -> io::Result<()> {
        let root = File::open(&self.mount_point)?;
        shut_down(root.as_fd(), cut)
    }

    /// As after power has come back. Nobody may use the disk any more.
    pub(crate) fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        if let Err(first) = self.mount() {
            // As an operator would; what a check cannot repair by itself is an error.
            let checked = tool("fsck.ext4", &[OsStr::new("-p"), self.image.as_os_str()]);
            checked.map_err(|error| anyhow::anyhow!("check the disk: {}", error.explained()))?;
            self.mount().map_err(|error| {
                anyhow::anyhow!("mount again: {}, after a check {}", first.explained(), error.explained())
            })?;
        }
        Ok(())
    }

    fn mount(&mut self) -> std::result::Result<(), ToolError> {
        let options = ["-t", "ext4", "-o", MOUNT_OPTIONS].map(OsStr::new);
        tool("mount", &[&options[..], &[self.image.as_os_str(), self.mount_point.as_os_str()]].concat())?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let mut last = None;
        for _ in 0..UNMOUNT_ATTEMPTS {
            match tool("umount", &[self.mount_point.as_os_str()]) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        bail!("unmount {}: {}", self.mount_point.display(), last.map_or_else(String::new, |error| error.explained()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Out of sight at once, and gone when the last file is closed. Where even this fails, the keeper's turn comes.
            let _ = tool("umount", &[OsStr::new("-l"), self.mount_point.as_os_str()]);
        }
    }
}

/// `EXT4_IOC_SHUTDOWN` is the kernel's `_IOR('X', 125, __u32)`, though the kernel reads its argument.
#[allow(unsafe_code, reason = "no library knows this call of ext4")]
fn shut_down(root: std::os::fd::BorrowedFd<'_>, cut: Cut) -> io::Result<()> {
    const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
    let flags: u32 = match cut {
        Cut::AfterJournal => 1, // EXT4_GOING_FLAGS_LOGFLUSH
        Cut::Hard => 2,         // EXT4_GOING_FLAGS_NOLOGFLUSH
    };
    // SAFETY: ext4 reads a u32 through the pointer and nothing else; other file systems refuse the number. The descriptor
    // is open for the whole call because it is borrowed.
    let done = unsafe { rustix::ioctl::ioctl(root, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(flags)) };
    Ok(done?)
}
