//! Which mechanism there is for a directory.
//!
//! What makes a snapshot of one moment comes first, then what shares extents file by file. Where there is nothing, the
//! error says what would help. Asks the file system and the kernel; changes nothing.

use std::path::Path;
use std::sync::Arc;

use rustix::thread::CapabilitySet;

use crate::btrfs::{self, Place};
use crate::error::Error;
use crate::lvm::LvmThin;
use crate::mounts::{self, Mount};
use crate::provider::{Handle, Provider};
use crate::reflink::provider::{Reflink, can_share};
use crate::runner::Runner;
use crate::zfs::Zfs;

/// The mechanism for a directory, which is given as an absolute path without symbolic links.
///
/// # Errors
/// Refused where there is none, with what would give it one; [`Error::Privilege`] where there is one that this process
/// may not use, and none that it may.
pub fn provider(directory: &Path, mounts: &[Mount], runner: Arc<dyn Runner>) -> Result<Box<dyn Provider>, Error> {
    if let Some(provider) = find(directory, mounts, runner)? {
        return Ok(provider);
    }
    let shown = directory.display();
    let mount = mounts::mount_of(mounts, directory);
    let kind = mount.map_or("its file system", |mount| mount.kind.as_str());
    Err(Error::refused(format!("{shown} cannot be snapshot where it lies ({kind})")).or(format!(
        "`snapback adopt {shown} --size 20G` moves it onto a btrfs volume in a file, where it can; backups work as it is"
    )))
}

/// As [`provider`]; `None` where the storage has no mechanism at all.
///
/// # Errors
/// Refused where another directory, or this one made ready, would have one.
pub fn find(directory: &Path, mounts: &[Mount], runner: Arc<dyn Runner>) -> Result<Option<Box<dyn Provider>>, Error> {
    let inside = match btrfs::open(directory, mounts) {
        Ok(Some(Place::Subvolume(provider))) => return Ok(Some(Box::new(provider))),
        Ok(Some(Place::Inside(root))) => Some(root),
        Ok(None) => None,
        // An ordinary user's own directories can be cloned file by file.
        Err(error @ Error::Privilege { .. }) => return reflink(directory).ok().flatten().ok_or(error).map(Some),
        Err(error) => return Err(error),
    };
    let shown = directory.display();
    if let Some(root) = inside {
        let clone = if may_administrate() { None } else { reflink(directory)? };
        return clone.map(Some).ok_or_else(|| {
            Error::refused(format!("{shown} is not a subvolume of its own, but lies in that of {}", root.display()))
                .or(format!("`snapback adopt {shown}` makes it one, in place"))
        });
    }
    if let Some(zfs) = Zfs::open(directory, mounts, Arc::clone(&runner))? {
        return Ok(Some(Box::new(zfs)));
    }
    if let Some(thin) = LvmThin::open(directory, mounts, Arc::clone(&runner))? {
        return Ok(Some(Box::new(thin)));
    }
    let mount = mounts::mount_of(mounts, directory);
    if let Some(mount) = mount.filter(|mount| is_zfs(mount)) {
        let (point, dataset) = (mount.point.display(), mount.source.to_string_lossy());
        return Err(Error::refused(format!("{shown} is not a dataset of its own, but lies in {dataset} at {point}"))
            .or(format!("take snapshots of {point}, or move {shown} to a dataset of its own (zfs create)")));
    }
    if let Some(clone) = reflink(directory)? {
        return Ok(Some(clone));
    }
    if let Some(mount) = mount
        && LvmThin::open(&mount.point, mounts, runner)?.is_some()
    {
        let point = mount.point.display();
        return Err(Error::refused(format!("{shown} is not a volume of its own, but lies in the one at {point}"))
            .or(format!("take snapshots of {point}, or move {shown} to a thin volume of its own (lvcreate)")));
    }
    Ok(None)
}

/// The mechanism whose snapshots have a path in them, all of one moment: that of the subvolume, dataset or volume the
/// path lies in. Clones made file by file are none: they are neither of one moment nor, by their inodes, the files
/// they were made of.
///
/// # Errors
/// As [`provider`].
pub fn enclosing(path: &Path, mounts: &[Mount], runner: Arc<dyn Runner>) -> Result<Box<dyn Provider>, Error> {
    let none = |kind: &str| {
        Error::refused(format!("there are no snapshots of {} where it lies ({kind})", path.display()))
            .or("`snapback adopt` moves a directory onto a btrfs volume in a file")
    };
    let mount = mounts::mount_of(mounts, path).ok_or_else(|| none("no file system"))?;
    match btrfs::open(path, mounts)? {
        Some(Place::Subvolume(provider)) => return Ok(Box::new(provider)),
        Some(Place::Inside(root)) => {
            let opened = btrfs::open(&root, mounts)?;
            // Of a bind mount of a directory nobody can tell which subvolume it lies in.
            let Some(Place::Subvolume(provider)) = opened else { return Err(none("a part of a subvolume")) };
            return Ok(Box::new(provider));
        }
        None => {}
    }
    if let Some(zfs) = Zfs::open(&mount.point, mounts, Arc::clone(&runner))? {
        return Ok(Box::new(zfs));
    }
    match LvmThin::open(&mount.point, mounts, runner)? {
        Some(thin) => Ok(Box::new(thin)),
        None => Err(none(&mount.kind)),
    }
}

/// The mechanism with which a snapshot was made, also in the middle of a switch that leaves the directory without its
/// mount for a moment.
///
/// # Errors
/// Refused if the directory is not any more what it was then.
pub fn reopen(
    directory: &Path,
    handle: &Handle,
    mounts: &[Mount],
    runner: Arc<dyn Runner>,
) -> Result<Box<dyn Provider>, Error> {
    let changed = |was: &str| {
        let hint = format!("mount what was mounted at {} when the snapshot was made", directory.display());
        Error::refused(format!("{} is not {was} any more", directory.display())).or(hint)
    };
    match handle {
        Handle::Btrfs { .. } => match btrfs::open(directory, mounts)? {
            Some(Place::Subvolume(provider)) => Ok(Box::new(provider)),
            _ => Err(changed("a btrfs subvolume")),
        },
        Handle::Reflink { .. } => Ok(Box::new(Reflink::open(directory)?)),
        Handle::Zfs { .. } => {
            let mounted = Zfs::open(directory, mounts, Arc::clone(&runner))?;
            let zfs = mounted.or_else(|| Zfs::reopen(directory, handle, runner));
            Ok(Box::new(zfs.ok_or_else(|| changed("a ZFS dataset"))?))
        }
        Handle::LvmThin { .. } => {
            let thin = match LvmThin::open(directory, mounts, Arc::clone(&runner))? {
                None => LvmThin::reopen(directory, handle, runner)?,
                mounted => mounted,
            };
            Ok(Box::new(thin.ok_or_else(|| changed("on a thin logical volume"))?))
        }
        Handle::Backup { .. } => Err(Error::refused(format!(
            "the net of {} is a backup, which is no mechanism of its storage",
            directory.display()
        ))),
    }
}

fn reflink(directory: &Path) -> Result<Option<Box<dyn Provider>>, Error> {
    match can_share(directory)? {
        true => Ok(Some(Box::new(Reflink::open(directory)?))),
        false => Ok(None),
    }
}

fn is_zfs(mount: &Mount) -> bool {
    matches!(mount.kind.as_str(), "zfs" | "fuse.zfs")
}

/// Whether btrfs's own snapshots are possible at all.
fn may_administrate() -> bool {
    let capabilities = rustix::thread::capabilities(None);
    capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
