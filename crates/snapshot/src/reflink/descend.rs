//! Opening what lies below a directory: never through a symbolic link, never into another mount, however long the path.
//!
//! Somebody may change a tree while it is read or deleted with root's rights: a directory that becomes a link to `/etc`
//! must not lead there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens a directory for listing. [`Errno::XDEV`]: a file system is mounted there. [`Errno::LOOP`], [`Errno::NOTDIR`]:
/// it is not a directory any more.
pub fn directory(root: BorrowedFd<'_>, below: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if below.as_os_str().is_empty() {
        return rustix::fs::openat(root, c".", flags, Mode::empty());
    }
    match open(root, below, flags) {
        // Longer than PATH_MAX: in pieces.
        Err(Errno::NAMETOOLONG) => {
            let mut reached: Option<OwnedFd> = None;
            for name in below.components() {
                let from = reached.as_ref().map_or(root, |fd| fd.as_fd());
                let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                reached = Some(open(from, Path::new(&name), path)?);
            }
            let from = reached.as_ref().map_or(root, |fd| fd.as_fd());
            rustix::fs::openat(from, c".", flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Opens a file for reading, without waiting for the other end if it has become a fifo, and without changing its time
/// of access where that is allowed.
pub fn file(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Not the owner.
        Err(Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn open(from: BorrowedFd<'_>, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(from, below.as_os_str().as_bytes(), flags, Mode::empty(), resolve)
}
