//! Snapshots that are copies: a clone of each file (reflink) has an inode of its own, made a moment ago, so that nothing
//! would ever be as it was in the backup before.
//!
//! So an entry is given the identity (inode number, time of change, number of links) of the live one of which it is a copy.
//! That is certain where the live one has not changed since the copying began: its ctime says so of itself, and that of
//! each directory above, below the root, says that nothing was renamed on the way. Where it is not certain the copy keeps
//! its own identity, which nothing will ever equal, and is read again by the next run.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};

use crate::archive::directory::Directory;
use crate::attributes::{Entry, Moment, Stat};

/// The kernel's ctimes lag behind its clock by up to a tick, and clocks are set by small steps.
const MARGIN_SECS: i64 = 2;

/// The live directory of which one that is read is a copy.
pub(super) struct Original {
    open: OwnedFd,
    /// When copying began, less a margin.
    since: Moment,
}

impl Original {
    /// Of a place.
    pub(super) fn root(above: Option<&OwnedFd>, directory: &Directory, copied: Moment) -> Option<Arc<Original>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = match above {
            Some(above) => openat(above, directory.name(), flags, Mode::empty()),
            None => openat(rustix::fs::CWD, "/", flags, Mode::empty()),
        };
        let since = Moment { secs: copied.secs - MARGIN_SECS, ..copied };
        Some(Arc::new(Original { open: open.ok()?, since }))
    }

    /// Of a directory in this one; `None` if it is not certain to be the same.
    pub(super) fn below(&self, directory: &Directory, copy: &Stat) -> Option<Arc<Original>> {
        let name = directory.name();
        self.identity(name.as_bytes(), copy)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = openat(&self.open, name, flags, Mode::empty()).ok()?;
        Some(Arc::new(Original { open, since: self.since }))
    }

    /// What a copy's `stat` says, with the identity of the live entry if that is certain.
    pub(super) fn of_entry(&self, name: &[u8], copy: Stat) -> Stat {
        self.identity(name, &copy).map_or(copy, |live| with_identity(copy, &live))
    }

    /// The same for the directory itself.
    pub(super) fn of_itself(&self, copy: Stat) -> Stat {
        match Stat::of(self.open.as_fd()) {
            Ok(live) if self.is_certain(&live, &copy) => with_identity(copy, &live),
            _ => copy,
        }
    }

    fn identity(&self, name: &[u8], copy: &Stat) -> Option<Stat> {
        let entry = Entry { dir: self.open.as_fd(), name, dir_path: Path::new("") };
        Stat::at(entry).ok().filter(|live| self.is_certain(live, copy))
    }

    fn is_certain(&self, live: &Stat, copy: &Stat) -> bool {
        let is_directory = live.mode & 0o170_000 == 0o040_000;
        live.ctime < self.since
            && live.mode == copy.mode
            && (live.uid, live.gid) == (copy.uid, copy.gid)
            && live.mtime == copy.mtime
            && (is_directory || live.size == copy.size)
    }
}

/// A copy's `stat` as if it were the live entry.
pub(super) fn with_identity(copy: Stat, live: &Stat) -> Stat {
    Stat { inode: live.inode, ctime: live.ctime, links: live.links, ..copy }
}
