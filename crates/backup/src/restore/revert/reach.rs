//! Opening what lies below a directory: never through a symbolic link, never into another mount, however long the path.
//! Somebody may change the tree meanwhile: a directory that becomes a link to `/etc` must not lead there.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::RevertError;

/// The live directory itself, which is named without links.
pub(super) fn root(directory: &Path) -> Result<OwnedFd, RevertError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty()).map_err(RevertError::io("open", directory))
}

/// A directory below it, for listing.
pub(super) fn directory(root: &OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if below.as_os_str().is_empty() {
        return openat(root, c".", flags, Mode::empty());
    }
    match open(root.as_fd(), below, flags) {
        // Longer than PATH_MAX: in pieces.
        Err(Errno::NAMETOOLONG) => {
            let mut reached: Option<OwnedFd> = None;
            for name in below.iter() {
                let from = reached.as_ref().map_or(root.as_fd(), |open| open.as_fd());
                let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                reached = Some(open(from, Path::new(name), path)?);
            }
            let from = reached.as_ref().map_or(root.as_fd(), |open| open.as_fd());
            openat(from, c".", flags, Mode::empty())
        }
        opened => opened,
    }
}

fn open(from: BorrowedFd<'_>, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(from, below.as_os_str().as_bytes(), flags, Mode::empty(), resolve)
}
