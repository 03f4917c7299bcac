//! How much room a snapshot takes: extents that nothing else shares, as FIEMAP tells
//! (Documentation/filesystems/fiemap.rst in the kernel's sources).
//!
//! What the live tree alone holds was written since its clones were made: "grown". What the clone alone holds would be
//! free if it were deleted: "reclaimable". What two snapshots share counts for neither, so both are estimates.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Moment, Place, look};
use super::crew::{self, Crew};
use super::descend;
use crate::error::Error;
use crate::extents;
use crate::provider::Space;

/// Both numbers; entries below `left_out` are not part of the snapshot, and are not counted.
pub(super) fn space(live: &Path, clone: &Path, left_out: &[PathBuf]) -> Result<Space, Error> {
    let made = std::fs::File::open(clone).map_err(Error::io("open", clone))?;
    // What is only in memory has no extents yet.
    rustix::fs::syncfs(&made).map_err(Error::io("sync the file system of", clone))?;
    let made = look(Place::Open(made.as_fd())).map_err(Error::io("look at", clone))?;
    // What was changed since has a later change time; the rest of the live tree need not be asked.
    let since = (made.stx_btime.tv_sec != 0).then(|| Moment::from(made.stx_btime));
    Ok(Space { grown: Some(alone(live, since, left_out)?), reclaimable: Some(alone(clone, None, &[])?) })
}

/// Bytes that only this tree's files hold.
fn alone(root: &Path, since: Option<Moment>, left_out: &[PathBuf]) -> Result<u64, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, flags, Mode::empty()).map_err(Error::io("open", root))?;
    let stat = look(Place::Open(opened.as_fd())).map_err(Error::io("look at", root))?;
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    let total = AtomicU64::new(0);
    crew::run(PathBuf::new(), |below: PathBuf, crew: &Crew<PathBuf>| {
        let path = root.join(&below);
        let directory = match descend::directory(opened.as_fd(), &below) {
            // Gone, mounted upon, or not ours to read: an estimate goes on.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS) => return Ok(()),
            directory => directory.map_err(Error::io("open", &path))?,
        };
        for entry in rustix::fs::Dir::read_from(&directory).map_err(Error::io("list", &path))? {
            let entry = entry.map_err(Error::io("list", &path))?;
            let name: CString = entry.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let child = below.join(OsStr::from_bytes(name.as_bytes()));
            let Ok(stat) = look(Place::Named(directory.as_fd(), &name)) else { continue };
            if left_out.contains(&child) || (stat.stx_dev_major, stat.stx_dev_minor) != device {
                continue;
            }
            match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
                FileType::Directory => crew.add(child),
                FileType::RegularFile
                    if stat.stx_blocks > 0 && since.is_none_or(|since| Moment::from(stat.stx_ctime) >= since) =>
                {
                    let Ok(file) = descend::file(directory.as_fd(), &name) else { continue };
                    // A file with several names counts once.
                    total.fetch_add(unshared(file.as_fd()) / u64::from(stat.stx_nlink.max(1)), Ordering::Relaxed);
                }
                _ => {}
            }
        }
        Ok::<(), Error>(())
    })?;
    Ok(total.into_inner())
}

/// What cannot be asked for does not count.
fn unshared(file: BorrowedFd<'_>) -> u64 {
    let extents = extents::of(file, false).map_while(Result::ok);
    extents.filter(|extent| !extent.is_shared()).map(|extent| extent.length).sum()
}
