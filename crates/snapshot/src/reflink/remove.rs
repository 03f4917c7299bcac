//! Deleting a tree, and nothing but that tree.
//!
//! Never through a symbolic link, into a mount or into a nested subvolume: what is mounted in a tree is somebody's data,
//! not part of it. Two passes: everything but directories, by many threads; the directories, from the deepest up.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Place, look};
use super::crew::{self, Crew};
use super::{descend, flags};
use crate::error::Error;

/// Somebody may add a file while the tree is deleted: it is tried this often.
const TRIES: usize = 4;

/// Deletes a directory and all below it. One that does not exist is success.
///
/// # Errors
/// The first one ends it. Refused, with all files outside of it deleted, if a nested subvolume or a mount is met.
pub(crate) fn tree(path: &Path) -> Result<(), Error> {
    for remaining in (0..TRIES).rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ACCESS) => {
                rustix::fs::chmod(path, Mode::RWXU).map_err(Error::io("open", path))?;
                rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?
            }
            root => root.map_err(Error::io("open", path))?,
        };
        let stat = look(Place::Open(root.as_fd())).map_err(Error::io("look at", path))?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let job = Job { path, root, device, directories: Mutex::default() };
        crew::run(PathBuf::new(), |below, crew| job.empty(below, crew))?;
        match job.remove_directories().and_then(|()| {
            std::fs::remove_dir(path)
                .or_else(|error| match clear_flags(&job.root) {
                    true => std::fs::remove_dir(path),
                    false => Err(error),
                })
                .map_err(Error::io("remove", path))
        }) {
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::DirectoryNotEmpty && remaining > 0 => {}
            removed => return removed,
        }
    }
    Ok(())
}

/// Deletes anything but a directory, also what is immutable. What does not exist is success.
pub(crate) fn file(path: &Path) -> Result<(), Error> {
    let removed = rustix::fs::unlink(path).or_else(|error| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let is_cleared = error == Errno::PERM && rustix::fs::open(path, flags, Mode::empty()).is_ok_and(clear_flags);
        if is_cleared { rustix::fs::unlink(path) } else { Err(error) }
    });
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

struct Job<'a> {
    path: &'a Path,
    root: OwnedFd,
    device: (u32, u32),
    directories: Mutex<Vec<PathBuf>>,
}

impl Job<'_> {
    fn empty(&self, below: PathBuf, crew: &Crew<PathBuf>) -> Result<(), Error> {
        let path = self.path.join(&below);
        let directory = self.open(&below).map_err(|error| match error {
            Errno::XDEV => Error::refused(format!("{} is mounted, and is not deleted", path.display()))
                .or("unmount it and delete once more"),
            error => Error::io("open", &path)(error),
        })?;
        let stat = look(Place::Open(directory.as_fd())).map_err(Error::io("look at", &path))?;
        if (stat.stx_dev_major, stat.stx_dev_minor) != self.device {
            return Err(Error::refused(format!("{} is a subvolume of its own, and is not deleted", path.display()))
                .or("move it elsewhere, or delete it with btrfs subvolume delete, and delete once more"));
        }
        let mut is_writable = false;
        // The whole list first: what a directory answers while it is emptied is not defined.
        let list = rustix::fs::Dir::read_from(&directory).map_err(Error::io("list", &path))?;
        let names: Result<Vec<(CString, FileType)>, _> =
            list.map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type()))).collect();
        for (name, kind) in names.map_err(Error::io("list", &path))? {
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let child = below.join(OsStr::from_bytes(name.to_bytes()));
            if kind == FileType::Directory {
                crew.add(child);
                continue;
            }
            match unlink(directory.as_fd(), &name, &mut is_writable) {
                Ok(()) | Err(Errno::NOENT) => {}
                // The list did not tell the kind.
                Err(Errno::ISDIR) => crew.add(child),
                Err(error) => return Err(Error::io("remove", self.path.join(child))(error)),
            }
        }
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).push(below);
        Ok(())
    }

    /// Opens a directory, also one whose mode locks its owner out.
    fn open(&self, below: &Path) -> Result<OwnedFd, Errno> {
        match (descend::directory(self.root.as_fd(), below), below.parent(), below.file_name()) {
            (Err(Errno::ACCESS), Some(parent), Some(name)) => {
                let parent = descend::directory(self.root.as_fd(), parent)?;
                rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
                descend::directory(self.root.as_fd(), below)
            }
            (opened, _, _) => opened,
        }
    }

    fn remove_directories(&self) -> Result<(), Error> {
        let mut directories = std::mem::take(&mut *self.directories.lock().unwrap_or_else(PoisonError::into_inner));
        directories.retain(|below| !below.as_os_str().is_empty());
        directories.sort_by_key(|below| std::cmp::Reverse(below.components().count()));
        for level in directories.chunk_by(|a, b| a.components().count() == b.components().count()) {
            crew::each(level, |below| {
                let parent = below.parent().unwrap_or(Path::new(""));
                let name = below.file_name().unwrap_or_default();
                let removed =
                    descend::directory(self.root.as_fd(), parent).and_then(|parent| {
                        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                            Err(Errno::ACCESS | Errno::PERM) => {
                                clear_flags(self.open(below)?);
                                clear_flags(&parent);
                                rustix::fs::fchmod(&parent, Mode::RWXU)?;
                                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
                            }
                            removed => removed,
                        }
                    });
                removed.map_err(Error::io("remove", self.path.join(below)))
            })?;
        }
        Ok(())
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &CStr, is_writable: &mut bool) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ACCESS | Errno::PERM) => {}
        unlinked => return unlinked,
    }
    // A directory that forbids its owner to write, or something immutable.
    if !*is_writable {
        clear_flags(directory);
        rustix::fs::fchmod(directory, Mode::RWXU)?;
        *is_writable = true;
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::PERM) if descend::file(directory, name).is_ok_and(|file| clear_flags(&file)) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())
        }
        unlinked => unlinked,
    }
}

fn clear_flags(file: impl AsFd) -> bool {
    flags::clear_forbidding(file).is_some()
}
