//! Moving nested subvolumes from one tree to another. They are part of no snapshot, and stay where they are whatever is
//! done to the tree around them.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RenameFlags, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ioctl;
use super::top::Top;
use crate::error::Error;

/// A subvolume in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nested {
    pub(crate) id: u64,
    /// From the root of the tree.
    pub(crate) path: PathBuf,
    pub(crate) is_read_only: bool,
}

/// Those that lie at or below a directory of a subvolume, not those that lie in them.
pub(crate) fn below(top: &Top, subvolume: u64, path: &Path, directory: &Path) -> Result<Vec<Nested>, Error> {
    let mut below = Vec::new();
    for (id, place) in top.nested(subvolume)? {
        let Ok(inside) = place.strip_prefix(directory) else { continue };
        let Some((_, found)) = top.subvolume_at(&path.join(&place))? else { continue };
        below.push(Nested { id, path: inside.to_owned(), is_read_only: found.is_read_only });
    }
    Ok(below)
}

/// Moves subvolumes from a tree to another, where they are not there yet. What was deleted or moved away by somebody
/// else is left where it is.
pub(crate) fn move_across(top: &Top, nested: &[Nested], from: &Path, to: &Path) -> Result<(), Error> {
    for Nested { id, path, is_read_only } in nested {
        let (source, target) = (from.join(path), to.join(path));
        if top.path_of(*id)?.as_ref() == Some(&source) {
            let parents = [source.parent().unwrap_or(from), target.parent().unwrap_or(to)];
            keeping_times(top, &parents, || move_one(top, &source, &target))?;
        }
        if *is_read_only && let Some((fd, _)) = top.subvolume_at(&target)? {
            ioctl::set_read_only(&fd, true).map_err(Error::io("make read-only", top.named(&target)))?;
        }
    }
    top.commit()
}

fn move_one(top: &Top, source: &Path, target: &Path) -> Result<(), Error> {
    let root = top.root();
    // What a snapshot or a clone has in the place of a nested subvolume: an empty directory.
    match rustix::fs::unlinkat(root, target, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => {}
        removed => removed.map_err(Error::io("remove the empty directory", top.named(target)))?,
    }
    match rustix::fs::renameat_with(root, source, root, target, RenameFlags::NOREPLACE) {
        // A read-only subvolume does not change the directory it lies in.
        Err(Errno::ROFS) => {
            if let Some((fd, _)) = top.subvolume_at(source)? {
                ioctl::set_read_only(&fd, false).map_err(Error::io("make writable", top.named(source)))?;
            }
            rustix::fs::renameat_with(root, source, root, target, RenameFlags::NOREPLACE)
        }
        moved => moved,
    }
    .map_err(Error::io("move the nested subvolume", top.named(source)))
}

/// Does something in directories, and gives them back the times that they had: what is moved into them is not part of
/// the snapshot, and the directory is to be as it was.
pub(crate) fn keeping_times(
    top: &Top,
    directories: &[&Path],
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut kept = Vec::new();
    for path in directories {
        if let Some(fd) = top.open_at(path)? {
            let stat = rustix::fs::fstat(&fd).map_err(Error::io("look at", top.named(path)))?;
            kept.push((fd, stat));
        }
    }
    work()?;
    for (fd, stat) in kept {
        let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.cast_signed(),
        };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        rustix::fs::futimens(&fd, &times).map_err(Error::io("set the times of", top.named(Path::new(""))))?;
    }
    Ok(())
}
