//! A place for a throw-away server: an empty directory that goes when it is dropped, also with what the server made in it.
//!
//! Whoever works in one holds a lock on it, so that one without a holder is left over from a process that died, and is
//! removed by the next.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use snapshot::id::Id;

/// Short, as the path of a socket has at most 107 bytes (unix(7)).
const PREFIX: &str = "snapback-proof-";

/// An empty directory, that everybody may enter who knows its name: servers run as users of their own.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    _lock: File,
}

impl Work {
    /// Makes one below a directory, and removes those that were left there.
    pub(super) fn new(room: &Path) -> io::Result<Work> {
        sweep(room)?;
        let path = room.join(format!("{PREFIX}{}", Id::random()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        fs::set_permissions(&path, Permissions::from_mode(0o711))?;
        Ok(Work { path, _lock: lock })
    }

    /// A new directory in it.
    pub(super) fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o711).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o711))?;
        Ok(path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed is found by the next.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn sweep(room: &Path) -> io::Result<()> {
    for entry in fs::read_dir(room)? {
        let entry = entry?;
        let is_ours =
            entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<Id>().ok()).is_some();
        if !is_ours || !entry.file_type()?.is_dir() {
            continue;
        }
        // Somebody else's of the same name is not ours to open.
        let Ok(lock) = File::open(entry.path()) else { continue };
        let mine = rustix::fs::fstat(&lock).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw());
        // One that is just being made has no lock yet, and still the mode of then.
        let is_made = lock.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == 0o711);
        if mine && is_made && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_left_that_died_goes_and_what_is_in_use_stays() {
        let room = tempfile::tempdir().unwrap();
        let used = Work::new(room.path()).unwrap();
        let left = room.path().join(format!("{PREFIX}{}", Id::random()));
        fs::create_dir(&left).unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o711)).unwrap();
        fs::write(left.join("data"), "x").unwrap();
        let other = room.path().join(format!("{PREFIX}not-an-id"));
        fs::create_dir(&other).unwrap();
        let next = Work::new(room.path()).unwrap();
        assert!(!left.exists() && other.exists() && used.path.exists() && next.path.exists());
        fs::write(next.directory("data").unwrap().join("x"), "x").unwrap();
        let path = next.path.clone();
        drop(next);
        assert!(!path.exists());
    }
}
