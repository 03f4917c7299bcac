//! Moving nested subvolumes from one tree to another. They are part of no snapshot, and stay where they are whatever is
//! done to the tree around them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ioctl;
use super::places::shows;
use super::top::Top;
use crate::attach;
use crate::error::Error;
use crate::mounts;

/// A subvolume in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nested {
    pub(crate) id: u64,
    /// From the root of the tree.
    pub(crate) path: PathBuf,
    pub(crate) is_read_only: bool,
    /// When the directory it lies in was last modified, in the tree it is moved out of and in the other one. Moving it
    /// changes them, and both are to be as they were.
    pub(crate) modified: [Option<Modified>; 2],
}

/// Seconds and nanoseconds.
type Modified = (i64, i64);

/// Whether subvolumes are moved to the tree that is to be live, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forth,
    Back,
}

/// Those that lie at or below a directory of a subvolume, not those that lie in them. `new` tells when a directory of
/// the tree that they will be moved to was last modified.
pub(crate) fn below(
    top: &Top,
    subvolume: u64,
    path: &Path,
    directory: &Path,
    new: &dyn Fn(&Path) -> Result<Option<Modified>, Error>,
) -> Result<Vec<Nested>, Error> {
    let mut below = Vec::new();
    for (id, place) in top.nested(subvolume)? {
        let Ok(inside) = place.strip_prefix(directory) else { continue };
        let Some((_, found)) = top.subvolume_at(&path.join(&place))? else { continue };
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        let old = top.open_at(&parent(&path.join(&place)))?;
        let modified = [old.map(|fd| modified(&fd)).transpose()?, new(&parent(inside))?];
        below.push(Nested { id, path: inside.to_owned(), is_read_only: found.is_read_only, modified });
    }
    Ok(below)
}

/// When an open directory was last modified.
pub(crate) fn modified(directory: &OwnedFd) -> Result<Modified, Error> {
    let stat = rustix::fs::fstat(directory).map_err(Error::io("look at", Path::new("a directory")))?;
    Ok((stat.st_mtime, stat.st_mtime_nsec.cast_signed()))
}

/// Moves subvolumes from a tree to another, where they are not there yet. What was deleted or moved away by somebody
/// else is left where it is.
pub(crate) fn move_across(top: &Top, nested: &[Nested], trees: [&Path; 2], way: Way) -> Result<(), Error> {
    let [from, to] = match way {
        Way::Forth => trees,
        Way::Back => [trees[1], trees[0]],
    };
    for Nested { id, path, is_read_only, modified } in nested {
        let (source, target) = (from.join(path), to.join(path));
        let place = top.path_of(*id)?;
        if place.as_ref() == Some(&source) {
            move_one(top, &source, &target)?;
        } else if place.as_ref() != Some(&target) {
            continue;
        }
        restore_times(top, path, trees, modified)?;
        if *is_read_only && let Some((fd, _)) = top.subvolume_at(&target)? {
            ioctl::set_read_only(&fd, true).map_err(Error::io("make read-only", top.named(&target)))?;
        }
    }
    top.commit()
}

fn restore_times(top: &Top, path: &Path, trees: [&Path; 2], modified: &[Option<Modified>; 2]) -> Result<(), Error> {
    for (tree, modified) in trees.iter().zip(modified) {
        let directory = tree.join(path).parent().map(Path::to_owned).unwrap_or_default();
        if let (Some((seconds, nanoseconds)), Some(fd)) = (modified, top.open_at(&directory)?) {
            let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
            let (last_access, last_modification) = (time(0, rustix::fs::UTIME_OMIT), time(*seconds, *nanoseconds));
            rustix::fs::futimens(&fd, &Timestamps { last_access, last_modification })
                .map_err(Error::io("set the times of", top.named(&directory)))?;
        }
    }
    Ok(())
}

/// Mounts subvolumes that were moved across where they were in the root of the running system, which goes on to show
/// the old tree.
pub(crate) fn show_in_root(top: &Top, nested: &[Nested], trees: [&Path; 2], options: &str) -> Result<(), Error> {
    for Nested { id, path, modified, .. } in nested {
        let point = Path::new("/").join(path);
        let mounts = mounts::mounts()?;
        if top.path_of(*id)?.is_none() || mounts::on_top(&mounts, &point).is_some_and(|mount| shows(mount, top, *id)) {
            continue;
        }
        match rustix::fs::mkdirat(top.root(), trees[0].join(path), Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made.map_err(Error::io("create", &point))?,
        }
        restore_times(top, path, trees, modified)?;
        attach::attach(&top.mount(*id, attach::attributes(options))?, CWD, &point)?;
    }
    Ok(())
}

/// Takes away what `show_in_root` mounted.
pub(crate) fn hide_in_root(top: &Top, nested: &[Nested]) -> Result<(), Error> {
    for Nested { id, path, .. } in nested {
        let point = Path::new("/").join(path);
        if mounts::on_top(&mounts::mounts()?, &point).is_some_and(|mount| shows(mount, top, *id)) {
            attach::detach(&attach::hold(&point)?)?;
        }
    }
    Ok(())
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
