//! One look at a file's inode.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use super::{Action, AttributeError, Entry};

/// A point in time as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// 0 to 999,999,999, always forward from `secs`.
    pub nanos: u32,
}

impl From<StatxTimestamp> for Moment {
    fn from(time: StatxTimestamp) -> Self {
        Self { secs: time.tv_sec, nanos: time.tv_nsec }
    }
}

/// What one `statx` tells about a file; a symbolic link is looked at, never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `st_mode`: type and permissions, inode(7).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// What it takes on the disk, in units of 512 bytes; less than its size if it has holes.
    pub blocks: u64,
    /// Inode number.
    pub inode: u64,
    /// `st_dev` of the file system that holds it. Not stable: it changes between mounts and snapshots.
    pub device: u64,
    /// `st_rdev`: which device a block or character device stands for.
    pub rdev: u64,
    /// Modification of the contents.
    pub mtime: Moment,
    /// Change of the inode.
    pub ctime: Moment,
    /// Birth, where the file system keeps it.
    pub btime: Option<Moment>,
    /// Whether another file system is mounted here (or the same one once more); `None` before Linux 5.8.
    pub mount_root: Option<bool>,
}

impl Stat {
    /// Looks at an entry that need not be open.
    ///
    /// # Errors
    /// That of statx(2); `NotFound` if the entry has vanished.
    pub fn at(entry: Entry<'_>) -> Result<Self, AttributeError> {
        // Like stat(2), do not set an automounter to work for an answer about its mount point.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        look(entry.dir, entry.name, flags).map_err(|source| entry.error(Action::Stat, source))
    }

    /// Looks at an open file, even if it has no name any more.
    ///
    /// # Errors
    /// That of statx(2).
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        look(fd, b"", AtFlags::EMPTY_PATH)
    }
}

fn look(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Stat, Errno> {
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map(|found| Stat::from(&found))
}

impl From<&Statx> for Stat {
    fn from(found: &Statx) -> Self {
        let knows_mounts = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        let has_btime = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            mode: u32::from(found.stx_mode),
            uid: found.stx_uid,
            gid: found.stx_gid,
            links: found.stx_nlink,
            size: found.stx_size,
            blocks: found.stx_blocks,
            inode: found.stx_ino,
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            rdev: makedev(found.stx_rdev_major, found.stx_rdev_minor),
            mtime: found.stx_mtime.into(),
            ctime: found.stx_ctime.into(),
            btime: has_btime.then(|| found.stx_btime.into()),
            mount_root: knows_mounts.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        }
    }
}
