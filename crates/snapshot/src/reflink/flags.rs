//! Flags of inodes that chattr(1) sets: immutable, append only, no dump; FS_IOC_GETFLAGS(2const).
//!
//! They come last of all, for what is immutable can be neither linked nor given attributes.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{IFlags, Statx, StatxAttributes};
use rustix::io::Errno;

use crate::error::Error;

/// Those that stand for something on any file system; the others say how content is stored.
const KEPT: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP);

/// Those that forbid to change, rename or delete a file, even to root.
const FORBIDDING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// The flags of an open file to be kept. Few files have any, and statx tells.
pub(super) fn kept(stat: &Statx, file: impl AsFd) -> Option<IFlags> {
    let told = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND | StatxAttributes::NODUMP;
    let flags = stat.stx_attributes.intersects(told).then(|| rustix::fs::ioctl_getflags(file).ok())??;
    Some(flags & KEPT).filter(|flags| !flags.is_empty())
}

/// Adds flags to those that an open file has.
pub(super) fn add(file: impl AsFd, flags: IFlags, path: &Path) -> Result<(), Error> {
    let set = rustix::fs::ioctl_getflags(&file).and_then(|now| rustix::fs::ioctl_setflags(&file, now | flags));
    match set {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Err(Error::Privilege {
            action: format!("make {} immutable", path.display()),
            capability: "CAP_LINUX_IMMUTABLE",
            hint: None,
        }),
        set => set.map_err(Error::io("set the flags of", path)),
    }
}

/// Takes away the flags that forbid to change or delete a file; those it had.
pub(super) fn clear_forbidding(file: impl AsFd) -> Option<IFlags> {
    let flags = rustix::fs::ioctl_getflags(&file).ok()?;
    let forbidding = Some(flags & FORBIDDING).filter(|flags| !flags.is_empty())?;
    rustix::fs::ioctl_setflags(&file, flags - FORBIDDING).ok()?;
    Some(forbidding)
}
