//! What lies where something else belongs: removed, with all that is below it and nothing beside it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, chmod, fchmod, openat, unlinkat};
use rustix::io::Errno;

use crate::attributes::{Entry, Stat};
use crate::restore::place::open_directory;

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const OWNER_ALONE: u32 = 0o700;

/// A directory that is being emptied.
struct Level {
    name: Box<[u8]>,
    left: Vec<Box<[u8]>>,
    identity: (u64, u64),
}

/// Removes an entry that something else shall replace. Directories with something in them only go if `with_contents`,
/// else it is `ENOTEMPTY`.
pub(super) fn clear(above: &OwnedFd, name: &[u8], with_contents: bool) -> Result<(), Errno> {
    if with_contents {
        return remove_all(above, name).map(drop);
    }
    match unlinkat(above, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => unlinkat(above, name, AtFlags::REMOVEDIR),
        removed => removed,
    }
}

/// Removes an entry with all that is below it; a link is removed, not followed, and where another file system is
/// mounted it stops with `EBUSY`. Gives how many entries went.
///
/// Goes down and up with one directory open at a time, so that depth does not matter.
pub(super) fn remove_all(above: &OwnedFd, name: &[u8]) -> Result<u64, Errno> {
    match unlinkat(above, name, AtFlags::empty()) {
        Ok(()) => return Ok(1),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let mut removed = 0;
    let (mut open, first) = enter(above, name)?;
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        if let Some(entry) = level.left.pop() {
            match unlinkat(&open, &*entry, AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let (below, level) = enter(&open, &entry)?;
                    levels.push(level);
                    open = below;
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        match levels.last() {
            None => unlinkat(above, &*done.name, AtFlags::REMOVEDIR)?,
            Some(level) => {
                open = open_directory(&open, b"..")?;
                // Somebody may have moved it elsewhere meanwhile, and there we have no business.
                if identity(&Stat::of(open.as_fd())?) != level.identity {
                    return Err(Errno::STALE);
                }
                unlinkat(&open, &*done.name, AtFlags::REMOVEDIR)?;
            }
        }
        removed += 1;
    }
    Ok(removed)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.device, stat.inode)
}

fn enter(above: &OwnedFd, name: &[u8]) -> Result<(OwnedFd, Level), Errno> {
    let open = match open_accessible(above, name) {
        // It could not be unlinked, but is no directory either.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
        opened => opened?,
    };
    let stat = refuse_mount(above, &open)?;
    let level = Level { name: name.into(), left: names(&open)?, identity: identity(&stat) };
    Ok((open, level))
}

/// `EBUSY` for a directory on which a file system is mounted: what lies in there is not to be removed with it.
pub(super) fn refuse_mount(above: &OwnedFd, directory: &OwnedFd) -> Result<Stat, Errno> {
    let stat = Stat::of(directory.as_fd())?;
    let is_mount = stat.device != Stat::of(above.as_fd())?.device || stat.mount_root == Some(true);
    if is_mount { Err(Errno::BUSY) } else { Ok(stat) }
}

/// Opens a directory, and lets its owner (who may be no more than that) list and change it.
pub(super) fn open_accessible(above: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match open_directory(above, name) {
        Err(Errno::ACCESS) => {
            let path = openat(above, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            if Stat::of(path.as_fd())?.mode & S_IFMT != S_IFDIR {
                return Err(Errno::NOTDIR);
            }
            chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), Mode::from_raw_mode(OWNER_ALONE))?;
            open_directory(above, name)
        }
        Ok(open) => {
            let mode = Stat::of(open.as_fd())?.mode;
            if mode & OWNER_ALONE != OWNER_ALONE && !rustix::process::geteuid().is_root() {
                // Of no use if it is somebody else's: then what is tried in it says so.
                let _ = fchmod(&open, Mode::from_raw_mode(mode & 0o7777 | OWNER_ALONE));
            }
            Ok(open)
        }
        Err(error) => Err(error),
    }
}

/// Whether an entry is a directory.
pub(super) fn is_directory(entry: Entry<'_>) -> bool {
    Stat::at(entry).is_ok_and(|stat| stat.mode & S_IFMT == S_IFDIR)
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

/// Removes a directory unless something is in it. Gives how many entries went.
pub(super) fn remove_if_empty(above: &OwnedFd, name: &[u8]) -> Result<u64, Errno> {
    match unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(1),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(0),
        Err(error) => Err(error),
    }
}
