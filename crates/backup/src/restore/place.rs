//! Places in the target: directories held open, and what is made in them.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use repository::tree::Node;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::attributes::{Before, Entry};

/// A directory of the target, open as long as something below it is to be done.
pub(super) struct Directory {
    pub(super) open: OwnedFd,
    /// For messages, and to reach hard links' first names.
    pub(super) path: PathBuf,
    /// The one above, which must wait with its attributes; `None` for the target itself.
    pub(super) above: Option<Arc<Directory>>,
    /// What it shall become; `None` for what the backup does not describe (the target).
    pub(super) node: Option<Node>,
    pub(super) before: Before,
    /// Nothing was there before, so nothing can be in the way.
    pub(super) is_fresh: bool,
    /// What the kernel gives a new file here; the same for all, unless there is a default ACL.
    pub(super) new_file: OnceLock<Before>,
    /// New entries get extended attributes from it.
    pub(super) has_default_acl: bool,
}

impl Directory {
    pub(super) fn entry<'a>(&'a self, name: &'a [u8]) -> Entry<'a> {
        Entry { dir: self.open.as_fd(), name, dir_path: &self.path }
    }

    pub(super) fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }
}

/// Where a file belongs in the target.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) directory: Arc<Directory>,
    pub(super) name: Box<[u8]>,
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path_of(&self.name)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory without following a link.
pub(super) fn open_directory(above: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(above, name, DIRECTORY, Mode::empty())
}

/// Makes a directory, for its owner alone until it gets its attributes.
pub(super) fn make_directory(above: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    mkdirat(above, name, Mode::RWXU)
}

/// Whether files made in the directory inherit an ACL.
pub(super) fn has_default_acl(directory: &OwnedFd) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::fgetxattr(directory, "system.posix_acl_default", &mut nothing).is_ok_and(|length| length > 0)
}

/// Removes an entry with all that is below it; a link is removed, not followed. Gives how many entries went.
pub(super) fn remove_all(above: &OwnedFd, name: &[u8]) -> Result<u64, Errno> {
    match unlinkat(above, name, AtFlags::empty()) {
        Ok(()) => return Ok(1),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let mut removed = 1;
    let directory = open_directory(above, name)?;
    for below in names(&directory)? {
        removed += remove_all(&directory, &below)?;
    }
    unlinkat(above, name, AtFlags::REMOVEDIR)?;
    Ok(removed)
}

/// The names in a directory.
pub(super) fn names(directory: &OwnedFd) -> Result<Vec<Box<[u8]>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    Ok(names)
}
