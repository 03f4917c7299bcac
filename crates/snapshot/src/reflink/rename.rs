//! A rename that leaves no trace on what is renamed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::flags;
use crate::error::Error;

/// Renames, and keeps what directories are changed by it: one that gets another parent is written to. So XFS gives it a
/// new time of modification, and its owner must be allowed to write to it (rename(2)). A crash between the calls leaves
/// one directory with the time of the crash, or without its flag of chattr(1); never anything else.
pub(super) fn rename(from: &Path, to: &Path, how: RenameFlags) -> Result<(), Error> {
    let directory = |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir);
    let (moved, other) = (directory(from), directory(to));
    let modes = |open: u32| {
        for (path, stat) in [(from, &moved), (to, &other)] {
            if let Some(stat) = stat {
                let mode = Mode::from_raw_mode(stat.mode() & 0o7777 | open);
                rustix::fs::chmod(path, mode).map_err(Error::io("set the mode of", path))?;
            }
        }
        Ok(())
    };
    let mut answer = rustix::fs::renameat_with(CWD, from, CWD, to, how);
    let mut forbidding = Vec::new();
    if answer == Err(Errno::PERM) {
        for (path, moved) in [(from, to), (to, from)] {
            let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::open(path, open, Mode::empty()) else { continue };
            forbidding.extend(flags::clear_forbidding(&file).map(|flags| (file, flags, moved)));
        }
        answer = rustix::fs::renameat_with(CWD, from, CWD, to, how);
    }
    let is_locked = answer == Err(Errno::ACCESS);
    if is_locked {
        modes(Mode::WUSR.as_raw_mode())?;
        answer = rustix::fs::renameat_with(CWD, from, CWD, to, how);
    }
    if answer.is_err() && is_locked {
        modes(0)?;
    }
    for (now, stat) in [(to, moved), (from, other)] {
        if let (Some(stat), Ok(())) = (stat, answer) {
            restore(now, &stat, is_locked)?;
        }
    }
    for (file, flags, moved) in forbidding {
        flags::add(file, flags, moved)?;
    }
    answer.map_err(Error::io("rename", from))
}

fn restore(directory: &Path, before: &fs::Metadata, mode_too: bool) -> Result<(), Error> {
    if mode_too {
        let mode = Mode::from_raw_mode(before.mode() & 0o7777);
        rustix::fs::chmod(directory, mode).map_err(Error::io("set the mode of", directory))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: before.atime(), tv_nsec: before.atime_nsec() },
        last_modification: Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() },
    };
    rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("set the times of", directory))
}
