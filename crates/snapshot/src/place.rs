//! Places where snapshots are mounted to be looked at: `/run/snapback/views/ID/tree`.
//!
//! Whoever looks holds a lock on `ID`, so that a place without a holder is left over from a process that died, and is
//! cleared by the next who looks or deletes. Does not know what is mounted there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;

use crate::error::Error;
use crate::id::Id;

const VIEWS: &str = "/run/snapback/views";

/// An empty directory to mount something on. Removed when dropped, with what is still mounted there.
#[derive(Debug)]
pub(crate) struct Place {
    id: Id,
    tree: PathBuf,
    _lock: File,
}

impl Place {
    /// A new one, that only its owner may enter.
    pub(crate) fn new() -> Result<Place, Error> {
        loop {
            let id = Id::random();
            let (directory, tree) = paths(id);
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&tree);
            let lock = match made.and_then(|()| File::open(&directory)) {
                // Without a lock it looked abandoned.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(Error::io("create", &tree))?,
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(Error::io("lock", &directory))?;
            // Up to now it did; whoever clears it holds the lock meanwhile.
            if tree.exists() {
                return Ok(Place { id, tree, _lock: lock });
            }
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.tree
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What fails here is cleared by the next who looks.
        let _ = clear(self.id);
    }
}

/// Whether somebody looks at what is mounted there.
pub(crate) fn is_in_use(id: Id) -> bool {
    matches!(abandoned(id), Ok(None))
}

/// The lock of a place, if nobody else has it.
fn abandoned(id: Id) -> io::Result<Option<File>> {
    let directory = File::open(paths(id).0)?;
    Ok(rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(directory))
}

/// Clears the places whose process has died.
pub(crate) fn sweep() -> Result<(), Error> {
    let entries = match fs::read_dir(VIEWS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("list", VIEWS))?,
    };
    for entry in entries {
        let name = entry.map_err(Error::io("list", VIEWS))?.file_name();
        let Some(Ok(id)) = name.to_str().map(str::parse) else { continue };
        if let Ok(Some(_lock)) = abandoned(id) {
            clear(id)?;
        }
    }
    Ok(())
}

/// Writes what is dirty on the file system of a directory to it, while it can still be written to: a snapshot then
/// stops writers for a shorter time.
pub(crate) fn sync_file_system(directory: &Path) -> Result<(), Error> {
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    rustix::fs::syncfs(&file).map_err(Error::io("sync", directory))
}

fn paths(id: Id) -> (PathBuf, PathBuf) {
    let directory = Path::new(VIEWS).join(id.to_string());
    let tree = directory.join("tree");
    (directory, tree)
}

fn clear(id: Id) -> Result<(), Error> {
    let (directory, tree) = paths(id);
    while rustix::mount::unmount(&tree, UnmountFlags::DETACH).is_ok() {}
    for path in [&tree, &directory] {
        match fs::remove_dir(path) {
            // Another one clears it at the same time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is just being made, and will be somebody's.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && path == &directory => {}
            removed => removed.map_err(Error::io("remove", path))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_place_is_not_cleared_by_another_who_sweeps() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        sweep().unwrap();
                        let place = Place::new().unwrap();
                        assert!(place.path().exists());
                        std::thread::yield_now();
                        assert!(place.path().exists() && is_in_use(place.id()));
                    }
                });
            }
        });
    }
}
