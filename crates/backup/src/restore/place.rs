//! Places in the target: directories with what becomes of them, and names in them.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use repository::tree::Node;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::attributes::Before;
use crate::restore::handle::Handle;

/// A directory of the target, as long as something below it is to be done.
pub(super) struct Directory {
    /// `None` if it only would be there (a dry run).
    pub(super) handle: Option<Handle>,
    pub(super) above: Above,
    /// What it shall become; `None` for what the backup does not describe (the target).
    pub(super) node: Option<Node>,
    pub(super) before: Before,
    /// Nothing was there before, so nothing can be in the way.
    pub(super) is_fresh: bool,
    /// Another file system is mounted here.
    pub(super) is_mount: bool,
    /// What the kernel gives a new file here; the same for all, unless there is a default ACL.
    pub(super) new_file: OnceLock<Before>,
    /// New entries get extended attributes from it.
    pub(super) has_default_acl: bool,
}

/// Where a directory lies.
pub(super) enum Above {
    /// It is the target itself, with this path.
    Nothing(PathBuf),
    /// In this one, which must wait with its attributes, under this name.
    Directory(Arc<Directory>, Box<[u8]>),
}

impl Directory {
    /// The directory, open.
    pub(super) fn open(&self) -> Result<Arc<OwnedFd>, Errno> {
        // Up to the next one that is open, and down again; by recursion, a deep tree would overflow the stack.
        let mut closed = Vec::new();
        let mut directory = self;
        let mut open = loop {
            if let Some(open) = directory.handle()?.if_open() {
                break open;
            }
            let Above::Directory(above, name) = &directory.above else { return Err(Errno::NOENT) };
            closed.push((directory, name));
            directory = above;
        };
        for (directory, name) in closed.into_iter().rev() {
            open = directory.handle()?.get(|| open_directory(&open, name))?;
        }
        Ok(open)
    }

    /// As [`Directory::open`], for who has a directory in it open: often that is nearer.
    pub(super) fn open_from_below(&self, below: &OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
        self.handle()?.get(|| open_directory(below, b"..")).or_else(|_| self.open())
    }

    fn handle(&self) -> Result<&Handle, Errno> {
        self.handle.as_ref().ok_or(Errno::NOENT)
    }

    /// Takes away where it lies.
    pub(super) fn take_above(&mut self) -> Option<Arc<Directory>> {
        match std::mem::replace(&mut self.above, Above::Nothing(PathBuf::new())) {
            Above::Directory(above, _) => Some(above),
            Above::Nothing(_) => None,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut directory = self;
        loop {
            match &directory.above {
                Above::Directory(above, name) => {
                    names.push(OsStr::from_bytes(name));
                    directory = above;
                }
                Above::Nothing(path) => {
                    let mut path = path.clone();
                    path.extend(names.into_iter().rev());
                    return path;
                }
            }
        }
    }
}

impl Drop for Directory {
    /// One after the other: by recursion, a deep tree would overflow the stack when a run is broken off.
    fn drop(&mut self) {
        let mut above = self.take_above();
        while let Some(mut directory) = above.and_then(Arc::into_inner) {
            above = directory.take_above();
        }
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
        self.directory.path().join(Path::new(OsStr::from_bytes(&self.name)))
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
